"""The embedded runtime: Triton from the nvidia-pytriton wheel as a child, for evaluation and tests."""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lotabotsd.foundation.config import Config
from lotabotsd.foundation.errors import Code, LotaBotsError

from .child import Child
from .command import RunSpec, command_line, environment, socket_files
from .exits import explain_exit
from .installation import Installation, find_installation, make_backends
from .messages import NO_RUN, ExitKind, RunFacts, fit_lines
from .remains import clear_bytecode, clear_shared_memory, clear_sockets, end_orphans, shared_memory_prefix
from .triton_lines import EMPTIED, pass_on

log = logging.getLogger(__name__)
TRITON_USER = "lotabots-triton"
_HEADER_ROOM_BYTES = 1024 * 1024
_UNLOADING_SECONDS = 5.0


@dataclass(slots=True)
class _Run:
    """One start of Triton."""

    run_id: str
    secret: str
    child: Child
    emptied: asyncio.Event
    told_to_stop: bool = False

    def facts(self) -> RunFacts:
        if self.child.running:
            return RunFacts(self.run_id, running=True, pid=self.child.pid, secret=self.secret)
        ended = explain_exit(self.child.ended.result(), list(self.child.lines), requested=self.told_to_stop)
        return RunFacts(self.run_id, running=False, pid=0, secret="", exit=ended)


class EmbeddedRuntime:
    """Owns the one Triton child; every method is one verb of the helper."""

    def __init__(
        self,
        config: Config,
        find: Callable[[str], Installation] = find_installation,
        unloading_seconds: float = _UNLOADING_SECONDS,
    ) -> None:
        self._config = config
        self._find = find
        self._unloading_seconds = unloading_seconds
        self._installation: Installation | None = None
        self._run: _Run | None = None
        self._turn = asyncio.Lock()

    async def ensure(self) -> dict[str, Any]:
        """Whether all that is needed is here. Raises RUNTIME_MISSING."""
        installation = await self._found()
        return {"kind": "embedded", "production": False, "versions": installation.versions}

    async def start(self) -> dict[str, Any]:
        """Start Triton, or find it running. Raises RUNTIME_MISSING, CONFIG_INVALID, FILE_UNWRITABLE."""
        async with self._turn:
            if self._run is None or not self._run.child.running:
                self._run = self._start(await self._found())
            return self._run.facts().to_dict()

    async def stop(self) -> dict[str, Any]:
        """End Triton and everything it started; done when it is gone. Nothing when it is not running."""
        async with self._turn:
            if self._run is not None and self._run.child.running:
                await self._end(self._run)
            return await self.inspect()

    async def promote(self) -> dict[str, Any]:
        """Nothing: there is one Triton, that of the wheel, and nothing is ever on trial."""
        return await self.inspect()

    async def inspect(self) -> dict[str, Any]:
        """Whether it runs, and how it ended."""
        return (NO_RUN if self._run is None else self._run.facts()).to_dict()

    async def logs(self) -> dict[str, Any]:
        """Triton's last lines, of this run or of the one that ended."""
        if self._run is None:
            return {"lines": []}
        return {"lines": fit_lines([_redacted(line, self._run.secret) for line in self._run.child.lines])}

    async def reload(self, config: Config) -> None:
        """Nothing: another wheel or another configuration needs a restart."""
        log.warning("the embedded runtime takes up another configuration only when it is started anew")

    async def close(self) -> None:
        """End everything."""
        await self.stop()

    async def _end(self, run: _Run) -> None:
        """SIGTERM; wait for running requests, then for models to unload; SIGKILL."""
        run.told_to_stop = True
        run.child.signal(signal.SIGTERM)
        emptied = asyncio.create_task(run.emptied.wait())
        await asyncio.wait(
            (run.child.ended, emptied),
            timeout=self._config.runtime.stop_timeout_seconds,
            return_when=asyncio.FIRST_COMPLETED,
        )
        emptied.cancel()
        await run.child.stop(self._unloading_seconds if run.emptied.is_set() else 0)

    async def _found(self) -> Installation:
        """Found once per helper: a changed installation needs a restart of the helper, as an upgrade does."""
        if self._installation is None:
            self._installation = await asyncio.to_thread(self._find, self._config.runtime.python)
        return self._installation

    def _start(self, installation: Installation) -> _Run:
        paths = self._config.paths
        directory = paths.state / "runtime"
        stub = make_backends(installation, directory)
        orphans, regions = end_orphans(stub), clear_shared_memory(shared_memory_prefix(paths.state))
        if orphans or regions:
            log.warning("cleared %d orphan stubs and %d shared memory regions", orphans, regions)
        run_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        spec = RunSpec(
            repository=paths.live_models,
            backends=directory,
            http_socket=paths.triton_http,
            grpc_socket=paths.triton_grpc,
            metrics_socket=paths.triton_metrics,
            exit_timeout_seconds=max(1, int(self._config.runtime.drain_seconds)),
            max_input_bytes=self._config.gate.max_body_bytes + _HEADER_ROOM_BYTES,
            shared_memory_prefix=shared_memory_prefix(paths.state, run_id),
            secret=secret,
        )
        command = command_line(installation.server, spec, installation.flags)
        emptied = asyncio.Event()

        def on_line(line: str) -> None:
            if EMPTIED in line:
                emptied.set()
            pass_on(_redacted(line, secret))

        try:
            if not paths.triton.is_dir():  # under systemd it is there, and an s bit in mkdir is refused
                paths.triton.mkdir(mode=0o2770, parents=True)
            clear_sockets(socket_files(spec))
            clear_bytecode(paths.live_models)
            child = Child.start(
                command,
                environment(installation.python, installation.libraries),
                _user(),
                on_line,
            )
        except OSError as error:
            where = error.filename or installation.server
            raise LotaBotsError(Code.FILE_UNWRITABLE, f"{where}: {error.strerror}") from error
        run = _Run(run_id, secret, child, emptied)
        child.ended.add_done_callback(lambda _: _tell_end(run, spec.shared_memory_prefix))
        log.info("Triton started (embedded, not for production)", extra={"pid": child.pid})
        return run


def _tell_end(run: _Run, shared_memory: str) -> None:
    clear_shared_memory(shared_memory)
    ended = run.facts().exit
    if ended is None or ended.kind is ExitKind.STOPPED:
        log.info("Triton stopped", extra={"pid": run.child.pid})
    else:
        log.error("Triton ended: %s", ended.text, extra={"pid": run.child.pid, "code": ended.code})


def _redacted(line: str, secret: str) -> str:
    return line.replace(secret, "…")


def _user() -> str:
    """Triton's own user where we are root and it exists; else it runs as we do."""
    if os.geteuid() != 0:
        return "-"
    try:
        pwd.getpwnam(TRITON_USER)
    except KeyError:
        return "-"
    return TRITON_USER
