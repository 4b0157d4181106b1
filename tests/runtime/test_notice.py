"""What is remembered of a model with sequences when its canary has no answer."""

from __future__ import annotations

from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.runtime.canary import Canary
from lotabotsd.runtime.notice import model_answered, model_loaded, model_unanswered
from lotabotsd.runtime.plan import DesiredModel, ModelStatus, Observed, answering

COUNTER = DesiredModel("counter", "digest", Canary((), (), sequence=True))
NOW_NS = 100 * NANOSECONDS


def test_a_ready_model_whose_places_are_all_taken_by_sequences_is_not_broken() -> None:
    observed = model_answered(model_loaded(Observed(), COUNTER, NOW_NS), COUNTER, "", NOW_NS)
    for later in range(1, 6):
        observed = model_unanswered(observed, COUNTER, "no answer", NOW_NS + later)
        assert observed.models["counter"].status is ModelStatus.READY
        assert observed.models["counter"].checked_at_ns == NOW_NS + later  # asked again only after a while


def test_a_new_model_with_sequences_must_answer() -> None:
    loaded = model_loaded(Observed(), COUNTER, NOW_NS)
    after = model_unanswered(loaded, COUNTER, "no answer", NOW_NS)
    assert after.models["counter"].status is ModelStatus.BROKEN
    assert "counter" not in answering(after)


def test_a_wrong_answer_breaks_it_as_any_other() -> None:
    observed = model_answered(model_loaded(Observed(), COUNTER, NOW_NS), COUNTER, "", NOW_NS)
    wrong = model_answered(observed, COUNTER, "Stub process is not healthy", NOW_NS)
    assert wrong.models["counter"].status is ModelStatus.BROKEN
