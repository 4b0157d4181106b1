"""When the usage report is due: a cron rule, and what to do about a time that was missed.

`report_boundary` decides and is pure; `Timetable` only wakes the daemon at the right moments. Waking twice
or late does no harm: the decision looks at the last report, not at the alarm clock.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger

from lotabotsd.foundation.errors import Code, LotaBotsError

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
# How far back to look for the newest past alarm: each step holds few alarms of any rule that the
# steps before it held none of.
_LOOK_BACK = (
    timedelta(hours=1),
    timedelta(days=1),
    timedelta(days=32),
    timedelta(days=367),
    timedelta(days=4 * 366),
)


def rule_of(schedule: str) -> CronTrigger:
    """The cron rule, in UTC, with cron's weekdays (0 and 7 are Sunday). Raises CONFIG_INVALID."""
    try:
        minute, hour, day, month, weekday = schedule.split()
        # APScheduler counts weekdays from Monday, cron from Sunday: give it names.
        named = re.sub(r"(?<![/\d])[0-7](?!\d)", lambda found: _WEEKDAYS[int(found.group())], weekday)
        return CronTrigger(minute=minute, hour=hour, day=day, month=month, day_of_week=named, timezone=UTC)
    except ValueError as error:
        raise LotaBotsError(Code.CONFIG_INVALID, f"report.schedule {schedule!r}: {error}") from error


def newest_alarm(rule: CronTrigger, now: datetime) -> datetime | None:
    """The newest moment of the rule that is not after `now`; None when there was none in four years."""
    for step in _LOOK_BACK:
        newest: datetime | None = None
        moment: datetime | None = rule.get_next_fire_time(None, now - step)
        while moment is not None and moment <= now:
            newest = moment
            moment = rule.get_next_fire_time(None, moment + timedelta(seconds=1))
        if newest is not None:
            return newest
    return None


def report_boundary(
    rule: CronTrigger, now: datetime, *, reported_until: datetime | None, recorded_from: datetime | None
) -> datetime | None:
    """The end (exclusive, a whole UTC hour) of the report that is due now; None when none is.

    A report alarmed at 00:15 ends at 00:00. `reported_until` is the end of the last report,
    `recorded_from` the start of the oldest usage window. Several missed alarms make one report: up to the
    newest of them.
    """
    alarm = newest_alarm(rule, now)
    if alarm is None or recorded_from is None:
        return None
    boundary = alarm.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if boundary <= recorded_from:
        return None
    if reported_until is not None and boundary <= reported_until:
        return None
    return boundary


def next_alarm(rule: CronTrigger, now: datetime) -> datetime | None:
    """The first moment of the rule after `now`."""
    found: datetime | None = rule.get_next_fire_time(None, now)
    return found


class Timetable:
    """Wakes `alarm` at each moment of the report's rule, in the running event loop."""

    def __init__(self, rule: CronTrigger, alarm: Callable[[], Awaitable[None]]) -> None:
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._scheduler.add_job(
            alarm, rule, id="report", coalesce=True, misfire_grace_time=None, max_instances=1
        )

    def start(self) -> None:
        """Begin to wake."""
        self._scheduler.start()

    def stop(self) -> None:
        """Wake no more."""
        self._scheduler.shutdown(wait=False)
