"""The container runtime: Triton in one container of the pinned image, which outlives the helper's death.

Another `runtime.image` gets a trial: in a container beside the one that serves, or in its place. What ends
before it was promoted is refused, and the image that is known to be good serves on, or again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
from dataclasses import replace
from pathlib import Path
from typing import Any

from lotabotsd.foundation.config import Config
from lotabotsd.foundation.errors import Code, LotaBotsError

from .container_images import ReadyImages
from .container_run import Containers, Run
from .container_specification import LABEL_SPECIFICATION, Settings, settings_from
from .engine import Engine
from .image_memory import ImageMemory
from .messages import GIVEN_UP, NO_RUN, ExitKind, RunFacts, TrialFacts, TrialKind, fit_lines
from .run_secrets import RunSecrets
from .trial_room import MEMINFO, why_not_beside

log = logging.getLogger(__name__)
IMAGE_PATIENCE_SECONDS = 45.0  # then the caller is told that it goes on, and may ask again
RETIRE_SECONDS = 1.0  # above the time after which the gate sees that the sockets are another run's
_UNLOADING_SECONDS = 5.0  # as for the embedded runtime: what no request waits for need not unload
# What speaks against an image, and not against the moment.
_ITS_FAULT = (
    Code.IMAGE_MISSING,
    Code.IMAGE_DIGEST_MISMATCH,
    Code.CONFIG_INVALID,
    Code.RUNTIME_MISSING,
    Code.FILE_UNREADABLE,
    Code.ENGINE_REFUSED,
)


class ContainerRuntime:
    """Owns the one Triton container; every method is one verb of the helper.

    All state that matters is the engine's: a helper that begins finds its predecessor's container by name,
    adopts it when it was started with the very same settings, and replaces it otherwise.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine | None = None,
        settings: Settings | None = None,
        *,
        unloading_seconds: float = _UNLOADING_SECONDS,
        image_patience_seconds: float = IMAGE_PATIENCE_SECONDS,
        retire_seconds: float = RETIRE_SECONDS,
        meminfo: Path = MEMINFO,
    ) -> None:
        """Raises CONFIG_INVALID when the user that Triton shall run as does not exist."""
        self._config = config
        self._settings = settings if settings is not None else settings_from(config, *account(config))
        self._engine = engine if engine is not None else Engine(config.runtime.engine_socket)
        self._containers = Containers(
            self._engine,
            self._settings.appliance,
            RunSecrets(config.paths.run_secrets),
            unloading_seconds=unloading_seconds,
        )
        self._images = ReadyImages(self._engine, self._containers, config.runtime, image_patience_seconds)
        self._memory = ImageMemory(config.paths.images)
        self._retire_seconds = retire_seconds
        self._meminfo = meminfo
        self._run: Run | None = None
        self._next: Run | None = None  # on trial beside it
        self._kind: TrialKind | None = None  # of the trial; decided once for a configuration
        self._why = ""
        self._beginning: asyncio.Task[None] | None = None
        self._retiring: asyncio.Task[None] | None = None
        self._looked_before = False
        self._closing = False
        self._turn = asyncio.Lock()
        self._looking = asyncio.Lock()

    async def ensure(self) -> dict[str, Any]:
        """Whether image and engine are here.

        Raises RUNTIME_MISSING, IMAGE_MISSING, IMAGE_DIGEST_MISMATCH, IMAGE_LOADING, CONFIG_INVALID,
        FILE_UNREADABLE, ENGINE_UNAVAILABLE, ENGINE_REFUSED.
        """
        name = self._run.image if self._run is not None else self._image_now()
        image = (await self._images.ready(self._settings_of(name))).image
        facts = await asyncio.to_thread(self._engine.facts)
        versions = {"engine": facts.version, "image": name, "image_id": image.image_id}
        if version := image.variables.get("TRITON_SERVER_VERSION"):
            versions["triton"] = version
        production = image.labels.get("lotabots.production") != "false"
        return {"kind": "container", "production": production, "versions": versions}

    async def start(self) -> dict[str, Any]:
        """Start Triton, or find it running. Raises as `ensure` does, and FILE_UNWRITABLE.

        An image on trial that cannot be started is refused, and the good one started.
        """
        async with self._turn:
            facts = await self._look()
            if facts.running:
                return facts.to_dict()
            await self._remove_next()  # it has nothing to stand beside; it gets another trial
            name, good = self._image_now(), self._memory.known.good
            try:
                self._run = await self._begin(name)
            except LotaBotsError as error:
                if error.code not in _ITS_FAULT or good in ("", name):
                    raise
                self._memory.refuse(name, str(error))
                self._run = await self._begin(good)
            log.info("Triton started", extra={"run_id": self._run.run_id})
            return (await self._look()).to_dict()

    async def stop(self) -> dict[str, Any]:
        """End what is newest: a run on trial beside Triton, whose image is refused then; else Triton.

        Done when it is gone. Nothing when nothing runs. Raises ENGINE_UNAVAILABLE.
        """
        async with self._turn:
            facts = await self._look()
            if (given_up := self._next) is not None:
                await self._remove_next()
                self._memory.refuse(given_up.image, GIVEN_UP)
            elif facts.running and self._run is not None:
                await self._end(self._run)
            return (await self._look()).to_dict()

    async def promote(self) -> dict[str, Any]:
        """What is on trial serves from now on, and its image is the good one; nothing when nothing is.

        Beside Triton: its sockets take the place of the other's, which is drained and ended afterwards.
        Raises ENGINE_UNAVAILABLE, ENGINE_REFUSED.
        """
        async with self._turn:
            facts = await self._look()
            if self._next is not None:
                async with self._looking:
                    before = await asyncio.to_thread(self._flip, self._next)
                if before is not None:
                    self._retiring = asyncio.create_task(self._retire(before))
            elif facts.running and self._run is not None:
                self._memory.promote(self._run.image)
            return (await self._look()).to_dict()

    async def inspect(self) -> dict[str, Any]:
        """Whether it runs, and how it ended. Raises ENGINE_UNAVAILABLE, ENGINE_REFUSED."""
        return (await self._look()).to_dict()

    async def logs(self) -> dict[str, Any]:
        """Triton's last lines, of this run or of the one that ended."""
        await self._look()
        run = self._run
        if run is None:
            return {"lines": []}
        async with self._looking:
            said = await asyncio.to_thread(self._containers.hear, run, all_again=True)
        return {"lines": fit_lines([text for _, text in said])}

    async def reload(self, config: Config) -> None:
        """Another configuration: another image gets its trial, one that was refused another one.

        What else changed counts from the next start. Raises CONFIG_INVALID, ENGINE_UNAVAILABLE.
        """
        settings = settings_from(config, self._settings.uid, self._settings.gid)
        if settings.appliance != self._settings.appliance:
            raise LotaBotsError(Code.CONFIG_INVALID, "another state directory needs a restart")
        async with self._turn:
            await self._remove_next()
            self._config, self._settings, self._kind = config, settings, None
            self._images.configure(config.runtime)
            self._memory.forgive()
        log.info("the configuration was read again", extra={"image": settings.image})

    async def close(self) -> None:
        """End everything; nothing is refused for it. Raises ENGINE_UNAVAILABLE."""
        self._closing = True
        async with self._turn:
            await self._remove_next()
            if self._retiring is not None:
                await self._retiring
            if (await self._look()).running and self._run is not None:
                await self._end(self._run)
                await self._look()

    # ---- looking -------------------------------------------------------------------------------------

    async def _look(self) -> RunFacts:
        async with self._looking:
            facts = await asyncio.to_thread(self._look_now)
            self._think_of_trial(facts)
        proven = self._run is None or self._run.image == self._memory.known.good
        return replace(facts, proven=proven, trial=self._trial(facts))

    def _look_now(self) -> RunFacts:
        if not self._looked_before:
            self._find()
            self._looked_before = True
        name = self._settings.name
        if (beside := self._next) is not None:
            found = self._judged(beside, self._containers.look(beside, f"{name}-next"))
            if not found.running and found.exit is not None:
                self._next = None
                self._containers.make_room(f"{name}-next")
        run = self._run
        return NO_RUN if run is None else self._judged(run, self._containers.look(run, name))

    def _judged(self, run: Run, facts: RunFacts) -> RunFacts:
        """A trial that ended is over: then trying again helps, since it is another image that is tried."""
        if facts.exit is None or not run.witnessed or self._closing or not self._on_trial(run.image):
            return facts
        if self._memory.known.refused != run.image:
            why = GIVEN_UP if run.told_to_stop else facts.exit.text
            self._memory.refuse(run.image, why)
        if facts.exit.kind is ExitKind.CONFIGURATION:
            return replace(facts, exit=replace(facts.exit, kind=ExitKind.FAILED))
        return facts

    def _find(self) -> None:
        """What a helper before us left: the run that serves, and perhaps half of an upgrade."""
        name, good = self._settings.name, self._memory.known.good
        if (old := self._containers.ours(f"{name}-old")) is not None:
            self._engine.remove(old.container_id)
        beside, main = self._containers.ours(f"{name}-next"), self._containers.ours(name)
        wanted = self._settings_of(good).digest
        if beside is not None:
            promoted = main is None or main.labels.get(LABEL_SPECIFICATION) != wanted
            if good and promoted and beside.running:
                run = self._containers.adopted(beside, self._settings, good)
                if run is not None:  # promoted, and not yet under its name
                    self._containers.publish(run, alone=False)
                    self._containers.rename(run, name)
                    self._containers.publish(run, alone=True)
                    self._run = run
                    return
            self._containers.make_room(f"{name}-next")
        if main is not None:
            self._run = self._containers.adopted(main, self._settings, self._settings.image, good)

    # ---- acting --------------------------------------------------------------------------------------

    async def _begin(self, image: str) -> Run:
        settings = self._settings_of(image)
        ready = await self._images.ready(settings)
        self._run = None  # whoever looks meanwhile sees nothing running
        try:
            return await asyncio.to_thread(
                self._containers.begin, settings, ready.image, ready.flags, settings.name
            )
        except LotaBotsError:
            self._images.forget(image)  # perhaps it was removed
            raise

    async def _end(self, run: Run) -> None:
        await self._containers.end(run, self._config.runtime.stop_timeout_seconds, self._looking)

    # ---- the trial of another image ------------------------------------------------------------------

    def _think_of_trial(self, facts: RunFacts) -> None:
        """Decide, once, how the configured image gets its trial while another one serves; begin it."""
        run, image = self._run, self._settings.image
        if run is None or not facts.running or self._memory.known.refused == image or run.image == image:
            return
        if self._kind is None:
            unknown = run.image != self._memory.known.good
            self._why = (
                "the image that runs is not known to be good"
                if unknown
                else why_not_beside(self._config.runtime, self._meminfo)
            )
            self._kind = TrialKind.REPLACE if self._why else TrialKind.BESIDE
            log.info("another image gets its trial", extra={"image": image, "how": self._kind.value})
        under_way = self._beginning is not None and not self._beginning.done()
        if self._kind is TrialKind.BESIDE and self._next is None and not under_way and not self._closing:
            self._beginning = asyncio.create_task(self._begin_beside(self._settings))

    async def _begin_beside(self, settings: Settings) -> None:
        name = f"{settings.name}-next"
        try:
            ready = await self._images.ready(settings)
            async with self._turn:
                facts = await self._look()
                run = self._run
                if run is None or not facts.running or self._settings is not settings or self._closing:
                    return
                self._next = await asyncio.to_thread(
                    self._containers.begin, settings, ready.image, ready.flags, name, beside=run.run_id
                )
        except LotaBotsError as error:
            if error.code in _ITS_FAULT:
                self._images.forget(settings.image)
                self._memory.refuse(settings.image, str(error))
            # The rest passes: the next look begins it again.

    def _flip(self, beside: Run) -> Run | None:
        """The run on trial becomes the one that serves; returns the one that did. `_find` can go on."""
        name = self._settings.name
        before = self._run
        self._containers.publish(beside, alone=False)
        self._memory.promote(beside.image)
        if before is not None:
            self._containers.rename(before, f"{name}-old")
        self._containers.rename(beside, name)
        self._run, self._next, self._kind = beside, None, None
        log.info("another image serves", extra={"image": beside.image, "run_id": beside.run_id})
        return before

    async def _retire(self, before: Run) -> None:
        """The gate's connections to it are given up by now, or end with the requests that they carry."""
        run = self._run
        await asyncio.sleep(self._retire_seconds)
        try:
            await self._end(before)
            async with self._looking:
                await asyncio.to_thread(self._containers.remove, before)
                if run is not None and self._run is run:
                    # Triton removes its own gRPC socket by its path, which is the new one's by now.
                    await asyncio.to_thread(self._containers.publish, run, alone=True)
        except LotaBotsError as error:
            log.error("the container before could not be ended: %s", error)

    async def _remove_next(self) -> None:
        async with self._looking:
            beside, self._next = self._next, None
            if beside is not None:
                await asyncio.to_thread(self._containers.remove, beside)

    def _trial(self, facts: RunFacts) -> TrialFacts | None:
        known, image, run = self._memory.known, self._settings.image, self._run
        if known.refused == image:
            return TrialFacts(TrialKind.REFUSED, image, why=known.why)
        if run is None or not facts.running:
            return None
        if run.image == image:
            return TrialFacts(TrialKind.IN_PLACE, image) if self._on_trial(image) else None
        if self._kind is TrialKind.REPLACE:
            return TrialFacts(TrialKind.REPLACE, image, why=self._why)
        beside = self._next
        return TrialFacts(
            TrialKind.BESIDE, image, beside.run_id if beside else "", beside.secret if beside else ""
        )

    def _on_trial(self, image: str) -> bool:
        return self._memory.known.good not in ("", image)

    def _image_now(self) -> str:
        """What a start takes: what is configured, unless it was refused or stands beside the good one."""
        known, image = self._memory.known, self._settings.image
        back = known.refused == image or self._kind is TrialKind.BESIDE
        return known.good if back and known.good else image

    def _settings_of(self, image: str) -> Settings:
        return replace(self._settings, image=image)


def account(config: Config) -> tuple[int, int]:
    """Uid and gid of Triton: as root those of `runtime.user`, else (in development) our own.

    Raises CONFIG_INVALID when there is no such user, or it is root.
    """
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    name = config.runtime.user
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        found = None
    if found is None or found.pw_uid == 0:
        raise LotaBotsError(
            Code.CONFIG_INVALID,
            f"runtime.user {name!r} is {'root' if found else 'not a user here'}",
            hint="make the users: systemd-sysusers, with systemd/sysusers.d/lotabots.conf",
        )
    return found.pw_uid, found.pw_gid
