"""The gate's parent: holds the sockets, starts one worker per socket, starts it again when it ends.

A worker is a fresh program (exec, not fork), so it inherits nothing but its listening socket and a pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path

from lotabotsd.foundation.config import Config
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.sockets import bind_tcp, sd_notify, watchdog_seconds
from lotabotsd.limits.table import Table

log = logging.getLogger("lotabots.gate")

FIRST_BACKOFF_SECONDS = 0.1
LAST_BACKOFF_SECONDS = 5.0
STEADY_SECONDS = 10.0
SILENT_SECONDS = 10.0
WATCH_SECONDS = 0.5


def bind_listeners(config: Config) -> list[socket.socket]:
    """One SO_REUSEPORT socket per worker, all on the configured address (port 0: the first one's port)."""
    host, _, port = config.gate.listen.rpartition(":")
    host = host.strip("[]")
    count = config.gate.worker_count(os.cpu_count() or 1)
    first = bind_tcp(host, int(port), reuse_port=True)
    actual = first.getsockname()[1]
    return [first, *(bind_tcp(host, actual, reuse_port=True) for _ in range(count - 1))]


def run_gate(config: Config, config_path: Path, listeners: list[socket.socket]) -> int:
    """Run the gate until SIGTERM or SIGINT; returns its exit code. Binds the sockets when none are given."""
    sockets = listeners or bind_listeners(config)
    workers = config.gate.worker_count(os.cpu_count() or 1)
    if len(sockets) != workers:
        raise LotaBotsError(
            Code.CONFIG_INVALID,
            f"{len(sockets)} sockets were handed over for {workers} worker(s)",
            hint="give lotabots-gate.socket as many ListenStream= lines as gate.workers says",
        )
    return asyncio.run(Parent(config, config_path, sockets).run())


class Parent:
    """Keeps every worker running."""

    def __init__(self, config: Config, config_path: Path, listeners: list[socket.socket]) -> None:
        self._config = config
        self._config_path = config_path
        self._listeners = listeners
        self._workers: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._started = [asyncio.Event() for _ in listeners]

    async def run(self) -> int:
        """Start the workers, watch them, and stop them gracefully."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        keepers = [asyncio.create_task(self._keep(worker)) for worker in range(len(self._listeners))]
        watcher = asyncio.create_task(self._watch())
        ready = asyncio.create_task(self._say_ready())
        await self._stopping.wait()
        sd_notify("STOPPING=1")
        for process in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await asyncio.gather(*keepers)
        for task in (watcher, ready):
            task.cancel()
        await asyncio.gather(watcher, ready, return_exceptions=True)
        return 0

    async def _say_ready(self) -> None:
        for event in self._started:
            await event.wait()
        host, port = self._listeners[0].getsockname()[:2]
        log.info("serving on %s:%d with %d worker(s)", host, port, len(self._listeners))
        sd_notify("READY=1")

    async def _keep(self, worker: int) -> None:
        """Run one worker again and again, with a growing pause when it ends early."""
        backoff = FIRST_BACKOFF_SECONDS
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._run_worker(worker)
            if self._stopping.is_set():
                return
            lived = time.monotonic() - started
            backoff = (
                FIRST_BACKOFF_SECONDS if lived > STEADY_SECONDS else min(2 * backoff, LAST_BACKOFF_SECONDS)
            )
            log.error("a worker ended with %d and is started again", code, extra={"worker": worker})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff)

    async def _run_worker(self, worker: int) -> int:
        listener = self._listeners[worker]
        read_end, write_end = os.pipe()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lotabotsd.gate.worker"),
            *(
                "--config",
                str(self._config_path),
                "--worker",
                str(worker),
                "--socket",
                str(listener.fileno()),
            ),
            *("--epoch", str(time.time_ns()), "--started", str(write_end), "--parent", str(os.getpid())),
            pass_fds=(listener.fileno(), write_end),
            stdin=asyncio.subprocess.DEVNULL,
        )
        os.close(write_end)
        self._workers[worker] = process
        starting = asyncio.create_task(self._note_start(worker, read_end))
        if self._stopping.is_set():
            process.terminate()
        try:
            return await self._ended(process)
        finally:
            await starting
            del self._workers[worker]

    async def _ended(self, process: asyncio.subprocess.Process) -> int:
        """Wait for a worker; one that does not stop within its drain time is killed."""
        ending = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({ending, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not ending.done():
            done, _ = await asyncio.wait({ending}, timeout=self._config.gate.drain_seconds + 5)
            if not done:
                process.kill()
        return await ending

    async def _note_start(self, worker: int, read_end: int) -> None:
        """The worker writes one byte when it accepts connections; the pipe closes when it ends."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        with os.fdopen(read_end, "rb") as pipe:
            transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
            if await reader.read(1):
                self._started[worker].set()
            transport.close()

    async def _watch(self) -> None:
        """Kill workers that make no progress; feed our own watchdog only while all of them do."""
        period = watchdog_seconds()
        while True:
            await asyncio.sleep(min(WATCH_SECONDS, (period or 4.0) / 4))
            silent = self._silent_workers()
            for worker in silent:
                log.error("a worker makes no progress and is replaced", extra={"worker": worker})
                with contextlib.suppress(ProcessLookupError):
                    self._workers[worker].kill()
            if period is not None and not silent:
                sd_notify("WATCHDOG=1")

    def _silent_workers(self) -> list[int]:
        """Workers whose heartbeat in the limits table stopped."""
        try:
            table = Table.open(self._config.paths.limits_table, None)
        except LotaBotsError:
            return []  # no table yet: nothing to judge by
        try:
            cells = table.workers()
        finally:
            table.close()
        now = time.monotonic_ns()
        return [
            worker
            for worker, process in self._workers.items()
            if worker < len(cells)
            and cells[worker].pid == process.pid
            and now - cells[worker].heartbeat_ns > SILENT_SECONDS * 1e9
        ]
