"""The scenario files that say `real`, played with the embedded Triton: the same steps, by its own means."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from embedded_bench import STATE_SECONDS, Bench, desired
from scenario_files import Scenario, Step, scenarios
from whole_appliance import MODEL

from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.models.prepare import restore
from lotabotsd.runtime.remains import SHARED_MEMORY, shared_memory_prefix
from lotabotsd.runtime.seen import Seen
from lotabotsd.runtime.supervisor import Supervisor

pytestmark = pytest.mark.required


@pytest.fixture
def bench(folder: Path) -> Bench:
    return Bench(folder)


class RealPlayer:
    """One scenario; its model "a" is the package of the bench."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.idle: socket.socket | None = None

    async def play(self, scenario: Scenario, supervisor: Supervisor) -> None:
        try:
            for step in scenario.steps:
                await self._step(step, supervisor)
        finally:
            if self.idle is not None:
                self.idle.close()

    async def _step(self, step: Step, supervisor: Supervisor) -> None:
        for happening in step.happens:
            await self.happens(happening, supervisor)
        self.bench.clock.ahead_ns += int((step.seconds - 1) * NANOSECONDS)
        if step.rounds is not None:
            for _ in range(step.rounds):
                await supervisor.one_round()
        else:
            async with asyncio.timeout(STATE_SECONDS):
                while not step.reached(_as_written(await supervisor.one_round())):
                    await asyncio.sleep(0)
        ready = frozenset("a" if name == MODEL else name for name in supervisor.ready_models())
        step.compare(_as_written(supervisor.seen), ready, None)

    async def happens(self, what: str, supervisor: Supervisor) -> None:
        words, _, _ = what.partition(": ")
        match words.split():
            case ["triton", "crashes"]:
                os.kill(supervisor.seen.pid, signal.SIGSEGV)
            case ["triton", "is", "killed"]:
                os.kill(supervisor.seen.pid, signal.SIGKILL)
            case ["triton", "hangs"]:
                os.kill(supervisor.seen.pid, signal.SIGSTOP)
            case ["triton", "answers"]:
                with suppress(ProcessLookupError):  # it was ended meanwhile
                    os.kill(supervisor.seen.pid or 2**22, signal.SIGCONT)
            case ["the", "process", *_]:
                (stub,) = [pid for pid, name in self.bench.processes().items() if "stub" in name]
                os.kill(stub, signal.SIGKILL)
            case ["a", "new", "version", *_]:
                facts = self.bench.new_labels()
                (self.bench.paths.live_models / MODEL / "1" / "model.onnx").write_bytes(b"damaged")
                supervisor.want([desired(facts)])
            case ["the", "old", "version", *_]:
                assert restore(MODEL, self.bench.paths.staged_models, self.bench.paths.live_models)
                supervisor.want([desired(self.bench.facts)])
            case ["stale", *_]:
                for name in ("http.sock", "grpc.sock:8001", "metrics.sock"):
                    with socket.socket(socket.AF_UNIX) as stale:
                        stale.bind(str(self.bench.paths.triton / name))
            case ["shared", *_]:
                prefix = shared_memory_prefix(self.bench.paths.state, "0123456789abcdef")
                (SHARED_MEMORY / f"{prefix}left").write_bytes(b"")
            case ["an", "idle", *_]:
                self.idle = socket.socket(socket.AF_UNIX)
                self.idle.connect(str(self.bench.paths.triton_http))
                self.idle.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: triton\r\n\r\n")
                assert await asyncio.to_thread(self.idle.recv, 1024)  # answered, and kept
            case ["it", "is", "drained"]:
                await supervisor.drain(self._close_gate)
            case _:
                raise AssertionError(f"no real Triton can play {what!r}")

    async def _close_gate(self) -> None:
        """As the gate does: its idle connections first."""
        if self.idle is not None:
            self.idle.close()


def _as_written(seen: Seen) -> Seen:
    """With the names that the files use."""
    return replace(seen, models=tuple(replace(model, name="a") for model in seen.models))


@pytest.mark.parametrize("scenario", scenarios(real=True), ids=lambda scenario: scenario.name)
def test_the_real_triton_plays_it_too(bench: Bench, scenario: Scenario) -> None:
    player = RealPlayer(bench)
    bench.run(lambda supervisor: player.play(scenario, supervisor))
