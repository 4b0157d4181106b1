"""The clocks, RFC 3339 and the month windows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.foundation.clock import (
    NANOSECONDS,
    FixedClock,
    SystemClock,
    from_ns,
    month_end_ns,
    month_window,
    parse_rfc3339,
    rfc3339,
    to_ns,
)

MOMENT = datetime(2026, 11, 23, 4, 5, 6, tzinfo=UTC)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_moment_survives_the_way_to_nanoseconds_and_back(moment: datetime) -> None:
    assert from_ns(to_ns(moment)) == moment


def test_nanoseconds_below_a_microsecond_are_cut_off_not_rounded() -> None:
    assert from_ns(to_ns(MOMENT) + 999) == MOMENT


def test_moments_before_1970_are_negative() -> None:
    assert to_ns(datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC)) == -NANOSECONDS + 1_000


def test_a_naive_datetime_is_refused() -> None:
    with pytest.raises(ValueError, match="naive"):
        to_ns(datetime(2026, 1, 1))  # noqa: DTZ001 - the naive one is what is tested


def test_rfc3339_is_written_in_utc_with_whole_seconds() -> None:
    east = MOMENT.astimezone(timezone(timedelta(hours=5, minutes=30))) + timedelta(microseconds=999_999)
    assert rfc3339(east) == "2026-11-23T04:05:06Z"


@pytest.mark.parametrize(
    "text", ["2026-11-23T04:05:06Z", "2026-11-23T09:35:06+05:30", "2026-11-23T04:05:06-00:00"]
)
def test_every_offset_is_read(text: str) -> None:
    assert parse_rfc3339(text) == MOMENT
    assert parse_rfc3339(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    ["", "tomorrow", "2026-11-23", "2026-11-23T04:05:06", "2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z",
     "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"],
)  # fmt: skip
def test_what_is_no_moment_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_rfc3339(text)


def test_a_month_begins_with_its_first_nanosecond() -> None:
    december = to_ns(datetime(2026, 12, 1, tzinfo=UTC))
    assert month_window(december - 1) == 202611
    assert month_window(december) == 202612


def test_a_month_ends_where_the_next_one_begins() -> None:
    assert month_end_ns(202611) == to_ns(datetime(2026, 12, 1, tzinfo=UTC))
    assert month_end_ns(202612) == to_ns(datetime(2027, 1, 1, tzinfo=UTC))


@given(st.integers(min_value=0, max_value=to_ns(datetime(2999, 1, 1, tzinfo=UTC))))
def test_every_moment_lies_before_the_end_of_its_month(wall_ns: int) -> None:
    window = month_window(wall_ns)
    assert wall_ns < month_end_ns(window)
    assert month_window(month_end_ns(window) - 1) == window


def test_the_fixed_clock_moves_only_when_told_to() -> None:
    clock = FixedClock(MOMENT, monotonic_ns=7)
    assert (clock.wall_ns(), clock.monotonic_ns()) == (to_ns(MOMENT), 7)
    clock.advance(1.5)
    assert (clock.wall_ns(), clock.monotonic_ns()) == (to_ns(MOMENT) + 1_500_000_000, 1_500_000_007)


def test_setting_the_wall_clock_back_leaves_durations_alone() -> None:
    clock = FixedClock(MOMENT, monotonic_ns=7)
    clock.set_wall(MOMENT - timedelta(days=1))
    assert clock.wall_ns() < to_ns(MOMENT)
    assert clock.monotonic_ns() == 7


def test_the_machines_monotonic_clock_does_not_go_back() -> None:
    clock = SystemClock()
    assert clock.monotonic_ns() <= clock.monotonic_ns()
    assert clock.wall_ns() > to_ns(datetime(2020, 1, 1, tzinfo=UTC))
