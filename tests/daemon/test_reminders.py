"""The log tells of the licence once for each change, at 30, 14, 7 and 1 days, and when it comes back."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from lotabotsd.daemon.reminders import Reminders
from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.licence.standing import Standing, State, judge

NONE = judge(None, 1_700_000_000 * NANOSECONDS, 0, development=False)


def standing(state: State, **changes: Any) -> Standing:
    return replace(NONE, state=state, code=f"licence_{state}", licence_id="lic_1", **changes)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Any:
    """`told(standing, …)`: what each of these says when it is looked at three times."""
    caplog.set_level(logging.INFO, "lotabots.daemon")
    reminders = Reminders()

    def look(*standings: Standing) -> list[tuple[str, str]]:
        caplog.clear()
        for each in standings:
            for _ in range(3):
                reminders.look(each)
        return [(record.levelname, record.getMessage()) for record in caplog.records]

    return look


def test_each_reminder_is_told_once(told: Any) -> None:
    end = {"expires_at_ns": 1_700_000_000 * NANOSECONDS}
    said = told(*(standing(State.EXPIRING, reminder_days=days, **end) for days in (30, 14, 7, 1)))
    assert [level for level, _ in said] == ["WARNING"] * 4
    assert [f"within {days} days" in text for days, (_, text) in zip((30, 14, 7, 1), said, strict=True)] == [
        True
    ] * 4
    assert "2023-11-14T22:13:20Z" in said[0][1]


def test_what_is_worse_is_louder_and_what_is_mended_is_told(told: Any) -> None:
    states = [State.GRACE, State.RESTRICTED, State.TERMINATED, State.VALID]
    said = told(*(standing(state) for state in states))
    assert [level for level, _ in said] == ["WARNING", "ERROR", "ERROR", "INFO"]


def test_a_reason_is_part_of_what_is_told(told: Any) -> None:
    ((_, text),) = told(standing(State.RESTRICTED, detail="not paid"))
    assert text == f"licence lic_1: {NONE.effect} (not paid)"


def test_a_doubtful_clock_is_told_when_it_begins_and_ends(told: Any) -> None:
    told(standing(State.VALID))
    doubtful = standing(State.VALID, clock_suspect=True)
    assert [level for level, _ in told(doubtful, standing(State.VALID))] == ["WARNING", "INFO"]
