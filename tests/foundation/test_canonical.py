"""One spelling of JSON out, and no second reading in."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.foundation.canonical import canonical_json, strict_json

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


def test_keys_are_sorted_and_nothing_is_spaced_or_escaped() -> None:
    assert canonical_json({"b": [1, None, True], "a": "é"}) == '{"a":"é","b":[1,null,true]}'.encode()


def test_the_order_in_which_a_document_was_made_does_not_matter() -> None:
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})


@given(VALUES)
def test_what_was_written_is_read_back_the_same(value: Any) -> None:
    assert strict_json(canonical_json(value)) == value


@given(VALUES)
def test_writing_again_what_was_read_gives_the_same_bytes(value: Any) -> None:
    data = canonical_json(value)
    assert canonical_json(strict_json(data)) == data


@pytest.mark.parametrize(
    "value", [1.0, float("nan"), {"a": 0.5}, [[{"a": (0.1,)}]], {1: "number as key"}, {"a": "\ud800"}]
)
def test_floats_odd_keys_and_half_characters_are_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        canonical_json(value)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'[{"x":{"a":1,"\\u0061":2}}]',
        b'{"a":NaN}',
        b"[Infinity]",
        b"[-Infinity]",
        b"",
        b" ",
        b"{",
        b'{"a":1}}',
        b'{"a":1} x',
        b"\xff",
        b'\xef\xbb\xbf{"a":1}',
        b"'a'",
        b"[1,]",
        b'["' + b"\n" + b'"]',
        b"9" * 5_000,
    ],
)
def test_what_could_be_read_twice_or_not_at_all_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        strict_json(data)


def test_nesting_is_allowed_up_to_the_limit_and_not_one_deeper() -> None:
    assert strict_json("[" * 32 + "]" * 32) == json.loads("[" * 32 + "]" * 32)
    with pytest.raises(ValueError, match="deeper than 32"):
        strict_json("[" * 33 + "]" * 33)
    assert strict_json('{"a":[]}', max_depth=2) == {"a": []}
    with pytest.raises(ValueError):
        strict_json('{"a":[]}', max_depth=1)


def test_brackets_inside_strings_are_no_nesting() -> None:
    text = json.dumps(["[" * 1_000, '\\"{{{' * 100, "\\"])
    assert strict_json(text) == json.loads(text)


@pytest.mark.parametrize("filler", ["]" * 100_000, '\\"]' * 50_000, "\\\\"])
def test_closing_brackets_inside_a_string_do_not_hide_real_nesting(filler: str) -> None:
    with pytest.raises(ValueError, match="deeper"):
        strict_json(f'["{filler}",' + "[" * 100_000)


def test_strings_that_never_end_cost_linear_time() -> None:
    started = time.monotonic()
    with pytest.raises(ValueError):
        strict_json('["' + '\\"' * 500_000)
    assert time.monotonic() - started < 2
