"""Two answers to a canary: alike within the tolerance, or how they differ."""

from __future__ import annotations

import json
import struct

import pytest

from lotabotsd.runtime.canary import Canary, CanaryAnswer, CanaryTensor
from lotabotsd.runtime.comparison import difference


def answer(datatype: str, shape: list[int], elements: bytes) -> CanaryAnswer:
    output = {"name": "y", "datatype": datatype, "shape": shape}
    head = json.dumps({"outputs": [{**output, "parameters": {"binary_data_size": len(elements)}}]}).encode()
    return CanaryAnswer("", head + elements, len(head))


def compared(datatype: str, before: bytes, after: bytes, shape: tuple[int, ...] = (1, 2)) -> str:
    canary = Canary((), (CanaryTensor("y", datatype, shape),))
    return difference(canary, answer(datatype, list(shape), before), answer(datatype, list(shape), after))


@pytest.mark.parametrize(("datatype", "code"), [("FP16", "e"), ("FP32", "f"), ("FP64", "d")])
def test_numbers_may_differ_by_the_tolerance(datatype: str, code: str) -> None:
    def packed(*numbers: float) -> bytes:
        return struct.pack(f"<2{code}", *numbers)

    assert compared(datatype, packed(0.5, 100), packed(0.51, 101.5)) == ""
    assert "at 0, before it was 0.5" in compared(datatype, packed(0.5, 100), packed(0.55, 100))
    assert "at 1, before it was 100" in compared(datatype, packed(0.5, 100), packed(0.5, 104))


def test_everything_else_must_be_equal() -> None:
    assert compared("INT64", struct.pack("<2q", 1, 2), struct.pack("<2q", 1, 2)) == ""
    assert "another one than before" in compared("INT64", struct.pack("<2q", 1, 2), struct.pack("<2q", 1, 3))
    text = struct.pack("<I", 2) + b"ab"
    assert compared("BYTES", text, text, (1,)) == ""
    assert "another one" in compared("BYTES", text, struct.pack("<I", 2) + b"ac", (1,))


def test_another_size_is_told() -> None:
    canary = Canary((), (CanaryTensor("y", "FP32", (1, -1)),))
    before = answer("FP32", [1, 1], struct.pack("<f", 0))
    after = answer("FP32", [1, 2], struct.pack("<2f", 0, 0))
    assert difference(canary, before, after) == "the output y has shape [1, 2], before it was [1, 1]"


def test_of_a_stream_there_is_nothing_to_compare() -> None:
    canary = Canary((), (CanaryTensor("y", "FP32", (1,)),), decoupled=True)
    assert difference(canary, CanaryAnswer(""), CanaryAnswer("")) == ""
