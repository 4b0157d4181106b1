"""`lotabotsd up`: start runtime helper, daemon and gate as children of this process, and keep them.

For the demo, for tests and for development. It does what systemd does on a server: makes the directories,
binds the sockets, starts the three, shows their logs, restarts what dies and says so, and stops them in
order: gate, daemon, runtime helper. Everything runs as the calling user.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import http.client
import json
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import click

from lotabotsd.foundation.config import Config
from lotabotsd.foundation.errors import Code, Exit, LotaBotsError
from lotabotsd.foundation.sockets import bind_tcp, bind_unix
from lotabotsd.gate.parent import bind_listeners

START_ORDER = ("relay", "runtime", "serve", "gate")
STOP_ORDER = ("gate", "serve", "runtime", "relay")
NAMES = {"relay": "relay", "runtime": "runtime", "serve": "daemon", "gate": "gate"}
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
STEADY_SECONDS = 30.0  # a child that lived this long starts again with the shortest pause
MAX_QUICK_DEATHS = 5
STOP_MARGIN_SECONDS = 10.0
LOG_CHUNK_BYTES = 64 * 1024
# States that every start goes through and that would sound like a fault.
WAITING = {
    ("policy", "missing"): "policy not written yet",
    ("limits", "missing"): "limits not written yet",
    ("journal", "missing"): "journal not open yet",
    ("runtime", "failed"): "runtime not started yet",
    ("runtime", "missing"): "runtime still loads its models",
}
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class Child:
    """One of the three: how it is started and what happened to it."""

    name: str
    command: list[str]
    descriptors: tuple[int, ...]
    stop_seconds: float
    process: asyncio.subprocess.Process | None = None
    started_at: float = 0.0
    quick_deaths: int = 0
    log: asyncio.Task[None] | None = field(default=None)


def pause_seconds(quick_deaths: int) -> float:
    """How long to wait before a child that died this often in a row is started again."""
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** max(0, quick_deaths - 1))


def run_up(config: Config, config_path: Path, *, once_ready: bool) -> int:
    """Run until Ctrl-C or SIGTERM; with `once_ready` only until the gate answers that it is ready."""
    make_directories(config)
    return asyncio.run(_Up(config, config_path, once_ready).run())


def make_directories(config: Config) -> None:
    """Make what is missing of the appliance's directories, with their modes."""
    for path, mode in config.paths.directories():
        try:
            if not path.is_dir():
                path.mkdir(parents=True)
                path.chmod(mode)
        except OSError as error:
            raise LotaBotsError(
                Code.FILE_UNWRITABLE,
                f"{path}: {error.strerror}",
                hint="set appliance.state_directory and run_directory to directories of your own",
            ) from error


def refuse_taken_address(config: Config) -> None:
    """Raise ADDRESS_IN_USE: two gates could share one address unseen, since their sockets allow it."""
    host, _, port = config.gate.listen.rpartition(":")
    bind_tcp(host.strip("[]"), int(port), reuse_port=False).close()


