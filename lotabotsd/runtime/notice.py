"""Judge what was seen of Triton: events, the moves they cause, and what is remembered of models. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lotabotsd.foundation.clock import NANOSECONDS

from .exits import is_poisoned
from .messages import ExitFacts, ExitKind, RunFacts
from .plan import (
    MOVES,
    Desired,
    DesiredModel,
    Event,
    ModelSeen,
    ModelStatus,
    Observed,
    State,
    answering,
    settled,
)

BREAKER_FAILURES = 5
BREAKER_WINDOW_NS = 600 * NANOSECONDS
SILENCE_NS = 15 * NANOSECONDS
PATIENCE = 3  # canaries in a row without an answer before a ready model counts as broken
_FIRST_RETRY_NS, _LAST_RETRY_NS = NANOSECONDS, 60 * NANOSECONDS
_FIRST_MODEL_RETRY_NS, _LAST_MODEL_RETRY_NS = 5 * NANOSECONDS, 300 * NANOSECONDS
_FAILURES = {
    Event.DIED: "it ended",
    Event.TOO_SLOW: "it did not answer in time after its start",
    Event.FELL_SILENT: "it no longer answers",
    Event.POISONED: "its CUDA context is lost",
}


def looked(
    observed: Observed, run: RunFacts | None, live: bool, index: Mapping[str, str], now_ns: int
) -> Observed:
    """What is known after a look: the helper's word on the run, whether Triton answers, its index."""
    silent = 0 if live else observed.silent_since_ns or now_ns
    return replace(observed, run=run, live=live, index=index, silent_since_ns=silent)


def notice(observed: Observed, desired: Desired, now_ns: int) -> Observed:
    """Move along MOVES until nothing more happens."""
    failures = tuple(at for at in observed.failures_ns if now_ns - at < BREAKER_WINDOW_NS)
    observed = replace(observed, failures_ns=failures)
    while (event := _event(observed, desired, now_ns)) is not None:
        observed = moved(observed, event, now_ns)
    return observed


def moved(observed: Observed, event: Event, now_ns: int, problem: str = "") -> Observed:
    """The same after an event. An event that MOVES does not know in this state changes nothing."""
    state = MOVES.get((observed.state, event))
    if state is None:
        return observed
    after = replace(observed, state=state, since_ns=now_ns)
    if event in _FAILURES:
        return _failed(after, event, now_ns, problem)
    if event is Event.MISCONFIGURED:
        ended = observed.run.exit if observed.run else None
        return replace(after, problem=problem or (ended.text if ended else "it cannot be started"))
    if event is Event.BREAKER_OPENED:
        text = f"{len(observed.failures_ns)} failures in ten minutes; the last: {observed.problem}"
        return replace(after, problem=text)
    if event is Event.REPLACED:
        run_id = observed.run.run_id if observed.run else ""
        models = _forgotten(observed.models)
        return replace(after, run_id=run_id, adopted=True, models=models, silent_since_ns=0)
    if event is Event.RENEWED:
        models = _forgotten(observed.models)
        return replace(after, run_id="", adopted=False, index={}, models=models, silent_since_ns=0)
    if event in (Event.WANTED, Event.RETRY_DUE, Event.RESUMED):
        failures = () if event is Event.RESUMED else observed.failures_ns
        return replace(after, run_id="", adopted=False, silent_since_ns=0, failures_ns=failures, poisoned="")
    if event is Event.GONE:
        return Observed(state=state, since_ns=now_ns, run=observed.run)
    return replace(after, problem="") if event is Event.MODELS_SETTLED else after


def model_loaded(observed: Observed, model: DesiredModel, now_ns: int) -> Observed:
    """Triton took the model in; its canary comes next."""
    seen = observed.models.get(model.name, ModelSeen())
    fresh = ModelSeen(
        ModelStatus.LOADED,
        digest=model.digest,
        failures=seen.failures if seen.refused == model.digest else 0,
        checked_at_ns=now_ns,
        serving=model.name in answering(observed),
    )
    return _with_model(observed, model.name, fresh)


def model_refused(observed: Observed, model: DesiredModel, reason: str, now_ns: int) -> Observed:
    """Triton did not take the model in. What served before, if anything did, goes on serving."""
    seen = observed.models.get(model.name, ModelSeen())
    failures = seen.failures + 1 if seen.refused == model.digest else 1
    serving = seen.status is ModelStatus.READY and observed.index.get(model.name) == "READY"
    return _with_model(
        observed,
        model.name,
        replace(
            seen,
            status=seen.status if serving else ModelStatus.FAILED,
            digest=seen.digest if serving else "",
            refused=model.digest,
            reason=reason,
            failures=failures,
            retry_at_ns=now_ns + _delay(failures, _FIRST_MODEL_RETRY_NS, _LAST_MODEL_RETRY_NS),
        ),
    )


def model_unloaded(observed: Observed, name: str) -> Observed:
    """A model that nobody wants is out."""
    models = {other: seen for other, seen in observed.models.items() if other != name}
    index = {other: state for other, state in observed.index.items() if other != name}
    return replace(observed, models=models, index=index, busy_with=None)


def model_answered(observed: Observed, model: DesiredModel, wrong: str, now_ns: int) -> Observed:
    """The canary was answered: `wrong` says what is wrong with the answer, or nothing."""
    if wrong:
        return _broken(observed, model, wrong, now_ns)
    ready = ModelSeen(ModelStatus.READY, digest=model.digest, checked_at_ns=now_ns)
    return _with_model(observed, model.name, ready)


