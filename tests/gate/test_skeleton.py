"""The skeleton of a JSON body: the same judgement as the whole, in bounded time and memory."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.gate.skeleton import MAX_KEPT_BYTES, STEP_BYTES, Skeleton, skeleton


def whole(body: bytes) -> Skeleton:
    """The skeleton."""
    steps = skeleton(body)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            kept: Skeleton = end.value
            return kept


def run(body: bytes) -> tuple[bytes, int]:
    """What is kept, and in how many steps it was made."""
    return whole(body).data, sum(1 for _ in skeleton(body)) + 1


def infer(data: str, shape: str = "[2, 3]") -> bytes:
    tensor = f'{{"name": "x", "datatype": "FP32", "shape": {shape}, "data": {data}}}'
    return f'{{"id": "a[1,2]", "inputs": [{tensor}]}}'.encode()


@pytest.mark.parametrize(
    "data",
    [
        "[1, 2.5, -3e-7, 0]",
        "[[1, 2, 3], [4, 5, 6]]",
        "[true, false, null]",
        r'["a", "[1,2]", "\"]", "\\"]',
        "[ 1 ,\t2\r\n, 3 ]",
        '[["a", "b"], [1]]',
    ],
)
def test_arrays_of_values_are_left_out_and_nothing_else(data: str) -> None:
    found = json.loads(run(infer(data))[0])
    assert found["id"] == "a[1,2]"
    assert found["inputs"][0].pop("data") == []
    assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [2, 3]}]


def test_deeper_arrays_keep_their_outline_alone() -> None:
    found = json.loads(run(infer("[[[1, 2], [3, 4]], [[5, 6], [7, 8]]]"))[0])
    assert found["inputs"][0]["data"] == [[], []]


@pytest.mark.parametrize(
    "data",
    [
        "[1, 2",
        "[1 2]",
        "[1,]",
        "[,1]",
        "[01]",
        "[.5]",
        "[1.]",
        "[+1]",
        "[NaN]",
        "[1, Infinity]",
        "[tru]",
        '["]',
    ],
)
def test_what_is_no_json_stays_no_json(data: str) -> None:
    with pytest.raises((ValueError, LotaBotsError)):
        json.loads(run(infer(data))[0], parse_constant=_refuse)


def _refuse(name: str) -> Any:
    raise ValueError(name)


def test_a_name_in_another_spelling_hides_no_shape() -> None:
    """An escaped spelling of `shape` loses its list: so the request is refused, never judged by another."""
    found = json.loads(run(rb'{"sh\u0061pe": [1, 2], "shape": [3]}')[0])
    assert found["shape"] == [3]
    assert json.loads(run(rb'{"sh\u0061pe": [1, 2]}')[0]) == {"shape": []}


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
        max_leaves=40,
    )
)
def test_what_is_kept_is_the_body_without_its_arrays_of_values(value: Any) -> None:
    for spelled in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        whole = spelled.encode("utf-8", "surrogatepass")
        try:
            kept = json.loads(run(whole)[0])
        except LotaBotsError:
            whole.decode("utf-8", "surrogatepass")
            with pytest.raises(UnicodeDecodeError):
                whole.decode()
            return
        assert _outline(kept) == _outline(value)


def _outline(value: Any) -> Any:
    """Everything but what stands in lists of values, and in lists of such lists."""
    if isinstance(value, dict):
        return {name: _outline(one) for name, one in value.items()}
    if isinstance(value, list):
        shown = [_outline(one) for one in value]
        return (
            shown
            if any(isinstance(one, dict) or one for one in shown if isinstance(one, dict | list))
            else []
        )
    return value


@pytest.mark.parametrize("name", ['"id"', '"parameters"', '"é"'])
def test_a_place_in_what_is_kept_is_found_in_the_body(name: str) -> None:
    body = (
        '{"a": [1, 2, 3], "é": [[4], [5]], "id": "x", "b": ["é", "y"], "parameters": {"timeout": 7}}'
    ).encode()
    kept = whole(body)
    for at in (kept.data.index(name.encode()), kept.data.index(name.encode()) + len(name.encode())):
        place = kept.in_body(at)
        assert body[place : place + 2] == kept.data[at : at + 2]
    assert kept.in_body(0) == 0
    assert kept.in_body(len(kept.data)) == len(body)


def test_large_bodies_are_read_in_many_steps() -> None:
    flat = infer("[" + "0.123456," * 400_000 + "1]")
    kept, steps = run(flat)
    assert len(kept) < 200
    assert steps > 2 * len(flat) // STEP_BYTES - 4


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"a":' + b'"b",' * 500_000, Code.BODY_TOO_LARGE),
        (b"[" * (MAX_KEPT_BYTES + 1), Code.BODY_TOO_LARGE),
        (b'{"a": [' + b"1," * 300_000 + b"{}]}", Code.JSON_INVALID),
        (b'{"a": "' + b"x" * 300_000, Code.JSON_INVALID),
        (b'{"a": "\xff"}', Code.JSON_INVALID),
        (b'{"a": "\xe2\x82', Code.JSON_INVALID),
    ],
    ids=["texts", "brackets", "list that breaks off", "endless text", "no UTF-8", "cut UTF-8"],
)
def test_what_cannot_be_kept_small_is_refused(body: bytes, code: Code) -> None:
    with pytest.raises(LotaBotsError) as failure:
        run(body)
    assert failure.value.code is code
    assert failure.value.hint


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail_otherwise(data: bytes) -> None:
    with suppress(LotaBotsError):
        run(data)
