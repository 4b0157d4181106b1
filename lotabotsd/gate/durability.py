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

INLINE_BELOW_NS = 1_000_000
STUCK_SECONDS = 5.0


class Syncable(Protocol):
    """What is asked of a journal here."""

    @property
    def durable(self) -> int:
        """The number of records that survive a power cut."""
        ...

    def sync(self) -> None:
        """Make everything written so far durable. Raises JOURNAL_UNAVAILABLE."""
        ...


class GroupCommit:
    """Lets requests wait until their record is durable; several share one sync."""

    def __init__(self, journal: Syncable, *, power_safe: bool, stuck_seconds: float = STUCK_SECONDS) -> None:
        self._journal = journal
        self._power_safe = power_safe
        self._stuck_seconds = stuck_seconds
        self._last_sync_ns = INLINE_BELOW_NS  # the first one goes to a thread: nothing is known yet
        self._waiting = 0
        self._running: asyncio.Task[None] | None = None
        self.stuck = False

    async def durable(self, number: int, *, alone: bool) -> None:
        """Return when record `number` is durable (at once in mode "process").

        `alone` says that no other request is in flight in this worker.
        Raises JOURNAL_UNAVAILABLE when the sync fails or takes longer than five seconds.
        """
        if not self._power_safe:
            return
        if self._journal.durable >= number:
            return
        if alone and self._waiting == 0 and self._running is None and self._last_sync_ns < INLINE_BELOW_NS:
            started = time.monotonic_ns()
            self._journal.sync()
            self._last_sync_ns = time.monotonic_ns() - started
            return
        self._waiting += 1
        try:
            while self._journal.durable < number:
                await self._share_a_sync()
        finally:
            self._waiting -= 1

    async def _share_a_sync(self) -> None:
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._sync_in_a_thread())
        try:
            async with asyncio.timeout(self._stuck_seconds):
                await asyncio.shield(self._running)
        except TimeoutError as error:
            self.stuck = True
            raise LotaBotsError(Code.JOURNAL_UNAVAILABLE, "the disk does not finish writing") from error

    async def _sync_in_a_thread(self) -> None:
        started = time.monotonic_ns()
        try:
            await asyncio.to_thread(self._journal.sync)
        finally:
            self._last_sync_ns = time.monotonic_ns() - started
            self.stuck = False
            self._running = None
