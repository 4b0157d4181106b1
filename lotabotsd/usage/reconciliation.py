"""Compare what Triton counted with what the ledger holds, model by model, sample after sample. Pure.

Triton's counters only grow while one process has one model loaded; they begin at zero with every new process
and may do so when a model is loaded anew. A stretch without such a beginning is called a span here. In each
span Triton cannot have counted more requests of ours than were closed since before the span began, or are
open now, or were sent by ourselves: what is beyond that came around the gate, or its record is lost. Spans
are judged apart, so that what a dying Triton takes with it never makes room for anything else.

Why no request under way is ever found: its OPEN is in a journal before Triton gets it, and the journals are
counted after Triton was asked. Why none that ended earlier is: what is subtracted as "closed before the
span" was in the ledger before the last sample that shows the span not begun.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .records import Outcome

MAX_MODELS = 1_000  # Triton names them: accounts beyond these are not opened
MARK_SECONDS = 5  # two samples nearer than this count as one where it must have been a while ago
OWN_UNDER_WAY = 4  # as many of our own requests to a model may be sent and not counted yet
MAX_VERSIONS = 64  # of a model whose counters are remembered: those that it has now, then the newest
MAX_SUM = 1 << 50  # a sum stops here; those of MAX_MODELS together stay below the 2^63 that a report holds
CLOUDED_SAMPLES = 6  # for so many samples after its end what a model asked others may still be counted
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Count:
    """Requests, and the inferences (rows) in them."""

    requests: int = 0
    inferences: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.requests + other.requests, self.inferences + other.inferences)

    def __sub__(self, other: Count) -> Count:
        return Count(self.requests - other.requests, self.inferences - other.inferences)

    def at_least(self, other: Count) -> Count:
        """The larger of each."""
        return Count(max(self.requests, other.requests), max(self.inferences, other.inferences))

    def at_most(self, number: int) -> Count:
        """None of both above a number."""
        return Count(min(self.requests, number), min(self.inferences, number))

    @property
    def any(self) -> bool:
        """Whether either is above zero."""
        return self.requests > 0 or self.inferences > 0


NOTHING = Count()


_ANSWERED = (Outcome.SERVED, Outcome.UNDELIVERED)
_NOT_SENT = (
    Outcome.REFUSED_RATE,
    Outcome.REFUSED_CONCURRENCY,
    Outcome.REFUSED_QUOTA,
    Outcome.REFUSED_POLICY,
)


@dataclass(frozen=True, slots=True)
class Passed:
    """What the ledger has of one model's requests that may have reached Triton."""

    answered: Count = NOTHING  # served, undelivered: with the inferences that ran
    unanswered: Count = NOTHING  # ended otherwise: with the inferences that were asked for
    open: Count = NOTHING  # not ended yet

    def __add__(self, other: Passed) -> Passed:
        return Passed(
            self.answered + other.answered, self.unanswered + other.unanswered, self.open + other.open
        )

    @property
    def closed(self) -> Count:
        """Those that ended."""
        return self.answered + self.unanswered


def passed_as(outcome: Outcome, ran: Count, asked: Count) -> Passed | None:
    """What a closed request counts for; None where Triton cannot have seen it.

    Triton counts what was answered. Of the rest nobody knows: it counts errors that a model itself answers
    with as successes, and not those that it finds before the model is asked (2.51, tried). Where there is no
    row at all one is allowed for; what the gate refuses before it looks into the body has none.
    """
    if outcome in _ANSWERED:
        return Passed(answered=ran.at_least(Count(0, ran.requests)))
    if outcome in _NOT_SENT or (outcome is Outcome.REFUSED_UNREADY and not asked.inferences):
        return None
    return Passed(unanswered=asked.at_least(Count(0, asked.requests)))


