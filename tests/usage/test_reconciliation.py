"""Triton's counters against the ledger: sums over its restarts, and what is certain whatever is under way."""

from __future__ import annotations

from typing import Any

import pytest

from lotabotsd.usage.reconciliation import (
    CLOUDED_SAMPLES,
    MAX_MODELS,
    MAX_SUM,
    MAX_VERSIONS,
    NOTHING,
    Account,
    Count,
    Look,
    Passed,
    State,
    compare,
    passed_as,
    read_state,
    state_value,
)
from lotabotsd.usage.records import Outcome

M = "m"


def look(at: int, counted: int | dict[str, int] | None, closed: int = 0, **changes: Any) -> Look:
    """A sample of one model whose every request has two rows; nothing is open, and nothing happens in it."""
    versions = {"1": counted} if isinstance(counted, int) else counted
    passed = {M: Passed(answered=Count(closed, 2 * closed), open=changes.pop("open", NOTHING))}
    fields: dict[str, Any] = {
        "at": at,
        "run": "a",
        "counters": {} if versions is None else {M: {v: Count(n, 2 * n) for v, n in versions.items()}},
        "before": passed,
        "own_before": changes.get("own", {}),
        "passed": passed,
        "own": {},
    }
    return Look(**{**fields, **changes})


def after(*looks: Look, state: State | None = None) -> Account:
    """The account after samples; before them one of an appliance on which nothing runs yet."""
    state = state or compare(State(), look(1, None, run=""))
    for one in looks:
        state = compare(state, one)
    return state.accounts[M]


def look_first(*looks: Look) -> Account:
    """The same where the first sample is the first one ever."""
    return after(*looks, state=State())


def test_what_the_ledger_holds_is_no_difference() -> None:
    account = after(look(10, 3, 3), look(20, 8, 8))
    assert (account.counted, account.unaccounted) == (Count(8, 16), NOTHING)


def test_a_request_around_the_gate_is_certain() -> None:
    account = after(look(10, 3, 3), look(20, 9, 8))
    assert account.unaccounted == Count(1, 2)


def test_it_stays_certain_however_much_comes_later_that_was_never_answered() -> None:
    failed = {M: Passed(Count(8, 16), Count(50, 100))}
    account = after(look(10, 9, 8), look(20, 9, passed=failed))
    assert account.unaccounted == Count(1, 2)


def test_more_rows_in_the_same_requests_are_certain_too() -> None:
    few = {M: Passed(answered=Count(5, 5))}
    assert after(look(10, 5, passed=few)).unaccounted == Count(0, 5)


def test_rows_are_not_compared_where_triton_counts_them_otherwise() -> None:
    few = {M: Passed(answered=Count(5, 5))}
    account = after(look(10, 6, passed=few, by_request=frozenset({M})))
    assert (account.unaccounted, account.by_request_at) == (Count(1, 0), 10)


def test_what_is_under_way_explains_what_triton_counted_already() -> None:
    assert after(look(10, 5, 3, open=Count(2, 4))).unaccounted == NOTHING
    assert after(look(10, 6, 3, open=Count(2, 4))).unaccounted == Count(1, 2)


def test_our_own_requests_are_no_difference() -> None:
    account = after(look(10, 3, 1, own={M: 2}, counters={M: {"1": Count(3, 4)}}))
    assert (account.own, account.unaccounted) == (2, NOTHING)


def test_nobody_knows_what_triton_counted_before_the_first_sample() -> None:
    account = look_first(look(10, 1_000, 0), look(20, 1_003, 3), look(30, 1_004, 3))
    assert (account.counted, account.unaccounted) == (Count(4, 8), Count(1, 2))


def test_a_new_run_of_triton_begins_at_zero_and_is_added() -> None:
    account = after(look(10, 5, 5), look(20, 2, 7, run="b"), look(30, 7, 14, run="c"))
    assert (account.counted, account.unaccounted) == (Count(14, 28), NOTHING)


