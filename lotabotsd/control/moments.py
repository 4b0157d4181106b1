"""Moments as people write them: now, today, a date, or RFC 3339. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from lotabotsd.foundation.clock import NANOSECONDS, from_ns, to_ns
from lotabotsd.foundation.errors import Code, LotaBotsError

DAY_SECONDS = 86_400


def parse_moment(text: str, now_ns: int) -> int:
    """Unix seconds of `now`, `today` (its first second in UTC), `2026-11-23`, or an RFC 3339 moment.

    Raises VALUE_INVALID.
    """
    word = text.strip().lower()
    now = now_ns // NANOSECONDS
    if word == "now":
        return now
    if word == "today":
        return now - now % DAY_SECONDS
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise LotaBotsError(
            Code.VALUE_INVALID,
            f"{text[:64]!r} is no moment",
            hint="write now, today, 2026-11-23, or 2026-11-23T04:00:00Z",
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return to_ns(moment) // NANOSECONDS


def month_start(now_ns: int) -> int:
    """Unix seconds of the first second of this month in UTC."""
    first = from_ns(now_ns).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return to_ns(first) // NANOSECONDS
