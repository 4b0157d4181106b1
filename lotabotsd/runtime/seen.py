"""What status shows of Triton: one value for the command line and the web page. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.foundation.errors import Code, LotaBotsError

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

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        value = asdict(self)
        value["models"] = [asdict(model) for model in self.models]
        return value


def seen_from(
    observed: Observed, desired: Desired, version: str, trouble: LotaBotsError | None, now_ns: int
) -> Seen:
    """The status value of what was observed; `trouble` is why the helper cannot say or do it."""
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
    )


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
