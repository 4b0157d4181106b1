"""RateLimit and RateLimit-Policy: what a key has left (IETF draft, structured fields). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lotabotsd.foundation.clock import NANOSECONDS, month_end_ns, month_window
from lotabotsd.limits import rules
from lotabotsd.limits.scope import Scope, Ticket

_KEPT = 4_096


@dataclass(frozen=True, slots=True)
class _Shape:
    """The part of the headers that the scopes alone decide."""

    scopes: tuple[Scope, ...]
    policy: bytes  # empty when none of them has a limit


class RateHeaders:
    """Writes the headers of admitted requests; remembers what is the same for every request of a key."""

    def __init__(self) -> None:
        self._shapes: dict[int, _Shape] = {}

    def of(self, ticket: Ticket, now_ns: int, wall_ns: int) -> list[tuple[bytes, bytes]]:
        """The headers, as the ticket's admission left the limits; `now_ns` is monotonic."""
        shape = self._shapes.get(id(ticket.scopes))
        if shape is None or shape.scopes is not ticket.scopes:
            shape = self._remember(ticket.scopes)
        if not shape.policy:
            return []
        states: list[str] = []
        for scope, slot in zip(ticket.scopes, ticket.slots, strict=True):
            if scope.interval_ns:
                left = rules.rate_left(scope, slot[rules.ARRIVAL], now_ns)
                seconds = -(-max(0, slot[rules.ARRIVAL] - now_ns) // NANOSECONDS)
                states.append(f'"{scope.kind}-rate";r={left};t={seconds}')
            if scope.quota and scope.quota_hard:
                left = max(0, scope.quota - slot[rules.USED] - slot[rules.RESERVED])
                seconds = -(-(month_end_ns(month_window(wall_ns)) - wall_ns) // NANOSECONDS)
                states.append(f'"{scope.kind}-month";r={left};t={seconds}')
        return [(b"ratelimit-policy", shape.policy), (b"ratelimit", ", ".join(states).encode())]

    def _remember(self, scopes: tuple[Scope, ...]) -> _Shape:
        """The shape holds the scopes, so that their `id` is nobody else's meanwhile."""
        policies: list[str] = []
        for scope in scopes:
            if scope.interval_ns:
                policies.append(f'"{scope.kind}-rate";q={scope.rate_per_minute};w=60')
            if scope.quota and scope.quota_hard:
                policies.append(f'"{scope.kind}-month";q={scope.quota};qu="inferences"')
        if len(self._shapes) >= _KEPT:
            self._shapes.clear()
        shape = self._shapes[id(scopes)] = _Shape(scopes, ", ".join(policies).encode())
        return shape