class _Up:
    def __init__(self, config: Config, config_path: Path, once_ready: bool) -> None:
        self._config = config
        self._once_ready = once_ready
        self._stop = asyncio.Event()
        self._result: int = Exit.OK
        self._sockets: list[socket.socket] = []
        refuse_taken_address(config)
        helper = bind_unix(config.paths.helper_socket, mode=0o600)
        self._sockets.append(helper)
        gate = bind_listeners(config)
        self._sockets += gate
        self._address: tuple[str, int] = gate[0].getsockname()[:2]
        margin = STOP_MARGIN_SECONDS
        self._children = {
            "runtime": self._child(
                "runtime", config_path, [("helper", helper)], config.runtime.stop_timeout_seconds + margin
            ),
            "serve": self._child("serve", config_path, [], 2 * margin),
            "gate": self._child(
                "gate", config_path, [("gate", each) for each in gate], config.gate.drain_seconds + margin
            ),
        }
        if config.runtime.transport == "tcp":
            self._children["relay"] = self._child("relay", config_path, [], margin)

    def _child(
        self, verb: str, config_path: Path, inherited: list[tuple[str, socket.socket]], stop_seconds: float
    ) -> Child:
        command = [sys.executable, "-m", "lotabotsd.cli.server", verb, "--config", str(config_path)]
        for name, listener in inherited:
            command += ["--inherited", f"{name}={listener.fileno()}"]
        return Child(NAMES[verb], command, tuple(s.fileno() for _, s in inherited), stop_seconds)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        _tell(f"everything runs as uid {os.getuid()}; for production use the systemd units")
        keepers = []
        try:
            for verb in filter(self._children.__contains__, START_ORDER):
                await self._start(self._children[verb])
                keepers.append(asyncio.create_task(self._keep(self._children[verb])))
            await self._until_ready()
            if not self._once_ready:
                await self._stop.wait()
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            for verb in filter(self._children.__contains__, STOP_ORDER):
                await self._end(self._children[verb])
            for each in self._sockets:
                each.close()
        return self._result

    async def _start(self, child: Child) -> None:
        child.started_at = time.monotonic()
        child.process = await asyncio.create_subprocess_exec(
            *child.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=child.descriptors,
            start_new_session=True,  # Ctrl-C in the terminal is ours to hand on, in order
            preexec_fn=_die_with_parent,
        )
        child.log = asyncio.create_task(_show_log(child))

    async def _keep(self, child: Child) -> None:
        """Start a child again when it dies, ever more slowly; give up after five quick deaths."""
        while True:
            assert child.process is not None
            status = await child.process.wait()
            if time.monotonic() - child.started_at >= STEADY_SECONDS:
                child.quick_deaths = 0
            child.quick_deaths += 1
            if child.quick_deaths >= MAX_QUICK_DEATHS or status == Exit.CONFIGURATION:
                _tell(f"{child.name} ended ({_ending(status)}) and is given up; stopping the others")
                self._result = status if status > 0 else Exit.CHECK_FAILED
                self._stop.set()
                return
            pause = pause_seconds(child.quick_deaths)
            _tell(f"{child.name} ended ({_ending(status)}); starting it again in {pause:g} s")
            await asyncio.sleep(pause)
            await self._start(child)

    async def _until_ready(self) -> None:
        """Wait for the gate's /readyz; say when, or that it takes too long."""
        host, port = self._address
        deadline = time.monotonic() + self._config.runtime.start_timeout_seconds
        said = ""
        while not self._stop.is_set():
            ready, state = await asyncio.to_thread(_readyz, host, port)
            if ready:
                _tell(f"ready: http://{f'[{host}]' if ':' in host else host}:{port}")
                return
            if state != said:
                said = state
                _tell(f"waiting: {state}")
            if time.monotonic() > deadline:
                _tell(f"still not ready after {self._config.runtime.start_timeout_seconds:g} s: {state}")
                if self._once_ready:
                    self._result = Exit.CHECK_FAILED
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), timeout=0.25)

    async def _end(self, child: Child) -> None:
        """SIGTERM, wait as long as this child may take, then SIGKILL to its whole session."""
        process = child.process
        if process is None:
            return
        if process.returncode is None:
            _tell(f"stopping {child.name}")
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), timeout=child.stop_seconds)
            except TimeoutError:
                _tell(f"{child.name} did not stop within {child.stop_seconds:g} s and is killed")
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if child.log is not None:
            # A grandchild may still hold the pipe open: its last words are not worth waiting for.
            await asyncio.wait([child.log], timeout=1.0)
            child.log.cancel()


async def _show_log(child: Child) -> None:
    assert child.process is not None
    assert child.process.stdout is not None
    rest = b""
    while data := await child.process.stdout.read(LOG_CHUNK_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > LOG_CHUNK_BYTES:
            lines, rest = [*lines, rest], b""
        for line in lines:
            sys.stderr.write(f"{child.name:<8}| {line.decode(errors='replace').rstrip()}\n")
        sys.stderr.flush()


def _readyz(host: str, port: int) -> tuple[bool, str]:
    """Whether the gate says that it is ready, and what it waits for."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        answer = response.read(16_384)
    except (OSError, http.client.HTTPException) as error:
        return False, f"the gate does not answer yet ({type(error).__name__})"
    finally:
        connection.close()
    return response.status == 200, waiting_for(answer)


def waiting_for(answer: bytes) -> str:
    """`policy not written yet, runtime not started yet` out of the JSON of /readyz."""
    try:
        components = json.loads(answer)["components"].items()
        return ", ".join(
            WAITING.get((name, state), f"{name} {state}") for name, state in components if state != "ok"
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return answer[:200].decode(errors="replace")


def _ending(status: int) -> str:
    if status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"exit {status}"


def _tell(text: str) -> None:
    click.echo(f"{'up':<8}| {text}", err=True)


def _die_with_parent() -> None:
    """Between fork and exec: ask the kernel for SIGTERM when `lotabotsd up` itself is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
