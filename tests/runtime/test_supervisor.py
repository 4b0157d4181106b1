"""The supervisor round by round, over a scripted helper and Triton (tests/simulators/scripted_triton.py)."""

from __future__ import annotations

import asyncio
import json

import pytest
from scripted_triton import A2, A, B, World

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.runtime.seen import Seen


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def ready(world: World) -> World:
    world.until("ready")
    world.triton.calls.clear()
    return world


def test_from_nothing_to_ready_one_action_per_round(world: World) -> None:
    seen = [world.round() for _ in range(5)]
    assert world.triton.calls == ["start", "load a", "canary a"]
    assert [s.state for s in seen] == ["starting", "loading", "loading", "ready", "ready"]
    assert (seen[-1].version, seen[-1].pid, seen[-1].problem) == ("9.9", 101, "")
    assert seen[-1].models[0].status == "ready"
    assert world.supervisor.ready_models() == {"a"}


def test_acted_says_whether_the_next_round_need_not_wait(world: World) -> None:
    acted = []
    for _ in range(5):
        world.round()
        acted.append(world.supervisor.acted)
    assert acted == [True, True, True, False, False]


def test_a_crash_is_followed_by_a_start_and_every_model_again(ready: World) -> None:
    ready.triton.die()
    seen = ready.round()
    assert (seen.state, seen.retry_in_seconds, seen.problem) == ("backing_off", 1, "it crashed (SIGSEGV)")
    assert seen.next_step
    assert ready.supervisor.ready_models() == frozenset()
    ready.until("ready")
    assert ready.triton.calls == ["start", "load a", "canary a"]


def test_five_crashes_hold_it_until_somebody_resumes(ready: World) -> None:
    for _ in range(4):
        ready.triton.die()
        ready.until("ready")
    ready.triton.die()
    seen = ready.round()
    assert (seen.state, seen.failures) == ("held", 5)
    assert "5 failures in ten minutes" in seen.problem
    ready.triton.calls.clear()
    for _ in range(20):
        ready.round(60)
    assert ready.triton.calls == []
    ready.supervisor.resume()
    ready.until("ready")


def test_a_daemon_that_begins_anew_adopts_what_runs(ready: World) -> None:
    ready.supervisor = ready.new_supervisor()
    first = ready.round()
    assert (first.state, ready.supervisor.ready_models()) == ("loading", {"a"})
    for _ in range(3):
        ready.round()
        assert ready.supervisor.ready_models() == {"a"}
    assert ready.triton.starts == 1
    assert ready.triton.calls == ["load a", "canary a"]


def test_a_new_version_is_swapped_without_a_gap(ready: World) -> None:
    ready.supervisor.want([A2])
    for _ in range(3):
        ready.round()
        assert ready.supervisor.ready_models() == {"a"}
    assert ready.triton.calls == ["load a", "canary a"]
    assert ready.supervisor.seen.models[0].digest == "digest-a2"


def test_a_version_that_does_not_load_leaves_the_old_one(ready: World) -> None:
    ready.triton.outcomes["load a"] = ["no such operator"]
    ready.supervisor.want([A2])
    seen = ready.round()
    model = seen.models[0]
    assert (model.status, model.digest, model.refused, model.reason) == (
        "ready",
        "digest-a",
        "digest-a2",
        "no such operator",
    )
    assert ready.supervisor.ready_models() == {"a"}
    ready.supervisor.want([A])  # the daemon put the old files back
    ready.triton.calls.clear()
    ready.round()
    assert ready.triton.calls == []


def test_a_model_that_kills_triton_is_put_aside_and_the_others_serve(world: World) -> None:
    world.supervisor.want([A, B])
    world.triton.outcomes["load a"] = ["die"]
    world.until("backing_off")
    seen = world.until("ready")
    states = {model.name: model.status for model in seen.models}
    assert states == {"a": "quarantined", "b": "ready"}
    assert world.supervisor.ready_models() == {"b"}
    world.supervisor.resume("a")
    world.until("ready")
    for _ in range(3):
        world.round()
    assert world.supervisor.ready_models() == {"a", "b"}


def test_a_model_that_kills_triton_at_its_canary_is_put_aside_too(world: World) -> None:
    world.triton.outcomes["canary a"] = ["die"]
    world.until("backing_off")
    assert world.until("ready").models[0].status == "quarantined"


def test_a_model_that_does_not_load_is_tried_again(world: World) -> None:
    world.triton.outcomes["load a"] = ["no memory"]
    seen = world.until("ready")
    assert (seen.models[0].status, seen.models[0].reason) == ("failed", "no memory")
    for _ in range(8):
        seen = world.round()
    assert seen.models[0].status == "ready"


def test_a_wrong_canary_reloads_the_model(ready: World) -> None:
    ready.triton.outcomes["canary a"] = ["Stub process is not healthy"]
    seen = ready.round(30)
    assert (seen.models[0].status, ready.supervisor.ready_models()) == ("broken", frozenset())
    for _ in range(9):
        seen = ready.round()
    assert seen.models[0].status == "ready"
    assert ready.triton.calls == ["canary a", "unload a", "load a", "canary a"]


