"""What one worker is made of, and whether it can serve now."""

from __future__ import annotations

from dataclasses import dataclass, field

from lotabotsd.foundation.clock import NANOSECONDS, Clock, month_end_ns, month_window
from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.config import Config
from lotabotsd.limits.scope import Scope
from lotabotsd.limits.table import Table
from lotabotsd.policy.reader import PolicyReader

from .admission import Admission
from .decoders import Decoders
from .exchange import ByteBudget, Headers
from .metering import Meter
from .readiness import Component, Readiness, State
from .turns import Turns
from .upstream import UpstreamPool


@dataclass(slots=True)
class Serving:
    """The parts that exist only once policy, limits and journal can be opened."""

    policy: PolicyReader
    table: Table
    admission: Admission
    meter: Meter
    clock: Clock

    def rate_limit_headers(self, scopes: tuple[Scope, ...]) -> Headers:
        """RateLimit and RateLimit-Policy of the scopes that have limits (IETF draft, structured fields)."""
        policies: list[str] = []
        states: list[str] = []
        wall_ns = self.clock.wall_ns()
        window_id = month_window(wall_ns)
        for scope in scopes:
            left = self.table.remaining(scope, self.clock.monotonic_ns(), window_id)
            if left.rate is not None:
                policies.append(f'"{scope.kind}-rate";q={scope.rate_per_minute};w=60')
                states.append(f'"{scope.kind}-rate";r={left.rate};t={-(-left.rate_reset_ns // NANOSECONDS)}')
            if left.quota is not None and scope.quota_hard:
                seconds = -(-(month_end_ns(window_id) - wall_ns) // NANOSECONDS)
                policies.append(f'"{scope.kind}-month";q={scope.quota};qu="inferences"')
                states.append(f'"{scope.kind}-month";r={left.quota};t={seconds}')
        if not policies:
            return []
        return [
            (b"ratelimit-policy", ", ".join(policies).encode()),
            (b"ratelimit", ", ".join(states).encode()),
        ]


@dataclass(slots=True)
class Parts:
    """The parts of one worker."""

    config: Config
    clock: Clock
    pool: UpstreamPool
    decoders: Decoders
    turns: Turns
    budget: ByteBudget
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
