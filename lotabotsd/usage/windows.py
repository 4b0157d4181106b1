"""Windows of the ledger: which hours to close, what a row holds, and the hash that chains it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from lotabotsd.foundation.chain import Field, link

HOUR = 3_600
MAX_ZERO_WINDOWS = 400 * 24  # an absence longer than this becomes one gap row and 400 days of zero rows
CLOCK_TOLERANCE_SECONDS = 300
_ROW_FORMAT = "lotabots.window.1"


class Kind(StrEnum):
    """What a row of the ledger is."""

    USAGE = "usage"  # one organisation, key, model and outcome in one window
    APPLIANCE = "appliance"  # the sum of the window's usage rows, written even when zero; ends the window
    GAP = "gap"  # a span that nobody watched and that was too long for zero rows


@dataclass(frozen=True, slots=True)
class Meters:
    """What is counted; all of it adds up."""

    requests: int = 0
    inferences: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    gate_us: int = 0

    def __add__(self, other: Meters) -> Meters:
        return Meters(
            self.requests + other.requests,
            self.inferences + other.inferences,
            self.input_bytes + other.input_bytes,
            self.output_bytes + other.output_bytes,
            self.gate_us + other.gate_us,
        )


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the ledger, half-open in time, in Unix seconds."""

    sequence: int
    kind: Kind
    start: int
    end: int
    organisation: str
    key: str
    model: str
    outcome: str
    charged: int
    late_for: int  # start of the sealed hour that this came too late for; 0 = in time
    meters: Meters
    clock_suspect: int

    def hashed_fields(self) -> tuple[Field, ...]:
        """Every billed field in its frozen order (ARCHITECTURE.md, "Ledger")."""
        m = self.meters
        return (
            _ROW_FORMAT, self.sequence, self.kind.value, self.start, self.end, self.organisation, self.key,
            self.model, self.outcome, self.charged, self.late_for, m.requests, m.inferences, m.input_bytes,
            m.output_bytes, m.gate_us, self.clock_suspect,
        )  # fmt: skip


def row_hash(previous: bytes, row: Row) -> bytes:
    """The hash of a row that follows the row with hash `previous`."""
    return link(previous, row.hashed_fields())


@dataclass(frozen=True, slots=True)
class Head:
    """The number and hash of the newest row."""

    sequence: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Span:
    """A window to be written."""

    start: int
    end: int
    gap: bool = False
    clock_suspect: bool = False


def hour_of(second: int) -> int:
    """The start of the UTC hour that holds a second."""
    return second - second % HOUR


def spans_to_seal(sealed_until: int, now: int, *, cut: bool) -> list[Span]:
    """The windows that can be closed at `now`, in order, without a hole after `sealed_until`.

    Whole hours that ended; with `cut` also the part of the current hour up to the end of this second. A cut
    with a clock that is behind `sealed_until` makes a window of one second that says so.
    """
    spans = _whole_hours(sealed_until, hour_of(now))
    if not cut:
        return spans
    start = spans[-1].end if spans else sealed_until
    if now + 1 > start:
        spans.append(Span(start, now + 1))
    elif now + CLOCK_TOLERANCE_SECONDS < start:
        spans.append(Span(start, start + 1, clock_suspect=True))
    return spans


def _whole_hours(sealed_until: int, last: int) -> list[Span]:
    if last <= sealed_until:
        return []
    first_end = hour_of(sealed_until) + HOUR
    spans = [Span(sealed_until, first_end)]  # what was counted before an absence is in here
    zero_from = max(first_end, last - MAX_ZERO_WINDOWS * HOUR)
    if zero_from > first_end:
        spans.append(Span(first_end, zero_from, gap=True))
    spans.extend(Span(start, start + HOUR) for start in range(zero_from, last, HOUR))
    return spans


@dataclass(frozen=True, slots=True)
class Counted:
    """What one organisation, key, model and outcome used in a window that is not sealed yet."""

    organisation: str
    key: str
    model: str
    outcome: str
    charged: int
    late_for: int
    meters: Meters


def rows_of_span(span: Span, counted: Sequence[Counted], sequence: int, *, suspect: bool) -> list[Row]:
    """The rows of one window, numbered from `sequence`: usage rows in a fixed order, then the appliance's."""
    flag = int(suspect or span.clock_suspect)
    if span.gap:
        return [Row(sequence, Kind.GAP, span.start, span.end, "", "", "", "", 0, 0, Meters(), flag)]
    merged: dict[tuple[str, str, str, str, int], Counted] = {}
    for one in counted:
        name = (one.organisation, one.key, one.model, one.outcome, one.late_for)
        before = merged.get(name)
        merged[name] = replace(one, meters=before.meters + one.meters) if before else one
    rows: list[Row] = []
    total = Meters()
    for name in sorted(merged):
        one = merged[name]
        total += one.meters
        rows.append(
            Row(
                sequence + len(rows), Kind.USAGE, span.start, span.end, one.organisation, one.key, one.model,
                one.outcome, one.charged, one.late_for, one.meters, flag,
            )
        )  # fmt: skip
    last = sequence + len(rows)
    return [*rows, Row(last, Kind.APPLIANCE, span.start, span.end, "", "", "", "", 0, 0, total, flag)]


def tiling_defects(rows: Iterable[Row], start: int) -> Iterator[tuple[Row, str]]:
    """Where rows do not cover time from `start` on without hole, overlap or wrong sum. Constant memory."""
    expected = start
    total = Meters()
    end: int | None = None  # of the window whose appliance row is still to come
    for row in rows:
        if row.start != expected or row.end <= row.start or (end is not None and row.end != end):
            yield row, f"the window starts at {row.start}, the one before it ends at {expected}"
            expected = row.start
        if row.kind is Kind.USAGE:
            total += row.meters
            end = row.end
            continue
        if row.kind is Kind.APPLIANCE and row.meters != total:
            yield row, "the window's sum is not the sum of its rows"
        if row.kind is Kind.GAP and end is not None:
            yield row, "the window before it has no sum"
        expected, total, end = row.end, Meters(), None
    if end is not None:
        yield row, "the last window has no sum"
