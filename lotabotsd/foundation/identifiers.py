"""Names for things: random ids, time-ordered UUIDs, base62, unpadded base64url."""

from __future__ import annotations

import base64
import secrets
import uuid

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def random_base62(length: int) -> str:
    """`length` characters from a cryptographic source, 5.95 bits each."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def base62(number: int, width: int) -> str:
    """A number in base 62, most significant first, filled with zeros to `width`. Raises ValueError."""
    digits: list[str] = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    if number:
        raise ValueError(f"the number does not fit in {width} characters")
    return "".join(reversed(digits))


def new_id(prefix: str) -> str:
    """`org_6gT1…`: a prefix and 16 random base62 characters (95 bits)."""
    return f"{prefix}_{random_base62(16)}"


def uuid7(wall_ns: int) -> uuid.UUID:
    """A time-ordered UUID (RFC 9562, section 5.7): 48 bits of milliseconds, then random."""
    milliseconds = (wall_ns // 1_000_000) & ((1 << 48) - 1)
    value = (
        (milliseconds << 80) | (7 << 76) | (secrets.randbits(12) << 64) | (0b10 << 62) | secrets.randbits(62)
    )
    return uuid.UUID(int=value)


def b64url(data: bytes) -> str:
    """Base64url without padding (RFC 4648, section 5; RFC 7515)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64url(text: str) -> bytes:
    """The bytes of unpadded base64url; raises ValueError for any other character, padding or loose bits."""
    if not all(c.isascii() and (c.isalnum() or c in "-_") for c in text):
        raise ValueError("not base64url")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if b64url(data) != text:
        raise ValueError("not canonical base64url")
    return data
