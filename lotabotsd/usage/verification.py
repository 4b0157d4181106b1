"""Judge a ledger: is the chain intact, and does it cover all of the time and all of the records? Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lotabotsd.foundation.chain import GENESIS

from .batch import Finding, FindingKind
from .windows import Head, Kind, Row, row_hash, tiling_defects


class Fault(StrEnum):
    """The first thing that is wrong."""

    GAP = "GAP"  # rows are missing, or a span of time, or records
    PREDECESSOR_MISMATCH = "PREDECESSOR_MISMATCH"  # a row names another predecessor than the row before it
    ROW_HASH_MISMATCH = "ROW_HASH_MISMATCH"  # a row was changed
    TAIL_TRUNCATED = "TAIL_TRUNCATED"  # rows that a report or the head file knows are not there
    FORKED = "FORKED"  # a report or the head file knows another row in this place
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
    """Integrity (nothing was changed or removed) and completeness (nothing is missing), judged apart."""

    integrity: Check
    completeness: Check
    rows: int
    head: Head

    @property
    def ok(self) -> bool:
        """Whether both are without fault."""
        return self.integrity.ok and self.completeness.ok


def verdict_on(
    rows: Callable[[], Iterable[StoredRow]],
    began: int,
    witnesses: Sequence[Witness],
    findings: Sequence[Finding],
) -> Verdict:
    """Judge the rows that each call of `rows` streams; `findings` are those that are not harmless."""
    integrity, head = check_chain(rows(), witnesses)
    completeness = _check_completeness((stored.row for stored in rows()), began, findings)
    return Verdict(integrity, completeness, head.sequence, head)


def check_chain(rows: Iterable[StoredRow], witnesses: Sequence[Witness]) -> tuple[Check, Head]:
    """Follow the chain from its beginning; returns the verdict and the last good row. Constant memory."""
    head = Head(0, GENESIS)
    remembered: dict[int, list[Witness]] = {}
    for witness in witnesses:
        remembered.setdefault(witness.head.sequence, []).append(witness)
    forked: Check | None = None
    for stored in rows:
        sequence = stored.row.sequence
        if sequence != head.sequence + 1:
            return Check(Fault.GAP, sequence, f"row {head.sequence + 1} is missing"), head
        if stored.previous_hash != head.hash:
            return Check(Fault.PREDECESSOR_MISMATCH, sequence, "it follows another row"), head
        if row_hash(head.hash, stored.row) != stored.hash:
            return Check(Fault.ROW_HASH_MISMATCH, sequence, "its content was changed"), head
        head = Head(sequence, stored.hash)
        for witness in remembered.get(sequence, ()):
            if witness.head.hash != stored.hash and forked is None:
                forked = Check(Fault.FORKED, sequence, f"{witness.name} knows another row here")
    if forked is not None:
        return forked, head
    for witness in witnesses:
        if witness.head.sequence > head.sequence:
            detail = f"{witness.name} knows rows up to {witness.head.sequence}"
            return Check(Fault.TAIL_TRUNCATED, head.sequence, detail), head
    return Check(), head


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
