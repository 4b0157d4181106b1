"""The readiness table: component × state → the code of /readyz and of every 503. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lotabotsd.foundation.codes import Code


class Component(StrEnum):
    """What the gate needs in order to serve, in the order in which problems are named."""

    WORKER = "worker"
    POLICY = "policy"
    LIMITS = "limits"
    JOURNAL = "journal"
    RUNTIME = "runtime"


class State(StrEnum):
    """How a component is."""

    OK = "ok"
    MISSING = "missing"  # not there yet
    STALE = "stale"  # there, but its writer has been silent for too long
    FAILED = "failed"
    DRAINING = "draining"


# Every pair is listed: None means ready.
READINESS: dict[tuple[Component, State], Code | None] = {
    (Component.WORKER, State.OK): None,
    (Component.WORKER, State.MISSING): Code.STARTING,
    (Component.WORKER, State.STALE): Code.STARTING,
    (Component.WORKER, State.FAILED): Code.STARTING,
    (Component.WORKER, State.DRAINING): Code.DRAINING,
    (Component.POLICY, State.OK): None,
    (Component.POLICY, State.MISSING): Code.STARTING,
    (Component.POLICY, State.STALE): Code.POLICY_LEASE_ENDED,
    (Component.POLICY, State.FAILED): Code.STARTING,
    (Component.POLICY, State.DRAINING): Code.DRAINING,
    (Component.LIMITS, State.OK): None,
    (Component.LIMITS, State.MISSING): Code.STARTING,
    (Component.LIMITS, State.STALE): Code.LIMITS_UNAVAILABLE,
    (Component.LIMITS, State.FAILED): Code.LIMITS_UNAVAILABLE,
    (Component.LIMITS, State.DRAINING): Code.DRAINING,
    (Component.JOURNAL, State.OK): None,
    (Component.JOURNAL, State.MISSING): Code.STARTING,
    (Component.JOURNAL, State.STALE): Code.JOURNAL_UNAVAILABLE,
    (Component.JOURNAL, State.FAILED): Code.JOURNAL_UNAVAILABLE,
    (Component.JOURNAL, State.DRAINING): Code.DRAINING,
    (Component.RUNTIME, State.OK): None,
    (Component.RUNTIME, State.MISSING): Code.STARTING,
    (Component.RUNTIME, State.STALE): Code.RUNTIME_UNAVAILABLE,
    (Component.RUNTIME, State.FAILED): Code.RUNTIME_UNAVAILABLE,
    (Component.RUNTIME, State.DRAINING): Code.DRAINING,
}


@dataclass(frozen=True, slots=True)
class Readiness:
    """How every component is now."""

    states: dict[Component, State]

    @property
    def code(self) -> Code | None:
        """The first problem in the order of components, or None when requests may run."""
        for component in Component:
            code = READINESS[component, self.states[component]]
            if code is not None:
                return code
        return None
