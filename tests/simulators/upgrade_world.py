"""The supervisor over the real container runtime, an engine in memory, and a Triton per image."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from engine_in_memory import IMAGE, EngineInMemory

from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.config import Config, parse
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.runtime.canary import Canary, CanaryAnswer, CanaryTensor
from lotabotsd.runtime.client import ModelState
from lotabotsd.runtime.container import ContainerRuntime
from lotabotsd.runtime.container_specification import settings_from
from lotabotsd.runtime.messages import RunFacts
from lotabotsd.runtime.plan import DesiredModel
from lotabotsd.runtime.seen import Seen
from lotabotsd.runtime.supervisor import Supervisor

NEW = "sha256:" + "b" * 64
NEWER = "sha256:" + "c" * 64
SCORE = CanaryTensor("scores", "FP32", (1, 2))
MODEL = DesiredModel("a", "digest-a", Canary((), (SCORE,)))
SECONDS = 10.0


@dataclass
class Part:
    """How the Tritons of one image behave."""

    live: bool = True
    load_failure: str = ""
    wrong: str = ""
    scores: tuple[float, ...] = (0.25, 0.75)
    busy: int = 0  # how often its queue is full first
    restless: bool = False  # another answer each time


class FakeTriton:
    """One client: `image` gives the image of the Triton that it reaches, or nothing."""

    def __init__(self, world: UpgradeWorld, container: Callable[[], str]) -> None:
        self._world = world
        self._container = container

    def _part(self) -> tuple[str, Part]:
        container_id, image = self._world.running(self._container())
        if not image:
            raise LotaBotsError(Code.RUNTIME_UNAVAILABLE, "connection refused")
        return container_id, self._world.parts[image]

    async def live(self) -> bool:
        try:
            return self._part()[1].live
        except LotaBotsError:
            return False

    async def version(self) -> str:
        return "9.9"

    async def index(self) -> dict[str, ModelState]:
        container_id, _ = self._part()
        return {name: ModelState("READY", "") for name in self._world.loaded.get(container_id, ())}

    async def load(self, name: str) -> None:
        container_id, part = self._part()
        if part.load_failure:
            raise LotaBotsError(Code.MODEL_FAILED, part.load_failure)
        self._world.loaded.setdefault(container_id, set()).add(name)

    async def unload(self, name: str) -> None:
        self._world.loaded.get(self._part()[0], set()).discard(name)

    async def canary(self, name: str, canary: Canary) -> str:
        return (await self.canary_answer(name, canary)).wrong

    async def canary_answer(self, name: str, canary: Canary) -> CanaryAnswer:
        _, part = self._part()
        if part.busy:
            part.busy -= 1
            raise LotaBotsError(Code.OVERLOADED, "the queue is full")
        if part.restless:
            part.scores = tuple(score + 1 for score in part.scores)
        return answer_of(part.scores, part.wrong)


def answer_of(scores: tuple[float, ...], wrong: str = "") -> CanaryAnswer:
    """An answer to MODEL's canary."""
    body = struct.pack(f"<{len(scores)}f", *scores)
    output = {
        "name": SCORE.name,
        "datatype": SCORE.datatype,
        "shape": [1, len(scores)],
        "parameters": {"binary_data_size": len(body)},
    }
    head = json.dumps({"outputs": [output]}).encode()
    return CanaryAnswer(wrong, head + body, len(head))


class Verbs:
    """The helper's verbs without a socket between."""

    def __init__(self, host: ContainerRuntime) -> None:
        self.host = host
        self.asked: list[str] = []

    async def start(self) -> RunFacts:
        self.asked.append("start")
        return RunFacts.from_dict(await self.host.start())

    async def stop(self) -> RunFacts:
        self.asked.append("stop")
        return RunFacts.from_dict(await self.host.stop())

    async def promote(self) -> RunFacts:
        self.asked.append("promote")
        return RunFacts.from_dict(await self.host.promote())

    async def inspect(self) -> RunFacts:
        return RunFacts.from_dict(await self.host.inspect())


class UpgradeWorld:
    """An appliance whose images play parts; helpers and supervisors come and go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = EngineInMemory(IMAGE)
        self.parts: dict[str, Part] = {IMAGE: Part()}
        self.loaded: dict[str, set[str]] = {}  # by container
        self.clock = FixedClock(datetime(2026, 11, 26, tzinfo=UTC))
        self.meminfo = folder / "meminfo"
        self.free(64 << 30)
        self.image, self.upgrade = IMAGE, "beside"
        self.new_helper()
        self.new_supervisor()

    def free(self, free_bytes: int) -> None:
        self.meminfo.write_text(f"MemTotal: 1 kB\nMemAvailable: {free_bytes >> 10} kB\n")

    def add(self, image: str, part: Part) -> None:
        self.engine.add(image)
        self.parts[image] = part

    def config(self) -> Config:
        return parse(
            f"""
[appliance]
state_directory = "{self.folder}/state"
run_directory = "{self.folder}/run"
[runtime]
kind = "container"
image = "{self.image}"
upgrade = "{self.upgrade}"
stop_timeout_seconds = 1
""".encode(),
            "test",
        )

    def new_helper(self) -> None:
        config = self.config()
        self.host = ContainerRuntime(
            config,
            self.engine,  # type: ignore[arg-type]
            settings_from(config, 990, 991),
            retire_seconds=0,
            meminfo=self.meminfo,
        )
        self.verbs = Verbs(self.host)
        self.name = settings_from(config, 990, 991).name

    def new_supervisor(self) -> None:
        self.supervisor = Supervisor(
            self.verbs,
            lambda secret: FakeTriton(self, lambda: self.name),
            self.clock,
            start_timeout_seconds=0.3,
            beside=lambda run_id, secret: FakeTriton(self, lambda: f"{self.name}-next"),
            notes=self.folder / "upgrade.json",
        )
        self.supervisor.want([MODEL])

    async def reload(self, image: str, upgrade: str = "beside") -> None:
        """As an administrator does: write it, then systemctl reload lotabots-runtime."""
        self.image, self.upgrade = image, upgrade
        await self.host.reload(self.config())

    def running(self, name: str) -> tuple[str, str]:
        """The id and the image of a container that runs."""
        found = self.engine.containers.get(name)
        if found is None or not found.running:
            return "", ""
        return found.container_id, str(self.engine.specifications_by_id[found.container_id]["Image"])

    @property
    def serving(self) -> str:
        """The image that serves."""
        return self.running(self.name)[1]

    async def until(self, wanted: Callable[[Seen], bool], *, gap: bool = False) -> Seen:
        """Round after round; without a `gap` the model must answer in each of them."""
        async with asyncio.timeout(SECONDS):
            while True:
                self.clock.advance(1)
                seen = await self.supervisor.one_round()
                assert gap or self.supervisor.ready_models() == {MODEL.name}, seen
                if wanted(seen):
                    return seen
                await asyncio.sleep(0)

    async def ready(self) -> Seen:
        """Everything is in place, and nothing on trial."""
        return await self.until(
            lambda seen: (
                seen.state == "ready" and seen.upgrade is None and self.verbs.asked[-1:] != ["start"]
            ),
            gap=True,
        )

    def change_part(self, image: str, **values: object) -> None:
        self.parts[image] = replace(self.parts[image], **values)  # type: ignore[arg-type]
