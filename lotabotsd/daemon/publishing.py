"""Make a decision hold at the gate: compile, publish, announce, wait until every worker applied it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from lotabotsd.control.rooms import Spread
from lotabotsd.foundation.clock import NANOSECONDS, Clock
from lotabotsd.limits.scope import WorkerCell
from lotabotsd.limits.table import Table
from lotabotsd.policy.compile import PolicySource
from lotabotsd.policy.publish import Published, Publisher

SILENT_NS = 2 * NANOSECONDS  # a worker that said nothing for so long is replaced by the gate's parent
WAIT_SECONDS = 2.0
LOOK_SECONDS = 0.005


def live_workers(cells: Sequence[WorkerCell], now_ns: int) -> list[WorkerCell]:
    """The workers that said something lately.

    A silent one may be left out: it looks at the generation before each admission, also after a pause.
    """
    return [cell for cell in cells if cell.pid and now_ns - cell.heartbeat_ns <= SILENT_NS]


def spread_of(cells: Sequence[WorkerCell], generation: int, now_ns: int) -> Spread:
    """How far a generation got among the live workers."""
    live = live_workers(cells, now_ns)
    return Spread(generation, len(live), sum(cell.applied_generation >= generation for cell in live))


class Publishing:
    """The one way from a change to the gate. May be called from several threads."""

    def __init__(
        self,
        source: Callable[[], PolicySource],
        publisher: Publisher,
        clock: Clock,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._source = source
        self._publisher = publisher
        self._clock = clock
        self._pause = pause
        self._lock = threading.Lock()
        self._table: Table | None = None

    def announce_in(self, table: Table) -> None:
        """From now on tell the generation in this limits table, which is ours to close."""
        with self._lock:
            self._table = table
            table.set_generation(self._publisher.generation())

    def let_go(self) -> None:
        """Close the limits table; what is published from now on is told nowhere."""
        with self._lock:
            table, self._table = self._table, None
        if table is not None:
            table.close()

    def publish(self) -> Published:
        """Compile what holds now, publish it where it changed, renew the lease, and tell the generation."""
        with self._lock:
            published = self._publisher.publish(self._source(), self._clock.wall_ns())
            if self._table is not None:
                self._table.set_generation(published.generation)
            return published

    def publish_and_wait(self) -> Spread:
        """Publish, then wait until every live worker applied it, two seconds at most."""
        generation = self.publish().generation
        deadline_ns = self._clock.monotonic_ns() + int(WAIT_SECONDS * NANOSECONDS)
        while True:
            spread = self.spread(generation)
            if spread.complete or self._clock.monotonic_ns() >= deadline_ns:
                return spread
            self._pause(LOOK_SECONDS)

    def spread(self, generation: int) -> Spread:
        """How far a generation got by now."""
        return spread_of(self.cells(), generation, self._clock.monotonic_ns())

    def cells(self) -> list[WorkerCell]:
        """What every worker says of itself; nothing before there is a limits table."""
        with self._lock:
            return [] if self._table is None else self._table.workers()

    def generation(self) -> int:
        """The policy in force."""
        return self._publisher.generation()
