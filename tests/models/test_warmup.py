"""How many requests a model's warm-up makes, and whether its code may ask other models."""

from __future__ import annotations

import pytest

from lotabotsd.models.configuration import read_configuration
from lotabotsd.models.warmup import asks_others, warmup_requests

HEAD = """
name: "tiny"
backend: "python"
max_batch_size: 8
"""
CPU = "instance_group [ { kind: KIND_CPU count: 2 } ]"
TWICE = 'model_warmup [ { name: "w" batch_size: 3 count: 2 } ]'


def requests(text: str, versions: int = 1, gpus: int = 0) -> int:
    configuration, problems = read_configuration(HEAD + text)
    assert configuration is not None, problems
    return warmup_requests(configuration.message, versions=versions, gpus=gpus)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CPU, 0),
        (CPU + TWICE, 12),
        (CPU + 'model_warmup [ { name: "w" } ]', 2),
        (CPU + 'model_warmup [ { name: "a" batch_size: 1 }, { name: "b" batch_size: 4 } ]', 10),
        (TWICE, 12),
        ("instance_group [ { kind: KIND_CPU count: 1 }, { kind: KIND_CPU count: 3 } ]" + TWICE, 24),
    ],
)
def test_each_instance_runs_each_sample_as_often_as_it_says_row_by_row(text: str, expected: int) -> None:
    assert requests(text) == expected


def test_each_version_and_each_gpu_has_instances_of_its_own() -> None:
    assert requests(CPU + TWICE, versions=3) == 36
    assert requests("instance_group [ { kind: KIND_GPU count: 1 gpus: [ 0, 1 ] } ]" + TWICE, gpus=4) == 12
    assert requests("instance_group [ { kind: KIND_AUTO count: 1 } ]" + TWICE, gpus=4) == 24


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"", False),
        (b"return [pb_utils.InferenceResponse([])]", False),
        (b"answer = pb_utils.InferenceRequest(model_name='other').exec()", True),
    ],
)
def test_code_that_asks_others_is_known_by_how_it_asks(source: bytes, expected: bool) -> None:
    assert asks_others(source) is expected
