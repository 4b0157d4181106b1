"""The schemas say what the readers do: for every change of every golden document, both refuse or neither."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lotabotsd.foundation.envelope import PayloadType
from lotabotsd.usage.bill_lines import corrections, line_json, parse_line
from lotabotsd.usage.rate_card import parse_rate_card
from lotabotsd.usage.rating import Plan, rate_month
from lotabotsd.usage.windows import Meters

from .documents import (
    GOLDEN,
    RECONCILED,
    SCHEMAS,
    STATEMENTS,
    STRICT,
    VALIDATORS,
    Document,
    golden,
    json_schema,
    payload,
)
from .mutations import Path, at, mutations, places, put
from .rules import RULES

ENVELOPED = {kind.short_name for kind in PayloadType}
OTHERS = {"envelope", "anchors", "attestation-token", "receipt", "bill-line"}
ALL = {**STRICT, **STATEMENTS}
Difference = tuple[str, Path, Any]


def rules_of(name: str) -> dict[str, dict[str, str]]:
    return {one["id"]: one for one in SCHEMAS[name].get("x-lotabots-rules", [])}


def unchecked(name: str) -> list[str]:
    found: list[str] = SCHEMAS[name].get("x-lotabots-unchecked", [])
    return found


def broken(name: str, value: Any) -> str:
    """The first rule that a well-formed value breaks; empty: none of those that are predicates."""
    return next((id_ for id_, rule in RULES.get(name, {}).items() if rule(value)), "")


def differences(document: Document, every: int, inside: Path = ()) -> list[Difference]:
    """Where schema and rules on one side, and the reader on the other, are not of one mind."""
    found: list[Difference] = []
    for path, value in mutations(document.value, every=every, inside=inside):
        word = difference(document, path, value)
        if word:
            found.append((word, path, None))
    return found


def difference(document: Document, path: Path, value: Any) -> str:
    """What is wrong about one changed document; empty: nothing."""
    problems = document.problems(value)
    told = {code for code, _ in problems}
    if document.codes and told - document.codes:
        return f"told with the code of something else: {problems}"
    if not document.conforms(value):
        return "" if problems or passed_over(document, path, value) else "the schema alone refuses it"
    rule = broken(document.name, value)
    if rule:
        return "" if problems else f"the rule {rule} alone refuses it"
    # What the reader finds beyond form must be a rule of its own, with a code of its own.
    known = {
        one["code"] for id_, one in rules_of(document.name).items() if id_ not in RULES.get(document.name, {})
    }
    return f"the reader alone refuses it: {problems}" if told - known else ""


def passed_over(document: Document, path: Path, value: Any) -> bool:
    """Whether readers of a token or receipt let it pass: an unknown member, or a part they do not read."""
    if document.name not in STATEMENTS:
        return False
    dotted = ".".join(str(step) for step in path if isinstance(step, str))
    try:
        here = at(value, path)
    except (KeyError, IndexError):
        here = None
    if isinstance(here, dict) and "more" in here:
        return True
    return any(f"{dotted}.".startswith(f"{one}.") for one in unchecked(document.name))


def test_every_document_has_a_schema() -> None:
    assert set(SCHEMAS) == ENVELOPED | OTHERS
    assert set(ALL) | {"bill-line"} == set(SCHEMAS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_property_is_described_and_no_object_takes_more(name: str) -> None:
    schema = SCHEMAS[name]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:lotabots:schema:{name}:v1"
    assert schema["title"]
    assert schema["description"]
    for one in json_schema.subschemas(schema):
        for member, inside in one.get("properties", {}).items():
            if one.get("type") is None:  # narrows what a `$ref` beside it describes
                continue
            assert inside.get("description"), f"{member} has no description"
        if "properties" in one and "type" in one:
            more = one["additionalProperties"]
            assert more is False or name == "attestation-token", one.get("description")


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_number_has_a_unit(name: str) -> None:
    for one in json_schema.subschemas(SCHEMAS[name]):
        for member, inside in one.get("properties", {}).items():
            if "integer" in str(inside.get("type")) or inside.get("$ref") in (
                "#/$defs/count",
                "#/$defs/second",
            ):
                assert inside.get("x-lotabots-unit"), f"{member} has no unit"


@pytest.mark.parametrize("name", [name for name in SCHEMAS if name in RULES or name in STATEMENTS])
def test_every_rule_in_words_is_complete_and_every_predicate_has_its_words(name: str) -> None:
    rules = SCHEMAS[name].get("x-lotabots-rules", [])
    assert all(set(one) == {"id", "rule", "code", "says"} and one["rule"].endswith(".") for one in rules)
    assert len(rules_of(name)) == len(rules)
    assert set(RULES.get(name, {})) <= set(rules_of(name))


@pytest.mark.parametrize("name", ALL)
def test_the_golden_document_conforms_and_is_read(name: str) -> None:
    document = ALL[name]
    assert document.conforms(document.value)
    assert not document.problems(document.value)
    assert not broken(name, document.value)


@pytest.mark.parametrize("file", ["usage-report-body.json", "usage-report-body-2.json"])
def test_the_whole_golden_report_conforms(file: str) -> None:
    body = json.loads(golden(file))
    assert VALIDATORS["usage-report"].conforms(body)
    assert not broken("usage-report", body)


@pytest.mark.parametrize("inside", [("format",), ("data_condition", "reconciliation")])
def test_schema_and_reader_agree_on_what_format_2_adds(inside: Path) -> None:
    assert not RECONCILED.problems(RECONCILED.value)
    assert differences(RECONCILED, every=20, inside=inside) == []


def test_a_report_of_format_1_with_the_object_of_format_2_is_refused() -> None:
    found = at(RECONCILED.value, ("data_condition", "reconciliation"))
    changed = put(STRICT["usage-report"].value, ("data_condition", "reconciliation"), found)
    assert not VALIDATORS["usage-report"].conforms(changed)
    assert [code for code, _ in STRICT["usage-report"].problems(changed)] == ["body"]


@pytest.mark.parametrize(
    "file", sorted(path.relative_to(GOLDEN).as_posix() for path in GOLDEN.rglob("*.dsse.json"))
)
def test_every_golden_envelope_conforms(file: str) -> None:
    assert VALIDATORS["envelope"].conforms(json.loads(golden(file)))


@pytest.mark.parametrize("file", ["plain.txt", "salted.txt"])
def test_every_golden_receipt_conforms(file: str) -> None:
    assert VALIDATORS["receipt"].conforms(payload(f"receipt/{file}"))


@pytest.mark.parametrize("name", ALL)
def test_schema_and_reader_agree_on_a_share_of_the_changes(name: str) -> None:
    assert differences(ALL[name], every=20) == []


@pytest.mark.thorough
@pytest.mark.parametrize("name", ALL)
def test_schema_and_reader_agree_on_many_more_changes(name: str) -> None:
    assert differences(ALL[name], every=4) == []


_TEXT = st.text(st.characters(codec="utf-8"))
_NUMBER = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
_JSON = st.recursive(
    st.none() | st.booleans() | _NUMBER | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(STRICT)), st.data())
def test_schema_and_reader_agree_on_any_value_in_any_place(name: str, data: st.DataObject) -> None:
    document = STRICT[name]
    path = data.draw(st.sampled_from([path for path in places(document.value) if path]))
    changed = put(document.value, path, data.draw(_JSON))
    assert difference(document, path, changed) == ""


TOKEN = STATEMENTS["attestation-token"]


@pytest.mark.parametrize("part", unchecked(TOKEN.name))
def test_every_part_that_readers_of_tokens_pass_over_is_really_passed_over(part: str) -> None:
    inside = [path for path in places(TOKEN.value) if path[:1] == (part,)]
    changed = (put(TOKEN.value, path, new) for path in inside for new in ([], "x", 1))
    assert any(not TOKEN.conforms(value) and not TOKEN.problems(value) for value in changed)


@pytest.mark.parametrize("line", golden("rate-card/lines.jsonl").splitlines())
def test_every_golden_line_of_a_bill_conforms(line: bytes) -> None:
    assert VALIDATORS["bill-line"].conforms(json.loads(line))
    assert line_json(parse_line(line)) == line


def test_a_minimum_and_corrections_up_and_down_conform() -> None:
    card = parse_rate_card(golden("rate-card/standard.json"))

    def rated(inferences: int) -> Any:
        usage = (
            {("org_1", "page_orientation"): Meters(5, inferences, 0, 3 * 2**30 + 1, 0)} if inferences else {}
        )
        return rate_month(usage, card, Plan("pro", 0), 202611, "apl_1")

    lines = [*rated(0), *rated(123_457)]
    for before, after in ((0, 123_457), (123_457, 0), (200_000, 7)):
        lines += corrections(rated(before), rated(after), revision=1, billing_month="2026-12")
    assert {line.meter for line in lines} >= {"", "inferences"}
    assert any(line.amount < 0 for line in lines)
    assert all(VALIDATORS["bill-line"].conforms(json.loads(line_json(line))) for line in lines)


def test_the_patterns_are_of_the_kind_that_every_regular_expression_engine_reads() -> None:
    for name, schema in SCHEMAS.items():
        for one in json_schema.subschemas(schema):
            pattern = one.get("pattern", "^$")
            assert pattern.startswith("^"), name
            assert "$" in pattern[-2:], name
            # No look-behind, no named groups, no classes by property, no possessive or lazy quantifiers.
            assert not re.search(r"\(\?(?![!:=])|\\[pPkAZzbB]|[*+?}][+?]", pattern), (name, pattern)
