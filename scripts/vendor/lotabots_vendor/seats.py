"""How an appliance stands with its reports: up to date, overdue, with a gap, or with two histories. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from lotabotsd.foundation.clock import NANOSECONDS, from_ns, rfc3339, to_ns
from lotabotsd.licence.claims import Licence

from .history import Head, forked, overlap, rewound

DAY_SECONDS = 86_400


class State(StrEnum):
    """The words that people read; the worst first."""

    FORK = "fork"
    GAP = "gap"
    OVERDUE = "overdue"
    UP_TO_DATE = "up to date"


@dataclass(frozen=True, slots=True)
class Owed:
    """What a licence asks of its reports; moments are Unix seconds."""

    cadence_seconds: int
    grace_seconds: int
    starts_at: int
    ends_at: int  # the licence's end with its days of grace: from then on nothing is owed


@dataclass(frozen=True, slots=True)
class Concern:
    """One thing that is not as it should be; `until` is exclusive, empty where it goes on."""

    state: State
    detail: str
    since: str
    until: str = ""


def owed_by(licence: Licence) -> Owed:
    """The duty to report that a licence brings."""
    return Owed(
        licence.report_cadence_days * DAY_SECONDS,
        licence.report_grace_days * DAY_SECONDS,
        to_ns(licence.starts_at) // NANOSECONDS,
        to_ns(licence.grace_ends_at) // NANOSECONDS,
    )


def concerns(heads: Sequence[Head], owed: Owed | None, now: int) -> list[Concern]:
    """What is wrong with a seat at a moment (Unix seconds), the worst first; no licence, no duty."""
    found = [*_forks(heads), *map(_gap, holes(heads))]
    if owed is not None:
        late = overdue(max((head.period_until for head in heads), default=0), owed, now)
        found += [late] if late else []
    return found


def overdue(reported_until: int, owed: Owed, now: int) -> Concern | None:
    """Whether the next report should be here: cadence and grace after the end of the last one's period.

    Counted from the licence's first day where that is later, as with no report at all (`reported_until` 0).
    """
    since = max(reported_until, owed.starts_at)
    due = since + owed.cadence_seconds
    late = due + owed.grace_seconds
    if since >= owed.ends_at or now < late:
        return None
    return Concern(State.OVERDUE, f"a report was due on {moment(due)}", moment(since))


def worst(found: Sequence[Concern]) -> State:
    """The one state of a seat."""
    order = list(State)
    return min((concern.state for concern in found), key=order.index, default=State.UP_TO_DATE)


def moment(second: int) -> str:
    """Unix seconds as people read them."""
    return rfc3339(from_ns(second * NANOSECONDS))


def _forks(heads: Sequence[Head]) -> list[Concern]:
    """The first pair of reports that cannot belong to one history, told once."""
    for one, other in _neighbours(heads):
        names = (
            f"reports {one.sequence} ({one.report_hash[:8]}) and {other.sequence} ({other.report_hash[:8]})"
        )
        if forked(one, other):
            return [_fork(f"{names} have two histories", one, other)]
        if other.previous_report_hash == one.report_hash and rewound(one, other):
            return [_fork(f"{names} do not fit together: rewound", one, other)]
        if one.key_id != other.key_id:
            return [_fork(f"{names} have different keys", one, other)]
        if overlap(one, other):
            return [_fork(f"{names} are about the same time or rows", one, other)]
    return []


def _neighbours(heads: Sequence[Head]) -> list[tuple[Head, Head]]:
    """The pairs among which any conflict shows: next to each other by number, predecessor, time or row.

    Two periods that overlap have an overlapping pair next to each other in the order of their beginnings.
    """
    found: list[tuple[Head, Head]] = []
    for order in (
        lambda head: (head.sequence, head.report_hash),
        lambda head: (head.previous_report_hash or "", head.sequence),
        lambda head: (head.period_from, head.sequence),
        lambda head: (head.first, head.sequence),
    ):
        found += pairwise(sorted(heads, key=order))
    return [(a, b) if a.sequence <= b.sequence else (b, a) for a, b in found]


def _fork(detail: str, one: Head, other: Head) -> Concern:
    since, until = min(one.period_from, other.period_from), max(one.period_until, other.period_until)
    return Concern(State.FORK, detail, moment(since), moment(until))


@dataclass(frozen=True, slots=True)
class Hole:
    """What no verified report is about; half-open, in Unix seconds; `since` is 0 where it is not known."""

    detail: str
    since: int
    until: int


def holes(heads: Sequence[Head]) -> list[Hole]:
    """The numbers, and the time, that are missing among the reports of a seat, the oldest first."""
    ordered = sorted({head.sequence: head for head in heads}.values(), key=lambda head: head.sequence)
    found = []
    if ordered and ordered[0].sequence > 1:
        found.append(_missing(1, ordered[0].sequence - 1, 0, ordered[0].period_from))
    for before, after in pairwise(ordered):
        if after.sequence > before.sequence + 1:
            found.append(
                _missing(before.sequence + 1, after.sequence - 1, before.period_until, after.period_from)
            )
        elif after.period_from > before.period_until:
            between = f"nothing is recorded between reports {before.sequence} and {after.sequence}"
            found.append(Hole(between, before.period_until, after.period_from))
    return found


def _missing(first: int, last: int, since: int, until: int) -> Hole:
    numbers = f"report {first}" + (f" to {last}" if last > first else "")
    return Hole(f"{numbers} was not verified here", since, until)


def _gap(hole: Hole) -> Concern:
    return Concern(State.GAP, hole.detail, moment(hole.since) if hole.since else "", moment(hole.until))
