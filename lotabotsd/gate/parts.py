"""What one worker is made of, and whether it can serve now."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from lotabotsd.foundation.clock import Clock
from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.config import Config
from lotabotsd.limits.counters import Counter
from lotabotsd.limits.table import Table
from lotabotsd.policy.grant import Grant
from lotabotsd.policy.reader import PolicyReader

from .admission import Admission, Refused, Reserved
from .counting import Counts
from .decoders import Decoders
from .exchange import ByteBudget
from .metering import Meter
from .rate_headers import RateHeaders
from .readiness import Component, Readiness, State
from .receipts import Receipts
from .turns import Turns
from .upstream import UpstreamPool

LOCK_ATTEMPTS = 8
LOCK_PAUSE_SECONDS = 0.005


@dataclass(slots=True)
class Serving:
    """The parts that exist only once policy, limits and journal can be opened."""

    policy: PolicyReader
    table: Table
    admission: Admission
    meter: Meter
    receipts: Receipts
    clock: Clock
    counts: Counts
    rate_headers: RateHeaders = field(default_factory=RateHeaders)

    async def reserve(self, grant: Grant, model: str, rows: int) -> Reserved | Refused:
        """Step 4, tried again for a moment while another worker holds the table's lock."""
        for _ in range(LOCK_ATTEMPTS - 1):
            answer = self._try_to_reserve(grant, model, rows)
            if not isinstance(answer, Refused) or answer.code is not Code.LIMITS_UNAVAILABLE:
                return answer
            self.counts.add(Counter.LOCK_BUSY)
            await asyncio.sleep(LOCK_PAUSE_SECONDS)  # its holder may wait for our processor
        return self._try_to_reserve(grant, model, rows)

    def _try_to_reserve(self, grant: Grant, model: str, rows: int) -> Reserved | Refused:
        return self.admission.reserve(grant, model, rows, self.clock.monotonic_ns(), self.clock.wall_ns())


@dataclass(slots=True)
class Parts:
    """The parts of one worker."""

    config: Config
    clock: Clock
    pool: UpstreamPool
    decoders: Decoders
    turns: Turns
    uploads: Turns  # of `turns`, those for bodies that are still on their way
    budget: ByteBudget
    counts: Counts = field(default_factory=Counts)
    draining: bool = False
    opened: Serving | None = None
    problems: dict[Component, State] = field(default_factory=dict)

    def readiness(self) -> Readiness:
        """How every component is now."""
        missing = State.MISSING if self.opened is None else State.OK
        states = {
            Component.WORKER: State.DRAINING if self.draining else State.OK,
            Component.POLICY: missing,
            Component.LIMITS: missing,
            Component.JOURNAL: missing,
            Component.RUNTIME: State.OK if self.pool.reachable else State.FAILED,
        }
        if self.opened is not None:
            models = self.opened.policy.models()
            if self.pool.reachable and models and not any(facts.ready for facts in models):
                states[Component.RUNTIME] = State.MISSING  # nobody could be served yet
            lease = self.opened.policy.standing().lease_until_ns
            if self.clock.wall_ns() >= lease:
                states[Component.POLICY] = State.STALE
        states.update(self.problems)
        return Readiness(states)

    def serving(self) -> Serving | Code:
        """The parts to serve with, or the code that says why not. Looks for a new policy first."""
        serving = self.opened
        if serving is None or self.problems:
            return self.readiness().code or Code.STARTING
        if serving.table.generation != serving.policy.generation():
            serving.policy.refresh()
        return serving
