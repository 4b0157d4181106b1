"""The gate's parent: holds the sockets, starts one worker per socket, and another one in the place of each
that ended or no longer moves.

A worker is a fresh program (exec, not fork), so it inherits nothing but its listening socket and a pipe, in
which it says that it lives. What a dead one had open in the limits is settled before its successor starts.
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
from dataclasses import dataclass
from pathlib import Path

from lotabotsd.foundation.config import Config
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.sockets import bind_tcp, sd_notify, watchdog_seconds
from lotabotsd.limits.table import Table

from .aftermath import settle, settle_beyond
from .watch import STARTED, Watched, overdue

log = logging.getLogger("lotabots.gate")

FIRST_BACKOFF_SECONDS = 0.1
LAST_BACKOFF_SECONDS = 5.0
STEADY_SECONDS = 10.0
WATCH_SECONDS = 0.1
PIPE_BYTES = 64 * 1024
SETTLE_SECONDS = 2.0  # then it is left to the successor, which serves nobody before


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


@dataclass(slots=True)
class Child:
    """A running worker."""

    process: asyncio.subprocess.Process
    pipe: int  # in which it says that it lives
    heard: float  # when it did last, monotonic seconds; at first when it was started
    started: bool = False

    def hear(self) -> None:
        """Take in what it said: just before it is judged, so that our own pauses do not count as its."""
        with contextlib.suppress(BlockingIOError):
            said = os.read(self.pipe, PIPE_BYTES)
            if said:
                self.heard = time.monotonic()
                self.started = self.started or STARTED in said


class Parent:
    """Keeps every worker running."""

    def __init__(self, config: Config, config_path: Path, listeners: list[socket.socket]) -> None:
        self._config = config
        self._config_path = config_path
        self._listeners = listeners
        self._workers: dict[int, Child] = {}
        self._table: Table | None = None
        self._stopping = asyncio.Event()
        self._started = [asyncio.Event() for _ in listeners]

    async def run(self) -> int:
        """Start the workers, watch them, and stop them gracefully."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        await asyncio.to_thread(settle_beyond, self._config.paths, len(self._listeners), SETTLE_SECONDS)
        keepers = [asyncio.create_task(self._keep(worker)) for worker in range(len(self._listeners))]
        watcher = asyncio.create_task(self._watch())
        ready = asyncio.create_task(self._say_ready())
        await self._stopping.wait()
        sd_notify("STOPPING=1")
        for child in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                child.process.terminate()
        await asyncio.gather(*keepers)
        for task in (watcher, ready):
            task.cancel()
        await asyncio.gather(watcher, ready, return_exceptions=True)
        if self._table is not None:
            self._table.close()
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
        """One life of a worker, and what is to be done after it."""
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        try:
            process = await self._start(worker, write_end)
            self._workers[worker] = Child(process, read_end, time.monotonic())
            if self._stopping.is_set():
                process.terminate()
            return await self._ended(process)
        finally:
            self._workers.pop(worker, None)
            os.close(read_end)
            if not await asyncio.to_thread(settle, self._config.paths, worker, SETTLE_SECONDS):
                log.error("what a dead worker had open waits for its successor", extra={"worker": worker})

    async def _start(self, worker: int, pipe: int) -> asyncio.subprocess.Process:
        """Start a worker's program and hand the pipe over."""
        listener = self._listeners[worker].fileno()
        try:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "lotabotsd.gate.worker"),
                *("--config", str(self._config_path), "--worker", str(worker), "--socket", str(listener)),
                *("--epoch", str(time.time_ns()), "--pipe", str(pipe), "--parent", str(os.getpid())),
                pass_fds=(listener, pipe),
                stdin=asyncio.subprocess.DEVNULL,
            )
        finally:
            os.close(pipe)

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

    async def _watch(self) -> None:
        """Kill workers that no longer move; feed our own watchdog only while all of them do."""
        period = watchdog_seconds()
        fed = 0.0
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            reasons = self._look()
            for worker, reason in reasons.items():
                if reason and not self._stopping.is_set():
                    log.error("a worker is replaced: %s", reason, extra={"worker": worker})
                    with contextlib.suppress(ProcessLookupError):
                        self._workers[worker].process.kill()
            if period is not None and not any(reasons.values()) and time.monotonic() - fed > period / 4:
                fed = time.monotonic()
                sd_notify("WATCHDOG=1")

    def _look(self) -> dict[int, str]:
        """Why each living worker is to be replaced; empty for most of them, most of the time."""
        table = self._limits()
        cells = [] if table is None else table.workers()
        holder = table.holder() if table is not None and table.is_entered() else None
        reasons: dict[int, str] = {}
        for worker, child in self._workers.items():
            child.hear()
            if child.started:
                self._started[worker].set()
            behind = (
                table is not None
                and worker < len(cells)
                and cells[worker].pid == child.process.pid
                and cells[worker].applied_generation < table.generation
            )
            silent = time.monotonic() - child.heard
            reasons[worker] = overdue(Watched(child.started, silent, behind, holder == worker))
        return reasons

    def _limits(self) -> Table | None:
        """The table in force, once there is one."""
        if self._table is not None and self._table.replaced():
            self._table.close()
            self._table = None
        if self._table is None:
            with contextlib.suppress(LotaBotsError):
                self._table = Table.open(self._config.paths.limits_table, None)
        return self._table
