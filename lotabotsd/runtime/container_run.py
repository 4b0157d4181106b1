"""One container of Triton: begun, looked at, listened to, published, ended. All but `end` block."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass, replace
from datetime import datetime

from lotabotsd.foundation.errors import Code, LotaBotsError

from .command import command_line
from .container_specification import (
    LABEL_APPLIANCE,
    LABEL_RUN,
    LABEL_SPECIFICATION,
    SERVER,
    Settings,
    publication,
    run_spec,
    specification,
)
from .engine import Container, Engine, Image
from .exits import explain_exit
from .messages import ExitFacts, ExitKind, RunFacts
from .run_secrets import RunSecrets
from .triton_lines import EMPTIED, pass_on

log = logging.getLogger(__name__)
MAX_LINES = 400
_LOOK_AGAIN_SECONDS = 0.2


@dataclass(slots=True)
class Run:
    """A container of ours, running or not."""

    container_id: str
    run_id: str
    secret: str
    image: str  # as the configuration names it
    told_to_stop: bool = False
    witnessed: bool = False  # we started it, or saw it running: its end says something
    heard_until: str = ""  # the moment of the last line that was passed on
    ended: ExitFacts | None = None
    end_told: bool = False


class Containers:
    """What the engine does for one appliance; raises what the engine raises."""

    def __init__(
        self, engine: Engine, appliance: str, run_secrets: RunSecrets, *, unloading_seconds: float
    ) -> None:
        self._engine = engine
        self._appliance = appliance
        self._secrets = run_secrets
        self._unloading_seconds = unloading_seconds

    def begin(
        self, settings: Settings, image: Image, flags: frozenset[str], name: str, *, beside: str = ""
    ) -> Run:
        """Start a container; `beside` is the id of the run that serves meanwhile. Raises FILE_UNWRITABLE."""
        self.make_room(name)
        run_id = secrets.token_hex(8)
        secret = self._secrets.make(run_id, beside=beside)
        command = command_line(SERVER, run_spec(settings, run_id if beside else ""), flags)
        facts = self._engine.facts()
        whole = specification(settings, run_id, image.image_id, command, facts, beside=bool(beside))
        container_id = self._engine.create(whole, name)
        self._engine.start(container_id)
        return Run(container_id, run_id, secret, settings.image, witnessed=True)

    def ours(self, name: str) -> Container | None:
        """The container of a name, if it is ours."""
        found = self._engine.container(name)
        return found if found is not None and found.labels.get(LABEL_APPLIANCE) == self._appliance else None

    def adopted(self, found: Container, settings: Settings, *images: str) -> Run | None:
        """A run before us, if it was started as we would start one of these images; else it is removed."""
        run_id = found.labels.get(LABEL_RUN, "")
        secret = self._secrets.read(run_id)
        said = found.labels.get(LABEL_SPECIFICATION)
        same = [image for image in images if image and replace(settings, image=image).digest == said]
        if secret and (same or not found.running):
            log.info("found Triton's container of before", extra={"run_id": run_id, "pid": found.pid})
            return Run(found.container_id, run_id, secret, same[0] if same else settings.image)
        why = "it was started with other settings" if secret else "its secret is gone"
        log.warning("a container of before is removed: %s", why, extra={"run_id": run_id})
        self._engine.remove(found.container_id)
        return None

    def look(self, run: Run, name: str) -> RunFacts:
        """Whether it runs, and how it ended."""
        found = self._engine.container(name)
        if found is None or found.container_id != run.container_id:
            gone = "it was stopped" if run.told_to_stop else "its container was removed by somebody"
            kind = ExitKind.STOPPED if run.told_to_stop else ExitKind.KILLED
            return _ended(run, ExitFacts(137, kind, gone))
        if found.running:
            run.witnessed = True
            self.hear(run)
            return RunFacts(run.run_id, running=True, pid=found.pid, secret=run.secret)
        if found.status == "created":
            return RunFacts(run.run_id, running=False, pid=0, secret="", exit=None)
        if run.ended is None:
            run.ended = _explained(run, found, [text for _, text in self.hear(run, all_again=True)])
        return _ended(run, run.ended)

    def hear(self, run: Run, *, all_again: bool = False) -> list[tuple[str, str]]:
        """Its newest lines, or all that are kept; those not heard yet are passed on."""
        since = 0 if all_again else _whole_seconds(run.heard_until)
        said = self._engine.lines(run.container_id, MAX_LINES, since)
        said = [(moment, text.replace(run.secret, "…") if run.secret else text) for moment, text in said]
        for moment, text in said:
            if moment > run.heard_until:
                pass_on(text)
        run.heard_until = max([run.heard_until, *(moment for moment, _ in said)])
        return said

    def publish(self, run: Run, *, alone: bool) -> None:
        """Put the sockets of a run that started beside another one in the place of the other's."""
        self._engine.run_inside(run.container_id, publication(run.run_id, alone=alone))

    def rename(self, run: Run, name: str) -> None:
        """Give its container another name."""
        self.make_room(name)
        self._engine.rename(run.container_id, name)

    def remove(self, run: Run) -> None:
        """End it at once and remove it."""
        self._engine.remove(run.container_id)

    def make_room(self, name: str) -> None:
        """No container has this name. Raises ENGINE_REFUSED when somebody else's has it."""
        found = self._engine.container(name)
        if found is None:
            return
        if found.labels.get(LABEL_APPLIANCE) != self._appliance:
            raise LotaBotsError(
                Code.ENGINE_REFUSED,
                f"a container that is not ours has the name {name}",
                hint=f"rename or remove it: docker rename {name} ANOTHER",
            )
        self._engine.remove(found.container_id)

    async def end(self, run: Run, timeout_seconds: float, hearing: asyncio.Lock) -> None:
        """SIGTERM; wait for running requests, then for models to unload; SIGKILL."""
        run.told_to_stop = True
        await asyncio.to_thread(self._engine.signal, run.container_id, "SIGTERM")
        deadline = time.monotonic() + timeout_seconds
        emptied = False
        while True:
            found = await asyncio.to_thread(self._engine.container, run.container_id)
            if found is None or not found.running:
                return
            if not emptied:
                async with hearing:
                    said = await asyncio.to_thread(self.hear, run)
                emptied = any(EMPTIED in text for _, text in said)
                if emptied:
                    deadline = min(deadline, time.monotonic() + self._unloading_seconds)
            if time.monotonic() >= deadline:
                break
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        await asyncio.to_thread(self._engine.signal, run.container_id, "SIGKILL")
        await asyncio.to_thread(self._engine.wait, run.container_id)


def _ended(run: Run, ended: ExitFacts) -> RunFacts:
    if not run.end_told:
        run.end_told = True
        if ended.kind is ExitKind.STOPPED:
            log.info("Triton stopped", extra={"run_id": run.run_id})
        else:
            log.error("Triton ended: %s", ended.text, extra={"run_id": run.run_id, "code": ended.code})
    return RunFacts(run.run_id, running=False, pid=0, secret="", exit=ended)


def _whole_seconds(moment: str) -> int:
    """Unix time of an RFC 3339 moment in UTC, cut to seconds; 0 for none."""
    return int(datetime.fromisoformat(f"{moment[:19]}+00:00").timestamp()) if moment else 0


def _explained(run: Run, found: Container, lines: list[str]) -> ExitFacts:
    if not run.told_to_stop and found.out_of_memory:
        text = "it was killed: it needed more than runtime.memory_bytes"
        return ExitFacts(found.exit_code, ExitKind.KILLED, text)
    if not run.told_to_stop and found.error:
        return ExitFacts(found.exit_code, ExitKind.FAILED, f"it could not be started: {found.error[:300]}")
    return explain_exit(found.exit_code, lines, requested=run.told_to_stop)
