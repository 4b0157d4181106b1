"""Publish the compiled policy into policy.db: one transaction, then a larger generation for the gate to see.

Everything in policy.db is made from elsewhere, save the slots of the limits table: so a damaged file is put
aside and made anew instead of stopping the appliance.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.foundation.database import open_database, storage_failures, transaction
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.limits.assign import scope_id

from .compile import TABLES, TOKEN_HASH, CompiledPolicy, PolicySource, compile_policy
from .schema import APPLICATION_ID, MIGRATIONS

if TYPE_CHECKING:
    import sqlite_utils

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Published:
    """What a publication did; tell `generation` to the limits table in either case."""

    generation: int
    changed: bool  # False: the policy was the same, only the lease was renewed


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a scope in the limits table."""

    slot: int
    tag: int


class Publisher:
    """The one writer of policy.db. May be used from several threads.

    Raises FILE_UNWRITABLE, DISK_FULL or ALREADY_RUNNING when the file cannot be opened for writing;
    `rebuilt` says that a damaged one was put aside: then the limits table must be made anew as well.
    """

    def __init__(self, path: Path, *, slots: int, lease_seconds: float) -> None:
        self._path = path
        self._slots = slots
        self._lease_ns = int(lease_seconds * NANOSECONDS)
        self._lock = threading.Lock()
        self._db, self.rebuilt = _open(path)

    def close(self) -> None:
        """Close the file; a gate that has it open goes on reading it."""
        with self._lock:
            self._db.close()

    def publish(self, source: PolicySource, now_ns: int) -> Published:
        """Compile and publish, and renew the lease; `now_ns` is wall time. All of it happens or nothing.

        Raises CONFLICT when there are more scopes than slots, and what a full or damaged disk raises.
        """
        with self._lock, storage_failures(self._path):
            with transaction(self._db) as connection:
                compiled = compile_policy(source, _assignment(connection), self._slots)
                published = self._write(connection, compiled, now_ns)
            # Passive: never waits for a reader. What is left over is copied next time.
            self._db.conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return published

    def renew_lease(self, now_ns: int) -> None:
        """Let the gate believe the policy for another lease from `now_ns` (wall time); cheap."""
        with self._lock, storage_failures(self._path), transaction(self._db) as connection:
            connection.execute("UPDATE meta SET lease_until_ns = ?", (now_ns + self._lease_ns,))

    def set_token_hash(self, token_hash: str) -> None:
        """Name the attestation token that is in force now; like the lease, without a new generation."""
        with self._lock, storage_failures(self._path), transaction(self._db) as connection:
            connection.execute("UPDATE facts SET value = ? WHERE name = ?", (token_hash, TOKEN_HASH))

    def generation(self) -> int:
        """The last one published; 0 when nothing was published yet."""
        with self._lock, storage_failures(self._path):
            found: int = self._db.conn.execute("SELECT generation FROM meta").fetchone()[0]
            return found

    def places(self) -> dict[tuple[str, str], Place]:
        """(kind, id) of every scope with its place, to fill a new limits table from the ledger."""
        with self._lock, storage_failures(self._path):
            return {
                (kind, identifier): Place(slot, int.from_bytes(tag, "big"))
                for kind, identifier, slot, tag in self._db.conn.execute(
                    "SELECT kind, id, slot, tag FROM scopes"
                )
            }

    def _write(self, connection: sqlite3.Connection, compiled: CompiledPolicy, now_ns: int) -> Published:
        lease_until_ns = now_ns + self._lease_ns
        content_hash = compiled.content_hash
        generation, known_hash = connection.execute("SELECT generation, content_hash FROM meta").fetchone()
        if generation and known_hash == content_hash:
            connection.execute("UPDATE meta SET lease_until_ns = ?", (lease_until_ns,))
            return Published(generation, changed=False)
        for table in reversed(TABLES):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - a constant
        for table in TABLES:
            for row in compiled.tables[table]:
                places = ", ".join("?" * len(row))
                connection.execute(f"INSERT INTO {table} VALUES ({places})", row)  # noqa: S608 - a constant
        # A new file counts from the second of its first publication: no earlier file had these numbers.
        generation = generation + 1 if generation else max(1, now_ns // NANOSECONDS)
        connection.execute(
            "UPDATE meta SET generation = ?, lease_until_ns = ?, published_ns = ?, content_hash = ?",
            (generation, lease_until_ns, now_ns, content_hash),
        )
        return Published(generation, changed=True)


def _assignment(connection: sqlite3.Connection) -> dict[str, int]:
    found = connection.execute("SELECT kind, id, slot FROM scopes")
    return {scope_id(kind, identifier): slot for kind, identifier, slot in found}


def _open(path: Path) -> tuple[sqlite_utils.Database, bool]:
    """The database, and whether a damaged one had to be put aside for it."""
    try:
        return _open_sound(path), False
    except LotaBotsError as error:
        if error.code is not Code.DATABASE_DAMAGED:
            raise
        aside = path.with_name(f"{path.name}.damaged")
        log.error(
            "policy.db is damaged and is made anew: %s",
            error,
            extra={"path": aside, "code": error.code.value},
        )
    try:
        path.replace(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise LotaBotsError(Code.FILE_UNWRITABLE, f"{path}: {error.strerror}") from error
    return _open_sound(path), True


def _open_sound(path: Path) -> sqlite_utils.Database:
    """Open and look at every page. SQLite gives its companions (-wal, -shm) the mode of the file itself."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640))
        path.chmod(0o640)
    except OSError as error:
        raise LotaBotsError(Code.FILE_UNWRITABLE, f"{path}: {error.strerror}") from error
    db = open_database(path, application_id=APPLICATION_ID, migrations=MIGRATIONS)
    try:
        with storage_failures(path):
            verdict = db.conn.execute("PRAGMA quick_check(1)").fetchone()[0]
            meta = db.conn.execute("SELECT count(*) FROM meta").fetchone()[0]
        if verdict != "ok" or meta != 1:
            raise LotaBotsError(Code.DATABASE_DAMAGED, f"{path}: {verdict}")
    except LotaBotsError:
        db.close()
        raise
    return db
