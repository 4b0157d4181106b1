"""Sequences, priorities and timeouts: what Triton sees of what a client asked, and what stays untouched."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.gate.parameters import (
    MAX_NUMBER,
    Namespace,
    Terms,
    edited,
    generate_edits,
    namespace_secret,
    parameter_edits,
)
from lotabotsd.models.facts import ModelFacts, TensorFact

SECRET = namespace_secret(bytes(32))
ONE, OTHER = Namespace(SECRET, "A" * 12), Namespace(SECRET, "B" * 12)
TERMS = Terms(ONE, priority_band=2, longest_microseconds=60_000_000)
X = TensorFact("x", "FP32", (1,))
PLAIN = ModelFacts("m", ("1",), "", 8, (X,), (X,))
COUNTER = replace(PLAIN, sequences=True)
LEVELS = replace(PLAIN, priority_levels=3)
INPUTS = '"inputs": [{"name": "x", "data": [1.50, 1E+2, -0.0]}]'


def rewritten(text: str, model: ModelFacts = PLAIN, terms: Terms = TERMS) -> str | None:
    edits = parameter_edits(text.encode(), json.loads(text), terms, model)
    return edited(text.encode(), edits).decode() if edits else None


def generated(text: str, model: ModelFacts = PLAIN) -> str | None:
    edits = generate_edits(text.encode(), json.loads(text), TERMS, model)
    return edited(text.encode(), edits).decode() if edits else None


def refused(parameters: dict[str, Any], model: ModelFacts = COUNTER) -> LotaBotsError:
    request = {"parameters": parameters}
    with pytest.raises(LotaBotsError) as caught:
        parameter_edits(json.dumps(request).encode(), request, TERMS, model)
    assert caught.value.hint
    return caught.value


# -- namespaces
def test_golden_ids() -> None:
    assert ONE.number(7) == 9046904154175426773
    assert ONE.text("7") == "5757a3eb3cf35b6640a0f5c0a8d9da74"


def test_the_secret_is_not_the_pepper_and_not_shown() -> None:
    assert bytes(32) != SECRET
    assert len(SECRET) == 32
    assert SECRET.hex() not in repr(ONE)
    assert str(SECRET) not in repr(TERMS)


@given(st.integers(1, MAX_NUMBER))
def test_a_number_becomes_one_of_63_bits_that_only_this_key_has(identifier: int) -> None:
    assert 1 <= ONE.number(identifier) < 1 << 63
    assert ONE.number(identifier) == Namespace(SECRET, "A" * 12).number(identifier)
    assert ONE.number(identifier) != OTHER.number(identifier)
    assert ONE.number(identifier) != Namespace(namespace_secret(b"\1" * 32), "A" * 12).number(identifier)


@given(st.text(min_size=1, max_size=128))
def test_a_text_becomes_one_that_only_this_key_has(identifier: str) -> None:
    assert len(ONE.text(identifier)) == 32
    assert ONE.text(identifier) != OTHER.text(identifier)


def test_a_number_and_its_digits_as_text_are_two_sequences() -> None:
    assert f"{ONE.number(7):x}" not in ONE.text("7")


def test_many_ids_stay_apart() -> None:
    keys = [Namespace(SECRET, f"key{number}") for number in range(50)]
    assert len({key.number(identifier) for key in keys for identifier in range(1, 201)}) == 10_000


# -- the splice
def test_only_the_value_changes() -> None:
    text = (
        '\n{ "id": "a", "parameters" : { "sequence_id" :\t7, "z": 1.50 , "sequence_start":true},'
        + INPUTS
        + "} "
    )
    assert rewritten(text, COUNTER) == text.replace("\t7", f"\t{ONE.number(7)}")


@pytest.mark.parametrize("name", ["parameters", "p\\u0061rameters"])
def test_a_member_is_found_however_its_name_is_written_and_wherever_it_stands(name: str) -> None:
    decoys = '"a": {"parameters": {"sequence_id": 7}}, "b": "\\"parameters\\": {", "c": [{"sequence_id": 7}]'
    text = f'{{{decoys}, {INPUTS}, "{name}": {{"sequence_id": 7}}}}'
    before, _, after = text.rpartition("7")
    assert rewritten(text, COUNTER) == f"{before}{ONE.number(7)}{after}"


def test_text_that_is_not_ascii_stays_as_it_was() -> None:
    text = '{"id": "öü\\u00f6 😀", "parameters": {"ü": "é", "sequence_id": "ö😀"}, ' + INPUTS + "}"
    assert rewritten(text, COUNTER) == text.replace('"ö😀"', f'"{ONE.text("ö😀")}"')


def test_what_asks_nothing_of_the_scheduler_stays() -> None:
    assert rewritten("{" + INPUTS + "}") is None
    assert rewritten('{"parameters": {"binary_data_output": true, "temperature": 0.50}}') is None
    assert rewritten('{"parameters": {}}') is None
    assert rewritten('{"parameters": null}') is None


names = st.one_of(st.sampled_from(["parameters", "sequence_id", "priority", "timeout"]), st.text(max_size=3))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(names, values, max_size=4), st.dictionaries(st.text(max_size=3), values, max_size=3),
       st.booleans(), st.sampled_from([None, 2]))  # fmt: skip
def test_whatever_else_is_there_only_the_parameters_differ(
    request: dict[str, Any], more: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    request = {**request, "parameters": {**more, "sequence_id": 7, "timeout": 1 << 60}}
    text = json.dumps(request, ensure_ascii=ascii_only, indent=indent)
    if not ascii_only:
        text = text.encode(errors="replace").decode()
        request = json.loads(text)
    found = json.loads(rewritten(text, COUNTER) or "")
    wanted = {**request["parameters"], "sequence_id": ONE.number(7), "timeout": TERMS.longest_microseconds}
    assert found == {**request, "parameters": wanted}


def test_what_is_nested_too_deeply_to_step_over_is_refused() -> None:
    deep = '{"a": ' + "[" * 100_000 + "]" * 100_000 + ', "parameters": {"timeout": 99999999999}}'
    with pytest.raises(LotaBotsError) as caught:
        parameter_edits(deep.encode(), {"parameters": {"timeout": 99_999_999_999}}, TERMS, PLAIN)
    assert caught.value.code is Code.JSON_INVALID


# -- sequences
@pytest.mark.parametrize(
    "value", [-1, MAX_NUMBER + 1, True, 7.0, None, [7], {}, "a\nb", "x" * 129, "\x00"]
)  # fmt: skip
def test_what_is_no_id_is_refused(value: Any) -> None:
    assert refused({"sequence_id": value, "sequence_start": True}).code is Code.PARAMETER_REFUSED


@pytest.mark.parametrize("name", ["sequence_start", "sequence_end"])
@pytest.mark.parametrize("value", [1, 0, "true", None])
def test_start_and_end_are_true_or_false(name: str, value: Any) -> None:
    assert refused({"sequence_id": 7, name: value}).code is Code.PARAMETER_REFUSED


@pytest.mark.parametrize(
    "parameters", [{}, {"sequence_id": 0}, {"sequence_id": ""}, {"sequence_start": True}]
)
def test_a_model_with_state_needs_an_id(parameters: dict[str, Any]) -> None:
    assert refused(parameters).code is Code.SEQUENCE_INVALID


@pytest.mark.parametrize("name", ["sequence_id", "sequence_start", "sequence_end"])
def test_a_model_without_state_says_so(name: str) -> None:
    error = refused({name: 1}, PLAIN)
    assert error.code is Code.PARAMETER_REFUSED
    assert "the model keeps no state" in error.detail


# -- priority and timeout
@pytest.mark.parametrize(
    ("asked", "band", "levels", "counts"),
    [(0, 1, 0, 1), (1, 2, 0, 2), (5, 2, 0, 5), (1, 3, 3, 3), (2, 1, 3, 2), (9, 1, 3, 3), (0, 2, 3, 2),
     (1, 9, 2, 2), (MAX_NUMBER, 1, 16, 16)],
)  # fmt: skip
def test_the_priority_is_the_later_of_the_band_and_what_was_asked(
    asked: int, band: int, levels: int, counts: int
) -> None:
    assert replace(TERMS, priority_band=band).priority(asked, levels) == counts


def test_a_priority_is_written_where_it_changes() -> None:
    assert rewritten('{"parameters": {"priority": 1}}', LEVELS) == '{"parameters": {"priority": 2}}'
    assert rewritten('{"parameters": {"priority": 3}}', LEVELS) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"a": 1}', '{"parameters":{"priority":2},"a": 1}'),
        ("{ }", '{"parameters":{"priority":2} }'),
        ('{"parameters": {}, "a": 1}', '{"parameters": {"priority":2}, "a": 1}'),
        ('{"parameters": null, "a": 1}', '{"parameters": {"priority": 2}, "a": 1}'),
        ('{"parameters": { "b": 1.50}}', '{"parameters": {"priority":2, "b": 1.50}}'),
    ],
)
def test_who_leaves_the_priority_out_does_not_come_before_its_band(before: str, after: str) -> None:
    assert rewritten(before, LEVELS) == after
    assert rewritten(before, PLAIN) is None


def test_a_timeout_never_outlasts_the_gate() -> None:
    assert rewritten('{"parameters": {"timeout": 60000001}}') == '{"parameters": {"timeout": 60000000}}'
    assert rewritten('{"parameters": {"timeout": 1000}}') is None
    assert rewritten('{"parameters": {"timeout": 0}}') is None


@pytest.mark.parametrize("name", ["priority", "timeout"])
@pytest.mark.parametrize("value", [-1, MAX_NUMBER + 1, 1.0, "1", True, None])
def test_what_is_no_number_is_refused(name: str, value: Any) -> None:
    assert refused({name: value}, PLAIN).code is Code.PARAMETER_REFUSED


# -- generate
def test_members_of_generate_are_parameters_at_the_top_and_inside() -> None:
    text = '{"x": 1.50, "sequence_id": 7, "parameters": {"sequence_id": "a", "timeout": 60000001}, "id": "i"}'
    wanted = text.replace("60000001", "60000000").replace('"a"', f'"{ONE.text("a")}"')
    assert generated(text, COUNTER) == wanted.replace(": 7", f": {ONE.number(7)}")


def test_a_member_with_the_name_of_an_input_is_that_input() -> None:
    model = replace(
        PLAIN, inputs=(TensorFact("timeout", "FP32", (1,)), TensorFact("priority", "BYTES", (1,)))
    )
    assert generated('{"timeout": 1e99, "parameters": {"priority": "high"}}', model) is None
    assert generated('{"timeout": 1e99, "parameters": {"sequence_id": 7}}', replace(model, sequences=True))


def test_generate_keeps_the_rules_of_the_model() -> None:
    for text in ('{"sequence_id": 7}', '{"parameters": {"sequence_start": true}}'):
        with pytest.raises(LotaBotsError) as caught:
            generated(text)
        assert "keeps no state" in caught.value.detail
    assert generated('{"priority": 1}') == '{"priority": 2}'
    assert generated('{"x": [1], "parameters": null}') is None
