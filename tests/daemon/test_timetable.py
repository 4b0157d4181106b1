"""When a usage report is due, decided without waiting for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lotabotsd.daemon.timetable import newest_alarm, report_boundary, rule_of
from lotabotsd.foundation.errors import Code, Exit, LotaBotsError

MONTHLY = "15 0 1 * *"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


LONG_AGO = at("2026-01-10T05:00")


def boundary(now: str, *, reported: str | None, recorded: datetime | None = LONG_AGO) -> datetime | None:
    return report_boundary(
        rule_of(MONTHLY),
        at(now),
        reported_until=at(reported) if reported else None,
        recorded_from=recorded,
    )


def test_the_report_ends_at_the_whole_hour_of_its_alarm() -> None:
    assert boundary("2026-03-01T00:15", reported="2026-02-01T00:00") == at("2026-03-01T00:00")


def test_just_before_the_alarm_nothing_is_due() -> None:
    assert boundary("2026-03-01T00:14:59", reported="2026-02-01T00:00") is None


def test_a_report_is_due_once_however_often_one_asks() -> None:
    assert boundary("2026-03-01T00:15", reported="2026-03-01T00:00") is None
    assert boundary("2026-03-31T23:59", reported="2026-03-01T00:00") is None


def test_a_missed_report_is_due_at_the_next_start() -> None:
    assert boundary("2026-03-17T11:00", reported="2026-02-01T00:00") == at("2026-03-01T00:00")


def test_several_missed_reports_become_one() -> None:
    assert boundary("2026-06-02T00:00", reported="2026-02-01T00:00") == at("2026-06-01T00:00")


def test_a_report_made_by_hand_in_between_does_not_hide_the_next_one() -> None:
    assert boundary("2026-03-01T00:15", reported="2026-02-20T10:00") == at("2026-03-01T00:00")


def test_a_new_appliance_does_not_report_the_time_before_it_was_there() -> None:
    assert boundary("2026-03-17T00:00", reported=None, recorded=at("2026-03-05T00:00")) is None
    assert boundary("2026-03-17T00:00", reported=None, recorded=at("2026-03-01T00:00")) is None
    assert boundary("2026-03-17T00:00", reported=None, recorded=at("2026-02-28T23:00")) == at(
        "2026-03-01T00:00"
    )


def test_without_any_record_nothing_is_due() -> None:
    assert boundary("2026-03-17T00:00", reported=None, recorded=None) is None


def test_weekdays_are_those_of_cron() -> None:
    sunday = at("2026-03-01T00:00")  # a Sunday
    for spelling in ("0", "7", "sun"):
        assert newest_alarm(rule_of(f"0 3 * * {spelling}"), sunday + timedelta(days=3)) == at(
            "2026-03-01T03:00"
        )
    friday = newest_alarm(rule_of("0 3 * * 1-5"), sunday)
    assert friday == at("2026-02-27T03:00")


def test_a_rare_rule_is_found_and_an_impossible_one_never_is() -> None:
    assert newest_alarm(rule_of("0 0 29 2 *"), at("2026-03-01T00:00")) == at("2024-02-29T00:00")
    assert newest_alarm(rule_of("0 0 30 2 *"), at("2026-03-01T00:00")) is None


@pytest.mark.parametrize("schedule", ["99 0 1 * *", "a b c d e", "0 0 * * funday", "* * * *"])
def test_a_schedule_that_is_none_is_a_configuration_error(schedule) -> None:
    with pytest.raises(LotaBotsError) as failure:
        rule_of(schedule)
    assert failure.value.code is Code.CONFIG_INVALID
    assert failure.value.exit_code is Exit.CONFIGURATION


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 3 * 365 * 86_400).map(lambda seconds: at("2025-01-01T00:00") + timedelta(seconds=seconds)),
    st.sampled_from([MONTHLY, "*/5 * * * *", "0 0 * * *", "30 6 * * 1", "0 12 1 1 *"]),
)
def test_the_newest_alarm_is_past_and_no_other_lies_between(now, schedule) -> None:
    rule = rule_of(schedule)
    newest = newest_alarm(rule, now)
    assert newest is not None
    assert newest <= now
    following = rule.get_next_fire_time(None, newest + timedelta(microseconds=1))
    assert following > now
