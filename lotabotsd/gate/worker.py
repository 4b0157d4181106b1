"""One gate worker: opens what the daemon shares, serves its socket, and stops without losing a record."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from lotabotsd.attestation.receipt import ReceiptSigner
from lotabotsd.foundation.clock import SystemClock
from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.config import Config, GateConfig, load
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.foundation.files import read_bounded
from lotabotsd.foundation.journald import set_up_logging
from lotabotsd.foundation.keys import load_key
from lotabotsd.limits.table import Busy, Table, current_boot_id
from lotabotsd.policy.reader import PolicyReader
from lotabotsd.usage.journal import Journal

from .admission import Admission
from .aftermath import recorded_by
from .application import Application
from .counting import Counts
from .decoders import Decoders
from .durability import GroupCommit
from .exchange import ByteBudget
from .metering import Meter
from .parts import Parts, Serving
from .readiness import Component, State
from .receipts import Receipts
from .server import WorkerServer, make_server
from .turns import Turns
from .upstream import UpstreamPool
from .watch import ALIVE, STARTED

log = logging.getLogger("lotabots.gate")

TICK_SECONDS = 0.05
PROBE_SECONDS = 0.5
FAREWELL_SECONDS = 0.5  # how long answers say "Connection: close" before the socket is let go
PEPPER_BYTES = 32
_PR_SET_PDEATHSIG = 1


class Worker:
    """The life of one worker."""

    def __init__(
        self,
        config: Config,
        worker: int,
        epoch: int,
        listener: socket.socket,
        *,
        farewell_seconds: float = FAREWELL_SECONDS,
    ) -> None:
        workers = config.gate.worker_count(os.cpu_count() or 1)
        gate = config.gate
        self._config = config
        self._worker = worker
        self._epoch = epoch
        self._listener = listener
        self._farewell_seconds = farewell_seconds
        self._clock = SystemClock()
        self._stopping = asyncio.Event()
        self._journal: Journal | None = None
        self._commit: GroupCommit | None = None
        self._retired: list[Serving] = []
        self._missing = ""
        self._server: WorkerServer | None = None
        counts = Counts(worker)
        at_once = max(1, gate.max_in_flight // workers)
        self._parts = Parts(
            config,
            self._clock,
            UpstreamPool(
                config.paths.triton_http, max_idle=at_once, timeout_seconds=gate.upstream_timeout_seconds
            ),
            Decoders(
                gate.decoders,
                max_pixels=gate.max_image_pixels,
                timeout_seconds=gate.decode_timeout_seconds,
                counts=counts,
            ),
            _line(gate, at_once, workers, counts),
            _line(gate, max(1, at_once // 2), workers, counts),
            ByteBudget(gate.max_buffered_bytes // workers),
            counts,
        )

    async def run(self, started: Callable[[], None], alive: Callable[[], None] = lambda: None) -> int:
        """Serve until SIGTERM; then finish what runs, sync the journal and return 0.

        `started` is called when it accepts connections, `alive` every 50 ms. Returns 1 when the journal
        broke: the parent starts a fresh worker with a fresh journal.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        server = self._server = make_server(
            Application(self._parts), self._config.gate, started, self._parts.counts
        )
        ticking = asyncio.create_task(self._tick(alive))
        probing = asyncio.create_task(self._probe())
        serving = asyncio.create_task(server.serve(sockets=[self._listener]))
        await self._stopping.wait()
        self._parts.draining = True
        server.stop_accepting()  # first: what is accepted in the last moment would be closed unread
        await asyncio.sleep(self._farewell_seconds)
        server.should_exit = True
        await serving
        ticking.cancel()
        probing.cancel()
        await asyncio.gather(ticking, probing, return_exceptions=True)
        await self._close()
        return 1 if self._parts.problems.get(Component.JOURNAL) is State.FAILED else 0

    @property
    def connections(self) -> int:
        """How many connections with clients are open."""
        return 0 if self._server is None else len(self._server.server_state.connections)

    def stop(self) -> None:
        """Begin to stop, as SIGTERM does."""
        self._stopping.set()

    async def _tick(self, alive: Callable[[], None]) -> None:
        """Every 50 ms: open what is there now, apply a new policy, beat, sync, notice a broken disk."""
        while True:
            self._look_once()
            self._judge_journal()
            alive()
            await asyncio.sleep(TICK_SECONDS)

    async def _probe(self) -> None:
        """Notice that Triton is back; waits for it as long as it takes, so it is no part of the tick."""
        while True:
            if not self._parts.pool.reachable:
                await self._probe_runtime()
            await asyncio.sleep(PROBE_SECONDS)

    def _look_once(self) -> None:
        parts = self._parts
        if parts.opened is not None and parts.opened.table.replaced():
            log.info("the limits table was made anew", extra={"worker": self._worker})
            self._retired.append(parts.opened)
            parts.opened = None
        self._close_retired()
        if parts.opened is None:
            try:
                parts.opened = self._open()
                log.info("policy, limits and journal are open", extra={"worker": self._worker})
            except LotaBotsError as error:  # not there yet: looked at again in 50 ms, said once
                if str(error) != self._missing:
                    self._missing = str(error)
                    log.info("waiting: %s", error, extra={"worker": self._worker})
        serving = parts.opened
        if serving is None:
            return
        try:
            serving.policy.refresh()
            parts.problems.pop(Component.POLICY, None)
        except LotaBotsError as error:
            log.error("%s", error, extra={"worker": self._worker, "code": error.code.value})
            parts.problems[Component.POLICY] = State.FAILED
        try:
            serving.table.beat(time.monotonic_ns(), serving.policy.generation())
            parts.counts.flush(serving.table)
            parts.problems.pop(Component.LIMITS, None)
        except LotaBotsError as error:
            log.error("%s", error, extra={"worker": self._worker, "code": error.code.value})
            parts.problems[Component.LIMITS] = State.FAILED

    def _judge_journal(self) -> None:
        """Bound what a power cut can take, and see a broken disk.

        A journal that failed once may have lost pages: this worker makes way for a fresh one.
        """
        if self._journal is None or self._commit is None:
            return
        if self._journal.poisoned:
            if not self._stopping.is_set():
                log.error("the usage journal failed", extra={"worker": self._worker})
                self._parts.problems[Component.JOURNAL] = State.FAILED
                self._stopping.set()
            return
        self._commit.keep_up()
        if self._commit.stuck:
            self._parts.problems[Component.JOURNAL] = State.STALE
        elif self._parts.problems.get(Component.JOURNAL) is State.STALE:
            del self._parts.problems[Component.JOURNAL]

    async def _probe_runtime(self) -> None:
        """Notice that Triton is back."""
        with contextlib.suppress(LotaBotsError):
            answer = await self._parts.pool.request("GET", "/v2/health/live", b"", [])
            while await answer.next_chunk(1.0):
                pass

    def _open(self) -> Serving:
        """Open policy, limits table and journal. Raises a catalogue error while one is missing."""
        paths = self._config.paths
        policy = PolicyReader(paths.policy_db)
        policy.open()
        try:
            pepper = read_bounded(paths.pepper, PEPPER_BYTES)
            receipt_key = load_key(paths.receipt_key, shared=True)
            table = Table.open(paths.limits_table, self._worker)
        except LotaBotsError:
            policy.close()
            raise
        try:
            if isinstance(table.settle_worker(self._worker, recorded_by(paths.journal, self._worker)), Busy):
                raise LotaBotsError(Code.LIMITS_UNAVAILABLE, "the limits table is locked")
            table.begin(self._epoch)
            if self._journal is None:
                self._journal = Journal(
                    paths.journal,
                    self._worker,
                    current_boot_id(),
                    self._epoch,
                    self._config.usage.segment_bytes,
                )
        except LotaBotsError:
            policy.close()
            table.close()
            raise
        self._commit = GroupCommit(
            self._journal,
            power_safe=self._config.usage.durability == "power",
            counts=self._parts.counts,
        )
        return Serving(
            policy,
            table,
            Admission(policy, table, pepper),
            Meter(self._journal, table, self._commit, self._clock),
            Receipts(
                ReceiptSigner(receipt_key, self._config.attestation.algorithm),
                policy,
                self._clock,
                worker=self._worker,
                epoch=self._epoch,
            ),
            self._clock,
            self._parts.counts,
        )

    def _close_retired(self, *, all_of_them: bool = False) -> None:
        """Close the parts of an earlier table once the requests that hold tickets of it have ended."""
        for serving in self._retired[:]:
            if all_of_them or serving.meter.open_requests == 0:
                serving.table.close()
                serving.policy.close()
                self._retired.remove(serving)

    async def _close(self) -> None:
        if self._parts.opened is not None:
            self._parts.counts.flush(self._parts.opened.table)
        self._parts.pool.close()
        await self._parts.decoders.close()
        if self._journal is not None:
            try:
                await asyncio.to_thread(self._journal.close)
            except LotaBotsError as error:
                log.error("%s", error, extra={"code": error.code.value})
        if self._parts.opened is not None:
            self._retired.append(self._parts.opened)
        self._close_retired(all_of_them=True)


