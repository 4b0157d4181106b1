"""What the drain hands to the ledger, and how OPEN and CLOSE records become counts. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from lotabotsd.foundation.clock import NANOSECONDS

from .reconciliation import Count, Passed, passed_as
from .records import CHARGED, SEGMENT_HEADER_BYTES, Close, Open, Outcome, Record
from .windows import Meters, hour_of


class FindingKind(StrEnum):
    """What a reader of the numbers should know about how they came to be."""

    WORKER_STARTED = "worker_started"
    TORN_TAIL = "torn_tail"  # a killed worker's last record; nobody was answered on it
    DAMAGE = "damage"  # bytes in a segment that are no record, with more written behind them
    HEADER_DAMAGED = "header_damaged"
    MISPLACED = "misplaced"  # a segment under another segment's name; not counted
    UNREADABLE = "unreadable"  # the disk refuses; tried again at every drain
    MISSING_RECORDS = "missing_records"  # numbers that never came: `count` records
    MISSING_SEGMENT = "missing_segment"  # an epoch whose last segment is gone
    REPEATED_RECORDS = "repeated_records"  # numbers that came before; not counted again
    UNKNOWN_RECORD = "unknown_record"  # whole, but of a kind or content not known to this release
    ORPHAN_CLOSE = "orphan_close"  # a CLOSE without its OPEN: nobody to charge `inferences` to
    CLOCK_BACK = "clock_back"  # the clock was behind the end of the last window


HARMLESS = frozenset({FindingKind.WORKER_STARTED, FindingKind.TORN_TAIL})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found, where it was found, and how much it concerns."""

    kind: FindingKind
    worker: int
    epoch: int
    segment: int
    offset: int
    count: int = 1
    inferences: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RecordedFinding:
    """A finding as it is kept."""

    id: int
    at: int  # Unix seconds
    finding: Finding


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far one epoch's journal was counted."""

    segment: int = 0
    offset: int = SEGMENT_HEADER_BYTES
    next_number: int = 1
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one epoch in journal order; counts only while the ledger's cursor is still `start`."""

    worker: int
    epoch: int
    boot_id: str
    start: Cursor
    records: tuple[tuple[int, Record | None], ...]  # None: a whole record that means nothing here
    end: tuple[int, int]  # segment and offset after the last record
    ended: bool = False  # nothing more comes: what is open now was aborted
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class AccountName:
    """What one accumulator counts."""

    window_start: int
    late_for: int
    organisation: str
    key: str
    model: str
    outcome: Outcome


@dataclass(slots=True)
class Tally:
    """The counts of one batch."""

    sealed_until: int  # Unix seconds: what was closed before is late
    counted: dict[AccountName, Meters] = field(default_factory=dict)
    months: dict[tuple[int, str, str], int] = field(default_factory=dict)
    passed: dict[str, Passed] = field(default_factory=dict)  # by model

    def close(self, opened: Open, closed: Close) -> None:
        """Count a request by the hour of its CLOSE; its quota month is the OPEN's."""
        meters = Meters(1, closed.inferences, closed.input_bytes, closed.output_bytes, closed.gate_us)
        self._add(opened, closed.outcome, closed.wall_ns, meters)
        self._pass(opened, closed.outcome, closed.inferences)
        if CHARGED[closed.outcome]:
            for name in (
                ("licence", ""),
                ("organisation", opened.organisation_id),
                ("key", opened.key_id),
                ("model", opened.model),
            ):
                month = (opened.window_id, *name)
                self.months[month] = self.months.get(month, 0) + closed.inferences

    def abort(self, opened: Open) -> None:
        """Count a request that has no CLOSE, by the hour of its OPEN."""
        self._add(opened, Outcome.ABORTED, opened.wall_ns, Meters(1))
        self._pass(opened, Outcome.ABORTED, 0)

    def _pass(self, opened: Open, outcome: Outcome, inferences: int) -> None:
        passed = passed_as(outcome, Count(1, inferences), Count(1, opened.reserved))
        if passed is not None:
            self.passed[opened.model] = self.passed.get(opened.model, Passed()) + passed

    def _add(self, opened: Open, outcome: Outcome, wall_ns: int, meters: Meters) -> None:
        second = wall_ns // NANOSECONDS
        late = second < self.sealed_until
        name = AccountName(
            self.sealed_until if late else max(hour_of(second), self.sealed_until),
            hour_of(second) if late else 0,
            opened.organisation_id,
            opened.key_id,
            opened.model,
            outcome,
        )
        before = self.counted.get(name)
        self.counted[name] = before + meters if before else meters


class Pairing:
    """Walks a batch's records in order: checks the numbers, pairs OPEN with CLOSE, collects findings."""

    def __init__(self, batch: Batch, tally: Tally) -> None:
        self._batch = batch
        self._tally = tally
        self.next_number = batch.start.next_number
        self.opened: dict[int, Open] = {}  # OPENs of this batch without their CLOSE yet
        self.waiting: list[tuple[int, Close]] = []  # CLOSEs whose OPEN is not in this batch
        self.missing = 0
        self.repeated = 0
        for number, record in batch.records:
            if number < self.next_number:
                self.repeated += 1
                continue
            self.missing += number - self.next_number
            self.next_number = number + 1
            if isinstance(record, Open):
                self.opened[number] = record
            elif isinstance(record, Close):
                self._close(record)

    def _close(self, closed: Close) -> None:
        opened = self.opened.pop(closed.open_number, None)
        if opened is None:
            self.waiting.append((closed.open_number, closed))
        else:
            self._tally.close(opened, closed)

    def findings(self, orphans: list[Close]) -> list[Finding]:
        """Everything found in this batch, the numbers included."""
        found = list(self._batch.findings)
        for kind, count, inferences in (
            (FindingKind.MISSING_RECORDS, self.missing, 0),
            (FindingKind.REPEATED_RECORDS, self.repeated, 0),
            (FindingKind.ORPHAN_CLOSE, len(orphans), sum(c.inferences for c in orphans)),
        ):
            if count:
                start = self._batch.start
                found.append(
                    Finding(
                        kind, self._batch.worker, self._batch.epoch, start.segment, start.offset, count,
                        inferences,
                    )
                )  # fmt: skip
        return found
