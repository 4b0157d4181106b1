"""receipts.db: every receipt by its id, for as long as it is kept; the daemon's alone.

A receipt was given to its caller before it comes here, so that a damaged file is put aside and made anew:
what counts is with the caller, and usage must not wait for it.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.foundation.database import open_database, storage_failures, transaction
from lotabotsd.foundation.errors import Code, LotaBotsError

if TYPE_CHECKING:
    import sqlite_utils

log = logging.getLogger(__name__)

APPLICATION_ID = 0x4C425243  # "LBRC"
DAY_NS = 86_400 * NANOSECONDS
_FORGET_AT_ONCE = 10_000  # rows, so that nobody waits long for the lock
# The ids are time-ordered (UUIDv7), and so are the rows.
MIGRATIONS = (
    """
CREATE TABLE receipts (
  id BLOB PRIMARY KEY NOT NULL CHECK (length(id) = 16),
  organisation_id TEXT NOT NULL,
  key_id TEXT NOT NULL,
  text TEXT NOT NULL
) STRICT, WITHOUT ROWID;
""",
)


@dataclass(frozen=True, slots=True)
class KeptReceipt:
    """A receipt and whose it is."""

    receipt_id: bytes  # 16 bytes
    organisation_id: str
    key_id: str
    text: str  # a compact JWS

    def to_dict(self) -> dict[str, str]:
        """For answers."""
        return {"id": str(uuid.UUID(bytes=self.receipt_id)), "key": self.key_id, "receipt": self.text}


def receipt_id_of(text: str) -> bytes:
    """The 16 bytes of a receipt's id. Raises VALUE_INVALID."""
    try:
        found = uuid.UUID(text)
    except ValueError:
        found = None
    if found is None or str(found) != text:
        raise LotaBotsError(
            Code.VALUE_INVALID,
            "that is no receipt id",
            hint="send the value of the answer's Lotabots-Request-Id",
        )
    return found.bytes


class ReceiptStore:
    """May be used from several threads. Every method may raise DISK_FULL or DATABASE_DAMAGED."""

    def __init__(self, path: Path, *, keep_days: int, keep_most: int) -> None:
        """Open or make the file; a damaged one is put aside as `receipts.db.damaged`."""
        self._path = path
        self._keep_days = keep_days
        self._keep_most = keep_most
        self._lock = threading.Lock()
        self._db = _open(path)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def add(self, receipts: Sequence[KeptReceipt]) -> None:
        """Keep receipts; one that is there already stays as it is. All of them or none.

        A file that turns out to be damaged is put aside and made anew.
        """
        try:
            self._add(receipts)
        except LotaBotsError as error:
            if error.code is not Code.DATABASE_DAMAGED:
                raise
            with self._lock:
                self._db.close()
                self._db = _made_anew(self._path, error)
            self._add(receipts)

    def _add(self, receipts: Sequence[KeptReceipt]) -> None:
        rows = [(r.receipt_id, r.organisation_id, r.key_id, r.text) for r in receipts]
        with self._lock, storage_failures(self._path), transaction(self._db) as connection:
            connection.executemany("INSERT OR IGNORE INTO receipts VALUES (?, ?, ?, ?)", rows)

    def find(self, receipt_id: bytes) -> KeptReceipt | None:
        """A receipt by its id."""
        with self._lock, storage_failures(self._path):
            row = self._db.conn.execute(
                "SELECT id, organisation_id, key_id, text FROM receipts WHERE id = ?", (receipt_id,)
            ).fetchone()
        return None if row is None else KeptReceipt(*row)

    def count(self) -> int:
        """How many are kept."""
        with self._lock, storage_failures(self._path):
            found: int = self._db.conn.execute("SELECT count(*) FROM receipts").fetchone()[0]
            return found

    def forget_old(self, now_ns: int) -> int:
        """Remove what is older than it may be, and the oldest of too many; how many that were.

        `now_ns` is wall time. One call removes a bounded number: call it again and again.
        """
        oldest_ms = max(0, now_ns - self._keep_days * DAY_NS) // 1_000_000
        oldest = oldest_ms.to_bytes(6, "big") + bytes(10)
        beyond = max(0, self.count() - self._keep_most)
        with self._lock, storage_failures(self._path), transaction(self._db) as connection:
            aged = connection.execute(
                "DELETE FROM receipts WHERE id IN (SELECT id FROM receipts WHERE id < ? ORDER BY id LIMIT ?)",
                (oldest, _FORGET_AT_ONCE),
            ).rowcount
            more = connection.execute(
                "DELETE FROM receipts WHERE id IN (SELECT id FROM receipts ORDER BY id LIMIT ?)",
                (min(max(0, beyond - aged), _FORGET_AT_ONCE),),
            ).rowcount
        return aged + more


def _open(path: Path) -> sqlite_utils.Database:
    try:
        return open_database(path, application_id=APPLICATION_ID, migrations=MIGRATIONS)
    except LotaBotsError as error:
        if error.code is not Code.DATABASE_DAMAGED:
            raise
        return _made_anew(path, error)


def _made_anew(path: Path, damage: LotaBotsError) -> sqlite_utils.Database:
    aside = path.with_name(f"{path.name}.damaged")
    log.error("receipts.db is damaged and is made anew: %s", damage, extra={"path": aside})
    try:
        path.replace(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise LotaBotsError(Code.FILE_UNWRITABLE, f"{path}: {error.strerror}") from error
    return open_database(path, application_id=APPLICATION_ID, migrations=MIGRATIONS)
