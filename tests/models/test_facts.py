"""Model facts survive JSON, and a missing field is no default."""

from __future__ import annotations

import json

import pytest

from lotabotsd.models.facts import DATATYPES, ModelFacts, PredictSpec, TensorFact

FACTS = ModelFacts(
    name="tiny",
    versions=("1",),
    digest="ab" * 32,
    max_batch_size=8,
    inputs=(TensorFact("pixels", "FP32", (3, 4, -1)),),
    outputs=(TensorFact("scores", "FP32", (2,)),),
    labels=("cat", "dog"),
    predict=PredictSpec("pixels", "scores", 4, 4, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0)),
    ready=True,
    decoupled=True,
    sequences=True,
    priority_levels=3,
)


def test_facts_survive_the_way_through_json() -> None:
    assert ModelFacts.from_dict(json.loads(json.dumps(FACTS.to_dict()))) == FACTS


def test_a_model_without_predict_survives_too() -> None:
    plain = ModelFacts("m", ("1",), "", 0, (), ())
    assert ModelFacts.from_dict(json.loads(json.dumps(plain.to_dict()))) == plain


@pytest.mark.parametrize(
    "missing", ["name", "digest", "inputs", "predict", "ready", "decoupled", "sequences", "priority_levels"]
)
def test_a_missing_field_is_an_error_and_no_default(missing: str) -> None:
    value = FACTS.to_dict()
    del value[missing]
    with pytest.raises(KeyError):
        ModelFacts.from_dict(value)


def test_an_unknown_field_of_predict_is_an_error() -> None:
    value = FACTS.to_dict()
    value["predict"]["colour"] = "blue"
    with pytest.raises(TypeError):
        ModelFacts.from_dict(value)


def test_every_kserve_datatype_is_known() -> None:
    assert len(DATATYPES) == 14
