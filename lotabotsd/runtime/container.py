"""The container runtime: Triton in one container of the pinned image, which outlives the helper's death."""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lotabotsd.foundation.config import Config
from lotabotsd.foundation.errors import Code, LotaBotsError

from .command import command_line, flags_in_help
from .container_image import bring_image
from .container_specification import (
    LABEL_APPLIANCE,
    LABEL_RUN,
    LABEL_SPECIFICATION,
    SERVER,
    Settings,
    probe_specification,
    run_spec,
    settings_from,
    specification,
)
from .engine import Container, Engine, Image
from .exits import explain_exit
from .messages import NO_RUN, ExitFacts, ExitKind, RunFacts, fit_lines
from .run_secrets import RunSecrets
from .triton_lines import EMPTIED, pass_on

log = logging.getLogger(__name__)
MAX_LINES = 400
IMAGE_PATIENCE_SECONDS = 45.0  # then the caller is told that it goes on, and may ask again
_LOOK_AGAIN_SECONDS = 0.2
_UNLOADING_SECONDS = 5.0  # as for the embedded runtime: what no request waits for need not unload


@dataclass(slots=True)
class _Run:
    """A container of ours, running or not."""

    container_id: str
    run_id: str
    secret: str
    told_to_stop: bool = False
    heard_until: str = ""  # the moment of the last line that was passed on
    ended: ExitFacts | None = None
    end_told: bool = False


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
    ) -> None:
        """Raises CONFIG_INVALID when the user that Triton shall run as does not exist."""
        self._config = config
        self._settings = settings if settings is not None else settings_from(config, *account(config))
        self._engine = engine if engine is not None else Engine(config.runtime.engine_socket)
        self._unloading_seconds = unloading_seconds
        self._image_patience_seconds = image_patience_seconds
        self._secrets = RunSecrets(config.paths.run_secrets)
        self._bringing: asyncio.Task[tuple[Image, frozenset[str]]] | None = None
        self._run: _Run | None = None
        self._looked_before = False
        self._turn = asyncio.Lock()
        self._looking = asyncio.Lock()

    async def ensure(self) -> dict[str, Any]:
        """Whether image and engine are here.

        Raises RUNTIME_MISSING, IMAGE_MISSING, IMAGE_DIGEST_MISMATCH, IMAGE_LOADING, CONFIG_INVALID,
        FILE_UNREADABLE, ENGINE_UNAVAILABLE, ENGINE_REFUSED.
        """
        image, _ = await self._ready_image()
        facts = await asyncio.to_thread(self._engine.facts)
        versions = {"engine": facts.version, "image": self._config.runtime.image, "image_id": image.image_id}
        if version := image.variables.get("TRITON_SERVER_VERSION"):
            versions["triton"] = version
        production = image.labels.get("lotabots.production") != "false"
        return {"kind": "container", "production": production, "versions": versions}

    async def start(self) -> dict[str, Any]:
        """Start Triton, or find it running. Raises as `ensure` does, and FILE_UNWRITABLE."""
        async with self._turn:
            facts = await self._look()
            if facts.running:
                return facts.to_dict()
            image, flags = await self._ready_image()
            self._run = None  # whoever looks meanwhile sees nothing running
            try:
                self._run = await asyncio.to_thread(self._start, image, flags)
            except LotaBotsError:
                self._bringing = None  # perhaps the image was removed
                raise
            log.info("Triton started", extra={"run_id": self._run.run_id})
            return (await self._look()).to_dict()

    async def stop(self) -> dict[str, Any]:
        """End Triton; done when it is gone. Nothing when it is not running. Raises ENGINE_UNAVAILABLE."""
        async with self._turn:
            facts = await self._look()
            if facts.running and self._run is not None:
                await self._end(self._run)
                facts = await self._look()
            return facts.to_dict()

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
            said = await asyncio.to_thread(self._hear, run, all_again=True)
        return {"lines": fit_lines([text for _, text in said])}

    # ---- looking -------------------------------------------------------------------------------------

    async def _look(self) -> RunFacts:
        async with self._looking:
            return await asyncio.to_thread(self._look_now)

    def _look_now(self) -> RunFacts:
        found = self._engine.container(self._settings.name)
        if not self._looked_before:
            self._run = self._adopted(found) if found is not None else None
            self._looked_before = True
        run = self._run
        if run is None:
            return NO_RUN
        if found is None or found.container_id != run.container_id:
            gone = "it was stopped" if run.told_to_stop else "its container was removed by somebody"
            kind = ExitKind.STOPPED if run.told_to_stop else ExitKind.KILLED
            return self._ended(run, ExitFacts(137, kind, gone))
        if found.running:
            self._hear(run)
            return RunFacts(run.run_id, running=True, pid=found.pid, secret=run.secret)
        if found.status == "created":
            return RunFacts(run.run_id, running=False, pid=0, secret="", exit=None)
        if run.ended is None:
            run.ended = _explained(run, found, [text for _, text in self._hear(run, all_again=True)])
        return self._ended(run, run.ended)

    def _adopted(self, found: Container) -> _Run | None:
        """The run before us, if it is ours and as we would start it; else nothing: ours is removed then."""
        if found.labels.get(LABEL_APPLIANCE) != self._settings.appliance:
            return None  # somebody else's, with our name: starting will fail and say so
        run_id = found.labels.get(LABEL_RUN, "")
        secret = self._secrets.read(run_id)
        same = found.labels.get(LABEL_SPECIFICATION) == self._settings.digest
        if secret and (same or not found.running):
            log.info("found Triton's container of before", extra={"run_id": run_id, "pid": found.pid})
            return _Run(found.container_id, run_id, secret)
        why = "it was started with other settings" if secret else "its secret is gone"
        log.warning("a container of before is removed: %s", why, extra={"run_id": run_id})
        self._engine.remove(found.container_id)
        return None

    def _hear(self, run: _Run, *, all_again: bool = False) -> list[tuple[str, str]]:
        """Its newest lines, or all that are kept; those not heard yet are passed on."""
        since = 0 if all_again else _whole_seconds(run.heard_until)
        said = self._engine.lines(run.container_id, MAX_LINES, since)
        said = [(moment, text.replace(run.secret, "…") if run.secret else text) for moment, text in said]
        for moment, text in said:
            if moment > run.heard_until:
                pass_on(text)
        run.heard_until = max([run.heard_until, *(moment for moment, _ in said)])
        return said

    def _ended(self, run: _Run, ended: ExitFacts) -> RunFacts:
        if not run.end_told:
            run.end_told = True
            if ended.kind is ExitKind.STOPPED:
                log.info("Triton stopped", extra={"run_id": run.run_id})
            else:
                log.error("Triton ended: %s", ended.text, extra={"run_id": run.run_id, "code": ended.code})
        return RunFacts(run.run_id, running=False, pid=0, secret="", exit=ended)

    # ---- acting --------------------------------------------------------------------------------------

    async def _ready_image(self) -> tuple[Image, frozenset[str]]:
        """The image and the options of its Triton; one search at a time, which outlives who asked for it."""
        if self._bringing is not None and self._bringing.done() and not _succeeded(self._bringing):
            self._bringing = None
        if self._bringing is None:
            self._bringing = asyncio.create_task(asyncio.to_thread(self._bring))
        await asyncio.wait((self._bringing,), timeout=self._image_patience_seconds)
        if not self._bringing.done():
            raise LotaBotsError(Code.IMAGE_LOADING, self._config.runtime.image)
        return self._bringing.result()

    def _bring(self) -> tuple[Image, frozenset[str]]:
        image = bring_image(self._engine, self._config.runtime)
        return image, self._probe(image)

    def _probe(self, image: Image) -> frozenset[str]:
        """Which options its Triton knows: an unknown one would end it."""
        name = f"{self._settings.name}-probe"
        self._remove_ours(name)
        container_id = self._engine.create(probe_specification(self._settings, image.image_id), name)
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

    def _start(self, image: Image, flags: frozenset[str]) -> _Run:
        settings = self._settings
        self._remove_ours(settings.name)
        run_id = secrets.token_hex(8)
        secret = self._secrets.make(run_id)
        command = command_line(SERVER, run_spec(settings), flags)
        facts = self._engine.facts()
        whole = specification(settings, run_id, image.image_id, command, facts)
        container_id = self._engine.create(whole, settings.name)
        self._engine.start(container_id)
        return _Run(container_id, run_id, secret)

    def _remove_ours(self, name: str) -> None:
        """Make room for a container. Raises ENGINE_REFUSED when somebody else's has its name."""
        found = self._engine.container(name)
        if found is None:
            return
        if found.labels.get(LABEL_APPLIANCE) != self._settings.appliance:
            raise LotaBotsError(
                Code.ENGINE_REFUSED,
                f"a container that is not ours has the name {name}",
                hint=f"rename or remove it: docker rename {name} ANOTHER",
            )
        self._engine.remove(found.container_id)

    async def _end(self, run: _Run) -> None:
        """SIGTERM; wait for running requests, then for models to unload; SIGKILL."""
        run.told_to_stop = True
        await asyncio.to_thread(self._engine.signal, run.container_id, "SIGTERM")
        deadline = time.monotonic() + self._config.runtime.stop_timeout_seconds
        emptied = False
        while True:
            found = await asyncio.to_thread(self._engine.container, run.container_id)
            if found is None or not found.running:
                return
            if not emptied:
                async with self._looking:
                    said = await asyncio.to_thread(self._hear, run)
                emptied = any(EMPTIED in text for _, text in said)
                if emptied:
                    deadline = min(deadline, time.monotonic() + self._unloading_seconds)
            if time.monotonic() >= deadline:
                break
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        await asyncio.to_thread(self._engine.signal, run.container_id, "SIGKILL")
        await asyncio.to_thread(self._engine.wait, run.container_id)


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


def _whole_seconds(moment: str) -> int:
    """Unix time of an RFC 3339 moment in UTC, cut to seconds; 0 for none."""
    return int(datetime.fromisoformat(f"{moment[:19]}+00:00").timestamp()) if moment else 0


def _explained(run: _Run, found: Container, lines: list[str]) -> ExitFacts:
    if not run.told_to_stop and found.out_of_memory:
        text = "it was killed: it needed more than runtime.memory_bytes"
        return ExitFacts(found.exit_code, ExitKind.KILLED, text)
    if not run.told_to_stop and found.error:
        return ExitFacts(found.exit_code, ExitKind.FAILED, f"it could not be started: {found.error[:300]}")
    return explain_exit(found.exit_code, lines, requested=run.told_to_stop)


def _succeeded(task: asyncio.Task[tuple[Image, frozenset[str]]]) -> bool:
    return not task.cancelled() and task.exception() is None
