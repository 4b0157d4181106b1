"""Usage reports by hand and on schedule: never twice, never lost, never before their time."""

from __future__ import annotations

import io
import zipfile
from itertools import pairwise

import pytest

from lotabotsd.daemon.timetable import rule_of
from lotabotsd.foundation.errors import Code, LotaBotsError

MONTHLY = rule_of("15 0 1 * *")
HOURLY = rule_of("15 * * * *")
DAY = 86_400


def _code(failure: pytest.ExceptionInfo[LotaBotsError]) -> Code:
    return failure.value.code


def test_a_report_by_hand_covers_the_hours_that_ended(appliance, clock) -> None:
    clock.advance(3_600)
    (report,) = appliance.reports.export("")
    assert (report["until"] - report["from"], report["sequence"], report["state"]) == (3_600, 1, "new")
    assert zipfile.ZipFile(io.BytesIO(appliance.reports.read(report["name"]))).testzip() is None
    assert appliance.reports.written() == [report]


def test_with_now_the_running_hour_is_cut(appliance, clock) -> None:
    (report,) = appliance.reports.export("now")
    assert report["until"] == clock.wall_ns() // 10**9 + 1
    clock.advance(5)
    (following,) = appliance.reports.export("NOW")
    assert following["from"] == report["until"]


def test_the_same_range_is_not_reported_twice(appliance, clock) -> None:
    clock.advance(3_600)
    (report,) = appliance.reports.export("")
    with pytest.raises(LotaBotsError) as failure:
        appliance.reports.export("2026-03-17T10:45:00Z")
    assert _code(failure) is Code.REPORT_OVERLAP
    assert appliance.reports.written() == [report]


@pytest.mark.parametrize("attempt", ["export", "preview"])
def test_right_after_a_report_nothing_is_new_and_the_cut_is_named(appliance, clock, attempt) -> None:
    appliance.reports.export("now")
    clock.advance(5)
    with pytest.raises(LotaBotsError, match="all until 2026-03-17T10:30:01Z is reported") as failure:
        appliance.reports.export("") if attempt == "export" else appliance.reports.preview()
    assert _code(failure) is Code.REPORT_EMPTY
    assert "lotabotsctl usage export --cut" in failure.value.hint


@pytest.mark.parametrize("attempt", ["export", "preview"])
def test_within_the_first_hour_its_end_or_a_cut_is_awaited(appliance, attempt) -> None:
    with pytest.raises(LotaBotsError, match="the first hour still runs") as failure:
        appliance.reports.export("") if attempt == "export" else appliance.reports.preview()
    assert _code(failure) is Code.REPORT_EMPTY
    assert "lotabotsctl usage export --cut" in failure.value.hint
    assert appliance.reports.written() == []


def test_a_report_that_never_reached_the_outbox_is_written_though_nothing_is_new(appliance) -> None:
    (report,) = appliance.reports.export("now")
    data = appliance.reports.read(report["name"])
    (appliance.config.paths.outbox / "new" / report["name"]).unlink()
    assert appliance.reports.export("") == [report]
    assert appliance.reports.read(report["name"]) == data


def test_a_moment_that_is_none_changes_nothing(appliance, clock) -> None:
    clock.advance(3_600)
    with pytest.raises(LotaBotsError) as failure:
        appliance.reports.export("yesterday")
    assert _code(failure) is Code.VALUE_INVALID
    assert appliance.reports.written() == []


def test_a_preview_writes_nothing(appliance, clock) -> None:
    clock.advance(3_600)
    appliance.bookkeeping.drain_and_seal()
    first = appliance.reports.preview()
    assert first["rows"] >= 1
    assert first["body"]["sequence"] == 1
    assert appliance.reports.preview() == first
    assert appliance.reports.written() == []


def test_no_report_is_due_on_the_first_day(appliance) -> None:
    assert appliance.reports.write_due(MONTHLY) == []


def test_a_report_missed_while_the_daemon_was_away_is_written_later_and_once(appliance, clock) -> None:
    appliance.bookkeeping.drain_and_seal()
    clock.advance(3_600)
    appliance.bookkeeping.drain_and_seal()
    clock.advance(20 * DAY)  # from 17 March to 6 April
    (report,) = appliance.reports.write_due(MONTHLY)
    assert report["until"] == 1_775_001_600  # 2026-04-01
    assert appliance.reports.write_due(MONTHLY) == []


def test_reports_follow_each_other_without_a_hole(appliance, clock) -> None:
    clock.advance(3_600)
    appliance.bookkeeping.drain_and_seal()
    ends = []
    for _ in range(3):
        clock.advance(3_600)
        (report,) = appliance.reports.write_due(HOURLY)
        if ends:
            assert report["from"] == ends[-1]
        ends.append(report["until"])
    assert [second - first for first, second in pairwise(ends)] == [3_600, 3_600]
