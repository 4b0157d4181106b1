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

SILENT_NS = 2 * NANOSECONDS  # a worker that said nothing for so long is replaced when a change waits for it
WAIT_SECONDS = 5.0  # the silence, what the gate's parent needs to notice and to act, and as much again
LOOK_SECONDS = 0.01


def live_workers(cells: Sequence[WorkerCell]) -> list[WorkerCell]:
    """The workers that exist, running or stopped; the kernel says so. Another one begins with what holds."""
    return [cell for cell in cells if cell.lives]


def spread_of(cells: Sequence[WorkerCell], generation: int) -> Spread:
    """How far a generation got among the live workers.

    Once it is complete no admission follows an older policy: a worker says what it applied between two
    requests, and never goes back.
    """
    live = live_workers(cells)
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
        self._counting = threading.Lock()
        self._asked = 0  # publications asked for
        self._done = 0  # of these, how many the last publication answered
        self._published = Published(0, changed=False)

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
        """Compile what holds now, publish it where it changed, renew the lease, and tell the generation.

        Who waits while another publication runs shares the next one with all others who wait.
        """
        with self._counting:
            self._asked += 1
            mine = self._asked
        with self._lock:
            if self._done < mine:
                with self._counting:
                    answers = self._asked  # what these asked for is changed already, so it is looked up now
                self._published = self._publish()
                self._done = answers
            return self._published

    def _publish(self) -> Published:
        published = self._publisher.publish(self._source(), self._clock.wall_ns())
        if self._table is not None:
            self._table.set_generation(published.generation)
        return published

    def publish_and_wait(self) -> Spread:
        """Publish, then wait until every live worker applied it or was replaced, five seconds at most.

        A worker that stopped moving is replaced by the gate's parent after two seconds. If that is gone too
        the answer is not complete; then a worker that moves again finds the generation in the limits table
        and admits nobody by the older policy, save one request if it was stopped amid an admission.
        """
        generation = self.publish().generation
        deadline_ns = self._clock.monotonic_ns() + int(WAIT_SECONDS * NANOSECONDS)
        while True:
            spread = spread_of(self.cells(), generation)
            if spread.complete or self._clock.monotonic_ns() >= deadline_ns:
                return spread
            self._pause(LOOK_SECONDS)

    def cells(self) -> list[WorkerCell]:
        """What every worker says of itself; nothing before there is a limits table."""
        with self._lock:
            return [] if self._table is None else self._table.workers()

    def counters(self) -> list[tuple[int, ...]]:
        """What every worker counted since the boot; nothing before there is a limits table."""
        with self._lock:
            return [] if self._table is None else self._table.counters()

    def in_flight(self) -> int | None:
        """How many requests are admitted and not settled; None before there is a limits table."""
        with self._lock:
            return None if self._table is None else self._table.open_requests()

    def generation(self) -> int:
        """The policy in force."""
        return self._publisher.generation()
