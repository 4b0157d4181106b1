"""Judge a ledger: is the chain intact, and does it cover all of the time and all of the records? Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from .batch import Finding, FindingKind
from .windows import Head, Kind, Row, row_hash, tiling_defects


class Fault(StrEnum):
    """The first thing that is wrong."""

    GAP = "GAP"  # rows are missing, or a span of time, or records
    PREDECESSOR_MISMATCH = "PREDECESSOR_MISMATCH"  # a row names another predecessor than the row before it
    ROW_HASH_MISMATCH = "ROW_HASH_MISMATCH"  # a row was changed
    TAIL_TRUNCATED = "TAIL_TRUNCATED"  # rows that a report or the head file knows are not there
    FORKED = "FORKED"  # a report, an acknowledgement or the head file knows another row in this place
    CLOCK_SUSPECT = "CLOCK_SUSPECT"  # windows were made, or missed, while the clock was wrong


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row with the two hashes stored beside it."""

    row: Row
    previous_hash: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Witness:
    """Somebody outside the table who remembers a row."""

    name: str
    head: Head


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where the chain begins: behind its last purged row, or at the beginning of everything."""

    head: Head  # the last row that is gone; sequence 0 and GENESIS where nothing is
    until: int  # Unix seconds: windows tile time from here on


@dataclass(frozen=True, slots=True)
class Check:
    """One verdict: no fault, or the first one, the row it shows at (0: no row) and what exactly."""

    fault: Fault | None = None
    sequence: int = 0
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.fault is None

    @property
    def text(self) -> str:
        """`ROW_HASH_MISMATCH at row 3: its content was changed`; empty without a fault."""
        if self.fault is None:
            return ""
        where = f" at row {self.sequence}" if self.sequence else ""
        return f"{self.fault.value}{where}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Integrity (nothing was changed or removed) and completeness (nothing is missing), judged apart.

    Both are about the rows from `proven_from` (a row number) on, whose time begins at `proven_since` (Unix
    seconds; 0: unknown); what was purged is vouched for by the vendor's acknowledgement alone.
    """

    integrity: Check
    completeness: Check
    rows: int  # the number of the newest row
    head: Head
    proven_from: int = 1
    proven_since: int = 0

    @property
    def ok(self) -> bool:
        """Whether both are without fault."""
        return self.integrity.ok and self.completeness.ok


class ChainWalk:
    """Follows the chain row by row in constant memory; keeps the first fault and the last good row."""

    def __init__(self, anchor: Head, witnesses: Sequence[Witness]) -> None:
        self._head = anchor
        self._witnesses = witnesses
        self._remembered: dict[int, list[Witness]] = {}
        for witness in witnesses:
            self._remembered.setdefault(witness.head.sequence, []).append(witness)
        self._broken: Check | None = None
        self._forked: Check | None = None
        if anchor.sequence:
            self._ask_witnesses(anchor)

    def step(self, stored: StoredRow) -> None:
        """Look at the next row; behind a broken place nothing is looked at any more."""
        if self._broken is not None:
            return
        sequence = stored.row.sequence
        if sequence != self._head.sequence + 1:
            missing = f"row {self._head.sequence + 1} is missing"
            self._broken = Check(Fault.GAP, sequence, missing)
        elif stored.previous_hash != self._head.hash:
            self._broken = Check(Fault.PREDECESSOR_MISMATCH, sequence, "it follows another row")
        elif row_hash(self._head.hash, stored.row) != stored.hash:
            self._broken = Check(Fault.ROW_HASH_MISMATCH, sequence, "its content was changed")
        else:
            self._head = Head(sequence, stored.hash)
            self._ask_witnesses(self._head)

    def end(self) -> tuple[Check, Head]:
        """The verdict and the last good row."""
        fault = self._broken or self._forked
        if fault is not None:
            return fault, self._head
        for witness in self._witnesses:
            if witness.head.sequence > self._head.sequence:
                detail = f"{witness.name} knows rows up to {witness.head.sequence}"
                return Check(Fault.TAIL_TRUNCATED, self._head.sequence, detail), self._head
        return Check(), self._head

    def _ask_witnesses(self, head: Head) -> None:
        for witness in self._remembered.get(head.sequence, ()):
            if witness.head.hash != head.hash and self._forked is None:
                detail = f"{witness.name} knows another row here"
                self._forked = Check(Fault.FORKED, head.sequence, detail)


def verdict_on(
    rows: Iterable[StoredRow],
    anchor: Anchor,
    witnesses: Sequence[Witness],
    findings: Sequence[Finding],
) -> Verdict:
    """Judge the rows behind the anchor in one pass; `findings` are those that are not harmless."""
    walk = ChainWalk(anchor.head, witnesses)

    def passing() -> Iterator[Row]:
        for stored in rows:
            walk.step(stored)
            yield stored.row

    stream = passing()
    completeness = _check_completeness(stream, anchor.until, findings)
    for _ in stream:  # it stops at the first defect; the chain is followed to its end
        pass
    integrity, head = walk.end()
    return Verdict(integrity, completeness, head.sequence, head, anchor.head.sequence + 1, anchor.until)


def _check_completeness(rows: Iterable[Row], began: int, findings: Sequence[Finding]) -> Check:
    for check in _defects_in_time(rows, began):
        return check
    for finding in findings:
        clock = finding.kind is FindingKind.CLOCK_BACK
        detail = f"{finding.kind.value} ×{finding.count} {finding.detail}".rstrip()
        return Check(Fault.CLOCK_SUSPECT if clock else Fault.GAP, 0, detail)
    return Check()


def _defects_in_time(rows: Iterable[Row], began: int) -> Iterator[Check]:
    """Holes, gap rows and windows of a doubtful clock, in the order of the rows."""
    marked: list[Check] = []

    def passing() -> Iterator[Row]:
        for row in rows:
            if row.kind is Kind.GAP and not marked:
                marked.append(Check(Fault.GAP, row.sequence, f"nobody watched for {row.end - row.start} s"))
            elif row.clock_suspect and not marked:
                marked.append(Check(Fault.CLOCK_SUSPECT, row.sequence, "the clock was in doubt"))
            yield row

    for row, detail in tiling_defects(passing(), began):
        yield (
            marked[0]
            if marked and marked[0].sequence < row.sequence
            else Check(Fault.GAP, row.sequence, detail)
        )
    yield from marked
