"""The audit trail: append-only, hash-chained rows, each written in the transaction of the change it tells.

Every change of identity goes through `Audit.change`; so there is no change without its row. What was refused
is written too. Other rooms' changes are told with `Audit.record`. Use one `Audit` per database.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.chain import GENESIS, link
from lotabotsd.foundation.clock import Clock
from lotabotsd.foundation.database import storage_failures, transaction
from lotabotsd.foundation.errors import Code, LotaBotsError

from .records import Actor

if TYPE_CHECKING:
    import sqlite_utils

DONE = "done"
REFUSED = "refused"
PAGE = 500
_LONGEST_TEXT = 200
_STORAGE_CODES = frozenset(
    {Code.DISK_FULL, Code.FILE_UNWRITABLE, Code.DATABASE_DAMAGED, Code.ALREADY_RUNNING}
)
_COLUMNS = "number, at_ns, who, source, organisation_id, action, target, before, after, outcome, hash"


class AuditFault(StrEnum):
    """What can be wrong with the chain; the same words as the ledger's."""

    GAP = "GAP"
    ROW_HASH_MISMATCH = "ROW_HASH_MISMATCH"
    TAIL_TRUNCATED = "TAIL_TRUNCATED"
    HEAD_MISMATCH = "HEAD_MISMATCH"


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row as it is stored; `before` and `after` are canonical JSON."""

    number: int
    at_ns: int
    who: str
    source: str
    organisation_id: str | None
    action: str
    target: str
    before: str | None
    after: str | None
    outcome: str
    hash: bytes

    def linked_to(self, previous: bytes) -> bytes:
        """The hash that this row must have after `previous`."""
        return link(
            previous,
            (
                self.number,
                self.at_ns,
                self.who,
                self.source,
                self.organisation_id,
                self.action,
                self.target,
                self.before,
                self.after,
                self.outcome,
            ),
        )


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """What a walk along the chain found: the good rows, the last good hash, and the first fault."""

    rows: int
    head: bytes
    fault: AuditFault | None = None
    at: int = 0  # the number of the row with the fault

    @property
    def intact(self) -> bool:
        return self.fault is None


@dataclass(slots=True)
class Change:
    """A change under way: its SQL goes to `connection`, and what it did into the other fields."""

    connection: sqlite3.Connection
    target: str
    organisation_id: str | None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None


class Audit:
    """The one way to change what identity stores, and the way to read the trail."""

    def __init__(self, db: sqlite_utils.Database, clock: Clock) -> None:
        self._db = db
        self._path = Path(db.conn.execute("PRAGMA database_list").fetchone()[2] or "state.db")
        self._clock = clock
        self._lock = threading.RLock()

    @contextmanager
    def change(
        self, who: Actor, action: str, target: str = "", organisation_id: str | None = None
    ) -> Iterator[Change]:
        """One transaction with its audit row. A LotaBotsError inside undoes it and leaves a `refused` row.

        Raises DISK_FULL, FILE_UNWRITABLE or DATABASE_DAMAGED when it cannot be stored: then nothing changed.
        """
        with self._lock, storage_failures(self._path):
            try:
                with transaction(self._db) as connection:
                    change = Change(connection, target, organisation_id)
                    yield change
                    self._append(who, action, change, DONE)
            except LotaBotsError as error:
                if error.code not in _STORAGE_CODES:
                    after = {"code": error.code.value, "detail": _bounded(error.detail)}
                    self.record(who, action, target, None, after, REFUSED, organisation_id)
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection while nobody changes anything."""
        with self._lock, storage_failures(self._path):
            connection: sqlite3.Connection = self._db.conn
            yield connection

    def record(
        self,
        who: Actor,
        action: str,
        target: str,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        outcome: str = DONE,
        organisation_id: str | None = None,
    ) -> None:
        """Write a row by itself, for what another room did or refused. Never put a secret into it."""
        with self._lock, storage_failures(self._path), transaction(self._db) as connection:
            self._append(who, action, Change(connection, target, organisation_id, before, after), outcome)

    def rows(
        self, *, after: int = 0, limit: int = PAGE, organisation_id: str | None = None
    ) -> list[AuditRow]:
        """Rows with a number above `after`, oldest first; only one organisation's where one is given."""
        scoped = "" if organisation_id is None else "AND organisation_id = :organisation"
        with self.reading() as connection:
            found = connection.execute(
                f"SELECT {_COLUMNS} FROM audit WHERE number > :after {scoped} ORDER BY number LIMIT :limit",  # noqa: S608 - constant parts
                {"after": after, "organisation": organisation_id, "limit": limit},
            )
            return [AuditRow(*row) for row in found]

    def head(self) -> tuple[int, bytes]:
        """The number and hash of the newest row; (0, 32 zero bytes) when there is none."""
        with self.reading() as connection:
            number, head = connection.execute("SELECT number, hash FROM audit_head").fetchone()
            return number, head

    def verify(self) -> AuditVerdict:
        """Walk the whole chain in constant memory and name the first fault.

        An owner of the file who rewrites every row from some point and the head goes unseen here.
        """
        good, previous = 0, GENESIS
        while True:
            with self._lock:
                page = self.rows(after=good)
                head_number, head = self.head()
            for row in page:
                if row.number != good + 1:
                    return AuditVerdict(good, previous, AuditFault.GAP, good + 1)
                if row.hash != row.linked_to(previous):
                    return AuditVerdict(good, previous, AuditFault.ROW_HASH_MISMATCH, row.number)
                good, previous = row.number, row.hash
            if len(page) < PAGE:
                break
        if head_number > good:
            return AuditVerdict(good, previous, AuditFault.TAIL_TRUNCATED, good + 1)
        if (head_number, head) != (good, previous):
            return AuditVerdict(good, previous, AuditFault.HEAD_MISMATCH, good)
        return AuditVerdict(good, previous)

    def _append(self, who: Actor, action: str, change: Change, outcome: str) -> None:
        number, previous = change.connection.execute("SELECT number, hash FROM audit_head").fetchone()
        row = AuditRow(
            number=number + 1,
            at_ns=self._clock.wall_ns(),
            who=_bounded(who.who),
            source=_bounded(who.source),
            organisation_id=None if change.organisation_id is None else _bounded(change.organisation_id),
            action=action,
            target=_bounded(change.target),
            before=_json(change.before),
            after=_json(change.after),
            outcome=outcome,
            hash=b"",
        )
        head = row.linked_to(previous)
        change.connection.execute(
            f"INSERT INTO audit ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constant parts
            (
                *(row.number, row.at_ns, row.who, row.source, row.organisation_id, row.action),
                *(row.target, row.before, row.after, row.outcome, head),
            ),
        )
        change.connection.execute("UPDATE audit_head SET number = ?, hash = ?", (row.number, head))


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else canonical_json(value).decode()


def _bounded(text: str) -> str:
    """Text from outside, made storable: no lone surrogates, not too long."""
    return text[:_LONGEST_TEXT].encode("utf-8", "backslashreplace").decode()[:_LONGEST_TEXT]