def _line(gate: GateConfig, at_once: int, workers: int, counts: Counts) -> Turns:
    return Turns(
        at_once=at_once,
        waiting=gate.max_queued // workers,
        timeout_seconds=gate.queue_timeout_seconds,
        counts=counts,
    )


def main(arguments: list[str] | None = None) -> int:
    """Entry of the worker program; only the gate's parent starts it."""
    parser = argparse.ArgumentParser(prog="lotabotsd-gate-worker")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--worker", type=int, required=True)
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--epoch", type=int, required=True)
    parser.add_argument("--pipe", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    given = parser.parse_args(arguments)
    if not _end_with(given.parent):
        return 1
    try:
        config = load(given.config)
    except LotaBotsError as error:
        sys.stderr.write(f"error: {error}\nhint: {error.hint}\n")
        return int(error.exit_code)
    set_up_logging(f"gate/{given.worker}", config.log.level)

    os.set_blocking(given.pipe, False)

    def say(what: bytes) -> None:
        with contextlib.suppress(BlockingIOError):  # the parent is behind: it will hear enough
            os.write(given.pipe, what)

    _spare_the_collector()

    async def run() -> int:
        worker = Worker(config, given.worker, given.epoch, socket.socket(fileno=given.socket))
        return await worker.run(lambda: say(STARTED), lambda: say(ALIVE))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def _spare_the_collector() -> None:
    """What was loaded stays for good, and a request leaves hardly a cycle: look at less, and less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _end_with(parent: int) -> bool:
    """Let the kernel end this process with its parent; False when that has ended already.

    The next parent starts a worker of the same number: two would share one area of the limits table.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


if __name__ == "__main__":
    sys.exit(main())
