"""What the limits table is asked and what it answers: scopes, tickets, refusals. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

MINUTE_NS = 60_000_000_000
KINDS = ("licence", "organisation", "team", "key", "model")
Unit = Literal["rate", "concurrency", "quota"]


def interval_ns(rate_per_minute: int) -> int:
    """Nanoseconds between requests, rounded up: never faster than the rate. 0 for no rate."""
    return -(-MINUTE_NS // rate_per_minute) if rate_per_minute else 0


def default_burst(rate_per_minute: int) -> int:
    """10 s of the rate, at least 5 requests."""
    return max(5, rate_per_minute // 6)


@dataclass(frozen=True, slots=True)
class Scope:
    """One thing that has limits, and its place in the table; 0 means "no such limit".

    `tag` names the owner of the slot (`assign.tag_of`), so that a slot given to another owner starts anew.
    """

    kind: str  # one of KINDS
    slot: int
    tag: int  # 1 to 2**64 - 1
    rate_per_minute: int = 0  # requests
    burst: int = 0  # requests at once; 0 is 10 s of the rate, at least 5
    concurrency: int = 0  # requests open at the same time
    quota: int = 0  # inferences (rows) in one window
    quota_hard: bool = True  # a soft quota only counts
    interval_ns: int = field(init=False, repr=False, compare=False)
    tolerance_ns: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is not a kind of scope")
        if self.slot < 0 or not 0 < self.tag < 1 << 64:
            raise ValueError("a slot is not negative and a tag has 1 to 64 bits")
        if min(self.rate_per_minute, self.burst, self.concurrency, self.quota) < 0:
            raise ValueError("a limit is not negative")
        interval = interval_ns(self.rate_per_minute)
        burst = self.burst or default_burst(self.rate_per_minute)
        object.__setattr__(self, "interval_ns", interval)
        object.__setattr__(self, "tolerance_ns", interval * burst)


@dataclass(slots=True)
class Ticket:
    """An admitted request: what it holds in the table until it is committed or refunded, exactly once."""

    scopes: tuple[Scope, ...]
    rows: int  # reserved
    window_id: int  # the window it is charged to; may be later than the one asked for (`Table.reserve`)
    epochs: tuple[int, ...]  # of each scope's slot at admission
    is_open: bool = True
    slots: tuple[tuple[int, ...], ...] = ()  # each scope's slot as the admission left it (`rules.Slot`)
    note: int = 0  # 1 + the place of its note (`Table.closing`)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which limit said no. Nothing was changed in any scope."""

    kind: str
    unit: Unit
    limit: int  # requests per minute, requests at once, or rows per window
    remaining: int
    retry_after_ns: int  # exact for rate and quota; 0: waiting has no known end


@dataclass(frozen=True, slots=True)
class Busy:
    """The table's lock was not free within its bound. Nothing was changed."""

    holder: int | None  # the worker that holds it, when it said so


@dataclass(frozen=True, slots=True)
class Stale:
    """A newer policy than the asker's is in force. Nothing was changed: look at it and judge again."""

    generation: int


@dataclass(frozen=True, slots=True)
class Remaining:
    """What one scope has left, for the RateLimit headers; None means "no such limit"."""

    rate: int | None  # requests that may come at once now
    rate_reset_ns: int  # until the whole burst is there again
    quota: int | None  # rows left in the window


@dataclass(frozen=True, slots=True)
class Totals:
    """The accounts of one slot since it got its owner: admitted = committed + refunded + open, always.

    `open` and `held` are counted from the workers' cells, not derived from the other numbers.
    """

    admitted: int  # requests
    committed: int
    refunded: int
    open: int
    used: int  # rows committed in the slot's window
    reserved: int  # rows of open requests admitted in that window
    held: int  # the same, as the workers' cells say
    window_id: int

    @property
    def balanced(self) -> bool:
        """Whether both identities hold."""
        return self.admitted == self.committed + self.refunded + self.open and self.reserved == self.held


@dataclass(frozen=True, slots=True)
class WorkerCell:
    """What a worker says of itself, and whether it lives, which the kernel says."""

    pid: int  # 0: none yet
    heartbeat_ns: int  # monotonic
    applied_generation: int  # of the policy
    progress: int  # tickets settled; grows while it works
    lives: bool = True  # a process (running or stopped) is this worker
