"""Inference bodies: what is refused before Triton sees it."""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.gate.bodies import InferFacts, judge_generate, judge_infer
from lotabotsd.gate.inflating import Inflater
from lotabotsd.gate.parameters import Namespace, Terms, edited
from lotabotsd.models.facts import ModelFacts, TensorFact

BATCHED = ModelFacts(
    "m",
    ("1",),
    "",
    8,
    (TensorFact("x", "FP32", (3, -1)), TensorFact("t", "BYTES", (1,))),
    (TensorFact("y", "FP32", (4,)),),
)
TERMS = Terms(Namespace(b"s" * 32, "K" * 12), priority_band=2, longest_microseconds=1_000)
PLAIN = ModelFacts("p", ("1",), "", 0, (TensorFact("x", "FP32", (2,)),), (TensorFact("y", "FP32", (2,)),))


def inflate(encoding: bytes, data: bytes, limit_bytes: int) -> bytes:
    inflater = Inflater(encoding, limit_bytes)
    plain = b"".join(inflater.feed(data))
    inflater.finish()
    return plain


def x(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [2, 3, 1], "data": [0] * 6, **changes}


def body(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def refused(data: bytes, header: bytes | None = None, model: ModelFacts = BATCHED) -> Code:
    with pytest.raises(LotaBotsError) as caught:
        judge_infer(data, header, model, TERMS)
    return caught.value.code


def test_rows_are_the_first_dimension_when_the_model_batches() -> None:
    assert judge_infer(body(x()), None, BATCHED, TERMS).rows == 2


def test_a_model_without_batches_counts_one() -> None:
    assert judge_infer(body(x(shape=[2], data=[1, 2])), None, PLAIN, TERMS).rows == 1


def test_binary_inputs_are_measured_not_read() -> None:
    header = json.dumps(
        {
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [1, 3, 2], "parameters": {"binary_data_size": 24}}
            ]
        }
    ).encode()
    assert judge_infer(header + bytes(24), str(len(header)).encode(), BATCHED, TERMS).rows == 1
    for tail in (23, 25, 0):
        assert refused(header + bytes(tail), str(len(header)).encode()) is Code.TENSOR_INVALID


def test_bytes_tensors_need_at_least_their_lengths() -> None:
    def header(size: int) -> bytes:
        tensor = {"name": "t", "datatype": "BYTES", "shape": [2, 1], "parameters": {"binary_data_size": size}}
        return json.dumps({"inputs": [tensor]}).encode()

    good = header(10)
    assert judge_infer(good + bytes(10), str(len(good)).encode(), BATCHED, TERMS).rows == 2
    short = header(7)
    assert refused(short + bytes(7), str(len(short)).encode()) is Code.TENSOR_INVALID


@pytest.mark.parametrize(
    "tensor",
    [
        x(name="unknown"),
        x(name=""),
        x(name=7),
        x(datatype="FP64"),
        x(datatype=None),
        x(shape=[9, 3, 1]),
        x(shape=[0, 3, 1]),
        x(shape=[2, 4, 1]),
        x(shape=[2, 3]),
        x(shape=[2, 3, -1]),
        x(shape=[2, 3, True]),
        x(shape=[2, 3, 1.0]),
        x(shape="2,3,1"),
        x(shape=[1] * 9),
        x(shape=[2, 3, 1 << 39]),
        x(data="text"),
        {"name": "x", "datatype": "FP32", "shape": [2, 3, 1]},
        x(parameters={"binary_data_size": 24}),
        x(parameters={"binary_data_size": -1}),
        x(parameters={"binary_data_size": "24"}),
        x(parameters={"binary_data_size": True}),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tensor: dict[str, Any]) -> None:
    assert refused(body(tensor)) is Code.TENSOR_INVALID


@pytest.mark.parametrize(
    "name",
    [
        *("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "triton_x", "headers"),
        *("sequence_id", "sequence_start", "sequence_end"),
    ],
)  # fmt: skip
def test_parameters_that_reach_into_the_server_are_refused_everywhere(name: str) -> None:
    assert refused(body(x(parameters={name: 1}))) is Code.PARAMETER_REFUSED
    assert refused(body(x(), parameters={name: 1})) is Code.PARAMETER_REFUSED
    assert refused(body(x(), outputs=[{"name": "y", "parameters": {name: 1}}])) is Code.PARAMETER_REFUSED


@pytest.mark.parametrize("name", ["priority", "timeout"])
def test_what_is_the_requests_is_refused_of_a_tensor(name: str) -> None:
    assert refused(body(x(parameters={name: 1}))) is Code.PARAMETER_REFUSED
    assert refused(body(x(), outputs=[{"name": "y", "parameters": {name: 1}}])) is Code.PARAMETER_REFUSED


def test_harmless_parameters_pass() -> None:
    data = body(
        x(),
        parameters={"binary_data_output": True},
        outputs=[{"name": "y", "parameters": {"classification": 2}}],
    )
    assert judge_infer(data, None, BATCHED, TERMS).rows == 2


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"{", b'{"inputs": [], "inputs": []}', b'{"a": NaN}', b"\xff", b"[" * 100_000,
     b'{"a":' * 5_000 + b"1" + b"}" * 5_000],
)  # fmt: skip
def test_json_that_can_be_read_two_ways_or_not_at_all_is_refused(data: bytes) -> None:
    assert refused(data) is Code.JSON_INVALID


def test_an_id_with_control_characters_is_refused() -> None:
    assert refused(body(x(), id="a\nb")) is Code.JSON_INVALID
    assert refused(body(x(), id="x" * 257)) is Code.JSON_INVALID
    assert refused(body(x(), id=5)) is Code.JSON_INVALID


