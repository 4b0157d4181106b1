"""What to do about an image that has its trial: judge, promote, give up, make room. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from lotabotsd.foundation.clock import NANOSECONDS

from .messages import TrialKind
from .plan import Desired, ModelSeen, ModelStatus, Observed, State

EMPTYING_NS = 3 * NANOSECONDS  # for the gate to send nothing more on, before the good one is ended


@dataclass(frozen=True, slots=True)
class Judge:
    """Begin to judge the run beside Triton."""

    run_id: str


@dataclass(frozen=True, slots=True)
class Promote:
    """What is on trial has proven itself."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """What is on trial is ended; `why` is told."""

    why: str


@dataclass(frozen=True, slots=True)
class Empty:
    """The gate sends nothing more on: Triton is about to be replaced."""


@dataclass(frozen=True, slots=True)
class MakeRoom:
    """End the good one; the next start is the trial."""


TrialStep = Judge | Promote | GiveUp | Empty | MakeRoom


@dataclass(frozen=True, slots=True)
class Trial:
    """What is remembered of a trial."""

    judged: str = ""  # the run that is being judged, or was
    verdict: str | None = None  # None: it is not over; empty: nothing speaks against it
    answered: frozenset[str] | None = None  # the models that answered in the good one; None: not known
    emptying_since_ns: int = 0


def trial_step(observed: Observed, desired: Desired, trial: Trial, now_ns: int) -> TrialStep | None:
    """The next step, if there is one. Only while Triton serves: its own troubles come first."""
    run = observed.run
    if run is None or not run.running or observed.state is not State.READY or not desired.running:
        return None
    kind = run.trial.kind if run.trial is not None else None
    if run.trial is not None and kind is TrialKind.BESIDE:
        return _beside(run.trial.run_id, trial)
    if kind is TrialKind.REPLACE:
        if not trial.emptying_since_ns:
            return Empty()
        return MakeRoom() if now_ns - trial.emptying_since_ns >= EMPTYING_NS else None
    if run.proven or kind is TrialKind.REFUSED:
        return None
    if kind is TrialKind.IN_PLACE and (why := _worse(observed, desired, trial.answered)):
        return GiveUp(why)
    excused = trial.answered if kind is TrialKind.IN_PLACE else None
    return Promote() if not _lacking(observed, desired, excused) else None


def _beside(run_id: str, trial: Trial) -> TrialStep | None:
    if not run_id:
        return None  # it is being started
    if trial.judged != run_id:
        return Judge(run_id)
    if trial.verdict is None:
        return None
    return GiveUp(trial.verdict) if trial.verdict else Promote()


def _worse(observed: Observed, desired: Desired, answered: frozenset[str] | None) -> str:
    """Which model no longer answers; one that did not before says nothing against the image."""
    for name in _lacking(observed, desired, answered):
        return f"model {name}: {observed.models.get(name, ModelSeen()).reason or 'it does not answer'}"
    return ""


def _lacking(observed: Observed, desired: Desired, counted: Collection[str] | None) -> list[str]:
    return [
        model.name
        for model in desired.models
        if (counted is None or model.name in counted)
        and observed.models.get(model.name, ModelSeen()).status is not ModelStatus.READY
    ]
