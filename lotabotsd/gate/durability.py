"""Group commit: the last byte of an answer leaves after the record of its request is durable.

What queues up during one `fdatasync` is the next batch; there is no artificial delay. The sync runs on the
event loop only while the last one was quick and nobody else waits, because a thread hop costs as much.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.limits.counters import Counter

from .counting import Counts

INLINE_BELOW_NS = 1_000_000
STUCK_SECONDS = 5.0


class Syncable(Protocol):
    """What is asked of a journal here."""

    @property
    def written(self) -> int:
        """The number of the last record that was given to the kernel."""
        ...

    @property
    def durable(self) -> int:
        """The number of records that survive a power cut."""
        ...

    @property
    def syncing(self) -> bool:
        """Whether somebody syncs now, so that `sync` would wait for him first."""
        ...

    def sync(self) -> None:
        """Make everything written so far durable. Raises JOURNAL_UNAVAILABLE."""
        ...


class GroupCommit:
    """Lets requests wait until their record is durable; several share one sync."""

    def __init__(
        self,
        journal: Syncable,
        *,
        power_safe: bool,
        stuck_seconds: float = STUCK_SECONDS,
        counts: Counts | None = None,
    ) -> None:
        self._journal = journal
        self._power_safe = power_safe
        self._stuck_seconds = stuck_seconds
        self._counts = counts or Counts()
        self._last_sync_ns = INLINE_BELOW_NS  # the first one goes to a thread: nothing is known yet
        self._waiting = 0
        self._running: asyncio.Task[None] | None = None
        self._started_ns = 0
        self._given_up = False

    @property
    def stuck(self) -> bool:
        """Whether a sync has been under way for too long: nobody can be answered until it returns."""
        if self._running is None:
            return False
        return self._given_up or time.monotonic_ns() - self._started_ns > self._stuck_seconds * 1e9

    def keep_up(self) -> None:
        """Begin to make durable what nobody waits for; called every 50 ms.

        In mode "process" this is what bounds the loss by a power cut, in mode "power" it covers refusals and
        the OPENs of long requests.
        """
        if self._running is None and self._journal.durable < self._journal.written:
            self._begin()

    async def durable(self, number: int, *, alone: bool) -> None:
        """Return when record `number` is durable (at once in mode "process").

        `alone` says that no other request is in flight in this worker.
        Raises JOURNAL_UNAVAILABLE when the sync fails or takes longer than five seconds.
        """
        if not self._power_safe:
            return
        if self._journal.durable >= number:
            return
        quick = self._last_sync_ns < INLINE_BELOW_NS and not self._journal.syncing
        if alone and quick and self._waiting == 0 and self._running is None:
            started = time.monotonic_ns()
            try:
                self._journal.sync()
            finally:
                self._note_sync(started)
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(self._stuck_seconds):
                while self._journal.durable < number:
                    await asyncio.shield(self._running or self._begin())
        except TimeoutError as error:
            self._given_up = True
            raise LotaBotsError(Code.JOURNAL_UNAVAILABLE, "the disk does not finish writing") from error
        finally:
            self._waiting -= 1

    def _begin(self) -> asyncio.Task[None]:
        self._started_ns = time.monotonic_ns()
        self._given_up = False
        self._running = asyncio.get_running_loop().create_task(self._sync_in_a_thread())
        self._running.add_done_callback(_look_at_failure)
        return self._running

    async def _sync_in_a_thread(self) -> None:
        started = time.monotonic_ns()
        try:
            await asyncio.to_thread(self._journal.sync)
        finally:
            self._note_sync(started)
            self._running = None

    def _note_sync(self, started_ns: int) -> None:
        self._last_sync_ns = time.monotonic_ns() - started_ns
        self._counts.add(Counter.JOURNAL_SYNCS)
        self._counts.add(Counter.JOURNAL_SYNC_US, self._last_sync_ns // 1_000)


def _look_at_failure(ended: asyncio.Task[None]) -> None:
    """Nobody may be waiting: the journal is poisoned then, and the worker's next look sees that."""
    if not ended.cancelled():
        ended.exception()
