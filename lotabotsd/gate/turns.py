"""A bounded line in front of Triton: so many at once, so many waiting, so long at most."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.limits.counters import Counter

from .counting import Counts


class Turns:
    """First come, first served; the queue is here and not in Triton, so that it can be judged again."""

    def __init__(
        self, *, at_once: int, waiting: int, timeout_seconds: float, counts: Counts | None = None
    ) -> None:
        self._free = at_once
        self._most_waiting = waiting
        self._timeout_seconds = timeout_seconds
        self._counts = counts or Counts()
        self._line: deque[asyncio.Future[None]] = deque()
        self.running = 0

    async def take(self) -> bool:
        """Wait for a turn; True when there was a wait, so that the caller judges the request again.

        Raises OVERLOADED when the line is full or the wait too long.
        """
        if self._free > 0 and not self._line:
            self._free -= 1
            self.running += 1
            return False
        if len(self._line) >= self._most_waiting:
            raise LotaBotsError(Code.OVERLOADED, "the line is full")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(place)
        self._counts.add(Counter.LINE_ENTERED)
        entered_ns = time.monotonic_ns()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await place
        except TimeoutError as error:
            self._leave(place)
            raise LotaBotsError(
                Code.OVERLOADED, f"no turn came within {self._timeout_seconds:g} seconds"
            ) from error
        except asyncio.CancelledError:
            self._leave(place)
            raise
        finally:
            self._counts.add(Counter.LINE_LEFT)
            self._counts.add(Counter.LINE_WAIT_US, (time.monotonic_ns() - entered_ns) // 1_000)
        self.running += 1
        return True

    def give(self) -> None:
        """End a turn; the next in line gets it."""
        self.running -= 1
        self._pass_on()

    def _pass_on(self) -> None:
        while self._line:
            place = self._line.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1

    def _leave(self, place: asyncio.Future[None]) -> None:
        if place in self._line:
            self._line.remove(place)
        elif place.done() and not place.cancelled():
            self._pass_on()  # the turn came while its owner left


class Places:
    """The places that one request has in several lines; it gives them back once."""

    def __init__(self) -> None:
        self._taken: list[Turns] = []

    async def take(self, line: Turns) -> bool:
        """As `Turns.take`."""
        waited = await line.take()
        self._taken.append(line)
        return waited

    def give(self) -> None:
        """Give back what was taken and not given back yet."""
        while self._taken:
            self._taken.pop().give()
