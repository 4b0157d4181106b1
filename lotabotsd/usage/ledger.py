"""The ledger: counts journal records once, seals hours into a hash chain, and answers what was used."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lotabotsd.foundation.clock import NANOSECONDS, Clock
from lotabotsd.foundation.database import open_database, transaction
from lotabotsd.foundation.errors import Code, LotaBotsError

from . import tables
from .batch import HARMLESS, Batch, Cursor, Finding, FindingKind, Pairing, RecordedFinding, Tally
from .head import read_head, remember_head
from .schema import APPLICATION_ID, MIGRATIONS
from .tables import UsageRow
from .verification import Anchor, Check, Fault, StoredRow, Verdict, Witness, verdict_on
from .windows import CLOCK_TOLERANCE_SECONDS, Head, hour_of, rows_of_span, spans_to_seal

if TYPE_CHECKING:
    import sqlite_utils

_PAGE = 1_000  # rows read at a time, so that nobody waits long for the lock
_END = 1 << 62


@dataclass(frozen=True, slots=True)
class Sealed:
    """What one call of `seal` wrote."""

    windows: int
    rows: int
    until: int  # Unix seconds: end of the last window there is now


def open_ledger(path: Path, clock: Clock) -> Ledger:
    """Open or make ledger.db; its head file lies beside it. Raises DATABASE_DAMAGED."""
    database = open_database(path, application_id=APPLICATION_ID, migrations=MIGRATIONS)
    return Ledger(database, clock, path.with_suffix(".head"))


class Ledger:
    """ledger.db, held by its one writing process. May be used from several threads.

    Every method may raise DATABASE_DAMAGED, and the writing ones DISK_FULL; nothing is then half done.
    """

    def __init__(self, database: sqlite_utils.Database, clock: Clock, head_path: Path | None = None) -> None:
        """`head_path` is a file beside the database that remembers the newest row, to notice a cut tail."""
        self._database = database
        self._path = database.conn.execute("PRAGMA database_list").fetchone()[2] or "ledger.db"
        self._clock = clock
        self._head_path = head_path
        self._lock = threading.RLock()
        self._remembered = False
        start = hour_of(clock.wall_ns() // NANOSECONDS)
        with self.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO state VALUES (1, ?, ?)", (start, start))

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.conn.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One write transaction under the ledger's lock; SQLite's failures become the catalogue's."""
        with self._lock:
            try:
                with transaction(self._database) as connection:
                    yield connection
            except sqlite3.Error as error:
                raise _failure(self._path, error) from error

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection for reading, under the ledger's lock."""
        with self._lock:
            try:
                yield self._database.conn
            except sqlite3.Error as error:
                raise _failure(self._path, error) from error

    def cursor(self, worker: int, epoch: int) -> Cursor:
        """How far an epoch's journal was counted; the beginning for one never seen."""
        with self.reading() as connection:
            return tables.find_cursor(connection, worker, epoch) or Cursor()

    def unended_epochs(self) -> list[tuple[int, int]]:
        """(worker, epoch) of every journal from which more may come."""
        with self.reading() as connection:
            return connection.execute("SELECT worker, epoch FROM streams WHERE ended = 0").fetchall()

    def apply(self, batch: Batch) -> bool:
        """Count a batch and move the cursor, in one transaction.

        False when the cursor is not where the batch starts: it was counted already, by this call's twin or
        before a crash, and nothing happens.
        """
        with self.transaction() as connection:
            cursor = tables.find_cursor(connection, batch.worker, batch.epoch)
            if (cursor or Cursor()) != batch.start:
                return False
            tally = Tally(_sealed_until(connection))
            pairing = Pairing(batch, tally)
            orphans = tables.close_earlier(connection, batch, pairing, tally)
            tables.keep_open(connection, batch, pairing, tally)
            tables.write_tally(connection, tally)
            findings = pairing.findings(orphans)
            if cursor is None:
                boot = f"boot {batch.boot_id or 'unknown'}"
                started = Finding(FindingKind.WORKER_STARTED, batch.worker, batch.epoch, 0, 0, detail=boot)
                findings.insert(0, started)
            tables.write_findings(connection, self._now(), findings)
            tables.write_cursor(connection, batch, pairing.next_number)
            return True

    def note(self, finding: Finding) -> None:
        """Keep a finding that no batch carries; the same kind at the same place is kept once."""
        with self.transaction() as connection:
            tables.write_findings(connection, self._now(), [finding])

    @property
    def sealed_until(self) -> int:
        """The end of the last window, in Unix seconds."""
        with self.reading() as connection:
            return _sealed_until(connection)

    def seal(self, now_ns: int, *, cut: bool = False, clock_suspect: bool = False) -> Sealed:
        """Close every UTC hour that ended before `now_ns`; with `cut` also the current one, up to now.

        `now_ns` is the barrier of a drain (`Drained.barrier_ns`): what closed before it has been counted.
        What still comes for a sealed hour becomes a late row of the next window. `clock_suspect` marks the
        windows as made while the clock was below the licence's floor.
        """
        now = now_ns // NANOSECONDS
        with self.transaction() as connection:
            until = _sealed_until(connection)
            if now + CLOCK_TOLERANCE_SECONDS < until:
                detail = f"the clock was {until - now} s behind the end of the last window"
                behind = Finding(FindingKind.CLOCK_BACK, -1, until, 0, 0, detail=detail)
                tables.write_findings(connection, self._now(), [behind])
            head = tables.read_head_row(connection)
            before = head.sequence
            spans = spans_to_seal(until, now, cut=cut)
            for span in spans:
                counted = [] if span.gap else tables.take_counted(connection, span)
                rows = rows_of_span(span, counted, head.sequence + 1, suspect=clock_suspect)
                head = tables.append_rows(connection, rows, head)
                until = span.end
            connection.execute("UPDATE state SET sealed_until = ?", (until,))
        self._remember(head, changed=bool(spans))
        return Sealed(len(spans), head.sequence - before, until)

    def _remember(self, head: Head, *, changed: bool) -> None:
        """Keep the head file in step; one that knows another history stays as evidence for `verify`."""
        if self._head_path is not None and head.sequence and (changed or not self._remembered):
            with self.reading() as connection:
                remember_head(self._head_path, head, partial(tables.hash_at, connection))
            self._remembered = True

    def head(self) -> Head:
        """The newest row; sequence 0 and GENESIS in an empty ledger."""
        with self.reading() as connection:
            return tables.read_head_row(connection)

    def rows(self, first: int = 1, last: int = _END) -> Iterator[StoredRow]:
        """The rows from `first` to `last`, read in pages: constant memory, and the lock is not kept."""
        while True:
            with self.reading() as connection:
                page = tables.read_rows(connection, first, last, _PAGE)
            yield from page
            if len(page) < _PAGE:
                return
            first = page[-1].row.sequence + 1

    def findings(self, after: int = 0, *, harmless: bool = False) -> list[RecordedFinding]:
        """Findings with an id above `after`, oldest first; the harmless ones only when asked for."""
        with self.reading() as connection:
            recorded = tables.read_findings(connection, after)
        return [r for r in recorded if harmless or r.finding.kind not in HARMLESS]

    def usage(
        self,
        since: int = 0,
        until: int = _END,
        *,
        organisation: str = "",
        by: Sequence[str] = ("organisation", "key", "model", "outcome"),
    ) -> list[UsageRow]:
        """Usage of the windows that start in [since, until) Unix seconds, what is not sealed yet included.

        `organisation` narrows it to one; `by` names the dimensions to tell apart, the others are summed.
        """
        with self.reading() as connection:
            return tables.sum_usage(connection, since, until, organisation, by)

    def month_usage(self, window_id: int) -> dict[tuple[str, str], int]:
        """Charged inferences of quota month YYYYMM by (kind, id) of scope; the licence's id is ""."""
        with self.reading() as connection:
            return tables.sum_month(connection, window_id)

    def in_flight(self) -> int:
        """How many OPENs have neither CLOSE nor ended epoch yet."""
        with self.reading() as connection:
            return int(connection.execute("SELECT count(*) FROM open_requests").fetchone()[0])

    def verify(self, progress: Callable[[int, int], None] = lambda done, last: None) -> Verdict:
        """Check the whole chain in one pass, against head file, newest report and acknowledgements.

        `progress` is told now and then which row was reached and which is the last; what it raises ends the
        walk.
        """
        with self.reading() as connection:
            anchor = tables.read_anchor(connection)
            witnesses = _witnesses(connection)
            vouched = anchor.head.sequence == 0 or tables.was_accepted(connection, anchor.head)
            last = tables.read_head_row(connection).sequence
        unreadable = ""
        try:
            remembered = read_head(self._head_path) if self._head_path is not None else None
        except LotaBotsError as error:
            remembered, unreadable = None, error.detail
        if remembered is not None:
            witnesses.append(Witness("the head file", remembered))
        findings = [r.finding for r in self.findings() if not self._was_read_since(r.finding)]
        rows = _telling(self.rows(anchor.head.sequence + 1), last, progress)
        verdict = verdict_on(rows, anchor, witnesses, findings)
        if not vouched and verdict.integrity.ok:
            detail = "the purge before it ends where no acknowledged report does"
            verdict = replace(verdict, integrity=Check(Fault.FORKED, anchor.head.sequence + 1, detail))
        if unreadable and verdict.completeness.ok:
            detail = f"{unreadable}: a cut tail would not show"
            verdict = replace(verdict, completeness=Check(Fault.TAIL_TRUNCATED, verdict.rows, detail))
        return verdict

    @property
    def anchor(self) -> Anchor:
        """Where the chain begins: behind what was purged."""
        with self.reading() as connection:
            return tables.read_anchor(connection)

    @property
    def recorded_from(self) -> int | None:
        """Unix seconds: where the rows that are here begin; None while nothing was sealed."""
        with self.reading() as connection:
            if tables.read_head_row(connection).sequence == 0:
                return None
            return tables.read_anchor(connection).until

    def _was_read_since(self, finding: Finding) -> bool:
        """Whether a segment that the disk or its permissions refused could be read later."""
        if finding.kind is not FindingKind.UNREADABLE:
            return False
        cursor = self.cursor(finding.worker, finding.epoch)
        return (cursor.segment, cursor.offset) > (finding.segment, finding.offset)

    def _now(self) -> int:
        return self._clock.wall_ns() // NANOSECONDS


