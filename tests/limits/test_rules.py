"""The rules against slow references: a token bucket in fractions, and plain counting."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.limits import rules
from lotabotsd.limits.scope import MINUTE_NS, Scope, default_burst, interval_ns

EMPTY_CELL = (0, 0, 0, 0, 0)
WINDOW = 202611


def scope(**limits: Any) -> Scope:
    return Scope("key", 1, 7, **limits)


def after_one(limited: Scope, state: rules.Slot, cost: int, now: int) -> rules.Slot:
    """The slot after one more request."""
    tag, arrival, window, epoch, used, reserved, admitted, committed, refunded, *_ = rules.opened(
        limited, state, EMPTY_CELL, 1, cost, now
    )
    return (tag, arrival, window, epoch, used, reserved, admitted, committed, refunded)


def slot(arrival: int = 0, used: int = 0, reserved: int = 0, open_requests: int = 0) -> rules.Slot:
    return (7, arrival, WINDOW, 0, used, reserved, open_requests, 0, 0)


@given(st.integers(1, 10_000_000))
def test_the_interval_is_never_shorter_than_the_rate(rate: int) -> None:
    assert (interval_ns(rate) - 1) * rate < MINUTE_NS <= interval_ns(rate) * rate


def test_a_burst_is_ten_seconds_of_the_rate_and_at_least_five() -> None:
    assert [default_burst(rate) for rate in (1, 30, 36, 600, 60_000)] == [5, 5, 6, 100, 10_000]
    assert scope(rate_per_minute=600).tolerance_ns == 100 * 100_000_000


@given(
    rate=st.integers(1, 100_000),
    burst=st.integers(1, 20),
    steps=st.lists(st.tuples(st.integers(0, MINUTE_NS // 50), st.integers(1, 4)), max_size=40),
)
def test_gcra_admits_exactly_what_a_token_bucket_admits(
    rate: int, burst: int, steps: list[tuple[int, int]]
) -> None:
    limited = scope(rate_per_minute=rate, burst=burst)
    state, now = slot(), 1_000 * MINUTE_NS
    tokens, last = Fraction(burst), now
    for passed, cost in steps:
        now += passed
        tokens = min(Fraction(burst), tokens + Fraction(now - last, limited.interval_ns))
        last = now
        assert rules.rate_left(limited, state[rules.ARRIVAL], now) == int(tokens)
        passes = rules.admits(limited, state, 1, cost, now)
        assert passes == (tokens >= cost)
        if passes:
            tokens -= cost
            state = after_one(limited, state, cost, now)


@given(
    rate=st.integers(1, 1_000_000),
    burst=st.integers(1, 10),
    waits=st.lists(st.integers(0, MINUTE_NS // 100), min_size=1, max_size=60),
)
def test_no_span_ever_sees_more_than_the_burst_and_the_rate(rate: int, burst: int, waits: list[int]) -> None:
    limited = scope(rate_per_minute=rate, burst=burst)
    state, now = slot(), 5 * MINUTE_NS
    admitted: list[int] = []
    for wait in waits:
        now += wait
        if rules.admits(limited, state, 1, 1, now):
            admitted.append(now)
            state = after_one(limited, state, 1, now)
    for first, begin in enumerate(admitted):
        for last, end in enumerate(admitted[first:], start=first):
            assert last - first + 1 <= burst + Fraction((end - begin) * rate, MINUTE_NS)


@given(
    rate=st.integers(1, 1_000_000),
    burst=st.integers(1, 10),
    ahead=st.integers(0, 3 * MINUTE_NS),
    cost=st.integers(1, 10),
)
def test_the_wait_for_a_rate_is_exact_to_the_nanosecond(rate: int, burst: int, ahead: int, cost: int) -> None:
    limited = scope(rate_per_minute=rate, burst=burst)
    now = 9 * MINUTE_NS
    state = slot(arrival=now + ahead)
    if cost > burst or rules.admits(limited, state, 1, cost, now):
        return
    refused = rules.refusal((limited,), [state], 1, cost, now, 0)
    assert refused.unit == "rate"
    assert refused.retry_after_ns > 0
    assert rules.admits(limited, state, 1, cost, now + refused.retry_after_ns)
    assert not rules.admits(limited, state, 1, cost, now + refused.retry_after_ns - 1)


def test_a_cost_above_the_burst_never_passes_and_names_no_instant() -> None:
    limited = scope(rate_per_minute=60, burst=2)
    assert not rules.admits(limited, slot(), 1, 3, MINUTE_NS)
    assert rules.refusal((limited,), [slot()], 1, 3, MINUTE_NS, 0).retry_after_ns == 0


@pytest.mark.parametrize(
    ("used", "reserved", "rows", "passes"),
    [
        (0, 0, 10, True),
        (0, 0, 11, False),
        (9, 0, 1, True),
        (9, 1, 1, False),
        (4, 5, 1, True),
        (10, 0, 0, True),
    ],
)
def test_a_hard_quota_counts_used_and_reserved_rows(
    used: int, reserved: int, rows: int, passes: bool
) -> None:
    assert rules.admits(scope(quota=10), slot(used=used, reserved=reserved), rows, 1, 0) is passes
    assert rules.admits(scope(quota=10, quota_hard=False), slot(used=used), rows, 1, 0)


@pytest.mark.parametrize(("open_requests", "passes"), [(0, True), (2, True), (3, False), (4, False)])
def test_concurrency_counts_open_requests(open_requests: int, passes: bool) -> None:
    assert rules.admits(scope(concurrency=3), slot(open_requests=open_requests), 1, 1, 0) is passes


def test_zero_is_no_limit() -> None:
    assert rules.admits(scope(), slot(arrival=1 << 62, used=1 << 60, open_requests=1 << 30), 1 << 40, 9, 0)


def test_a_spent_quota_is_told_before_rates_and_a_rate_before_concurrency() -> None:
    now = MINUTE_NS
    slow, slower = scope(rate_per_minute=60, burst=1), scope(rate_per_minute=6, burst=1)
    full, spent = scope(concurrency=1), scope(quota=5)
    late, busy = slot(arrival=now + 1), slot(open_requests=1)
    told = rules.refusal((full, slow, slower, slow), [busy, late, slot(arrival=now + 5), late], 1, 1, now, 77)
    assert (told.unit, told.limit, told.retry_after_ns) == ("rate", 6, 5)
    told = rules.refusal((full, slow, spent), [busy, late, slot(used=3)], 3, 1, now, 77)
    assert (told.unit, told.limit, told.remaining, told.retry_after_ns) == ("quota", 5, 2, 77)
    told = rules.refusal((full,), [busy], 1, 1, now, 77)
    assert (told.unit, told.limit, told.remaining, told.retry_after_ns) == ("concurrency", 1, 0, 0)


def test_a_new_owner_and_a_new_window_start_anew() -> None:
    old = (7, 50, WINDOW, 3, 10, 2, 9, 5, 1)
    assert rules.owned(old, 7, WINDOW) == old
    assert rules.owned(old, 7, WINDOW - 1) == old
    assert rules.owned(old, 7, WINDOW + 1) == (7, 50, WINDOW + 1, 3, 0, 0, 9, 5, 1)
    assert rules.owned(old, 8, WINDOW) == (8, 0, WINDOW, 4, 0, 0, 0, 0, 0)
    assert rules.owned((7, 0, 0, (1 << 32) - 1, 0, 0, 0, 0, 0), 8, WINDOW)[rules.EPOCH] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "person"},
        {"slot": -1},
        {"tag": 0},
        {"tag": 1 << 64},
        {"rate_per_minute": -1},
        {"burst": -1},
        {"concurrency": -1},
        {"quota": -1},
    ],
)
def test_impossible_scopes_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Scope(**({"kind": "key", "slot": 0, "tag": 1} | wrong))
