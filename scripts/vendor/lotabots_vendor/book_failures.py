"""What a vendor is told when a book (vendor.db, billing.db) fails: a lock, something around it, or damage.

`foundation.database` speaks of an appliance: there another writer is a second daemon, and a backup is put
back with the daemon stopped.
"""

from __future__ import annotations

import sqlite3

from lotabotsd.foundation.catalogue import CATALOGUE
from lotabotsd.foundation.errors import Code, LotaBotsError

_BOOKS = "vendor.db or billing.db"
_RESTORE = "move that file and those named like it (-wal, -shm) away, and put your newest backup in its place"
# Primary result codes of a file that is sound while something around it is not (sqlite.org/rescode.html).
_AROUND = {
    sqlite3.SQLITE_FULL: Code.DISK_FULL,
    sqlite3.SQLITE_CANTOPEN: Code.FILE_UNWRITABLE,
    sqlite3.SQLITE_READONLY: Code.FILE_UNWRITABLE,
    sqlite3.SQLITE_PERM: Code.FILE_UNWRITABLE,
    sqlite3.SQLITE_IOERR: Code.FILE_UNWRITABLE,
}
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def of_database(error: sqlite3.DatabaseError) -> LotaBotsError:
    """A failure of SQLite in the catalogue's words; it does not say in which of the books.

    INTERNAL where neither a book nor its surroundings are to blame.
    """
    # The low byte is the primary code, what is above it a detail of it.
    primary = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if primary in _LOCKED:
        return _locked("")
    if primary in _AROUND:
        return for_vendors(LotaBotsError(_AROUND[primary], f"{_BOOKS}: {error}"))
    if primary in _DAMAGED:
        return for_vendors(LotaBotsError(Code.DATABASE_DAMAGED, f"{_BOOKS}: {error}"))
    hint = "this is a bug: please report it with the command that you gave"
    return LotaBotsError(Code.INTERNAL, f"{type(error).__name__}: {error}", hint=hint)


def for_vendors(error: LotaBotsError) -> LotaBotsError:
    """The same failure with what a vendor can do, where the product's words are for an appliance."""
    if error.code is Code.ALREADY_RUNNING:
        return _locked(error.detail)
    own_hint = error.hint != CATALOGUE[error.code].hint
    if error.code is Code.DATABASE_DAMAGED and not own_hint:
        return LotaBotsError(error.code, error.detail, hint=_RESTORE)
    if error.code is Code.DISK_FULL and not own_hint:
        return LotaBotsError(error.code, error.detail, hint="free some space, then give the command again")
    return error


def _locked(detail: str) -> LotaBotsError:
    said = f" ({detail})" if detail else ""
    return LotaBotsError(
        Code.CONFLICT,
        f"another command is writing in this directory{said}",
        hint="try again when it has ended",
    )
