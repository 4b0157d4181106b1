"""Compare Triton's own counters with the ledger: on and on, before a report, before a model is loaded."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lotabotsd.foundation.clock import NANOSECONDS, Clock
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.runtime.client import Counted
from lotabotsd.runtime.messages import NO_RUN, RunFacts, TrialKind
from lotabotsd.usage.ledger import Ledger
from lotabotsd.usage.reconciliation import NOTHING, OWN_UNDER_WAY, Count, Look, State, compare
from lotabotsd.usage.reconciliation_store import keep_state, load_state, note_own, read_held
from lotabotsd.usage.report import latest_report
from lotabotsd.usage.report_reconciliation import difference_since

from .models import EnabledModel

log = logging.getLogger("lotabots.daemon")

LOOK_SECONDS = 15.0  # for all questions of one sample: helper, Triton, helper
MAX_UNSAVED = 4_096  # sums of our own requests by run and model that wait for room on the disk
_NOT_NOW = (
    Code.HELPER_UNAVAILABLE,
    Code.ENGINE_UNAVAILABLE,
    Code.RUNTIME_UNAVAILABLE,
    Code.RUNTIME_TIMEOUT,
)
Counters = Mapping[str, Mapping[str, Counted]]


class Helper(Protocol):
    """Who knows which run is in force (runtime/helper_client.py)."""

    async def inspect(self) -> RunFacts: ...


@dataclass(frozen=True, slots=True)
class _Asked:
    run: RunFacts
    counters: Counters


class Reconciling:
    """The one who compares. May be used from several threads; one sample is taken at a time.

    The questions run in an event loop of their own, so that whoever makes a report in a thread can ask too.
    """

    def __init__(
        self,
        ledger: Ledger,
        count_journals: Callable[[], object],
        problems: Callable[[], Sequence[str]],
        helper: Helper,
        counters: Callable[[Callable[[], str]], Callable[[], Awaitable[Counters]]],
        models: Callable[[], Sequence[EnabledModel]],
        clock: Clock,
    ) -> None:
        """`count_journals` carries every journal into the ledger; `problems` are those it could not read.

        `counters` makes the question to Triton from where to read the secret of the run in force.
        """
        self._ledger = ledger
        self._count_journals = count_journals
        self._problems = problems
        self._helper = helper
        self._secret = ""
        self._counters = counters(lambda: self._secret)
        self._models = models
        self._clock = clock
        self._lock = threading.RLock()
        self._unsaved: dict[tuple[str, str], int] = {}  # our own requests that the disk had no room for
        self._state = load_state(ledger)

    @property
    def state(self) -> State:
        """What was compared so far."""
        return self._state

    def look(self) -> bool:
        """Take one sample; False where there is nothing to be seen now, which is tried again.

        The ledger is read before and after Triton is asked, each time with all journals counted: so a request
        under way is told from one that nobody recorded. While a journal cannot be read nothing is judged.
        Raises DISK_FULL, DATABASE_DAMAGED.
        """
        with self._lock:
            self._count_journals()
            before = read_held(self._ledger)
            asked = self._ask()
            if asked is None:
                return False
            self._count_journals()
            if self._problems():
                return False
            held = read_held(self._ledger)
            models = self._models()
            run = asked.run.run_id
            look = Look(
                at=self._clock.wall_ns() // NANOSECONDS,
                run=run,
                counters={
                    name: {version: Count(one.requests, one.inferences) for version, one in versions.items()}
                    for name, versions in asked.counters.items()
                    if versions  # of the others nothing is known but that they are live
                },
                before=before.passed,
                own_before=ended(self._own(before.own.get(run, {}), run), asked.run),
                passed=held.passed,
                own=self._own(held.own.get(run, {}), run),
                by_request=by_request(models),
                clouded=clouded(models, asked.counters),
            )
            self._keep(compare(self._state, look), asked.run)
            return True

    def look_once_more(self) -> None:
        """Before the counters may end, at a stop, a load, an unload, and before a report.

        What fails holds nobody up; what takes its time does, for `LOOK_SECONDS` and two drains.
        """
        try:
            self.look()
        except LotaBotsError as error:
            log.warning("Triton's counters could not be compared: %s", error)

    def note_own(self, run: str, model: str, requests: int) -> None:
        """Requests of our own are about to be sent. What the disk has no room for is remembered here."""
        if not requests:
            return
        try:
            note_own(self._ledger, run, model, requests)
        except LotaBotsError as error:
            log.warning("a request of our own is not on record: %s", error)
            with self._lock:
                name = (run, model)
                self._unsaved[name] = self._unsaved.get(name, 0) + requests
                if len(self._unsaved) > MAX_UNSAVED:  # of the run that is over longest
                    del self._unsaved[next(iter(self._unsaved))]

    def warmups(self, model: str) -> int:
        """How many requests Triton makes by itself when it loads this model."""
        return sum(one.warmups for one in self._models() if one.name == model)

    def value(self) -> dict[str, Any]:
        """For status, metrics and the ledger's verdict: since the last report, and since the beginning."""
        state = self._state
        last = latest_report(self._ledger)
        sums = last.context.get("reconciled_sums") if last is not None else None
        found = difference_since(state, sums, state.accounts)
        new = sum((one.certain for _, one in found.differences()), NOTHING)
        models = [name for name, one in found.models.items() if one.certain.any]
        return {
            "since_ns": state.since * NANOSECONDS,
            "until_ns": state.until * NANOSECONDS,
            "runs": state.runs,
            "requests": state.unaccounted.requests,
            "inferences": state.unaccounted.inferences,
            "new_requests": new.requests,
            "new_inferences": new.inferences,
            "models": models,
        }

    def _ask(self) -> _Asked | None:
        """Triton's counters, and the run that they belong to."""
        try:
            return asyncio.run(self._questions())
        except TimeoutError:
            return None
        except LotaBotsError as error:
            if error.code not in _NOT_NOW:
                raise
            return None

    async def _questions(self) -> _Asked | None:
        async with asyncio.timeout(LOOK_SECONDS):
            run = await self._helper.inspect()
            if not run.running or not run.run_id:
                return _Asked(NO_RUN, {})
            self._secret = run.secret
            counters = await self._counters()
            again = await self._helper.inspect()
        same = again.running and again.run_id == run.run_id
        return _Asked(again, counters) if same else None

    def _own(self, kept: Mapping[str, int], run: str) -> dict[str, int]:
        own = dict(kept)
        for (of_run, model), requests in self._unsaved.items():
            if of_run == run:
                own[model] = own.get(model, 0) + requests
        return own

    def _keep(self, state: State, run: RunFacts) -> None:
        before = self._state.unaccounted
        beside = {run.trial.run_id} if run.trial is not None else set()
        runs = {state.run, run.run_id, *beside}
        keep_state(self._ledger, state, runs)
        self._unsaved = {name: number for name, number in self._unsaved.items() if name[0] in runs}
        self._state = state
        if state.unaccounted != before:
            found = state.unaccounted
            log.error(
                "Triton counted %d requests (%d inferences) that the ledger does not hold",
                found.requests,
                found.inferences,
            )