def model_unanswered(observed: Observed, model: DesiredModel, reason: str, now_ns: int) -> Observed:
    """The canary was not answered in time. One that was ready may only be busy: it gets two more tries.

    One with sequences may have no place free as long as clients keep theirs: that says nothing against it.
    """
    seen = observed.models.get(model.name, ModelSeen())
    if seen.status is ModelStatus.READY and model.canary.sequence:
        return model_busy(observed, model, now_ns)
    if seen.status is ModelStatus.READY and seen.failures + 1 < PATIENCE:
        waiting = replace(seen, failures=seen.failures + 1, checked_at_ns=now_ns)
        return _with_model(observed, model.name, waiting)
    return _broken(observed, model, reason, now_ns)


def model_busy(observed: Observed, model: DesiredModel, now_ns: int) -> Observed:
    """The canary was turned away because the model's queue is full: that says nothing against the model."""
    seen = observed.models.get(model.name, ModelSeen())
    return _with_model(observed, model.name, replace(seen, checked_at_ns=now_ns))


def model_released(observed: Observed, name: str) -> Observed:
    """Somebody looked at a failed or quarantined model and wants it tried again."""
    if name not in observed.models or observed.models[name].status is ModelStatus.READY:
        return observed
    return _with_model(observed, name, ModelSeen())


def _broken(observed: Observed, model: DesiredModel, wrong: str, now_ns: int) -> Observed:
    seen = observed.models.get(model.name, ModelSeen())
    failures = seen.failures + 1
    broken = ModelSeen(
        ModelStatus.BROKEN,
        refused=model.digest,
        reason=f"the canary failed: {wrong}",
        failures=failures,
        retry_at_ns=now_ns + _delay(failures, _FIRST_MODEL_RETRY_NS, _LAST_MODEL_RETRY_NS),
        checked_at_ns=now_ns,
    )
    after = _with_model(observed, model.name, broken)
    return replace(after, poisoned=wrong) if is_poisoned(wrong) else after


def _event(observed: Observed, desired: Desired, now_ns: int) -> Event | None:
    run, state = observed.run, observed.state
    if not desired.running:
        if state is State.DRAINING:
            return Event.GONE if run is not None and not run.running else None
        return None if state is State.STOPPED else Event.STOP_WANTED
    if run is None:
        return None
    if state is State.STOPPED:
        return Event.WANTED
    if state is State.DRAINING:
        return None if run.running else Event.GONE
    if state is State.BACKING_OFF:
        if len(observed.failures_ns) >= BREAKER_FAILURES:
            return Event.BREAKER_OPENED
        return Event.RETRY_DUE if now_ns >= observed.retry_at_ns and not run.running else None
    if state is State.HELD:
        return None
    if run.running and run.run_id != observed.run_id:
        return Event.REPLACED
    judge = _starting if state is State.STARTING else _serving
    return judge(observed, desired, run, now_ns)


def _starting(observed: Observed, desired: Desired, run: RunFacts, now_ns: int) -> Event | None:
    if not run.running:
        if not observed.run_id:
            return None  # not started yet
        refused = run.exit is not None and run.exit.kind is ExitKind.CONFIGURATION
        return Event.MISCONFIGURED if refused else Event.DIED
    if observed.live:
        return Event.ANSWERED
    return Event.TOO_SLOW if now_ns - observed.since_ns > desired.start_timeout_ns else None


def _serving(observed: Observed, desired: Desired, run: RunFacts, now_ns: int) -> Event | None:
    if not run.running:
        return Event.DIED
    if observed.poisoned:
        return Event.POISONED
    if observed.silent_since_ns and now_ns - observed.silent_since_ns > SILENCE_NS:
        return Event.FELL_SILENT
    if observed.state is State.LOADING and settled(observed, desired):
        return Event.MODELS_SETTLED
    return None


def _failed(after: Observed, event: Event, now_ns: int, problem: str) -> Observed:
    """One more failure: wait longer, and put aside the model that was being loaded or asked."""
    failures = (*after.failures_ns, now_ns)
    ended = after.run.exit if after.run and event is Event.DIED else None
    text = problem or (ended.text if ended else _FAILURES[event])
    models = _forgotten(after.models)
    if after.busy_with is not None and ended is not None and _is_suspect(after, after.busy_with, ended):
        before = after.models.get(after.busy_with.name, ModelSeen())
        models[after.busy_with.name] = ModelSeen(
            ModelStatus.QUARANTINED,
            refused=after.busy_with.digest,
            reason=f"Triton died while this model was being loaded or asked: {text}",
            failures=before.failures + 1,
        )
    return replace(
        after,
        models=models,
        index={},
        failures_ns=failures,
        retry_at_ns=now_ns + _delay(len(failures), _FIRST_RETRY_NS, _LAST_RETRY_NS),
        busy_with=None,
        poisoned="",
        problem=text,
    )


def _is_suspect(observed: Observed, model: DesiredModel, ended: ExitFacts) -> bool:
    """A SIGKILL from outside says nothing against a model that had answered before."""
    seen = observed.models.get(model.name, ModelSeen())
    return ended.kind is not ExitKind.KILLED or seen.status is not ModelStatus.READY


def _forgotten(models: Mapping[str, ModelSeen]) -> dict[str, ModelSeen]:
    """A new Triton has nothing loaded (explicit mode forgets); only quarantine outlives it."""
    return {
        name: seen if seen.status is ModelStatus.QUARANTINED else ModelSeen(failures=seen.failures)
        for name, seen in models.items()
    }


def _with_model(observed: Observed, name: str, seen: ModelSeen) -> Observed:
    index = observed.index
    if seen.status is ModelStatus.LOADED:
        index = {**index, name: "READY"}
    return replace(observed, models={**observed.models, name: seen}, index=index, busy_with=None)


def _delay(failures: int, first_ns: int, last_ns: int) -> int:
    """Doubling from `first_ns` up to `last_ns`."""
    return min(last_ns, first_ns << min(failures - 1, 20))
