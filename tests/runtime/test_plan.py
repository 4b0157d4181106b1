"""The table of states and the next action, looked at one step at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.runtime.canary import Canary
from lotabotsd.runtime.messages import NO_RUN, ExitFacts, ExitKind, RunFacts
from lotabotsd.runtime.notice import (
    BREAKER_FAILURES,
    looked,
    model_answered,
    model_busy,
    model_loaded,
    model_refused,
    model_released,
    model_unanswered,
    moved,
    notice,
)
from lotabotsd.runtime.plan import (
    CANARY_NS,
    MOVES,
    Check,
    Desired,
    DesiredModel,
    Event,
    Load,
    ModelSeen,
    ModelStatus,
    Observed,
    Start,
    State,
    Stop,
    Unload,
    answering,
    plan,
)

S = NANOSECONDS
A = DesiredModel("a", "digest-a", Canary((), ()))
A2 = replace(A, digest="digest-a2")
B = DesiredModel("b", "digest-b", Canary((), ()))
WANT = Desired(running=True, models=(A,), start_timeout_ns=60 * S)
RUN = RunFacts("r1", running=True, pid=7, secret="s")
READY_A = {"a": ModelSeen(ModelStatus.READY, digest="digest-a", checked_at_ns=100 * S)}
READY = Observed(
    state=State.READY, run=RUN, run_id="r1", live=True, index={"a": "READY"}, models=READY_A, since_ns=100 * S
)


def ended(kind: ExitKind = ExitKind.CRASHED, run_id: str = "r1") -> RunFacts:
    return RunFacts(
        run_id, running=False, pid=0, secret="", exit=ExitFacts(-11, kind, "it crashed (SIGSEGV)")
    )


def see(
    observed: Observed, run: RunFacts | None, now_ns: int, live: bool = False, desired: Desired = WANT
) -> Observed:
    return notice(looked(observed, run, live, {}, now_ns), desired, now_ns)


def test_every_state_can_be_left_and_every_move_is_between_known_states() -> None:
    assert {state for state, _ in MOVES} == set(State)
    assert set(MOVES.values()) == set(State)
    assert {event for _, event in MOVES} == set(Event)


def test_every_state_but_stopped_can_be_told_to_stop() -> None:
    stoppable = {state for state, event in MOVES if event is Event.STOP_WANTED}
    assert stoppable == set(State) - {State.STOPPED, State.DRAINING}


def test_an_event_that_the_table_does_not_know_changes_nothing() -> None:
    for state in State:
        for event in Event:
            if (state, event) not in MOVES:
                observed = Observed(state=state, since_ns=5)
                assert moved(observed, event, 9) is observed


# ---- starting


def test_what_is_wanted_is_started_once() -> None:
    observed = see(Observed(), NO_RUN, S)
    assert observed.state is State.STARTING
    assert plan(observed, WANT, S) == (Start(),)
    started = replace(observed, run=RUN, run_id="r1")
    assert plan(started, WANT, 2 * S) == ()


def test_without_the_helper_nothing_is_done_and_nothing_is_forgotten() -> None:
    observed = see(READY, None, 200 * S)
    assert (observed.state, observed.models) == (State.READY, READY_A)
    assert plan(observed, WANT, 200 * S) == ()


def test_an_answer_leads_to_loading() -> None:
    observed = replace(see(Observed(), NO_RUN, S), run_id="r1")
    observed = notice(looked(observed, RUN, True, {}, 2 * S), WANT, 2 * S)
    assert observed.state is State.LOADING
    assert plan(observed, WANT, 2 * S) == (Load(A),)


def test_a_start_that_takes_too_long_is_ended_and_tried_again() -> None:
    starting = Observed(state=State.STARTING, since_ns=S, run=RUN, run_id="r1")
    assert see(starting, RUN, 61 * S).state is State.STARTING
    late = see(starting, RUN, 62 * S)
    assert late.state is State.BACKING_OFF
    assert plan(late, WANT, 62 * S) == (Stop(),)
    assert see(late, ended(ExitKind.STOPPED), 63 * S).state is State.STARTING


def test_a_refused_configuration_is_not_tried_again() -> None:
    starting = Observed(state=State.STARTING, run=RUN, run_id="r1")
    held = see(starting, ended(ExitKind.CONFIGURATION), 2 * S)
    assert held.state is State.HELD
    assert "SIGSEGV" in held.problem
    assert plan(see(held, ended(ExitKind.CONFIGURATION), 9_999 * S), WANT, 9_999 * S) == ()
    assert moved(held, Event.RESUMED, 10_000 * S).state is State.STARTING


def test_a_run_from_before_is_adopted_and_its_models_go_on_answering() -> None:
    observed = notice(looked(Observed(), RUN, True, {"a": "READY"}, S), WANT, S)
    assert (observed.state, observed.run_id) == (State.LOADING, "r1")
    assert answering(observed) == {"a"}
    assert plan(observed, WANT, S) == (Load(A),)  # nothing happens in Triton when its files are the same
    observed = model_loaded(observed, A, S)
    assert answering(observed) == {"a"}
    assert answering(model_answered(observed, A, "", S)) == {"a"}


def test_a_run_that_somebody_else_started_is_adopted_with_its_models_unknown() -> None:
    observed = see(READY, replace(RUN, run_id="r2"), 200 * S)
    assert (observed.state, observed.run_id) == (State.STARTING, "r2")
    assert observed.models["a"].status is ModelStatus.ABSENT


# ---- failing


def test_a_death_is_tried_again_after_a_growing_while() -> None:
    observed, now_ns, waits = READY, 200 * S, []
    for _ in range(BREAKER_FAILURES - 1):
        observed = see(observed, ended(), now_ns)
        assert observed.state is State.BACKING_OFF
        waits.append((observed.retry_at_ns - now_ns) // S)
        assert see(observed, ended(), observed.retry_at_ns - 1).state is State.BACKING_OFF
        now_ns = observed.retry_at_ns
        observed = see(observed, ended(), now_ns)
        assert plan(observed, WANT, now_ns) == (Start(),)
        observed = replace(observed, run=RUN, run_id="r1")
    assert waits == [1, 2, 4, 8]


def test_five_failures_in_ten_minutes_hold_it_and_say_why() -> None:
    failures = tuple(range(100 * S, 104 * S, S))
    held = see(replace(READY, failures_ns=failures), ended(), 200 * S)
    assert held.state is State.HELD
    assert "5 failures in ten minutes; the last: it crashed (SIGSEGV)" in held.problem
    assert see(held, ended(), 10_000 * S).state is State.HELD


def test_failures_of_more_than_ten_minutes_ago_do_not_count() -> None:
    failures = tuple(range(100 * S, 104 * S, S))
    assert see(replace(READY, failures_ns=failures), ended(), 705 * S).state is State.BACKING_OFF


def test_resuming_forgets_the_failures() -> None:
    held = Observed(state=State.HELD, failures_ns=(1, 2, 3, 4, 5), problem="why", run=NO_RUN)
    resumed = moved(held, Event.RESUMED, S)
    assert (resumed.state, resumed.failures_ns) == (State.STARTING, ())
    assert plan(resumed, WANT, S) == (Start(),)


def test_a_death_of_the_helper_takes_triton_along_and_blames_no_model() -> None:
    observed = see(replace(READY, busy_with=A), NO_RUN, 200 * S)
    assert observed.state is State.BACKING_OFF
    assert observed.models["a"].status is ModelStatus.ABSENT


def test_silence_ends_in_a_restart() -> None:
    silent = see(READY, RUN, 200 * S)
    assert silent.state is State.READY
    assert plan(silent, WANT, 200 * S) == ()
    assert see(silent, RUN, 215 * S).state is State.READY
    dead = see(silent, RUN, 216 * S)
    assert (dead.state, dead.problem) == (State.BACKING_OFF, "it no longer answers")
    assert plan(dead, WANT, 216 * S) == (Stop(),)


def test_one_answer_ends_a_silence() -> None:
    silent = see(READY, RUN, 200 * S)
    back = notice(looked(silent, RUN, True, {"a": "READY"}, 210 * S), WANT, 210 * S)
    assert see(back, RUN, 220 * S).state is State.READY


def test_a_lost_cuda_context_restarts_triton() -> None:
    poisoned = model_answered(READY, A, "CUDA error: device-side assert triggered", 200 * S)
    after = notice(looked(poisoned, RUN, True, {"a": "READY"}, 201 * S), WANT, 201 * S)
    assert (after.state, after.problem) == (State.BACKING_OFF, "its CUDA context is lost")


@pytest.mark.parametrize("status", [ModelStatus.ABSENT, ModelStatus.READY])
def test_the_model_that_was_being_loaded_at_a_crash_is_put_aside(status: ModelStatus) -> None:
    models = {"a": ModelSeen(status, digest="digest-a")}
    crashed = see(replace(READY, models=models, busy_with=A), ended(), 200 * S)
    assert crashed.models["a"].status is ModelStatus.QUARANTINED
    again = replace(see(crashed, ended(), crashed.retry_at_ns), run_id="r2")
    again = notice(looked(again, replace(RUN, run_id="r2"), True, {}, 300 * S), WANT, 300 * S)
    assert again.state is State.READY  # without it
    assert plan(again, WANT, 300 * S) == ()
    newer = Desired(running=True, models=(A2,))
    assert plan(again, newer, 300 * S) == (Load(A2),)
    assert plan(model_released(again, "a"), WANT, 300 * S) == (Load(A),)


def test_a_kill_from_outside_does_not_blame_a_model_that_had_answered() -> None:
    killed = see(replace(READY, busy_with=A), ended(ExitKind.KILLED), 200 * S)
    assert killed.models["a"].status is ModelStatus.ABSENT
    loading = replace(READY, models={}, busy_with=A)
    assert see(loading, ended(ExitKind.KILLED), 200 * S).models["a"].status is ModelStatus.QUARANTINED


# ---- models


def test_models_are_loaded_then_asked_one_after_the_other() -> None:
    desired = Desired(running=True, models=(A, B))
    observed = replace(READY, state=State.LOADING, models={}, index={})
    assert plan(observed, desired, 200 * S) == (Load(A),)
    observed = model_loaded(observed, A, 200 * S)
    assert plan(observed, desired, 200 * S) == (Check(A),)
    observed = model_answered(observed, A, "", 200 * S)
    assert plan(observed, desired, 200 * S) == (Load(B),)
    assert notice(observed, desired, 200 * S).state is State.LOADING
    observed = model_answered(model_loaded(observed, B, 200 * S), B, "", 200 * S)
    assert notice(observed, desired, 200 * S).state is State.READY
    assert plan(observed, desired, 200 * S) == ()


def test_a_loaded_model_answers_nobody_before_its_canary_did() -> None:
    observed = model_loaded(replace(READY, models={}, index={}), A, 200 * S)
    assert answering(observed) == frozenset()
    assert answering(model_answered(observed, A, "", 200 * S)) == {"a"}


def test_a_swap_goes_on_answering() -> None:
    desired = Desired(running=True, models=(A2,))
    assert plan(READY, desired, 110 * S) == (Load(A2),)
    swapped = model_loaded(READY, A2, 110 * S)
    assert answering(swapped) == {"a"}
    assert plan(swapped, desired, 110 * S) == (Check(A2),)
    assert answering(model_answered(swapped, A2, "", 111 * S)) == {"a"}
    assert answering(model_answered(swapped, A2, "wrong", 111 * S)) == frozenset()


def test_a_failed_swap_leaves_the_old_version_answering_and_is_tried_again_later() -> None:
    desired = Desired(running=True, models=(A2,))
    refused = model_refused(READY, A2, "no such operator", 110 * S)
    seen = refused.models["a"]
    assert (seen.status, seen.digest, seen.refused, seen.reason) == (
        ModelStatus.READY,
        "digest-a",
        "digest-a2",
        "no such operator",
    )
    assert answering(refused) == {"a"}
    assert plan(refused, desired, 114 * S) == ()
    assert plan(refused, desired, 115 * S) == (Load(A2),)
    assert plan(refused, WANT, 115 * S) == ()  # back to the old files: nothing to do
    assert notice(refused, desired, 111 * S).state is State.READY


def test_a_model_that_does_not_load_waits_longer_each_time_and_holds_nobody_up() -> None:
    observed = replace(READY, state=State.LOADING, models={}, index={})
    desired = Desired(running=True, models=(A, B))
    waits, now_ns = [], 200 * S
    for _ in range(8):
        observed = model_refused(observed, A, "broken", now_ns)
        waits.append((observed.models["a"].retry_at_ns - now_ns) // S)
        assert plan(observed, desired, now_ns) == (Load(B),)
        now_ns = observed.models["a"].retry_at_ns
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]


def test_what_nobody_wants_is_taken_out() -> None:
    assert plan(READY, Desired(running=True), 110 * S) == (Unload("a"),)
    foreign = replace(READY, index={"a": "READY", "x": "READY", "y": "UNAVAILABLE"})
    assert plan(foreign, WANT, 110 * S) == (Unload("x"),)


def test_a_ready_model_is_asked_again_every_thirty_seconds() -> None:
    assert plan(READY, WANT, 100 * S + CANARY_NS - 1) == ()
    assert plan(READY, WANT, 100 * S + CANARY_NS) == (Check(A),)


def test_a_model_that_triton_lost_is_loaded_again() -> None:
    assert plan(replace(READY, index={"a": "UNAVAILABLE"}), WANT, 110 * S) == (Load(A),)
    assert plan(replace(READY, index={}), WANT, 110 * S) == (Load(A),)


def test_a_model_that_triton_lost_and_cannot_load_again_is_not_answering() -> None:
    lost = replace(READY, index={"a": "UNAVAILABLE"})
    assert answering(model_refused(lost, A, "gone", 110 * S)) == frozenset()


def test_a_wrong_canary_takes_the_model_out_and_loads_it_anew() -> None:
    broken = model_answered(READY, A, "Stub process is not healthy", 130 * S)
    assert answering(broken) == frozenset()
    assert plan(broken, WANT, 134 * S) == ()
    assert plan(broken, WANT, 135 * S) == (Load(A, anew=True),)
    mended = model_answered(model_loaded(broken, A, 136 * S), A, "", 137 * S)
    assert answering(mended) == {"a"}
    assert mended.models["a"].failures == 0


def test_a_busy_model_is_not_a_broken_one() -> None:
    busy = model_busy(READY, A, 130 * S)
    assert answering(busy) == {"a"}
    assert plan(busy, WANT, 131 * S) == ()


def test_a_ready_model_is_broken_only_after_three_canaries_without_an_answer() -> None:
    observed = READY
    for _ in range(2):
        observed = model_unanswered(observed, A, "no answer", 130 * S)
        assert answering(observed) == {"a"}
    assert model_answered(observed, A, "", 131 * S).models["a"].failures == 0
    assert answering(model_unanswered(observed, A, "no answer", 130 * S)) == frozenset()


def test_a_new_model_that_does_not_answer_is_broken_at_once() -> None:
    observed = model_loaded(replace(READY, models={}, index={}), A, 200 * S)
    assert model_unanswered(observed, A, "no answer", 230 * S).models["a"].status is ModelStatus.BROKEN


def test_a_ready_model_is_not_released_by_mistake() -> None:
    assert model_released(READY, "a") is READY
    assert model_released(READY, "unknown") is READY


# ---- stopping


@pytest.mark.parametrize("state", [s for s in State if s not in (State.STOPPED, State.DRAINING)])
def test_from_every_state_a_stop_ends_triton_and_then_does_nothing(state: State) -> None:
    unwanted = Desired(running=False)
    draining = see(replace(READY, state=state), RUN, 200 * S, live=True, desired=unwanted)
    assert draining.state is State.DRAINING
    assert plan(draining, unwanted, 200 * S) == (Stop(),)
    stopped = see(draining, ended(ExitKind.STOPPED), 201 * S, desired=unwanted)
    assert (stopped.state, stopped.models) == (State.STOPPED, {})
    assert plan(see(stopped, NO_RUN, 9_999 * S, desired=unwanted), unwanted, 9_999 * S) == ()


def test_wanted_again_while_draining_it_is_started_after_its_end() -> None:
    draining = replace(READY, state=State.DRAINING)
    assert plan(see(draining, RUN, 200 * S), WANT, 200 * S) == (Stop(),)
    gone = see(draining, ended(ExitKind.STOPPED), 201 * S)
    assert gone.state is State.STARTING
    assert plan(gone, WANT, 201 * S) == (Start(),)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["none", "new", "run", "dead", "misconfigured"]),
            st.booleans(),
            st.integers(1, 90),
        ),
        max_size=30,
    )
)
def test_whatever_is_seen_there_is_at_most_one_action_and_it_settles(
    looks: list[tuple[str, bool, int]],
) -> None:
    runs = {
        "none": None,
        "new": NO_RUN,
        "run": RUN,
        "dead": ended(),
        "misconfigured": ended(ExitKind.CONFIGURATION),
    }
    observed, now_ns = Observed(), S
    for name, live, seconds in looks:
        now_ns += seconds * S
        observed = see(observed, runs[name], now_ns, live=live)
        steps = plan(observed, WANT, now_ns)
        assert len(steps) <= 1
        assert notice(observed, WANT, now_ns) == observed
        if steps == (Start(),):
            observed = replace(observed, run=RUN, run_id="r1")