def test_what_was_lost_with_a_run_makes_no_room_in_the_next() -> None:
    """100 requests that Triton took with it do not hide one that went around the gate later."""
    died = [look(10, 5, 5), look(20, 0, 105, run="b")]
    assert after(*died, look(30, 1, 105, run="b")).unaccounted == NOTHING, "the run began amid the 100"
    found = after(*died, look(30, None, 105, run=""), look(40, 1, 105, run="c"))
    assert found.unaccounted == Count(1, 2)


def test_what_was_lost_with_a_load_makes_no_room_either() -> None:
    loaded = [look(10, 50, 50), look(20, 50, 50), look(30, 50, 50), look(40, 0, 90), look(50, 0, 90)]
    again = [look(60, 1, 91), look(70, 1, 91), look(80, 0, 91)]
    assert after(*loaded, *again, look(90, 1, 91)).unaccounted == Count(1, 2)


def test_what_was_found_in_one_run_is_not_forgotten_with_it() -> None:
    account = after(look(10, 2, 1), look(20, 2, 1), look(30, 2, 1), look(40, 1, 1, run="b"))
    assert account.unaccounted == Count(2, 4)


def test_our_own_requests_are_summed_over_runs() -> None:
    account = after(look(10, 0, own={M: 3}), look(20, 0, own={M: 5}), look(30, 0, own={M: 1}, run="b"))
    assert account.own == 6


def test_a_counter_that_went_down_began_anew() -> None:
    account = after(look(10, 9, 9), look(20, 9, 9), look(30, 4, 13), look(40, 5, 14))
    assert (account.counted, account.unaccounted) == (Count(14, 28), NOTHING)


def test_a_model_loaded_anew_amid_a_sample_is_no_difference() -> None:
    """Right after Triton was asked: what it then served is in the ledger that is read next."""
    between = {"before": {M: Passed(Count(5, 10))}, "passed": {M: Passed(Count(6, 12))}}
    account = after(look(10, 5, 5), look(20, 5, **between), look(30, 1, 6))
    assert account.unaccounted == NOTHING


def test_what_was_lost_with_one_version_makes_no_room_after_the_next_load() -> None:
    before, after_load = {"1": 5, "2": 50}, {"1": 5, "2": 0}
    seen = [look(at, before, 55) for at in (10, 20, 30)] + [look(40, after_load, 95)]
    seen += [look(at, {"1": 5, "2": 1}, 96) for at in (50, 60, 70)]
    account = after(*seen, look(80, after_load, 96), look(90, {"1": 6, "2": 0}, 96))
    assert account.unaccounted == Count(1, 2)


def test_each_version_has_its_own_counter() -> None:
    account = after(
        look(10, {"1": 5, "2": 7}, 12), look(20, {"1": 6, "2": 7}, 13), look(30, {"1": 6, "2": 1, "3": 1}, 15)
    )
    assert (account.counted, account.unaccounted) == (Count(15, 30), NOTHING)


def test_a_version_that_comes_back_as_it_was_counts_once() -> None:
    account = after(look(10, {"1": 5, "2": 7}, 12), look(20, {"1": 6}, 13), look(30, {"1": 6, "2": 7}, 13))
    assert (account.counted, account.unaccounted) == (Count(13, 26), NOTHING)


def test_a_model_that_was_unloaded_for_long_begins_where_it_was_seen_last() -> None:
    away = [look(at, None, 9) for at in range(20, 100, 10)]
    account = after(look(10, 9, 9), *away, look(100, 3, 12))
    assert (account.counted, account.unaccounted) == (Count(12, 24), NOTHING)


def test_our_own_requests_to_another_run_explain_nothing_in_this_one() -> None:
    first = look(10, 7, 0, own={M: 7}, counters={M: {"1": Count(7, 7)}})
    again = {"own": {M: 7}, "counters": {M: {"1": Count(7, 7)}}}
    second = look(40, 1, 0, run="b")
    account = after(first, look(20, 0, 0, **again), look(30, 0, 0, **again), second)
    assert account.unaccounted == Count(1, 2)


