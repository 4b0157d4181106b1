"""The canary: what is asked, and which answers count as none."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.runtime.canary import (
    SEQUENCE_ID,
    Canary,
    CanaryTensor,
    canary_request,
    judge_canary,
    make_canary,
    pattern,
    stream_request,
)

CANARY = make_canary(
    (CanaryTensor("x", "FP32", (3, -1)), CanaryTensor("t", "BYTES", (1,))),
    (CanaryTensor("y", "FP32", (4,)), CanaryTensor("n", "INT64", (-1,))),
    batched=True,
    sizes={"x": (3, 5)},
)


def answer(outputs: list[tuple[str, str, list[int], bytes]]) -> tuple[bytes, int]:
    described = [
        {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(data)}}
        for name, kind, shape, data in outputs
    ]
    head = json.dumps({"outputs": described}).encode()
    return head + b"".join(data for *_, data in outputs), len(head)


Y = ("y", "FP32", [1, 4], struct.pack("<4f", 1, 2, 3, 4))
N = ("n", "INT64", [1, 2], bytes(16))


def test_free_dims_are_filled_as_told_and_else_with_one() -> None:
    assert CANARY.inputs[0].shape == (1, 3, 5)
    assert CANARY.outputs[1].shape == (1, -1)
    plain = make_canary((CanaryTensor("x", "FP32", (-1, 2)),), (), batched=False, sizes={})
    assert plain.inputs[0].shape == (1, 2)


def test_the_request_holds_the_pattern_and_empty_texts() -> None:
    body, head_bytes = canary_request(CANARY)
    head = json.loads(body[:head_bytes])
    assert [tensor["parameters"]["binary_data_size"] for tensor in head["inputs"]] == [60, 4]
    assert body[head_bytes:] == pattern(15) + bytes(4)


def test_a_model_with_sequences_is_asked_in_one_of_its_own_that_ends_at_once() -> None:
    body, head_bytes = canary_request(make_canary(CANARY.inputs, (), batched=False, sizes={}, sequence=True))
    asked = json.loads(body[:head_bytes])["parameters"]
    assert asked == {"sequence_id": SEQUENCE_ID, "sequence_start": True, "sequence_end": True}
    assert 1 << 63 <= SEQUENCE_ID < 1 << 64  # the gate's ids for clients end below
    assert "parameters" not in json.loads(canary_request(CANARY)[0][: canary_request(CANARY)[1]])


def test_a_stream_is_asked_for_in_flat_json() -> None:
    tensors = (
        CanaryTensor("x", "FP32", (1, 3)),
        CanaryTensor("n", "INT64", (2,)),
        CanaryTensor("b", "BOOL", (1,)),
        CanaryTensor("t", "BYTES", (1, 1)),
    )
    asked = json.loads(stream_request(Canary(tensors, ())) or b"")
    assert asked == {"x": [2.0, 1.9921875, 1.984375], "n": [0, 0], "b": [False], "t": [""]}


@pytest.mark.parametrize(
    ("datatype", "shape"), [("FP32", (2, 3)), ("FP32", (1, 1, 3)), ("FP16", (1,)), ("BF16", (1,))]
)
def test_what_flat_json_cannot_say_is_no_stream_request(datatype: str, shape: tuple[int, ...]) -> None:
    assert stream_request(Canary((CanaryTensor("x", datatype, shape),), ())) is None


def test_a_stream_request_that_would_be_huge_is_refused() -> None:
    with pytest.raises(ValueError, match="would have"):
        stream_request(Canary((CanaryTensor("x", "INT64", (1 << 30,)),), ()))


def test_golden_pattern() -> None:
    values = struct.unpack("<1025f", pattern(1_025))
    assert values[:3] == (2.0, 1.9921875, 1.984375)
    assert (values[512], values[1_024]) == (-2.0, 2.0)


def test_an_answer_of_the_right_shape_with_other_values_is_wrong() -> None:
    tensor = CanaryTensor("y", "FP32", (4,))
    expecting = make_canary((), (tensor,), batched=True, sizes={}, expected={"y": (1.01, 2.0)})
    assert judge_canary(expecting, *answer([Y])) == ""
    other = ("y", "FP32", [1, 4], struct.pack("<4f", 1.04, 2, 3, 4))
    assert "begins [1.0" in judge_canary(expecting, *answer([other]))
    longer = make_canary(
        (), (CanaryTensor("y", "FP32", (-1,)),), batched=False, sizes={}, expected={"y": (1, 1)}
    )
    assert "expected [1, 1]" in judge_canary(longer, *answer([("y", "FP32", [1], struct.pack("<f", 1))]))


def test_a_canary_that_would_be_huge_is_refused() -> None:
    huge = make_canary((CanaryTensor("x", "FP32", (1 << 30,)),), (), batched=False, sizes={})
    with pytest.raises(ValueError, match="would have"):
        canary_request(huge)


def test_a_right_answer_is_accepted() -> None:
    assert judge_canary(CANARY, *answer([Y, N])) == ""


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        ([Y], "the output n is missing"),
        ([("y", "FP64", [1, 4], bytes(32)), N], "is FP64, not FP32"),
        ([("y", "FP32", [1, 5], bytes(20)), N], "has shape [1, 5], not [1, 4]"),
        ([("y", "FP32", [4], bytes(16)), N], "has shape [4]"),
        ([("y", "FP32", [1, 4], b""), N], "has 0 bytes"),
        ([("y", "FP32", [1, 4], struct.pack("<4f", 1, math.nan, 3, 4)), N], "not finite"),
        ([("y", "FP32", [1, 4], struct.pack("<4f", 1, math.inf, 3, 4)), N], "not finite"),
    ],
)
def test_each_wrong_answer_is_named(outputs: list[Any], told: str) -> None:
    assert told in judge_canary(CANARY, *answer(outputs))


def test_half_floats_are_looked_at_too() -> None:
    canary = make_canary((), (CanaryTensor("h", "FP16", (2,)),), batched=False, sizes={})
    assert judge_canary(canary, *answer([("h", "FP16", [2], struct.pack("<2e", 1, 2))])) == ""
    assert "not finite" in judge_canary(
        canary, *answer([("h", "FP16", [2], struct.pack("<2e", 1, math.nan))])
    )


def test_an_answer_that_ends_early_is_wrong() -> None:
    body, head_bytes = answer([Y, N])
    for length in range(len(body)):
        assert judge_canary(CANARY, body[:length], head_bytes)


@given(st.binary(max_size=60), st.integers(0, 60))
def test_no_answer_makes_it_raise(body: bytes, head_bytes: int) -> None:
    assert judge_canary(CANARY, body, head_bytes)


@pytest.mark.parametrize(
    "head",
    [b"{}", b'{"outputs":null}', b'{"outputs":[1]}', b'{"outputs":[{"name":"y"}]}', b"[]", b"\xff"],
)
def test_odd_json_is_wrong_and_never_an_exception(head: bytes) -> None:
    assert judge_canary(CANARY, head, len(head))