def by_request(models: Sequence[EnabledModel]) -> frozenset[str]:
    """The models whose inferences Triton counts by other rules than the gate: sequences and streams."""
    facts = (model.facts for model in models)
    return frozenset(one.name for one in facts if one is not None and (one.sequences or one.decoupled))


def clouded(models: Sequence[EnabledModel], live: Mapping[str, object]) -> bool:
    """Whether a live model may ask others past the gate; of one that is not enabled any more nobody knows."""
    known = {model.name: model for model in models if model.facts is not None}
    return any(name not in known or known[name].asks_others for name in live)


def ended(own: Mapping[str, int], run: RunFacts) -> dict[str, int]:
    """Our own requests that are over before Triton is asked: all, since a model is loaded by whoever asks its
    canary, but for the judge of an image on trial."""
    under_way = OWN_UNDER_WAY if run.trial is not None and run.trial.kind is TrialKind.BESIDE else 0
    return {model: max(0, requests - under_way) for model, requests in own.items()}


class OwnRequests:
    """Keeps our own requests to one run before they are sent, and looks before a model's counters may begin
    anew (runtime/client.py `Asking`)."""

    def __init__(self, reconciling: Reconciling, run: Callable[[], str]) -> None:
        """`run` says the id of the run that is asked."""
        self._reconciling = reconciling
        self._run = run

    async def asks(self, model: str) -> None:
        """One inference."""
        await asyncio.to_thread(self._reconciling.note_own, self._run(), model, 1)

    async def loads(self, model: str) -> None:
        """The model's warm-up; what was counted until now is looked at before."""
        await asyncio.to_thread(self._look_and_note, model)

    def _look_and_note(self, model: str) -> None:
        self._reconciling.look_once_more()
        self._reconciling.note_own(self._run(), model, self._reconciling.warmups(model))
