"""What to do about Triton, from what was seen: a table of states and one next action. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lotabotsd.foundation.clock import NANOSECONDS

from .canary import Canary
from .messages import RunFacts

CANARY_NS = 30 * NANOSECONDS


class State(StrEnum):
    """Where Triton stands."""

    STOPPED = "stopped"  # not wanted
    STARTING = "starting"  # to be started, or started and not answering yet
    LOADING = "loading"  # it answers; its models are being loaded
    READY = "ready"  # every wanted model is ready, or is known not to become so
    BACKING_OFF = "backing_off"  # it failed; the next try waits
    HELD = "held"  # trying again would not help, or failed too often: somebody must look
    DRAINING = "draining"  # to be ended


class Event(StrEnum):
    """What can happen to it."""

    WANTED = "wanted"
    REPLACED = "replaced"  # a run that we did not know is there: adopted
    RENEWED = "renewed"  # ended by us, to be started with another image
    ANSWERED = "answered"
    MODELS_SETTLED = "models_settled"
    DIED = "died"
    MISCONFIGURED = "misconfigured"
    TOO_SLOW = "too_slow"
    FELL_SILENT = "fell_silent"
    POISONED = "poisoned"
    BREAKER_OPENED = "breaker_opened"
    RETRY_DUE = "retry_due"
    RESUMED = "resumed"
    STOP_WANTED = "stop_wanted"
    GONE = "gone"


MOVES: dict[tuple[State, Event], State] = {
    (State.STOPPED, Event.WANTED): State.STARTING,
    (State.STARTING, Event.REPLACED): State.STARTING,
    (State.STARTING, Event.ANSWERED): State.LOADING,
    (State.STARTING, Event.DIED): State.BACKING_OFF,
    (State.STARTING, Event.TOO_SLOW): State.BACKING_OFF,
    (State.STARTING, Event.MISCONFIGURED): State.HELD,
    (State.STARTING, Event.STOP_WANTED): State.DRAINING,
    (State.LOADING, Event.MODELS_SETTLED): State.READY,
    (State.LOADING, Event.REPLACED): State.STARTING,
    (State.LOADING, Event.DIED): State.BACKING_OFF,
    (State.LOADING, Event.FELL_SILENT): State.BACKING_OFF,
    (State.LOADING, Event.POISONED): State.BACKING_OFF,
    (State.LOADING, Event.STOP_WANTED): State.DRAINING,
    (State.READY, Event.REPLACED): State.STARTING,
    (State.READY, Event.RENEWED): State.STARTING,
    (State.READY, Event.DIED): State.BACKING_OFF,
    (State.READY, Event.FELL_SILENT): State.BACKING_OFF,
    (State.READY, Event.POISONED): State.BACKING_OFF,
    (State.READY, Event.STOP_WANTED): State.DRAINING,
    (State.BACKING_OFF, Event.RETRY_DUE): State.STARTING,
    (State.BACKING_OFF, Event.RESUMED): State.STARTING,
    (State.BACKING_OFF, Event.BREAKER_OPENED): State.HELD,
    (State.BACKING_OFF, Event.STOP_WANTED): State.DRAINING,
    (State.HELD, Event.RESUMED): State.STARTING,
    (State.HELD, Event.STOP_WANTED): State.DRAINING,
    (State.DRAINING, Event.GONE): State.STOPPED,
}


class ModelStatus(StrEnum):
    """Where one model stands."""

    ABSENT = "absent"  # to be loaded
    LOADED = "loaded"  # loaded, its canary has not answered yet
    READY = "ready"
    FAILED = "failed"  # it did not load
    BROKEN = "broken"  # it loaded, and its canary failed
    QUARANTINED = "quarantined"  # Triton died while it was being loaded or asked


@dataclass(frozen=True, slots=True)
class ModelSeen:
    """What is known of one model. `digest` is what serves, `refused` what did not load or broke."""

    status: ModelStatus = ModelStatus.ABSENT
    digest: str = ""
    refused: str = ""
    reason: str = ""
    failures: int = 0
    retry_at_ns: int = 0
    checked_at_ns: int = 0
    serving: bool = False  # while LOADED: it was swapped in for one that answered, so answers go on


@dataclass(frozen=True, slots=True)
class DesiredModel:
    """A model that should be live: the digest of its files, and how to see that it answers."""

    name: str
    digest: str
    canary: Canary


@dataclass(frozen=True, slots=True)
class Desired:
    """What should be."""

    running: bool
    models: tuple[DesiredModel, ...] = ()
    start_timeout_ns: int = 120 * NANOSECONDS


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen just now, and what is remembered from before. Times are monotonic nanoseconds."""

    state: State = State.STOPPED
    since_ns: int = 0
    run: RunFacts | None = None  # None: the helper did not answer
    run_id: str = ""  # the run that we follow
    adopted: bool = False  # it was there before us
    live: bool = False
    index: Mapping[str, str] = field(default_factory=dict)  # Triton's own word on each model
    models: Mapping[str, ModelSeen] = field(default_factory=dict)
    failures_ns: tuple[int, ...] = ()  # when it failed, within the breaker's window
    retry_at_ns: int = 0
    silent_since_ns: int = 0  # 0: it answered last time
    busy_with: DesiredModel | None = None  # the model of the step under way
    poisoned: str = ""  # the answer that told of a lost CUDA context
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Start:
    """Start Triton."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End Triton."""


