"""A creation asked for twice is done once."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lotabotsd.control.once import MAX_REMEMBERED, REMEMBERED_SECONDS, Once
from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.errors import Code, LotaBotsError


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 1, 1, tzinfo=UTC))


class Counter:
    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> dict[str, int]:
        self.made += 1
        return {"number": self.made}


def test_the_same_key_twice_makes_one_thing(clock) -> None:
    once, make = Once(clock), Counter()
    assert once("key-0001", "body", make) == once("key-0001", "body", make) == {"number": 1}


def test_without_a_key_every_request_makes_one(clock) -> None:
    once, make = Once(clock), Counter()
    once(None, "body", make)
    once(None, "body", make)
    assert make.made == 2


def test_the_same_key_for_something_else_is_a_conflict(clock) -> None:
    once, make = Once(clock), Counter()
    once("key-0001", "body", make)
    with pytest.raises(LotaBotsError) as failure:
        once("key-0001", "another body", make)
    assert failure.value.code is Code.CONFLICT
    assert make.made == 1


def test_a_failure_is_not_remembered(clock) -> None:
    once, make = Once(clock), Counter()

    def fail() -> dict[str, int]:
        raise LotaBotsError(Code.DISK_FULL)

    with pytest.raises(LotaBotsError):
        once("key-0001", "body", fail)
    assert once("key-0001", "body", make) == {"number": 1}


def test_an_answer_is_forgotten_after_its_time(clock) -> None:
    once, make = Once(clock), Counter()
    once("key-0001", "body", make)
    clock.advance(REMEMBERED_SECONDS)
    once("key-0001", "body", make)
    assert make.made == 2


def test_memory_is_bounded(clock) -> None:
    once, make = Once(clock), Counter()
    for number in range(MAX_REMEMBERED + 1):
        once(f"key-{number:04}", "body", make)
    once("key-0000", "body", make)
    assert make.made == MAX_REMEMBERED + 2
    once(f"key-{MAX_REMEMBERED:04}", "body", make)
    assert make.made == MAX_REMEMBERED + 2