def test_a_model_loaded_anew_right_after_a_restart_is_no_difference() -> None:
    """Our own requests to the run before must not stand as already subtracted in the new one."""
    own = {"own": {M: 7}}
    many = [look(at, 0, 0, **own, counters={M: {"1": Count(7, 7)}}) for at in (10, 20, 30)]
    started = look(40, 0, 0, run="b", own={M: 2}, counters={M: {"1": Count(2, 2)}})
    anew = look(50, 0, 0, run="b", own={M: 3}, counters={M: {"1": Count(1, 1)}})
    assert after(*many, started, anew).unaccounted == NOTHING


def test_nothing_is_certain_while_a_model_may_ask_others_and_for_a_while_after() -> None:
    cloud = look(10, 50, 0, clouded=True)
    trailing = [look(20 + 10 * n, 60, 0) for n in range(CLOUDED_SAMPLES)]
    account = after(cloud, *trailing)
    assert (account.unaccounted, account.clouded) == (NOTHING, 0)
    assert account.clouded_at == trailing[-1].at
    state = compare(State(), look(1, None, run=""))
    for one in (cloud, *trailing, look(200, 61, 0)):
        state = compare(state, one)
    assert state.accounts[M].unaccounted == Count(1, 2)


def test_what_was_answered_just_before_the_clouds_went_may_be_counted_just_after() -> None:
    trailing = [look(20 + 10 * n, 60, 0) for n in range(CLOUDED_SAMPLES - 2)]
    quick = [look(100, 60, 5), look(101, 60, 5)]
    account = after(look(10, 60, 0, clouded=True), *trailing, *quick, look(111, 65, 5), look(121, 65, 5))
    assert account.unaccounted == NOTHING


def test_one_of_our_own_that_takes_long_may_be_counted_after_the_clouds_went() -> None:
    trailing = [look(20 + 10 * n, 60, 0, own={M: 1}) for n in range(CLOUDED_SAMPLES)]
    account = after(look(10, 60, 0, clouded=True), *trailing, look(100, 61, 0, own={M: 1}))
    assert account.unaccounted == Count(0, 1), "our own have one row, and this one counted two"


def test_two_samples_at_once_do_not_bring_the_beginning_of_a_span_nearer() -> None:
    """5 requests were closed right before the last samples; version 1 counts them a moment later."""
    one, two = {"1": 0, "2": 5}, {"1": 5, "2": 0}
    account = after(
        look(10, one, 5), look(20, one, 5), look(30, one, 10), look(31, one, 10), look(41, two, 10)
    )
    assert account.unaccounted == NOTHING


def test_a_sample_while_the_model_is_not_loaded_leaves_no_room_for_what_comes() -> None:
    """What was closed before it cannot have been counted after it, in whatever run."""
    seen = [look(10, 5, 5), look(20, None, 900), look(30, 1, 900)]
    assert after(*seen).unaccounted == Count(1, 2)
    started = [look(10, 5, 5), look(20, None, 900, run="b"), look(30, 2, 901, run="b")]
    assert after(*started).unaccounted == Count(1, 2)
    down = [look(10, 5, 5), look(20, None, 900, run=""), look(30, 2, 901, run="b")]
    assert after(*down).unaccounted == Count(1, 2)


def test_models_beyond_the_bound_get_no_account() -> None:
    state = compare(State(), look(1, None, run=""))
    many = {f"m{number}": {"1": Count(1, 1)} for number in range(MAX_MODELS + 5)}
    state = compare(state, look(10, 0, counters=many))
    assert len(state.accounts) == MAX_MODELS


def test_runs_are_counted_once() -> None:
    state = State()
    for at, run in ((10, "a"), (20, "a"), (30, "b"), (40, "b")):
        state = compare(state, look(at, 1, run=run))
    assert (state.runs, state.since, state.until) == (2, 10, 40)


