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
    return uuid.UUID(bytes=uuid7_bytes(wall_ns))


def uuid7_bytes(wall_ns: int) -> bytes:
    """The 16 bytes of a new `uuid7`, without the cost of the class: the gate makes one for every request."""
    milliseconds = (wall_ns // 1_000_000) & ((1 << 48) - 1)
    random = secrets.token_bytes(10)
    marked = bytes((0x70 | random[0] & 0x0F, random[1], 0x80 | random[2] & 0x3F))
    return milliseconds.to_bytes(6, "big") + marked + random[3:]


def uuid_text(value: bytes) -> str:
    """The text of a UUID's 16 bytes (RFC 9562, section 4)."""
    digits = value.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


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
