"""The text of an API key: made, read, checked for typing errors, and hashed for storage. Pure.

    lb_<live|test>_<key id: 12>_<secret: 32>_<checksum: 6>        60 characters, all of them base62

The checksum is the CRC-32 of everything before the last underscore: it refuses a mistyped key before any
look-up. It is no protection; the secret (190 bits) is. The gate imports this module.
"""

from __future__ import annotations

import hmac
import re
import zlib
from dataclasses import dataclass, field

from lotabotsd.foundation.identifiers import base62

ENVIRONMENTS = ("live", "test")
KEY_ID_LENGTH = 12
SECRET_LENGTH = 32
KEY_LENGTH = 60
_CHECKSUM_LENGTH = 6
_KEY = re.compile(
    rf"lb_(live|test)_([0-9A-Za-z]{{{KEY_ID_LENGTH}}})_([0-9A-Za-z]{{{SECRET_LENGTH}}})"
    rf"_([0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """What a well-formed key says; whether it is a known one is another question."""

    environment: str  # live or test
    key_id: str
    secret: str = field(repr=False)


def format_api_key(environment: str, key_id: str, secret: str) -> str:
    """The text that a person copies. Raises ValueError when a part has another form."""
    text = f"lb_{environment}_{key_id}_{secret}"
    whole = f"{text}_{_checksum(text)}"
    if _KEY.fullmatch(whole) is None:
        raise ValueError("an API key is made of live or test, 12 and 32 base62 characters")
    return whole


def parse_api_key(text: str) -> ParsedKey | None:
    """Read a key; None for anything that is not exactly one (length, alphabet, checksum). Never raises."""
    if len(text) != KEY_LENGTH:
        return None
    match = _KEY.fullmatch(text)
    if match is None or _checksum(text[: -_CHECKSUM_LENGTH - 1]) != match[4]:
        return None
    return ParsedKey(match[1], match[2], match[3])


def hash_secret(pepper: bytes, key_id: str, secret: str) -> bytes:
    """What is stored: HMAC-SHA256 keyed with the host's pepper over `key_id NUL secret` (32 bytes)."""
    return hmac.digest(pepper, f"{key_id}\0{secret}".encode(), "sha256")


def _checksum(text: str) -> str:
    return base62(zlib.crc32(text.encode("ascii")), _CHECKSUM_LENGTH)
