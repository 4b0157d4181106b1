"""Images ready to be started: here, checked, and asked which options their Triton knows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from lotabotsd.foundation.config import RuntimeConfig
from lotabotsd.foundation.errors import Code, LotaBotsError

from .command import flags_in_help
from .container_image import bring_image
from .container_run import Containers
from .container_specification import SERVER, Settings, probe_specification
from .engine import Engine, Image


@dataclass(frozen=True, slots=True)
class ReadyImage:
    """An image that is here, and the options of its Triton."""

    image: Image
    flags: frozenset[str]


class ReadyImages:
    """Each is searched for once at a time; a search outlives who asked for it."""

    def __init__(
        self, engine: Engine, containers: Containers, runtime: RuntimeConfig, patience_seconds: float
    ) -> None:
        self._engine = engine
        self._containers = containers
        self._runtime = runtime
        self._patience_seconds = patience_seconds
        self._searches: dict[str, asyncio.Task[ReadyImage]] = {}

    async def ready(self, settings: Settings) -> ReadyImage:
        """The image of `settings`.

        Only the configured one is loaded or pulled: one of before is here, or it is not.
        Raises RUNTIME_MISSING, IMAGE_MISSING, IMAGE_DIGEST_MISMATCH, IMAGE_LOADING, CONFIG_INVALID,
        FILE_UNREADABLE, ENGINE_UNAVAILABLE, ENGINE_REFUSED.
        """
        name = settings.image
        search = self._searches.get(name)
        if search is None or (search.done() and not _succeeded(search)):
            search = asyncio.create_task(asyncio.to_thread(self._bring, settings))
            self._searches[name] = search
        await asyncio.wait((search,), timeout=self._patience_seconds)
        if not search.done():
            raise LotaBotsError(Code.IMAGE_LOADING, name)
        return search.result()

    def forget(self, image: str) -> None:
        """Look for it again the next time: perhaps it was removed."""
        if (search := self._searches.get(image)) is not None and search.done():
            del self._searches[image]

    def configure(self, runtime: RuntimeConfig) -> None:
        """Another configuration: it says where images come from."""
        self._runtime = runtime
        for image in tuple(self._searches):
            self.forget(image)

    def _bring(self, settings: Settings) -> ReadyImage:
        runtime = self._runtime
        if settings.image != runtime.image:
            runtime = replace(runtime, image=settings.image, image_archive="", allow_pull=False)
        image = bring_image(self._engine, runtime)
        return ReadyImage(image, self._probe(settings, image))

    def _probe(self, settings: Settings, image: Image) -> frozenset[str]:
        """Which options its Triton knows: an unknown one would end it."""
        name = f"{settings.name}-probe"
        self._containers.make_room(name)
        container_id = self._engine.create(probe_specification(settings, image.image_id), name)
        try:
            self._engine.start(container_id)
            self._engine.wait(container_id)
            said = [text for _, text in self._engine.lines(container_id, 10_000)]
        finally:
            self._engine.remove(container_id)
        flags = flags_in_help("\n".join(said))
        if not flags:
            reason = said[-1][:300] if said else "it says nothing"
            raise LotaBotsError(Code.RUNTIME_MISSING, f"{SERVER} --help lists no options: {reason}")
        return flags


def _succeeded(task: asyncio.Task[ReadyImage]) -> bool:
    return not task.cancelled() and task.exception() is None