@dataclass(frozen=True, slots=True)
class Look:
    """One sample: the ledger before Triton was asked, its counters, and the ledger after it.

    `by_request` are models whose inferences Triton counts by other rules than the gate; `clouded` says that
    a model is live which may ask other models by itself, so that nothing can be called certain.
    """

    at: int  # Unix seconds
    run: str  # "": Triton does not run
    before: Mapping[str, Passed]  # by model
    own_before: Mapping[str, int]  # requests of our own to this run that ended, by model
    counters: Mapping[str, Mapping[str, Count]]  # by model and version
    passed: Mapping[str, Passed]  # after it, with every journal counted
    own: Mapping[str, int]  # all that may have been sent
    by_request: frozenset[str] = frozenset()
    clouded: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """The ledger's closed requests of a model, and our own, before some sample."""

    at: int = 0  # Unix seconds
    closed: Count = NOTHING
    own: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """One model: sums over everything that was compared, and the span that goes on."""

    run: str = ""  # that Triton counted it in last
    seen: Mapping[str, Count] = field(default_factory=dict)  # Triton's counters by version, as seen last
    own_seen: int = 0  # our own requests to that run, as seen last
    counted: Count = NOTHING  # by Triton
    own: int = 0
    passed: Passed = field(default_factory=Passed)  # as seen last
    certain: Count = NOTHING  # beyond the ledger, in spans that ended
    span: Count = NOTHING  # counted by Triton in this one
    base: Mark = field(default_factory=Mark)  # before it began
    excess: Count = NOTHING  # beyond the ledger in this one
    last: Mark = field(default_factory=Mark)  # before the last sample, and two earlier ones
    newer: Mark = field(default_factory=Mark)
    older: Mark = field(default_factory=Mark)
    clouded: int = 0  # samples for which nothing can be called certain yet
    at: int = 0  # Unix seconds: when Triton had it last; 0: never
    clouded_at: int = 0  # when nothing could be called certain last; 0: never
    by_request_at: int = 0  # when its inferences could not be compared last; 0: never

    @property
    def unaccounted(self) -> Count:
        """What Triton certainly counted and the ledger does not hold."""
        return (self.certain + self.excess).at_most(MAX_SUM)


@dataclass(frozen=True, slots=True)
class State:
    """Everything that was compared so far."""

    since: int = 0  # Unix seconds of the first sample; 0: there was none
    until: int = 0  # of the last one
    run: str = ""
    runs: int = 0  # of Triton that were sampled
    accounts: Mapping[str, Account] = field(default_factory=dict)

    @property
    def unaccounted(self) -> Count:
        """The sum over all models."""
        return sum((account.unaccounted for account in self.accounts.values()), NOTHING)


def compare(state: State, look: Look) -> State:
    """The state after one more sample.

    The very first sample only says where counting begins: nobody knows what Triton was asked before it.
    """
    names = sorted({*state.accounts, *look.counters, *look.passed})
    accounts = dict(state.accounts)
    for name in names:
        account = accounts.get(name)
        if account is None:
            if len(accounts) >= MAX_MODELS:
                continue
            account = Account()
        accounts[name] = _compared(account, look, name, first=not state.since)
    return State(
        since=state.since or look.at,
        until=look.at,
        run=look.run or state.run,
        runs=state.runs + (look.run not in ("", state.run)),
        accounts=accounts,
    )


def _compared(account: Account, look: Look, name: str, *, first: bool) -> Account:
    passed = look.passed.get(name, Passed())
    counters = look.counters.get(name)
    if counters is None:  # it is not loaded: its next span begins behind this sample
        return _marked(replace(account, passed=passed), look, name)
    anew = account.run != look.run
    seen = {} if anew else account.seen
    begun = [version for version, now in counters.items() if _began(seen.get(version), now)]
    reset = any(version in seen for version in begun)
    own = look.own.get(name, 0)
    counted = _counted(seen, counters)
    own_new = own if anew else own - account.own_seen
    after = replace(
        account,
        run=look.run,
        seen=_remembered(seen, counters),
        own_seen=own,
        passed=passed,
        counted=account.counted if first else (account.counted + counted).at_most(MAX_SUM),
        own=account.own if first else account.own + own_new,
        clouded=CLOUDED_SAMPLES if look.clouded else max(0, account.clouded - 1),
        at=look.at,
        clouded_at=look.at if look.clouded or account.clouded else account.clouded_at,
        by_request_at=look.at if name in look.by_request else account.by_request_at,
    )
    if anew:  # our own requests are counted by run
        last, newer, older = (replace(mark, own=0) for mark in (after.last, after.newer, after.older))
        after = replace(after, last=last, newer=newer, older=older)
    earlier = replace(after.older, own=max(0, after.older.own - OWN_UNDER_WAY))
    if first or look.clouded or account.clouded:
        after = _new_span(after, NOTHING, earlier)
    elif anew or (reset and len(begun) == len(counters)):
        after = _new_span(after, counted, after.last)
    elif reset:  # what goes on may have counted a little later what was answered before the last sample
        after = _new_span(after, counted, earlier)
    else:
        after = replace(after, span=(account.span + counted).at_most(MAX_SUM))
    return _marked(_judged(after, look, name), look, name)