@pytest.mark.parametrize("outcome", ["busy", "timeout"])
def test_a_busy_model_stays_ready(ready: World, outcome: str) -> None:
    ready.triton.outcomes["canary a"] = [outcome]
    assert ready.round(30).models[0].status == "ready"


def test_a_lost_cuda_context_restarts_triton(ready: World) -> None:
    ready.triton.outcomes["canary a"] = ["CUDA error: device-side assert triggered"]
    ready.round(30)
    assert ready.round().state == "backing_off"
    assert ready.triton.calls == ["canary a", "stop"]
    ready.until("ready")
    assert ready.triton.starts == 2


def test_a_triton_that_hangs_is_ended_and_started_again(ready: World) -> None:
    ready.triton.answers = False
    assert ready.round(1).state == "ready"
    assert ready.round(16).state == "backing_off"
    ready.triton.answers = True
    ready.until("ready")
    assert ready.triton.calls == ["stop", "start", "load a", "canary a"]


def test_a_start_that_never_answers_is_given_up(world: World) -> None:
    world.triton.answers = False
    world.round()
    assert world.round(59).state == "starting"
    seen = world.round(2)
    assert (seen.state, seen.problem) == ("backing_off", "it did not answer in time after its start")
    assert world.triton.calls == ["start", "stop"]


def test_an_away_helper_disturbs_no_model(ready: World) -> None:
    ready.triton.helper_answers = False
    seen = ready.round(100)
    assert (seen.state, seen.helper_answers) == ("ready", False)
    assert "nobody there" in seen.problem
    assert "lotabots-runtime" in seen.next_step
    assert ready.supervisor.ready_models() == {"a"}
    ready.triton.helper_answers = True
    assert ready.round().helper_answers


@pytest.mark.parametrize("code", [Code.ENGINE_UNAVAILABLE, Code.IMAGE_LOADING])
def test_what_only_takes_longer_is_waited_for_and_is_no_failure(world: World, code: Code) -> None:
    world.triton.start_failure = LotaBotsError(code, "not now", hint="wait")
    for _ in range(10):
        seen = world.round(60)
    assert (seen.state, seen.failures, seen.helper_answers) == ("starting", 0, True)
    assert (seen.trouble, seen.next_step) == (code.value, "wait")
    assert "not now" in seen.problem
    world.triton.start_failure = None
    world.until("ready")
    assert world.supervisor.seen.trouble == ""


@pytest.mark.parametrize(
    "code", [Code.RUNTIME_MISSING, Code.CONFIG_INVALID, Code.IMAGE_MISSING, Code.IMAGE_DIGEST_MISMATCH]
)
def test_what_cannot_be_started_is_held_with_its_hint(world: World, code: Code) -> None:
    world.triton.start_failure = LotaBotsError(code, "it lacks something", hint="install it")
    seen = world.round()
    assert seen.state == "held"
    assert "it lacks something (install it)" in seen.problem
    world.round(600)
    assert world.triton.calls == ["start"]


def test_a_full_disk_at_the_start_is_tried_again(world: World) -> None:
    world.triton.start_failure = LotaBotsError(Code.FILE_UNWRITABLE, "disk")
    assert world.round().state == "backing_off"
    world.triton.start_failure = None
    world.until("ready")


def test_draining_empties_the_gate_before_triton_ends(ready: World) -> None:
    async def close_gate() -> None:
        ready.triton.calls.append("gate empty")

    seen = asyncio.run(ready.supervisor.drain(close_gate))
    assert seen.state == "stopped"
    assert ready.triton.calls[:2] == ["gate empty", "stop"]
    ready.triton.calls.clear()
    for _ in range(3):
        assert ready.round(60).state == "stopped"
    assert ready.triton.calls == []
    ready.supervisor.want_running()
    ready.until("ready")


def test_a_gate_that_cannot_be_emptied_keeps_triton_running(ready: World) -> None:
    async def close_gate() -> None:
        raise LotaBotsError(Code.DRAINING, "three requests are still running")

    with pytest.raises(LotaBotsError):
        asyncio.run(ready.supervisor.drain(close_gate))
    assert ready.triton.run.running


def test_drain_ends_a_start_that_was_under_way(world: World) -> None:
    async def both() -> Seen:
        async def close_gate() -> None:
            return

        world.clock.advance(1)
        starting = asyncio.create_task(world.supervisor.one_round())
        draining = asyncio.create_task(world.supervisor.drain(close_gate))
        await starting
        return await draining

    assert asyncio.run(both()).state == "stopped"
    assert not world.triton.run.running


def test_a_model_that_nobody_wants_any_more_is_taken_out(ready: World) -> None:
    ready.supervisor.want([])
    ready.round()
    assert ready.triton.calls == ["unload a"]
    assert ready.supervisor.ready_models() == frozenset()
    ready.round()
    assert ready.triton.calls == ["unload a"]


def test_what_is_seen_is_json(ready: World) -> None:
    value = json.loads(json.dumps(ready.supervisor.seen.to_dict()))
    assert value["state"] == "ready"
    assert value["models"][0]["name"] == "a"
    assert "s" not in value.values()  # no secret