def test_no_inputs_two_of_a_name_and_too_many_are_refused() -> None:
    assert refused(b"{}") is Code.TENSOR_INVALID
    assert refused(body()) is Code.TENSOR_INVALID
    assert refused(body(x(), x())) is Code.TENSOR_INVALID
    assert refused(body(*[x(name=f"x{i}") for i in range(65)])) is Code.TENSOR_INVALID
    assert refused(body(x(), outputs=[{"name": "z"}])) is Code.TENSOR_INVALID


@pytest.mark.parametrize("header", [b"x", b"-1", b"99999", b"9999999999", b""])
def test_a_header_length_that_does_not_fit_is_refused(header: bytes) -> None:
    assert refused(body(x()), header) is Code.REQUEST_MALFORMED


@given(st.binary(max_size=300), st.one_of(st.none(), st.integers(0, 400).map(lambda n: str(n).encode())))
def test_no_body_makes_it_fail_otherwise(data: bytes, header: bytes | None) -> None:
    with contextlib.suppress(LotaBotsError):
        judge_infer(data, header, BATCHED, TERMS)


def test_compressed_bodies_are_inflated_within_their_caps() -> None:
    plain = body(x())
    assert inflate(b"gzip", gzip.compress(plain), 10_000) == plain
    assert inflate(b"deflate", zlib.compress(plain), 10_000) == plain


@pytest.mark.parametrize(
    ("encoding", "data", "code"),
    [
        (b"br", b"x", Code.ENCODING_UNSUPPORTED),
        (b"gzip, gzip", b"x", Code.ENCODING_UNSUPPORTED),
        (b"gzip", b"not gzip", Code.REQUEST_MALFORMED),
        (b"gzip", gzip.compress(b"x" * 100)[:-4], Code.REQUEST_MALFORMED),
        (b"gzip", gzip.compress(b"x") + b"tail", Code.REQUEST_MALFORMED),
        (b"gzip", gzip.compress(bytes(2_000)), Code.BODY_TOO_LARGE),
        (b"deflate", zlib.compress(bytes(2_000)), Code.BODY_TOO_LARGE),
    ],
)
def test_bombs_and_damaged_compression_are_refused(encoding: bytes, data: bytes, code: Code) -> None:
    with pytest.raises(LotaBotsError) as caught:
        inflate(encoding, data, 1_000)
    assert caught.value.code is code


def test_a_ratio_beyond_the_cap_is_refused_below_the_size_cap() -> None:
    with pytest.raises(LotaBotsError) as caught:
        inflate(b"gzip", gzip.compress(bytes(20 << 20)), 64 << 20)
    assert caught.value.code is Code.BODY_TOO_LARGE


def test_a_blank_page_may_shrink_as_much_as_it_likes() -> None:
    blank = bytes(3 * 224 * 224 * 4)
    assert inflate(b"gzip", gzip.compress(blank), 64 << 20) == blank


def test_generate_bodies_are_flat_objects_without_refused_names() -> None:
    assert judge_generate(b'{"text": "x"}', None, PLAIN, TERMS) == InferFacts(1)
    for data, code in (
        (b'{"headers": {}}', Code.PARAMETER_REFUSED),
        (b'{"parameters": {"sequence_id": 1}}', Code.PARAMETER_REFUSED),
        (b'{"triton_x": 1}', Code.PARAMETER_REFUSED),
        (b"[]", Code.JSON_INVALID),
    ):
        with pytest.raises(LotaBotsError) as caught:
            judge_generate(data, None, PLAIN, TERMS)
        assert caught.value.code is code


def test_with_terms_the_scheduler_may_be_asked_and_nobody_else() -> None:
    data = body(x(), parameters={"timeout": 2_000, "priority": 1})
    facts = judge_infer(data, None, BATCHED, TERMS)
    assert facts.rows == 2
    assert json.loads(edited(data, facts.edits))["parameters"] == {"timeout": 1_000, "priority": 2}
    assert judge_infer(body(x()), None, BATCHED, TERMS).edits == ()
    data = b'{"text": "x", "timeout": 2000}'
    generated = judge_generate(data, None, PLAIN, TERMS)
    assert edited(data, generated.edits) == b'{"text": "x", "timeout": 1000}'
    for name in ("headers", "shared_memory_region", "triton_x"):
        for judge in (
            lambda name=name: judge_infer(body(x(), parameters={name: 1}), None, BATCHED, TERMS),
            lambda name=name: judge_generate(json.dumps({name: 1}).encode(), None, PLAIN, TERMS),
        ):
            with pytest.raises(LotaBotsError) as caught:
                judge()
            assert caught.value.code is Code.PARAMETER_REFUSED


def test_an_input_of_generate_may_be_called_like_a_parameter() -> None:
    model = replace(PLAIN, inputs=(TensorFact("timeout", "FP32", (1,)),))
    assert judge_generate(b'{"timeout": 1e9}', None, model, TERMS) == InferFacts(1)


def test_a_decoupled_model_has_no_plain_answer() -> None:
    with pytest.raises(LotaBotsError) as caught:
        judge_infer(body(x()), None, replace(BATCHED, decoupled=True), TERMS)
    assert caught.value.code is Code.STREAM_NEEDED
    assert "generate_stream" in caught.value.hint


def test_tensors_follow_the_rewritten_part_untouched() -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3, 2], "parameters": {"binary_data_size": 24}}
    header = json.dumps({"inputs": [tensor], "parameters": {"timeout": 2_000}}).encode()
    length = str(len(header)).encode()
    tail = bytes(range(24))
    facts = judge_infer(header + tail, length, BATCHED, TERMS)
    assert edited(header + tail, facts.edits) == header.replace(b"2000", b"1000") + tail
