"""Which issuing key signs: the newest one here that may sign this kind of document now."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lotabotsd.foundation.clock import rfc3339
from lotabotsd.foundation.envelope import MAX_ENVELOPE_BYTES, parse_envelope
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded
from lotabotsd.licence.keyring import Keyring, Use, parse_keyring

from .key_uri import Passwords, Signer, keyid_of, labelled_keyid, open_signer
from .keyring_change import words

FOLDER = "issuing"
_FIRST_NAMES = re.compile(r"issuing-([1-9][0-9]*)\.pem")
KINDS = {Use.LICENCE: "licences", Use.ACKNOWLEDGEMENT: "acknowledgements", Use.RATE_CARD: "rate cards"}


@dataclass(frozen=True, slots=True)
class Held:
    """An issuing key whose file lies in DIR/issuing."""

    path: Path
    keyid: str


def file_name(version: int, keyid: str) -> str:
    """The name of a new issuing key's file: the keyring that brings it, and the beginning of its id."""
    return f"issuing-{version}-{keyid[:8]}.pem"


def held_keys(directory: Path) -> list[Held]:
    """The issuing keys in the directory, none opened; a file that does not say its id is left out."""
    found = []
    for path in sorted((directory / FOLDER).glob("*.pem")):
        keyid = labelled_keyid(path) or _keyid_of_first(directory, path.name)
        if keyid is not None:
            found.append(Held(path, keyid))
    return found


def why_not(keyring: Keyring, keyid: str, use: Use, at: datetime) -> str:
    """Why a key may not sign this kind at that moment; empty when it may. Periods are half-open."""
    if keyid in keyring.revoked:
        return "it was revoked"
    key = next((key for key in keyring.keys if key.keyid == keyid), None)
    if keyid in keyring.roots:
        return "it is a root, and a root signs keyrings only"
    if key is None:
        return "no keyring names it yet"
    if use not in key.uses:
        return f"it is for {words(key.uses)} only"
    if at < key.not_before:
        return f"it begins on {rfc3339(key.not_before)}"
    return f"it ended on {rfc3339(key.not_after)}" if at >= key.not_after else ""


def newest(keyring: Keyring, held: Sequence[Held], use: Use, at: datetime) -> Held:
    """The newest key that may sign this kind at that moment: the last of the keyring that is here.

    Raises SIGNER_UNKNOWN and says of each key here why it is not.
    """
    order = {key.keyid: position for position, key in enumerate(keyring.keys)}
    usable = [key for key in held if not why_not(keyring, key.keyid, use, at)]
    if usable:
        return max(usable, key=lambda key: order[key.keyid])
    reasons = [f"{key.path.name}: {why_not(keyring, key.keyid, use, at)}" for key in held]
    raise refused(use, at, "; ".join(reasons) or f"there is no key in {FOLDER}")


def open_issuing(
    directory: Path, keyring: Keyring, use: Use, at: datetime, passwords: Passwords, uri: str | None
) -> Signer:
    """The signer for this kind: the one that the URI names, or the newest in the directory.

    Raises SIGNER_UNKNOWN for one that the keyring does not let sign this now, and as `open_signer`.
    """
    if uri is not None:
        signer = open_signer(uri, passwords)
        reason = why_not(keyring, keyid_of(signer), use, at)
        if reason:
            raise refused(use, at, f"{keyid_of(signer)}: {reason}")
        return signer
    held = newest(keyring, held_keys(directory), use, at)
    signer = open_signer(str(held.path.absolute()), passwords)
    if keyid_of(signer) != held.keyid:
        raise LotaBotsError(
            Code.CONFLICT,
            f"{held.path} holds {keyid_of(signer)} and says {held.keyid}",
            hint="put the right key back from a backup",
        )
    return signer


def refused(use: Use, at: datetime, why: str) -> LotaBotsError:
    """What to say when no key may sign."""
    return LotaBotsError(
        Code.SIGNER_UNKNOWN,
        f"no key here may sign {KINDS[use]} on {at:%Y-%m-%d}: {why}",
        hint=f"make one: lotabots-vendor keyring rotate --use {use.value}; or name one: --issuing-key URI",
    )


def _keyid_of_first(directory: Path, name: str) -> str | None:
    """The id of a key of the first release, named after the keyring that brought it as its last key."""
    found = _FIRST_NAMES.fullmatch(name)
    statement = directory / "keyrings" / f"keyring-{found[1]}.dsse.json" if found else None
    if statement is None or not statement.exists():
        return None
    # Not verified: the key is compared with the verified keyring before and after it is opened.
    keys = parse_keyring(parse_envelope(read_bounded(statement, MAX_ENVELOPE_BYTES)).body).keys
    return keys[-1].keyid if keys else None
