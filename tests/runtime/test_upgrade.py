"""Another image: tried beside the good one, or in its place; promoted, or given up and told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from engine_in_memory import IMAGE
from upgrade_world import NEW, NEWER, Part, UpgradeWorld

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.runtime.image_memory import ImageMemory
from lotabotsd.runtime.seen import Seen


@pytest.fixture
def world(tmp_path: Path) -> UpgradeWorld:
    return UpgradeWorld(tmp_path)


def tell(story: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(story(), 30))  # type: ignore[arg-type]


def refused(seen: Seen) -> bool:
    return seen.upgrade is not None and seen.upgrade.kind == "refused"


def known(world: UpgradeWorld) -> dict[str, str]:
    value: dict[str, str] = json.loads((world.folder / "state" / "images" / "known.json").read_text())
    return value


def test_the_first_image_is_good_once_every_model_answers(world: UpgradeWorld) -> None:
    tell(world.ready)
    assert world.verbs.asked == ["start", "promote"]
    assert known(world)["good"] == IMAGE


def test_another_image_is_tried_beside_it_and_takes_over_without_a_gap(world: UpgradeWorld) -> None:
    world.add(NEW, Part(scores=(0.26, 0.74), busy=2))

    async def story() -> Seen:
        first = await world.ready()
        await world.reload(NEW)
        beside = await world.until(lambda seen: f"{world.name}-next" in world.engine.containers)
        assert beside.upgrade is not None
        assert (beside.upgrade.kind, beside.upgrade.image) == ("beside", NEW)
        assert world.serving == IMAGE
        await world.until(lambda _: world.serving == NEW)
        last = await world.until(
            lambda seen: seen.state == "ready" and len(world.engine.containers) == 1 and not seen.upgrade
        )
        assert last.run_id != first.run_id
        assert last.failures == 0
        await world.until(lambda _: len(world.engine.published) == 2)  # again after the old one's end
        return last

    tell(story)
    assert list(world.engine.containers) == [world.name]
    assert world.verbs.asked == ["start", "promote", "promote"]
    assert (known(world)["good"], known(world)["refused"]) == (NEW, "")
    assert [line.split()[0] for _, line in world.engine.published] == ["done", "for"]
    secrets = [path.name for path in (world.folder / "run" / "runtime").iterdir()]
    assert len(secrets) == 2  # the one before goes with the next start


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (Part(live=False), "it did not answer in time after its start"),
        (Part(load_failure="no such operator"), "model a: no such operator"),
        (Part(wrong="CUDA error: device-side assert triggered"), "model a: CUDA error: device-side assert"),
        (Part(scores=(0.75, 0.25)), "model a: the output scores has 0.75 at 0, before it was 0.25"),
        (Part(scores=(0.25, 0.5, 0.25)), "the output scores has shape [1, 3], before it was [1, 2]"),
        (Part(busy=99), "model a: the queue is full"),
    ],
)
def test_an_image_that_fails_beside_it_is_removed_and_said_why(
    world: UpgradeWorld, part: Part, why: str
) -> None:
    world.add(NEW, part)

    async def story() -> Seen:
        first = await world.ready()
        await world.reload(NEW)
        seen = await world.until(refused)
        assert (seen.state, seen.run_id) == ("ready", first.run_id)
        return seen

    seen = tell(story)
    assert seen.upgrade is not None
    assert why in seen.upgrade.why
    assert "systemctl reload lotabots-runtime" in seen.upgrade.next_step
    assert list(world.engine.containers) == [world.name]
    assert (known(world)["good"], known(world)["refused"]) == (IMAGE, NEW)


def test_an_image_whose_triton_ends_beside_it_is_refused_with_its_last_words(world: UpgradeWorld) -> None:
    world.add(NEW, Part(live=False))

    async def story() -> Seen:
        await world.ready()
        await world.reload(NEW)
        await world.until(lambda _: f"{world.name}-next" in world.engine.containers)
        found = world.engine.containers[f"{world.name}-next"].container_id
        world.engine.said[found] = [("2026-11-26T12:00:03.000000001Z", "unrecognized option '--nonsense'")]
        world.engine.change(found, status="exited", pid=0, exit_code=1)
        return await world.until(refused)

    seen = tell(story)
    assert "unrecognized option" in seen.upgrade.why
    assert list(world.engine.containers) == [world.name]


def test_an_image_that_is_not_there_or_cannot_be_started_is_refused(world: UpgradeWorld) -> None:
    async def story() -> None:
        await world.ready()
        await world.reload(NEW)
        assert "image" in (await world.until(refused)).upgrade.why  # type: ignore[union-attr]
        world.add(NEWER, Part())
        world.engine.refuses[NEWER] = "exec format error"
        await world.reload(NEWER)
        seen = await world.until(lambda s: refused(s) and s.upgrade.image == NEWER)  # type: ignore[union-attr]
        assert "exec format error" in seen.upgrade.why  # type: ignore[union-attr]

    tell(story)
    assert world.serving == IMAGE


def test_what_was_refused_stays_so_over_restarts_until_somebody_reloads(world: UpgradeWorld) -> None:
    world.add(NEW, Part(scores=(9.0, 9.0)))

    async def refuse() -> None:
        await world.ready()
        await world.reload(NEW)
        await world.until(refused)

    tell(refuse)
    made = world.engine.made

    async def restarted() -> None:
        world.new_helper()
        world.new_supervisor()
        seen = await world.until(lambda seen: seen.state == "ready", gap=True)
        assert "before it was 0.25" in seen.upgrade.why  # type: ignore[union-attr]
        for _ in range(5):
            await world.until(refused)
        assert world.engine.made == made
        # The machine was off: nothing runs any more, and the good one is started.
        world.engine.containers.clear()
        world.new_helper()
        world.new_supervisor()
        await world.until(lambda seen: seen.state == "ready", gap=True)
        assert world.serving == IMAGE
        world.change_part(NEW, scores=(0.25, 0.75))
        await world.reload(NEW)
        await world.until(lambda _: world.serving == NEW)

    tell(restarted)


@pytest.mark.parametrize("reason", ["memory", "configured"])
def test_where_there_is_no_room_the_good_one_is_emptied_and_replaced(
    world: UpgradeWorld, reason: str
) -> None:
    world.add(NEW, Part())

    async def story() -> None:
        await world.ready()
        if reason == "memory":
            world.free(1 << 30)
        await world.reload(NEW, "beside" if reason == "memory" else "replace")
        emptied = await world.until(lambda _: world.supervisor.ready_models() == frozenset(), gap=True)
        assert world.serving == IMAGE  # it still answers what it was asked
        assert emptied.upgrade is not None
        assert ("MiB are free" if reason == "memory" else "runtime.upgrade") in emptied.upgrade.why
        last = await world.until(lambda seen: seen.state == "ready" and seen.upgrade is None, gap=True)
        assert (world.serving, last.failures) == (NEW, 0)

    tell(story)
    assert known(world)["good"] == NEW


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (Part(load_failure="no such operator"), "model a: no such operator"),
        (Part(wrong="the output scores is missing"), "the output scores is missing"),
        (Part(live=False), "it did not answer in time after its start"),
    ],
)
def test_in_its_place_a_bad_image_is_followed_by_the_good_one(
    world: UpgradeWorld, part: Part, why: str
) -> None:
    world.add(NEW, part)

    async def story() -> Seen:
        await world.ready()
        await world.reload(NEW, "replace")
        await world.until(lambda _: world.serving == NEW, gap=True)
        return await world.until(lambda seen: refused(seen) and seen.state == "ready", gap=True)

    seen = tell(story)
    assert why in seen.upgrade.why
    assert (world.serving, known(world)["refused"]) == (IMAGE, NEW)


def test_in_its_place_one_that_refuses_its_options_is_no_dead_end(world: UpgradeWorld) -> None:
    world.add(NEW, Part(live=False))

    async def story() -> Seen:
        await world.ready()
        await world.reload(NEW, "replace")
        await world.until(lambda _: world.serving == NEW, gap=True)
        found = world.engine.containers[world.name].container_id
        world.engine.said[found] = [("2026-11-26T12:00:03.000000001Z", "unrecognized option '--nonsense'")]
        world.engine.change(found, status="exited", pid=0, exit_code=1)
        return await world.until(lambda seen: refused(seen) and seen.state == "ready", gap=True)

    seen = tell(story)
    assert "unrecognized option" in seen.upgrade.why
    assert world.serving == IMAGE


def test_a_helper_that_was_restarted_with_another_image_gives_it_its_trial_in_place(
    world: UpgradeWorld,
) -> None:
    world.add(NEW, Part(load_failure="no such operator"))

    async def story() -> None:
        await world.ready()
        await world.host.close()
        world.image = NEW
        world.new_helper()
        world.new_supervisor()
        await world.until(lambda seen: refused(seen) and seen.state == "ready", gap=True)

    tell(story)
    assert world.serving == IMAGE


@pytest.mark.parametrize("restarts", [False, True])
def test_a_model_that_was_no_good_before_says_nothing_against_an_image(
    world: UpgradeWorld, restarts: bool
) -> None:
    world.add(NEW, Part())

    async def story() -> None:
        await world.ready()
        world.change_part(IMAGE, wrong="nonsense")
        world.change_part(NEW, wrong="nonsense")
        world.clock.advance(60)
        await world.until(lambda seen: seen.models[0].status == "broken", gap=True)
        if restarts:
            await world.until(
                lambda _: '"answered": []' in (world.folder / "upgrade.json").read_text(), gap=True
            )
            await world.host.close()
            world.image = NEW
            world.new_helper()
            world.new_supervisor()
        else:
            await world.reload(NEW, "replace")
        await world.until(lambda seen: world.serving == NEW and known(world)["good"] == NEW, gap=True)

    tell(story)


def test_a_stop_of_the_helper_amid_a_trial_refuses_nothing(world: UpgradeWorld) -> None:
    world.add(NEW, Part(live=False))

    async def story() -> None:
        await world.ready()
        await world.reload(NEW)
        await world.until(lambda _: f"{world.name}-next" in world.engine.containers)
        await world.host.close()

    tell(story)
    assert known(world)["refused"] == ""
    assert not any(found.running for found in world.engine.containers.values())


def test_a_helper_killed_between_promotion_and_the_old_ones_end_is_taken_up(world: UpgradeWorld) -> None:
    world.add(NEW, Part())

    async def story() -> None:
        await world.ready()
        await world.reload(NEW)
        await world.until(lambda _: f"{world.name}-next" in world.engine.containers)
        # As it is left after the promotion was written, before any name was changed.
        ImageMemory(world.folder / "state" / "images").promote(NEW)
        world.new_helper()
        world.new_supervisor()
        await world.until(lambda seen: seen.state == "ready", gap=True)

    tell(story)
    assert world.serving == NEW
    assert list(world.engine.containers) == [world.name]


def test_when_the_good_one_dies_meanwhile_it_comes_back_first(world: UpgradeWorld) -> None:
    world.add(NEW, Part(live=False))

    async def story() -> None:
        await world.ready()
        await world.reload(NEW)
        await world.until(lambda _: f"{world.name}-next" in world.engine.containers)
        found = world.engine.containers[world.name].container_id
        world.engine.change(found, status="exited", pid=0, exit_code=139)
        await world.until(lambda seen: seen.state == "backing_off", gap=True)
        world.change_part(NEW, live=True)
        await world.until(lambda seen: seen.state == "ready", gap=True)
        assert world.serving == IMAGE
        await world.until(lambda _: world.serving == NEW)

    tell(story)


def test_a_model_that_answers_otherwise_each_time_is_not_compared(world: UpgradeWorld) -> None:
    world.change_part(IMAGE, restless=True)
    world.add(NEW, Part())

    async def story() -> None:
        await world.ready()
        await world.reload(NEW)
        await world.until(lambda _: world.serving == NEW)

    tell(story)


def test_a_memory_that_cannot_be_read_or_written_is_told_and_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "images"
    directory.mkdir()
    (directory / "known.json").write_text('{"format": 2}')
    memory = ImageMemory(directory)
    assert memory.known.good == ""
    memory.promote(IMAGE)
    assert ImageMemory(directory).known.good == IMAGE
    (tmp_path / "file").write_text("")
    elsewhere = ImageMemory(tmp_path / "file" / "images")
    elsewhere.promote(IMAGE)
    assert elsewhere.known.good == IMAGE
    assert "forgotten at the next restart" in caplog.text


def test_another_state_directory_needs_a_restart(world: UpgradeWorld, tmp_path: Path) -> None:
    async def story() -> None:
        await world.ready()
        world.folder = tmp_path / "elsewhere"
        with pytest.raises(LotaBotsError) as failure:
            await world.host.reload(world.config())
        assert failure.value.code is Code.CONFIG_INVALID

    tell(story)
