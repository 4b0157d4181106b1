"""The RateLimit headers say what the admission left, in the units of each scope."""

from __future__ import annotations

from lotabotsd.gate.rate_headers import RateHeaders
from lotabotsd.limits.scope import Scope, Ticket

NOW_NS = 5_000_000_000
WALL_NS = 1_795_400_000_000_000_000  # in November 2026


def slot(scope: Scope, *, arrival_ns: int = 0, used: int = 0, reserved: int = 0) -> tuple[int, ...]:
    return (scope.tag, arrival_ns, 202611, 0, used, reserved, 1, 0, 0)


def ticket(*pairs: tuple[Scope, tuple[int, ...]]) -> Ticket:
    return Ticket(tuple(s for s, _ in pairs), 1, 202611, (0,) * len(pairs), slots=tuple(f for _, f in pairs))


def test_without_limits_there_are_no_headers() -> None:
    free = Scope("key", 1, 7)
    assert RateHeaders().of(ticket((free, slot(free))), NOW_NS, WALL_NS) == []


def test_every_limit_of_every_scope_is_named_with_what_is_left() -> None:
    key = Scope("key", 1, 7, rate_per_minute=60, burst=5)
    organisation = Scope("organisation", 2, 8, quota=100)
    soft = Scope("licence", 0, 9, quota=100, quota_hard=False)
    told = dict(
        RateHeaders().of(
            ticket(
                (soft, slot(soft)),
                (organisation, slot(organisation, used=3, reserved=1)),
                (key, slot(key, arrival_ns=NOW_NS + 1_000_000_001)),
            ),
            NOW_NS,
            WALL_NS,
        )
    )
    assert told[b"ratelimit-policy"] == b'"organisation-month";q=100;qu="inferences", "key-rate";q=60;w=60'
    month, rate = told[b"ratelimit"].split(b", ")
    assert month.startswith(b'"organisation-month";r=96;t=')
    assert rate == b'"key-rate";r=3;t=2'


def test_other_scopes_at_the_same_place_in_memory_are_not_mixed_up() -> None:
    headers = RateHeaders()
    for rate in (60, 120, 600):
        scope = Scope("key", 1, 7, rate_per_minute=rate, burst=5)
        told = dict(headers.of(ticket((scope, slot(scope))), NOW_NS, WALL_NS))
        assert told[b"ratelimit-policy"] == b'"key-rate";q=%d;w=60' % rate
