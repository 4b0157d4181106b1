"""The container runtime's verbs against an engine in memory: adopted, replaced, gone, slow, refused."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_in_memory import IMAGE, EngineInMemory, World, said_at

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.runtime.container import ContainerRuntime, account
from lotabotsd.runtime.engine import Container, Engine
from lotabotsd.runtime.messages import ExitKind, RunFacts
from lotabotsd.runtime.run_secrets import RunSecrets
from lotabotsd.runtime.triton_lines import EMPTIED


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, EngineInMemory(IMAGE))


def facts(answer: dict[str, Any]) -> RunFacts:
    return RunFacts.from_dict(answer)


def run(story: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(story(), 10))  # type: ignore[arg-type]


def test_it_starts_once_and_its_run_is_named_in_a_label(world: World) -> None:
    async def story() -> tuple[RunFacts, RunFacts]:
        helper = world.helper()
        assert not facts(await helper.inspect()).running
        return facts(await helper.start()), facts(await helper.start())

    first, second = run(story)
    assert first == second
    assert first.running
    assert world.ours.labels["lotabots.run"] == first.run_id
    secret = world.config.paths.run_secrets / first.run_id
    assert secret.read_text().strip() == first.secret
    assert first.secret not in json.dumps(world.engine.specifications)
    assert list(world.engine.containers) == [world.settings.name]  # the probe is gone


def test_a_helper_that_begins_adopts_what_runs(world: World) -> None:
    async def story() -> tuple[RunFacts, RunFacts]:
        started = facts(await world.helper().start())
        return started, facts(await world.helper().inspect())

    started, seen = run(story)
    assert seen == started


@pytest.mark.parametrize("missing", ["settings", "secret"])
def test_a_run_of_other_settings_or_without_its_secret_is_removed(world: World, missing: str) -> None:
    async def story() -> RunFacts:
        started = facts(await world.helper().start())
        if missing == "secret":
            (world.config.paths.run_secrets / started.run_id).unlink()
        else:
            world.settings = replace(world.settings, memory_bytes=1 << 30)
        return facts(await world.helper().inspect())

    assert run(story) == RunFacts("", running=False, pid=0, secret="")
    assert world.engine.containers == {}


def test_a_container_of_somebody_else_with_our_name_is_left_alone(world: World) -> None:
    theirs = Container("t1", {}, "running", 7, 0, False, "")
    world.engine.containers[world.settings.name] = theirs

    async def story() -> None:
        helper = world.helper()
        assert not facts(await helper.inspect()).running
        with pytest.raises(LotaBotsError) as failure:
            await helper.start()
        assert failure.value.code is Code.ENGINE_REFUSED
        await helper.stop()

    run(story)
    assert world.ours == theirs


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"exit_code": 137}, ExitKind.KILLED, "killed"),
        ({"exit_code": 137, "out_of_memory": True}, ExitKind.KILLED, "runtime.memory_bytes"),
        ({"exit_code": 139}, ExitKind.CRASHED, "SIGSEGV"),
        ({"exit_code": 143}, ExitKind.FAILED, "143"),
        ({"exit_code": 128, "error": "no such file"}, ExitKind.FAILED, "no such file"),
    ],
)
def test_how_it_ended_is_told(world: World, change: dict[str, Any], kind: ExitKind, says: str) -> None:
    async def story() -> RunFacts:
        helper = world.helper()
        await helper.start()
        world.engine.change(world.ours.container_id, status="exited", pid=0, **change)
        return facts(await helper.inspect())

    ended = run(story).exit
    assert ended is not None
    assert (ended.kind, says in ended.text) == (kind, True)


def test_a_shell_that_cannot_begin_is_a_configuration_error(world: World) -> None:
    async def story() -> RunFacts:
        helper = world.helper()
        await helper.start()
        found = world.ours.container_id
        world.engine.said[found] = [(said_at(2), "lotabots-entry: 6: exec: /opt/tritonserver: not found")]
        world.engine.change(found, status="exited", pid=0, exit_code=127)
        return facts(await helper.inspect())

    ended = run(story).exit
    assert (ended.kind, "exec" in ended.text) == (ExitKind.CONFIGURATION, True)


def test_a_container_that_somebody_removed_is_a_run_that_ended(world: World) -> None:
    async def story() -> tuple[RunFacts, RunFacts]:
        helper = world.helper()
        await helper.start()
        world.engine.containers.clear()
        return facts(await helper.inspect()), facts(await helper.start())

    gone, again = run(story)
    assert gone.exit is not None
    assert "removed" in gone.exit.text
    assert (again.running, again.run_id != gone.run_id) == (True, True)


def test_told_to_stop_it_gets_its_time_and_is_killed_after_it(world: World) -> None:
    world.engine.ends_on_term = False

    async def story() -> RunFacts:
        helper = world.helper()
        await helper.start()
        return facts(await helper.stop())

    ended = run(story)
    assert world.engine.signals == ["SIGTERM", "SIGKILL"]
    assert ended.exit.kind is ExitKind.STOPPED


def test_once_no_request_is_in_flight_it_need_not_use_up_the_whole_timeout(
    world: World,
) -> None:
    world.config = replace(world.config, runtime=replace(world.config.runtime, stop_timeout_seconds=600))
    world.engine.ends_on_term = False

    async def story() -> RunFacts:
        helper = ContainerRuntime(world.config, world.engine, world.settings, unloading_seconds=0)  # type: ignore[arg-type]
        await helper.start()
        world.engine.said[world.ours.container_id] = [(said_at(2), f"I1126 {EMPTIED}")]
        return facts(await helper.stop())

    assert run(story).exit.kind is ExitKind.STOPPED


def test_an_engine_that_is_away_is_no_end_of_triton(world: World) -> None:
    async def story() -> RunFacts:
        helper = world.helper()
        started = facts(await helper.start())
        world.engine.away = True
        for verb in (helper.inspect, helper.start, helper.stop, helper.logs):
            with pytest.raises(LotaBotsError) as failure:
                await verb()
            assert failure.value.code is Code.ENGINE_UNAVAILABLE
        world.engine.away = False
        assert facts(await helper.inspect()) == started
        return started

    assert run(story).running


def test_an_image_that_takes_long_is_waited_for_and_loaded_once(world: World) -> None:
    world.engine.slow.clear()

    async def story() -> None:
        helper = ContainerRuntime(world.config, world.engine, world.settings, image_patience_seconds=0.05)  # type: ignore[arg-type]
        for _ in range(2):
            with pytest.raises(LotaBotsError) as failure:
                await helper.start()
            assert failure.value.code is Code.IMAGE_LOADING
        world.engine.slow.set()
        async with asyncio.timeout(5):
            while True:
                try:
                    assert facts(await helper.start()).running
                    return
                except LotaBotsError as error:
                    if error.code is not Code.IMAGE_LOADING:
                        raise

    run(story)
    assert world.engine.made == 2  # one probe, one Triton


def test_ensure_says_what_is_here(world: World) -> None:
    found = run(world.helper().ensure)
    assert (found["kind"], found["production"]) == ("container", True)
    assert found["versions"] == {"engine": "20.10", "image": IMAGE, "image_id": IMAGE, "triton": "2.70.0"}


def test_a_secret_is_readable_inside_a_directory_that_is_not(tmp_path: Path) -> None:
    kept = RunSecrets(tmp_path / "runtime")
    first, second = kept.make("a" * 16), kept.make("b" * 16)
    assert first != second
    assert (tmp_path / "runtime").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "runtime" / ("b" * 16)).stat().st_mode & 0o777 == 0o444
    assert (kept.read("a" * 16), kept.read("b" * 16)) == ("", second)
    assert kept.read("../../etc/passwd") == kept.read("") == ""


def test_an_engine_that_is_not_there_is_told_with_its_socket(tmp_path: Path) -> None:
    with pytest.raises(LotaBotsError) as failure:
        Engine(str(tmp_path / "engine.sock")).facts()
    assert failure.value.code is Code.ENGINE_UNAVAILABLE
    assert str(tmp_path) in failure.value.detail


@pytest.mark.skipif(os.geteuid() != 0, reason="as another user Triton runs as that one: run it as root")
@pytest.mark.parametrize("name", ["nobody-of-that-name"])
def test_as_root_a_user_for_triton_must_exist(world: World, name: str) -> None:
    config = replace(world.config, runtime=replace(world.config.runtime, user=name))
    with pytest.raises(LotaBotsError) as failure:
        account(config)
    assert failure.value.code is Code.CONFIG_INVALID


def test_lines_are_passed_on_once_and_without_the_secret(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> list[str]:
        helper = world.helper()
        started = facts(await helper.start())
        found = world.ours.container_id
        world.engine.said[found] = [(said_at(2), f"E1126 x.cc:1] the secret {started.secret}")]
        for _ in range(3):
            await helper.inspect()
        return list((await helper.logs())["lines"])

    with caplog.at_level("WARNING"):
        lines = run(story)
    assert lines == ["E1126 x.cc:1] the secret …"]
    assert [record.getMessage() for record in caplog.records] == ["triton: E1126 x.cc:1] the secret …"]
    assert world.engine.since[-2] > 1_700_000_000  # only what is new is asked for
