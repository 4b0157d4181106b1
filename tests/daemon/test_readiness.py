"""Restarting the daemon must not make ready models unready, and must not call dead ones ready."""

from __future__ import annotations

from lotabotsd.daemon.models import EnabledModel
from lotabotsd.daemon.readiness import ReadyModels
from lotabotsd.models.facts import ModelFacts
from lotabotsd.runtime.seen import Seen, SeenModel

DIGEST = "d" * 64


class Triton:
    """What the supervisor saw, settable."""

    def __init__(self) -> None:
        self.state = "stopped"
        self.status = "absent"
        self.ready: frozenset[str] = frozenset()

    def seen(self) -> Seen:
        model = SeenModel("a", self.status, "", "", "", "")
        return Seen(self.state, 0, 0, "", "", 0, 0, True, "", "", (model,))


def _ready(triton: Triton, digest: str = DIGEST) -> ReadyModels:
    model = EnabledModel("a", ModelFacts("a", ("1",), digest, 1, (), ()))
    return ReadyModels(triton.seen, lambda: triton.ready, lambda: (model,))


def test_nothing_is_ready_before_the_supervisor_says_so() -> None:
    assert _ready(Triton())() == frozenset()


def test_what_was_published_stays_ready_until_the_supervisor_has_looked() -> None:
    triton = Triton()
    ready = _ready(triton)
    ready.carry({"a": DIGEST, "gone": DIGEST})
    for state, status in (("stopped", "absent"), ("loading", "absent"), ("loading", "loaded")):
        triton.state, triton.status = state, status
        assert ready() == {"a"}
    triton.state, triton.status, triton.ready = "ready", "ready", frozenset({"a"})
    assert ready() == {"a"}


def test_a_model_that_broke_meanwhile_is_not_ready() -> None:
    triton = Triton()
    ready = _ready(triton)
    ready.carry({"a": DIGEST})
    for status in ("failed", "broken", "quarantined"):
        triton.state, triton.status = "loading", status
        assert ready() == frozenset()


def test_another_version_of_the_model_is_not_ready_because_the_old_one_was() -> None:
    ready = _ready(Triton(), digest="e" * 64)
    ready.carry({"a": DIGEST})
    assert ready() == frozenset()


def test_a_triton_that_does_not_answer_ends_the_belief_for_good() -> None:
    triton = Triton()
    ready = _ready(triton)
    ready.carry({"a": DIGEST})
    for state in ("starting", "backing_off", "held"):
        triton.state = state
        assert ready() == frozenset()
    triton.state = "loading"
    assert ready() == frozenset()
