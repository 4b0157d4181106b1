"""The two clocks as one argument: wall time to judge expiry, monotonic time to measure durations."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

NANOSECONDS = 1_000_000_000
_HOUR_NS = 3_600 * NANOSECONDS


class Clock(Protocol):
    """What a room may know of time."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970 in UTC; may jump."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds since some point, the same one for all processes of this boot; never jumps."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


class FixedClock:
    """A clock that moves only when told to; for tests and for replaying billing periods."""

    def __init__(self, wall: datetime, monotonic_ns: int = 1_000_000 * NANOSECONDS) -> None:
        self._wall_ns = to_ns(wall)
        self._monotonic_ns = monotonic_ns

    def wall_ns(self) -> int:
        return self._wall_ns

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self._wall_ns += int(seconds * NANOSECONDS)
        self._monotonic_ns += int(seconds * NANOSECONDS)

    def set_wall(self, wall: datetime) -> None:
        """Set the wall clock alone, as an administrator can."""
        self._wall_ns = to_ns(wall)


def to_ns(moment: datetime) -> int:
    """Nanoseconds since 1970 of an aware datetime (whole microseconds)."""
    if moment.tzinfo is None:
        raise ValueError("a naive datetime has no place on the time line")
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * NANOSECONDS + delta.microseconds * 1_000


def from_ns(wall_ns: int) -> datetime:
    """The aware UTC datetime of nanoseconds since 1970 (truncated to microseconds)."""
    seconds, rest = divmod(wall_ns, NANOSECONDS)
    return datetime.fromtimestamp(seconds, tz=UTC).replace(microsecond=rest // 1_000)


def rfc3339(moment: datetime) -> str:
    """`2026-11-23T04:05:06Z`, whole seconds, UTC (RFC 3339)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_rfc3339(text: str) -> datetime:
    """Read what `rfc3339` writes (any offset is accepted). Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} lies outside the years 1 to 9999") from error


def month_window(wall_ns: int) -> int:
    """The quota window of a moment: the calendar month in UTC as YYYYMM."""
    return _month_of_hour(wall_ns // _HOUR_NS)


@lru_cache(maxsize=16)
def _month_of_hour(hour: int) -> int:
    """Asked for every request; no hour of UTC lies in two months."""
    moment = from_ns(hour * _HOUR_NS)
    return moment.year * 100 + moment.month


@lru_cache(maxsize=16)
def month_end_ns(window_id: int) -> int:
    """The first nanosecond after the month YYYYMM in UTC."""
    year, month = divmod(window_id, 100)
    return to_ns(datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC))
