"""Rounds again and again: failures are told and tried again ever more slowly, a bug ends the daemon."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from lotabotsd.daemon.health import Health
from lotabotsd.daemon.loops import LONGEST_PAUSE_SECONDS, Loop, pause_seconds, run_loop
from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.errors import Code, LotaBotsError


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 1, 1, tzinfo=UTC))


def _run(health: Health, rounds: list[BaseException | None]) -> int:
    """Run a loop whose rounds end as listed; it stops after the last one. How many rounds were begun."""
    stop = asyncio.Event()
    begun = 0

    async def one_round() -> None:
        nonlocal begun
        begun += 1
        outcome = rounds.pop(0)
        if not rounds:
            stop.set()
        if outcome is not None:
            raise outcome

    asyncio.run(run_loop(Loop("demo", 0.001, 5, one_round), health, stop))
    return begun


def test_a_failed_round_is_told_in_health_and_the_next_one_comes(clock) -> None:
    health = Health(clock)
    full = LotaBotsError(Code.DISK_FULL, "ledger.db")
    assert _run(health, [None, full, full]) == 3
    pulse = health.pulses()["demo"]
    assert (pulse.failure, pulse.failures) == (full, 2)


def test_a_good_round_ends_a_failure(clock) -> None:
    health = Health(clock)
    _run(health, [LotaBotsError(Code.DISK_FULL), None])
    pulse = health.pulses()["demo"]
    assert (pulse.failure, pulse.failures) == (None, 0)
    assert pulse.succeeded_wall_ns == clock.wall_ns()


def test_a_bug_is_not_swallowed(clock) -> None:
    with pytest.raises(ZeroDivisionError):
        _run(Health(clock), [None, ZeroDivisionError(), None])


def test_the_same_failure_is_logged_once(clock, caplog) -> None:
    _run(Health(clock), [LotaBotsError(Code.DISK_FULL)] * 5)
    assert len(caplog.records) == 1


def test_pauses_grow_with_failures_and_have_a_bound() -> None:
    assert pause_seconds(1, 0) == 1
    assert pause_seconds(1, 3) == 8
    assert pause_seconds(1, 10_000) == LONGEST_PAUSE_SECONDS
    assert pause_seconds(300, 5) == 300


def test_a_round_that_does_not_end_is_stuck_after_its_bound(clock) -> None:
    health = Health(clock)
    health.watch("demo", 30)
    clock.advance(30)
    assert health.stuck() == []
    clock.advance(1)
    assert health.stuck() == ["demo"]
    health.succeeded("demo")
    assert health.stuck() == []