def _witnesses(connection: sqlite3.Connection) -> list[Witness]:
    """The newest report and the newest acknowledgement: both know a row."""
    reported = connection.execute("SELECT last, head FROM reports ORDER BY sequence DESC LIMIT 1").fetchone()
    acknowledged = connection.execute(
        "SELECT reports.last, acknowledgements.head FROM acknowledgements "
        "JOIN reports ON reports.sequence = acknowledgements.report "
        "WHERE verdict <> 'rejected' ORDER BY report DESC LIMIT 1"
    ).fetchone()
    named = (("the newest report", reported), ("the newest acknowledgement", acknowledged))
    return [Witness(name, Head(*found)) for name, found in named if found]


def _telling(
    rows: Iterator[StoredRow], last: int, progress: Callable[[int, int], None]
) -> Iterator[StoredRow]:
    """The same rows, telling how far they are once a page."""
    for stored in rows:
        yield stored
        if stored.row.sequence % _PAGE == 0:
            progress(stored.row.sequence, last)


def _sealed_until(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT sealed_until FROM state").fetchone()[0])


def _failure(path: str, error: sqlite3.Error) -> LotaBotsError:
    """A full disk or a damaged file; SQLite ends a transaction by itself when the disk is full, so that the
    first error may be behind the failed ROLLBACK."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            return LotaBotsError(Code.DISK_FULL, f"{path}: {cause}")
        cause = cause.__context__
    return LotaBotsError(
        Code.DATABASE_DAMAGED,
        f"{path}: {error}",
        hint="stop lotabotsd, put your own copies of that file and of ledger.head in their place, "
        "start it again",
    )
