"""The embedded runtime's five verbs with a simulated Triton as a real process."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.foundation.config import Config, parse
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.runtime.client import TritonClient
from lotabotsd.runtime.embedded import EmbeddedRuntime
from lotabotsd.runtime.installation import STUB, Installation, probe_flags
from lotabotsd.runtime.messages import ExitKind, RunFacts


class World:
    """An appliance in a short directory, with a wheel that holds the simulated Triton."""

    def __init__(self, directory: Path, server: Path) -> None:
        self.config: Config = parse(
            f"""
[appliance]
state_directory = "{directory}/state"
run_directory = "{directory}/run"
[runtime]
stop_timeout_seconds = 1
""".encode(),
            "test",
        )
        self.paths = self.config.paths
        for path, mode in self.paths.directories():
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(mode)
        wheel = directory / "wheel"
        (wheel / "backend").mkdir(parents=True)
        (wheel / STUB).write_text("stub", encoding="utf-8")
        self.found = 0
        self.installation = Installation(
            Path(sys.executable),
            server,
            wheel / STUB,
            wheel / "backend",
            (),
            {"x": "1"},
            probe_flags(server, ()),
        )

    def find(self, python: str) -> Installation:
        self.found += 1
        return self.installation

    def script(self, **script: Any) -> None:
        (self.paths.live_models / "simulator.json").write_text(json.dumps(script), encoding="utf-8")

    def run(self, ask: Callable[[EmbeddedRuntime], Awaitable[Any]]) -> Any:
        async def both() -> Any:
            runtime = EmbeddedRuntime(self.config, self.find)
            try:
                return await asyncio.wait_for(ask(runtime), 20)
            finally:
                await runtime.stop()

        return asyncio.run(both())

    def client(self, facts: RunFacts) -> TritonClient:
        return TritonClient(self.paths.triton_http, lambda: facts.secret, load_timeout_seconds=5)


@pytest.fixture
def world(short: Path, server: Path) -> World:
    return World(short, server)


async def started(world: World, runtime: EmbeddedRuntime) -> RunFacts:
    """Start it and wait until it answers."""
    facts = RunFacts.from_dict(await runtime.start())
    async with asyncio.timeout(10):
        while not await world.client(facts).live():
            await asyncio.sleep(0)
    return facts


async def ended(runtime: EmbeddedRuntime) -> RunFacts:
    """Wait until it is gone."""
    async with asyncio.timeout(10):
        while (facts := RunFacts.from_dict(await runtime.inspect())).running:
            await asyncio.sleep(0)
    return facts


def test_ensure_says_what_is_there_and_asks_only_once(world: World) -> None:
    async def ask(runtime: EmbeddedRuntime) -> Any:
        await runtime.ensure()
        return await runtime.ensure()

    assert world.run(ask) == {"kind": "embedded", "production": False, "versions": {"x": "1"}}
    assert world.found == 1


def test_before_the_first_start_there_is_no_run(world: World) -> None:
    async def ask(runtime: EmbeddedRuntime) -> Any:
        return await runtime.inspect(), await runtime.logs(), await runtime.stop()

    inspected, logs, stopped = world.run(ask)
    assert inspected == stopped
    assert (inspected["running"], inspected["run_id"], logs) == (False, "", {"lines": []})


def test_start_answers_with_the_secret_that_opens_the_restricted_routes(world: World) -> None:
    async def ask(runtime: EmbeddedRuntime) -> None:
        facts = await started(world, runtime)
        assert await world.client(facts).index() == {}
        stranger = TritonClient(world.paths.triton_http, lambda: "", load_timeout_seconds=5)
        with pytest.raises(LotaBotsError):
            await stranger.index()
        assert len(facts.secret) >= 43

    world.run(ask)


def test_a_second_start_finds_the_first(world: World) -> None:
    async def ask(runtime: EmbeddedRuntime) -> Any:
        return await asyncio.gather(runtime.start(), runtime.start(), runtime.start())

    first, second, third = world.run(ask)
    assert first == second == third


def test_stop_ends_the_process_and_the_next_start_is_another_run(world: World) -> None:
    async def ask(runtime: EmbeddedRuntime) -> None:
        facts = await started(world, runtime)
        stopped = RunFacts.from_dict(await runtime.stop())
        assert stopped.exit is not None
        assert stopped.exit.kind is ExitKind.STOPPED
        assert (stopped.running, stopped.secret) == (False, "")
        with pytest.raises(ProcessLookupError):
            os.kill(facts.pid, 0)
        again = await started(world, runtime)  # over the sockets that the first one left
        assert again.run_id != facts.run_id
        assert again.secret != facts.secret

    world.run(ask)


def test_a_triton_that_does_not_stop_is_killed(world: World) -> None:
    world.script(ignore_term="no")

    async def ask(runtime: EmbeddedRuntime) -> RunFacts:
        await started(world, runtime)
        return RunFacts.from_dict(await runtime.stop())

    stopped = world.run(ask)
    assert (stopped.exit.kind, stopped.exit.code) == (ExitKind.STOPPED, -9)


def test_a_triton_that_is_empty_but_does_not_end_is_not_waited_for_long(world: World) -> None:
    world.script(ignore_term='I1123 04:00:17 1 server.cc:336] "All models are stopped, unloading models"')

    async def story() -> RunFacts:
        config = replace(world.config, runtime=replace(world.config.runtime, stop_timeout_seconds=600.0))
        runtime = EmbeddedRuntime(config, world.find, unloading_seconds=0.05)
        await started(world, runtime)
        async with asyncio.timeout(10):
            return RunFacts.from_dict(await runtime.stop())

    stopped = asyncio.run(story())
    assert stopped.exit is not None
    assert (stopped.exit.kind, stopped.exit.code) == (ExitKind.STOPPED, -9)


def test_a_crash_is_seen_and_explained(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.script(load={"m": ["die"]})

    async def ask(runtime: EmbeddedRuntime) -> RunFacts:
        facts = await started(world, runtime)
        with pytest.raises(LotaBotsError) as refused:
            await world.client(facts).load("m")
        assert refused.value.code is Code.RUNTIME_UNAVAILABLE
        return await ended(runtime)

    with caplog.at_level(logging.ERROR):
        facts = world.run(ask)
    assert (facts.exit.kind, facts.exit.code) == (ExitKind.CRASHED, -11)
    assert any("Triton ended: it crashed (SIGSEGV)" in record.message for record in caplog.records)


def test_a_refused_option_is_seen_as_a_configuration_error(world: World) -> None:
    world.script(start={"say": "tritonserver: unrecognized option '--x'", "exit": 1})

    async def ask(runtime: EmbeddedRuntime) -> RunFacts:
        await runtime.start()
        return await ended(runtime)

    facts = world.run(ask)
    assert facts.exit.kind is ExitKind.CONFIGURATION
    assert "unrecognized option '--x'" in facts.exit.text


def test_logs_hold_the_last_lines_without_the_secret(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def ask(runtime: EmbeddedRuntime) -> tuple[str, list[str]]:
        facts = await started(world, runtime)
        async with asyncio.timeout(10):
            while not (lines := (await runtime.logs())["lines"]):
                await asyncio.sleep(0)
        return facts.secret, lines

    with caplog.at_level(logging.DEBUG):
        secret, lines = world.run(ask)
    assert "x-lotabots-runtime=…" in lines[0]
    assert secret not in "".join(lines) + caplog.text


def test_a_run_directory_that_is_too_long_is_refused_before_anything_starts(world: World) -> None:
    directories = f'state_directory = "{world.paths.state}"\nrun_directory = "/tmp/{"x" * 100}"\n'
    world.config = parse(f"[appliance]\n{directories}".encode(), "test")

    async def ask(runtime: EmbeddedRuntime) -> None:
        with pytest.raises(LotaBotsError) as refused:
            await runtime.start()
        assert refused.value.code is Code.CONFIG_INVALID

    world.run(ask)


def test_an_installation_that_is_missing_is_looked_for_again(world: World) -> None:
    def find(python: str) -> Installation:
        raise LotaBotsError(Code.RUNTIME_MISSING, "no wheel")

    async def ask() -> None:
        runtime = EmbeddedRuntime(world.config, find)
        for _ in range(2):
            with pytest.raises(LotaBotsError) as refused:
                await runtime.start()
            assert refused.value.code is Code.RUNTIME_MISSING

    asyncio.run(ask())


def test_bytecode_beside_a_model_is_removed_before_a_start(world: World) -> None:
    cache = world.paths.live_models / "m" / "1" / "__pycache__"
    cache.mkdir(parents=True)
    (cache / "model.pyc").write_bytes(b"not what the digest covers")
    world.run(lambda runtime: started(world, runtime))
    assert list(cache.iterdir()) == []
