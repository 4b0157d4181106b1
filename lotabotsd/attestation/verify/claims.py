"""What a claim must look like, and the checks that tokens and receipts have in common. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from .jose import Claims
from .verdict import Check, need

MAX_SKEW_SECONDS = 60
SHA_256 = r"[A-Za-z0-9_-]{43}"
UEID = r"A[Q-Za-f][A-Za-z0-9_-]{42}"
UUID_7 = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
NONCE = r"[A-Za-z0-9_-]{22,88}"
Fits = Callable[[Any], bool]


def matches(pattern: str) -> Fits:
    """Whether a value is text that is wholly this regular expression."""
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def whole(least: int = 0, below: int = 2**40) -> Fits:
    """Whether a value is a whole number from `least` on; True is none."""
    return lambda value: type(value) is int and least <= value < below


def check_types(
    claims: Claims,
    types: Mapping[str, Fits],
    optional: Collection[str],
    checks: list[Check],
    unwanted: Collection[str] = (),
) -> None:
    """Note whether each claim is what it must be. Raises InvalidError when one is not.

    `types` maps a path with dots, an object before its members, to a test; the test may also raise what
    a value of another type makes it raise. Claims that are named nowhere are ignored.
    """
    wrong = [name for name in unwanted if name in claims]
    for path, fits in types.items():
        inside_wrong = any(path.startswith(f"{name}.") for name in wrong)
        if not inside_wrong and not _has(claims, path, fits, absent=path in optional):
            wrong.append(path)
    need(checks, "claims", "types", not wrong, f"missing or malformed: {', '.join(wrong)}" if wrong else "")


def _has(claims: Claims, path: str, fits: Fits, *, absent: bool) -> bool:
    *parents, name = path.split(".")
    for parent in parents:
        claims = claims[parent]
    try:
        return fits(claims[name]) if name in claims else absent
    except (ValueError, TypeError, LookupError, AttributeError):
        return False


def check_profile(claims: Claims, profile: str, checks: list[Check]) -> None:
    """Note whether the claims follow this profile. Raises InvalidError when they do not."""
    need(checks, "claims", "profile", claims["eat_profile"] == profile, claims["eat_profile"])


def check_challenge(claims: Claims, nonce: str | None) -> Check:
    """Whether the reader's challenge was answered; None when the reader gave none."""
    answered = claims.get("eat_nonce")
    if nonce is None or answered is None:
        unknown = "unchallenged" if answered is None else "it answers a challenge, yours was not given"
        return Check("claims", "challenge", None if nonce is None else False, unknown)
    return Check("claims", "challenge", answered == nonce, "" if answered == nonce else "another nonce")
