"""The rules for names, model scopes and life times that people type. Pure."""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum

from lotabotsd.foundation.errors import Code, LotaBotsError

LONGEST_NAME = 64
MAX_MODEL_SCOPES = 64
MAX_KEY_DAYS = 1_826  # five years: "mandatory expiry" must mean something without a cap of the tier
MAX_GRACE_SECONDS = 30 * 86_400
MAX_LIVE_KEYS = 10_000  # on the appliance; each takes a slot of the limits table
MAX_TEAMS = 1_000  # on the appliance; one with keys takes a slot of the limits table
ALL_MODELS = "*"
_MODEL = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", re.ASCII)


def checked_name(name: str) -> str:
    """A name as it is stored (Unicode NFC). Raises VALUE_INVALID for one that nobody could read or type."""
    plain = unicodedata.normalize("NFC", name) if len(name) <= 4 * LONGEST_NAME else ""
    if not 1 <= len(plain) <= LONGEST_NAME or not plain.isprintable() or plain != plain.strip():
        raise LotaBotsError(
            Code.VALUE_INVALID,
            f"a name has 1 to {LONGEST_NAME} printable characters and no space at its ends",
        )
    return plain


def folded(name: str) -> str:
    """What two names have in common that look alike: width, ligatures and case folded away."""
    return unicodedata.normalize("NFKC", name).casefold()


def one_of(kind: type[StrEnum], value: str) -> str:
    """The value as a plain text. Raises VALUE_INVALID when `kind` does not have it."""
    allowed = [member.value for member in kind]
    if value not in allowed:
        raise LotaBotsError(Code.VALUE_INVALID, f"{value[:64]!r} is not one of {', '.join(allowed)}")
    return str(value)


def checked_models(models: tuple[str, ...]) -> tuple[str, ...]:
    """Model scopes, sorted and each once; `*` swallows the others. Raises VALUE_INVALID."""
    if not 1 <= len(models) <= MAX_MODEL_SCOPES:
        raise LotaBotsError(
            Code.VALUE_INVALID, f"a key is for 1 to {MAX_MODEL_SCOPES} models, or for all with '*'"
        )
    for model in models:
        if model != ALL_MODELS and _MODEL.fullmatch(model) is None:
            raise LotaBotsError(
                Code.VALUE_INVALID,
                f"{model[:128]!r} is no model name: 1 to 128 of A-Z a-z 0-9 . _ -, not starting with a dot",
            )
    return (ALL_MODELS,) if ALL_MODELS in models else tuple(sorted(set(models)))


def checked_life_days(days: int, cap: int) -> int:
    """The days that a key may live. Raises VALUE_INVALID; LICENCE_LIMIT above the tier's cap (0: none)."""
    if isinstance(days, bool) or not 1 <= days <= MAX_KEY_DAYS:
        raise LotaBotsError(Code.VALUE_INVALID, f"a key lives from 1 to {MAX_KEY_DAYS} days, not {days}")
    if cap and days > cap:
        raise LotaBotsError(
            Code.LICENCE_LIMIT, f"a key may live at most {cap} days, not {days}", hint="choose an earlier end"
        )
    return days