def _began(before: Count | None, now: Count) -> bool:
    """Whether a version's counter began at zero since it was seen last."""
    return before is None or now.requests < before.requests


def _remembered(seen: Mapping[str, Count], counters: Mapping[str, Count]) -> dict[str, Count]:
    """The counters to compare the next ones with. A version that left Triton begins at zero if it comes back,
    so that one which is forgotten here is counted as it should be."""
    gone = sorted(seen.keys() - counters.keys(), key=lambda version: (len(version), version))
    room = max(0, MAX_VERSIONS - len(counters))
    kept = gone[len(gone) - room :] if room < len(gone) else gone
    return {**{version: seen[version] for version in kept}, **counters}


def _counted(seen: Mapping[str, Count], counters: Mapping[str, Count]) -> Count:
    """What was counted since: a counter that went down began anew."""
    total = NOTHING
    for version, now in counters.items():
        before = seen.get(version)
        total += now if before is None or _began(before, now) else (now - before).at_least(NOTHING)
    return total.at_most(MAX_SUM)


def _new_span(account: Account, counted: Count, base: Mark) -> Account:
    return replace(account, certain=account.unaccounted, excess=NOTHING, span=counted, base=base)


def _judged(account: Account, look: Look, name: str) -> Account:
    """What is certainly beyond the ledger in this span; what was certain once stays so."""
    ours = account.own_seen - account.base.own
    explained = account.passed.closed - account.base.closed + account.passed.open + Count(ours, ours)
    beyond = account.span - explained
    if name in look.by_request:
        beyond = Count(beyond.requests, 0)
    return replace(account, excess=account.excess.at_least(beyond).at_most(MAX_SUM))


def _marked(account: Account, look: Look, name: str) -> Account:
    """Remember the ledger of before this sample, for a span that begins behind it."""
    mark = Mark(look.at, look.before.get(name, Passed()).closed, look.own_before.get(name, 0))
    if 0 <= look.at - account.newer.at < MARK_SECONDS:
        return replace(account, last=mark)
    return replace(account, last=mark, newer=mark, older=account.newer)


def state_value(state: State) -> dict[str, Any]:
    """JSON-able, the shape that `read_state` reads."""
    return {"format": _FORMAT, **asdict(state)}


def read_state(value: Any) -> State:
    """The state of `state_value`. Raises ValueError, KeyError or TypeError for anything else."""
    if value["format"] != _FORMAT:
        raise ValueError("another format")
    accounts = {str(name): _account(one) for name, one in value["accounts"].items()}
    return State(int(value["since"]), int(value["until"]), str(value["run"]), int(value["runs"]), accounts)


def _account(value: Any) -> Account:
    return Account(
        run=str(value["run"]),
        seen={str(version): _count(one) for version, one in value["seen"].items()},
        own_seen=int(value["own_seen"]),
        counted=_sum(value["counted"]),
        own=int(value["own"]),
        passed=Passed(*(_count(value["passed"][name]) for name in ("answered", "unanswered", "open"))),
        certain=_sum(value["certain"]),
        span=_sum(value["span"]),
        base=_mark(value["base"]),
        excess=_sum(value["excess"]),
        last=_mark(value["last"]),
        newer=_mark(value["newer"]),
        older=_mark(value["older"]),
        clouded=int(value["clouded"]),
        at=int(value["at"]),
        clouded_at=int(value["clouded_at"]),
        by_request_at=int(value["by_request_at"]),
    )


def _count(value: Any) -> Count:
    return Count(int(value["requests"]), int(value["inferences"]))


def _sum(value: Any) -> Count:
    """What an earlier release may have summed further than a report holds."""
    return _count(value).at_most(MAX_SUM)


def _mark(value: Any) -> Mark:
    return Mark(int(value["at"]), _count(value["closed"]), int(value["own"]))
