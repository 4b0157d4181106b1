"""A helper and a Triton that follow a script, for the supervisor round by round. No waiting, no sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.runtime.canary import Canary, CanaryAnswer
from lotabotsd.runtime.client import ModelState
from lotabotsd.runtime.messages import NO_RUN, ExitFacts, ExitKind, RunFacts
from lotabotsd.runtime.plan import DesiredModel
from lotabotsd.runtime.seen import Seen
from lotabotsd.runtime.supervisor import Supervisor

A = DesiredModel("a", "digest-a", Canary((), ()))
A2 = DesiredModel("a", "digest-a2", Canary((), ()))
B = DesiredModel("b", "digest-b", Canary((), ()))
DIED = ExitFacts(-11, ExitKind.CRASHED, "it crashed (SIGSEGV)")


class ScriptedTriton:
    """Helper and Triton in one. `outcomes` maps "load a" or "canary a" to what happens, used up in order."""

    def __init__(self) -> None:
        self.run = NO_RUN
        self.starts = 0
        self.calls: list[str] = []
        self.models: dict[str, str] = {}
        self.outcomes: dict[str, list[str]] = {}
        self.answers = True
        self.helper_answers = True
        self.helper_failure: LotaBotsError | None = None
        self.start_failure: LotaBotsError | None = None
        self.secret: Callable[[], str] = lambda: ""

    def client(self, secret: Callable[[], str]) -> ScriptedTriton:
        self.secret = secret
        return self

    def die(self, ended: ExitFacts = DIED) -> None:
        self.run = RunFacts(self.run.run_id, running=False, pid=0, secret="", exit=ended)
        self.models = {}

    # the helper's side

    async def start(self) -> RunFacts:
        self._helper("start")
        if self.start_failure is not None:
            raise self.start_failure
        if not self.run.running:
            self.starts += 1
            self.run = RunFacts(f"run{self.starts}", running=True, pid=100 + self.starts, secret="s")
        return self.run

    async def stop(self) -> RunFacts:
        self._helper("stop")
        if self.run.running:
            self.die(ExitFacts(0, ExitKind.STOPPED, "it was stopped"))
        return self.run

    async def promote(self) -> RunFacts:
        self._helper("promote")
        self.run = replace(self.run, proven=True, trial=None)
        return self.run

    async def inspect(self) -> RunFacts:
        self._helper("")
        return self.run

    def _helper(self, call: str) -> None:
        if self.helper_failure is not None:
            raise self.helper_failure
        if not self.helper_answers:
            raise LotaBotsError(Code.HELPER_UNAVAILABLE, "nobody there")
        if call:
            self.calls.append(call)

    # Triton's side

    async def live(self) -> bool:
        return self.run.running and self.answers

    async def version(self) -> str:
        return "9.9"

    async def index(self) -> dict[str, ModelState]:
        assert self.secret() == self.run.secret
        return {name: ModelState(state, "") for name, state in self.models.items()}

    async def load(self, name: str) -> None:
        self._act(f"load {name}")
        self.models[name] = "READY"

    async def unload(self, name: str) -> None:
        self._act(f"unload {name}")
        self.models[name] = "UNAVAILABLE"

    async def canary(self, name: str, canary: Canary) -> str:
        return self._act(f"canary {name}")

    async def canary_answer(self, name: str, canary: Canary) -> CanaryAnswer:
        return CanaryAnswer(await self.canary(name, canary))

    def _act(self, call: str) -> str:
        self.calls.append(call)
        outcome = (self.outcomes.get(call) or [""]).pop(0) if self.outcomes.get(call) else ""
        if outcome == "die":
            self.die()
            raise LotaBotsError(Code.RUNTIME_UNAVAILABLE, "connection reset")
        if outcome in ("timeout", "busy"):
            raise LotaBotsError(Code.RUNTIME_TIMEOUT if outcome == "timeout" else Code.OVERLOADED, outcome)
        if outcome and call.startswith("load"):
            raise LotaBotsError(Code.MODEL_FAILED, outcome)
        return outcome


class World:
    """A supervisor over a scripted Triton; `rounds` lets time pass between rounds."""

    def __init__(self) -> None:
        self.triton = ScriptedTriton()
        self.clock = FixedClock(datetime(2026, 11, 23, tzinfo=UTC))
        self.supervisor = self.new_supervisor()

    def new_supervisor(self) -> Supervisor:
        supervisor = Supervisor(self.triton, self.triton.client, self.clock, start_timeout_seconds=60)
        supervisor.want([A])
        return supervisor

    def round(self, seconds: float = 1) -> Seen:
        self.clock.advance(seconds)
        return asyncio.run(self.supervisor.one_round())

    def until(self, state: str, rounds: int = 40) -> Seen:
        for _ in range(rounds):
            seen = self.round()
            if seen.state == state:
                return seen
        raise AssertionError(f"{state} was not reached: {seen}")
