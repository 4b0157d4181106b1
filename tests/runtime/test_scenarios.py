"""Each scenario file against the supervisor, with a scripted helper and Triton."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from scenario_files import Scenario, Step, scenarios
from scripted_triton import A2, A, B, World

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.runtime.messages import ExitFacts, ExitKind

ROUNDS = 40


class Player:
    """One scenario; `World` is what it happens to."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.world = World()
        self._want()

    def _want(self) -> None:
        self.world.supervisor.want([model for model in (A, B) if model.name in self.scenario.want])

    def play(self) -> None:
        for step in self.scenario.steps:
            self._step(step)

    def _step(self, step: Step) -> None:
        triton, supervisor = self.world.triton, self.world.supervisor
        triton.calls.clear()
        seen = supervisor.seen
        if step.at == "start":
            self.world.round(0)  # which starts it
        for happening in step.happens:
            self.happens(happening)
        for _ in range(ROUNDS if step.rounds is None else step.rounds):
            seen = self.world.round(step.seconds)
            if step.rounds is None and step.reached(seen):
                break
        supervisor = self.world.supervisor
        step.compare(supervisor.seen, supervisor.ready_models(), triton.calls)

    def happens(self, what: str) -> None:
        triton, supervisor = self.world.triton, self.world.supervisor
        words, _, rest = what.partition(": ")
        match words.split():
            case ["triton", "ends", kind, code]:
                triton.die(ExitFacts(int(code), ExitKind(kind), rest))
            case ["triton", "crashes"]:
                triton.die(ExitFacts(139, ExitKind.CRASHED, "it crashed (SIGSEGV)"))
            case ["triton", "is", "killed"]:
                triton.die(ExitFacts(137, ExitKind.KILLED, "it was killed (out of memory, or by …)"))
            case ["triton", verb]:
                triton.answers = verb == "answers"
            case ["canary", name, "answers"]:
                triton.outcomes[f"canary {name}"] = [rest]
            case ["load", name, "kills", "triton"]:
                triton.outcomes[f"load {name}"] = ["die"]
            case ["the", "process", "of", name, "dies"]:
                triton.outcomes[f"canary {name}"] = ["Stub process is not healthy"]
            case ["the", "helper", "says"]:
                triton.helper_failure = LotaBotsError(Code(rest), "as the scenario says")
            case ["the", "helper", "answers"]:
                triton.helper_failure = None
            case ["a", "start", "fails"]:
                triton.start_failure = LotaBotsError(Code(rest), "as the scenario says")
            case ["a", "start", "succeeds"]:
                triton.start_failure = None
            case ["a", "new", "version", "of", name, *_]:
                triton.outcomes[f"load {name}"] = [rest]
                supervisor.want([A2])
            case ["the", "old", "version", *_]:
                supervisor.want([A])
            case ["somebody", "resumes"]:
                supervisor.resume()
            case ["somebody", "releases", name]:
                supervisor.resume(name)
            case ["it", "is", "drained"]:
                asyncio.run(supervisor.drain(self._close_gate))
            case ["it", "is", "no", "longer", "wanted"]:
                asyncio.run(supervisor.drain(_nothing))
                triton.calls.clear()
            case ["the", "daemon", "restarts"]:
                self.world.supervisor = self.world.new_supervisor()
                self._want()
            case ["stale", *_] | ["an", "idle", *_] | ["shared", *_]:
                pass  # only a real one can stumble over them

    async def _close_gate(self) -> None:
        self.world.triton.calls.append("gate empty")


async def _nothing() -> None:
    return


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.name)
def test_scenario(scenario: Scenario) -> None:
    Player(scenario).play()


def test_each_failure_of_the_design_has_its_file() -> None:
    names = {scenario.name for scenario in scenarios()}
    assert names >= {
        *("configuration_error", "native_crash", "killed", "out_of_memory", "poisoned", "hang"),
        *("hang_at_start", "model_kills_triton", "model_load_failure", "stub_death", "stale_sockets"),
        *("engine_away", "image_missing", "helper_away", "orphans", "drain_idle_connection"),
    }
    assert all(scenario.title and scenario.why for scenario in scenarios())


def test_a_scenario_that_expects_something_else_fails() -> None:
    (killed,) = (each for each in scenarios() if each.name == "killed")
    for change in ({"state": "held"}, {"says": "nobody knows"}, {"ready": ["a"]}, {"does": ["stop"]}):
        step = replace(killed.steps[1], **change)
        with pytest.raises(AssertionError):
            Player(replace(killed, steps=(killed.steps[0], step))).play()
