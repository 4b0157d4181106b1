"""What status shows of Triton: one value for the command line and the web page. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.foundation.errors import Code, LotaBotsError

from .messages import GIVEN_UP, TrialKind
from .plan import Desired, ModelSeen, ModelStatus, Observed, State

_NEXT_STEPS = {
    State.BACKING_OFF: "wait: it is tried again by itself; lotabotsctl logs shows its last lines",
    State.HELD: "mend the cause (lotabotsctl logs shows its last lines), then restart lotabotsd",
}
_MODEL_NEXT_STEPS = {
    ModelStatus.FAILED: "mend the package; it is tried again by itself",
    ModelStatus.BROKEN: "nothing to do yet: it is loaded anew by itself; lotabotsctl logs shows why",
    ModelStatus.QUARANTINED: "replace the package, or restart lotabotsd to try it again",
}


_UPGRADE_NEXT_STEPS = {
    TrialKind.BESIDE: "wait: it takes over by itself once it answers as the one before",
    TrialKind.IN_PLACE: "wait: the one before comes back by itself unless every model answers",
    TrialKind.REPLACE: "wait: it is started by itself",
    TrialKind.REFUSED: "name another image in runtime.image, or mend this one, "
    "then: systemctl reload lotabots-runtime",
}


@dataclass(frozen=True, slots=True)
class SeenUpgrade:
    """The configured image where it is not the one that is known to be good."""

    kind: str  # beside, in_place, replace, refused
    image: str
    why: str
    next_step: str


@dataclass(frozen=True, slots=True)
class SeenModel:
    """One wanted model."""

    name: str
    status: str  # absent, loaded, ready, failed, broken, quarantined
    digest: str  # of what serves now; empty when nothing does
    refused: str  # the digest that did not load or broke; empty when none did
    reason: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Seen:
    """Triton and its models."""

    state: str  # stopped, starting, loading, ready, backing_off, held, draining
    seconds_in_state: int
    pid: int
    run_id: str
    version: str
    failures: int  # in the last ten minutes
    retry_in_seconds: int
    helper_answers: bool
    problem: str
    next_step: str
    models: tuple[SeenModel, ...]
    trouble: str = ""  # the code of why the helper cannot say or do what it was asked; empty when it can
    upgrade: SeenUpgrade | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        value = asdict(self)
        value["models"] = [asdict(model) for model in self.models]
        return value


def seen_from(
    observed: Observed,
    desired: Desired,
    version: str,
    trouble: LotaBotsError | None,
    now_ns: int,
    given_up: Callable[[str], str] = lambda image: "",
) -> Seen:
    """The status value of what was observed; `trouble` is why the helper cannot say or do it.

    `given_up` knows why we gave an image up; what the helper knows it says by itself.
    """
    waiting = observed.state is State.BACKING_OFF
    run = observed.run
    return Seen(
        state=observed.state.value,
        seconds_in_state=max(0, now_ns - observed.since_ns) // NANOSECONDS if observed.since_ns else 0,
        pid=run.pid if run is not None else 0,
        run_id=observed.run_id,
        version=version,
        failures=len(observed.failures_ns),
        retry_in_seconds=max(0, -(-(observed.retry_at_ns - now_ns) // NANOSECONDS)) if waiting else 0,
        helper_answers=trouble is None or trouble.code is not Code.HELPER_UNAVAILABLE,
        trouble=trouble.code.value if trouble is not None else "",
        problem=str(trouble) if trouble is not None else observed.problem,
        next_step=trouble.hint if trouble is not None else _NEXT_STEPS.get(observed.state, ""),
        models=tuple(_model(model.name, observed) for model in desired.models),
        upgrade=_upgrade(observed, given_up),
    )


def _upgrade(observed: Observed, given_up: Callable[[str], str]) -> SeenUpgrade | None:
    trial = observed.run.trial if observed.run is not None else None
    if trial is None:
        return None
    ours = given_up(trial.image) if trial.why == GIVEN_UP else ""
    return SeenUpgrade(trial.kind.value, trial.image, ours or trial.why, _UPGRADE_NEXT_STEPS[trial.kind])


def _model(name: str, observed: Observed) -> SeenModel:
    seen = observed.models.get(name, ModelSeen())
    return SeenModel(
        name=name,
        status=seen.status.value,
        digest=seen.digest,
        refused=seen.refused,
        reason=seen.reason,
        next_step=_MODEL_NEXT_STEPS.get(seen.status, ""),
    )
