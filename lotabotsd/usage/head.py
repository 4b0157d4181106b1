"""The head of the ledger, remembered in a file beside it: a tail cut from the database alone shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lotabotsd.foundation.canonical import canonical_json, strict_json
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded, write_atomically

from .windows import Head

_LIMIT_BYTES = 4_096


def remember_head(path: Path, head: Head, hash_at: Callable[[int], bytes | None]) -> bool:
    """Write the head file; False, and nothing written, when it knows a history that the ledger does not.

    `hash_at` gives the ledger's hash of an earlier row, None for one that was purged: it contradicts nothing.
    An unreadable file is written anew.
    Raises DISK_FULL, FILE_UNWRITABLE, LEDGER_DAMAGED.
    """
    try:
        known = read_head(path)
    except LotaBotsError:
        known = None
    if known is not None and known.sequence > head.sequence:
        return False
    if known is not None and hash_at(known.sequence) not in (None, known.hash):
        return False
    if known != head:
        document = {"format": 1, "hash": head.hash.hex(), "sequence": head.sequence}
        write_atomically(path, canonical_json(document) + b"\n", mode=0o600)
    return True


def read_head(path: Path) -> Head | None:
    """The remembered head; None where nothing was remembered yet. Raises LEDGER_DAMAGED, FILE_UNREADABLE."""
    if not path.exists():
        return None
    data = read_bounded(path, _LIMIT_BYTES)
    try:
        document = strict_json(data)
        head = Head(document["sequence"], bytes.fromhex(document["hash"]))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise LotaBotsError(Code.LEDGER_DAMAGED, f"{path} cannot be read") from error
    if not isinstance(head.sequence, int) or head.sequence < 1 or len(head.hash) != 32:
        raise LotaBotsError(Code.LEDGER_DAMAGED, f"{path} holds no head")
    return head
