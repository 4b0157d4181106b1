"""One hash chain for the ledger, the reports and the audit trail. Pure.

    link(previous, fields) = SHA-256(previous || for each field: tag || length || bytes)

Every field carries its type and length, so no two different rows have the same bytes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

Field = bytes | str | int | None
GENESIS = bytes(32)


def encode_fields(fields: Iterable[Field]) -> bytes:
    """The bytes of a row: per field a type byte, a 32-bit big-endian length, and the content.

    Types: `n` none, `i` decimal integer, `s` UTF-8 text, `b` bytes.
    """
    parts: list[bytes] = []
    for field in fields:
        if field is None:
            tag, content = b"n", b""
        elif isinstance(field, bool):
            raise TypeError("write a flag as 0 or 1")
        elif isinstance(field, int):
            tag, content = b"i", str(field).encode()
        elif isinstance(field, str):
            tag, content = b"s", field.encode()
        else:
            tag, content = b"b", field
        parts.append(tag + struct.pack(">I", len(content)) + content)
    return b"".join(parts)


def link(previous: bytes, fields: Iterable[Field]) -> bytes:
    """The hash of a row that follows `previous` (32 bytes; GENESIS for the first)."""
    if len(previous) != 32:
        raise ValueError("a chain hash has 32 bytes")
    return hashlib.sha256(previous + encode_fields(fields)).digest()