def test_what_was_refused_before_anybody_looked_into_it_never_reached_triton() -> None:
    assert passed_as(Outcome.REFUSED_UNREADY, Count(1, 0), Count(1, 0)) is None


def test_a_request_without_a_row_may_be_one_row_to_triton() -> None:
    assert passed_as(Outcome.SERVED, Count(1, 0), Count(1, 0)) == Passed(answered=Count(1, 1))
    assert passed_as(Outcome.MODEL_ERROR, Count(1, 0), Count(1, 0)) == Passed(unanswered=Count(1, 1))


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome.SERVED, Passed(answered=Count(1, 4))),
        (Outcome.UNDELIVERED, Passed(answered=Count(1, 4))),
        (Outcome.CLIENT_GONE, Passed(unanswered=Count(1, 8))),
        (Outcome.MODEL_ERROR, Passed(unanswered=Count(1, 8))),
        (Outcome.RUNTIME_FAILED, Passed(unanswered=Count(1, 8))),
        (Outcome.REFUSED_UNREADY, Passed(unanswered=Count(1, 8))),
        (Outcome.ABORTED, Passed(unanswered=Count(1, 8))),
        (Outcome.REFUSED_RATE, None),
        (Outcome.REFUSED_CONCURRENCY, None),
        (Outcome.REFUSED_QUOTA, None),
        (Outcome.REFUSED_POLICY, None),
    ],
)
def test_what_each_outcome_counts_for(outcome: Outcome, expected: Passed | None) -> None:
    assert passed_as(outcome, Count(1, 4), Count(1, 8)) == expected


@pytest.mark.parametrize("value", [None, [], {}, {"format": 2}, {"format": 1}, {"format": 1, "accounts": 3}])
def test_a_state_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        read_state(value)


def test_sums_stop_below_what_a_report_holds_however_often_triton_exaggerates() -> None:
    most = (1 << 48) - 1
    state = compare(State(), look(1, None, run=""))
    for number in range(20):
        state = compare(state, look(10 * number + 10, most, run=f"run{number}"))
    account = state.accounts[M]
    assert account.counted == account.unaccounted == Count(MAX_SUM, MAX_SUM)
    assert MAX_MODELS * MAX_SUM < 1 << 63
    assert read_state(state_value(state)) == state


def test_sums_of_an_earlier_release_are_cut_when_they_are_read() -> None:
    value = state_value(
        State(1, 2, "a", 1, {M: Account(counted=Count(1 << 63, MAX_SUM), certain=Count(1 << 64))})
    )
    account = read_state(value).accounts[M]
    assert (account.counted, account.certain) == (Count(MAX_SUM, MAX_SUM), Count(MAX_SUM, 0))


def test_of_the_versions_that_left_the_newest_are_remembered() -> None:
    one_by_one = [look(10 * number, {str(number): 1}, number) for number in range(1, MAX_VERSIONS + 10)]
    account = after(*one_by_one)
    assert sorted(map(int, account.seen)) == list(range(10, MAX_VERSIONS + 10))
    assert account.counted.requests == MAX_VERSIONS + 9
    assert account.unaccounted == NOTHING


def test_a_forgotten_version_that_comes_back_is_counted_from_zero() -> None:
    last = MAX_VERSIONS + 2
    one_by_one = [look(10 * number, {str(number): 1}, number) for number in range(1, last)]
    account = after(*one_by_one, look(10 * last, {"1": 1}, last))
    assert (account.counted.requests, account.unaccounted) == (last, NOTHING)


def test_versions_that_are_live_are_all_remembered() -> None:
    live = {str(number): 1 for number in range(MAX_VERSIONS + 1)}
    account = after(look(10, {"900": 1}, 1), look(20, live, MAX_VERSIONS + 2))
    assert account.seen.keys() == live.keys()
