"""SQLite as the appliance uses it: WAL, full synchronous, STRICT tables, migrations by user_version.

The databases are opened through sqlite-utils; SQL is written out where it is used.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from .errors import Code, LotaBotsError

if TYPE_CHECKING:
    import sqlite_utils

BUSY_TIMEOUT_MS = 5_000
IN_MEMORY = Path(":memory:")
# What SQLite says when the file is sound and something around it is not; anything else is damage.
_AROUND = {
    sqlite3.SQLITE_BUSY: Code.ALREADY_RUNNING,
    sqlite3.SQLITE_FULL: Code.DISK_FULL,
    sqlite3.SQLITE_CANTOPEN: Code.FILE_UNWRITABLE,
    sqlite3.SQLITE_READONLY: Code.FILE_UNWRITABLE,
    sqlite3.SQLITE_PERM: Code.FILE_UNWRITABLE,
    sqlite3.SQLITE_IOERR: Code.FILE_UNWRITABLE,
}


def open_database(path: Path, *, application_id: int, migrations: Sequence[str]) -> sqlite_utils.Database:
    """Open (or make) a database for its one writer and bring it to the newest schema.

    `migrations[n]` is the SQL script from version n to n + 1; each runs in a transaction of its own.
    Autocommit is on: group statements with `transaction(db)`.
    Raises DATABASE_DAMAGED when the file is no SQLite database, another application's, or too new;
    FILE_UNWRITABLE, DISK_FULL or ALREADY_RUNNING when it cannot be opened for writing.
    A new file is its owner's alone (0600); SQLite gives its companions the same mode.
    """
    import sqlite_utils  # here, so that the gate, which only reads, does not load it

    if path != IN_MEMORY:
        with suppress(OSError):  # SQLite says below what is wrong
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    try:
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000
        )
    except sqlite3.Error as error:
        raise _failure(path, error) from error
    try:
        _refuse_foreign(connection, path, application_id)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        _migrate(connection, path, application_id, migrations)
    except sqlite3.Error as error:
        connection.close()
        raise _failure(path, error) from error
    except LotaBotsError:
        connection.close()
        raise
    return sqlite_utils.Database(connection)


def open_read_only(path: Path) -> sqlite3.Connection:
    """Open a database that another process writes. Raises FILE_UNREADABLE when it cannot be opened yet."""
    address = f"file:{quote(str(path))}?mode=ro"
    try:
        connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise LotaBotsError(Code.FILE_UNREADABLE, f"{path}: {error}") from error
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.Error as error:
        connection.close()
        raise LotaBotsError(Code.FILE_UNREADABLE, f"{path}: {error}") from error
    return connection


@contextmanager
def transaction(db: sqlite_utils.Database) -> Iterator[sqlite3.Connection]:
    """One write transaction (BEGIN IMMEDIATE): commits at the end, rolls back on any exception."""
    connection: sqlite3.Connection = db.conn
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself rolls back on a full disk
            connection.execute("ROLLBACK")
        raise


@contextmanager
def storage_failures(path: Path) -> Iterator[None]:
    """Tell SQLite's failures from the catalogue. A broken constraint or a misuse is a bug and stays one."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.Error as error:
        raise _failure(path, error) from error


def _failure(path: Path, error: sqlite3.Error) -> LotaBotsError:
    primary = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    return LotaBotsError(_AROUND.get(primary, Code.DATABASE_DAMAGED), f"{path}: {error}")


def _refuse_foreign(connection: sqlite3.Connection, path: Path, application_id: int) -> None:
    """Before the first write: a file that holds anything must be ours."""
    found = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if found != application_id and (found or tables):
        raise LotaBotsError(Code.DATABASE_DAMAGED, f"{path} belongs to another application")


def _migrate(
    connection: sqlite3.Connection, path: Path, application_id: int, migrations: Sequence[str]
) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise LotaBotsError(
            Code.DATABASE_DAMAGED,
            f"{path} has schema {version}, this release knows {len(migrations)}",
            hint="install the newer release again, or restore the backup made before the upgrade",
        )
    for number in range(version, len(migrations)):
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{migrations[number]}\n"
            f"PRAGMA application_id = {application_id};\nPRAGMA user_version = {number + 1};\nCOMMIT;"
        )