@dataclass(frozen=True, slots=True)
class Load:
    """Load a model, or swap it for its newer files; `anew` takes it out first (it is broken anyway)."""

    model: DesiredModel
    anew: bool = False


@dataclass(frozen=True, slots=True)
class Unload:
    """Take a model out that nobody wants."""

    name: str


@dataclass(frozen=True, slots=True)
class Check:
    """Ask a model its canary."""

    model: DesiredModel


Step = Start | Stop | Load | Unload | Check


def plan(observed: Observed, desired: Desired, now_ns: int) -> tuple[Step, ...]:
    """The next action, at most one: what is seen after it decides on the next.

    Nothing is done while the helper does not answer: it alone knows whether Triton runs.
    """
    if observed.run is None:
        return ()
    running = observed.run.running
    if observed.state is State.STARTING:
        return () if running or observed.run_id else (Start(),)
    if observed.state in (State.BACKING_OFF, State.HELD, State.DRAINING):
        return (Stop(),) if running else ()
    if observed.state in (State.LOADING, State.READY) and observed.live:
        return tuple(_model_steps(observed, desired, now_ns))[:1]
    return ()


def settled(observed: Observed, desired: Desired) -> bool:
    """Whether every wanted model is ready, or is known not to become so by itself soon."""
    return all(
        seen.status is not ModelStatus.LOADED
        and model.digest in (seen.digest, seen.refused)
        and seen.status is not ModelStatus.ABSENT
        for model in desired.models
        for seen in [observed.models.get(model.name, ModelSeen())]
    )


def answering(observed: Observed) -> frozenset[str]:
    """The models whose requests the gate may send on.

    A swap goes on answering until its canary says no, and so does what was live before this process began:
    a restart of the daemon disturbs nobody.
    """
    if observed.state not in (State.LOADING, State.READY):
        return frozenset()
    ready = {
        name
        for name, seen in observed.models.items()
        if seen.status is ModelStatus.READY or (seen.status is ModelStatus.LOADED and seen.serving)
    }
    if observed.adopted:
        unknown = {name for name, state in observed.index.items() if state == "READY"}
        ready |= {
            name for name in unknown if observed.models.get(name, ModelSeen()).status is ModelStatus.ABSENT
        }
    return frozenset(ready)


def _model_steps(observed: Observed, desired: Desired, now_ns: int) -> Iterator[Step]:
    """In the order of urgency: what is not wanted, what is not there, what was not asked yet or lately."""
    wanted = {model.name for model in desired.models}
    yield from (
        Unload(name) for name, state in observed.index.items() if state == "READY" and name not in wanted
    )
    later: list[Step] = []
    for model in desired.models:
        seen = observed.models.get(model.name, ModelSeen())
        due = now_ns >= seen.retry_at_ns
        if model.digest == seen.refused:
            if seen.status in (ModelStatus.FAILED, ModelStatus.READY) and due:
                later.append(Load(model))
            elif seen.status is ModelStatus.BROKEN and due:
                later.append(Load(model, anew=True))
        elif model.digest != seen.digest or observed.index.get(model.name) != "READY":
            yield Load(model)
        elif seen.status is ModelStatus.LOADED:
            yield Check(model)
        elif now_ns - seen.checked_at_ns >= CANARY_NS:
            later.append(Check(model))
    yield from later
