"""Rate cards: what is read, what is refused and why, and that the published JSON Schema says the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.licence.claims import MAX_RATE_CARD_BYTES, Tier
from lotabotsd.usage.rate_card import TIERS, Basis, Meter, PriceKind, RateCard, Rounding, parse_rate_card
from lotabotsd.usage.windows import Meters

from .conftest import load_simulator

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "rate-card" / "standard.json"
SCHEMA = load_simulator("json_schema").Validator(
    json.loads((ROOT / "docs" / "formats" / "rate-card.schema.json").read_text())
)
CARD = json.loads(GOLDEN.read_bytes())
Change = Callable[[dict[str, Any]], object]


def changed(*changes: Change) -> dict[str, Any]:
    """The golden card, changed."""
    card = json.loads(GOLDEN.read_bytes())
    for change in changes:
        change(card)
    return card


def problems(card: Any) -> list[str]:
    with pytest.raises(LotaBotsError) as caught:
        parse_rate_card(json.dumps(card).encode())
    assert caught.value.code is Code.RATE_CARD_INVALID
    return list(caught.value.extra["problems"])


def at(card: dict[str, Any], *path: str | int) -> Any:
    for step in path:
        card = card[step]  # type: ignore[index]
    return card


def put(value: Any, *path: str | int) -> Change:
    def change(card: dict[str, Any]) -> None:
        at(card, *path[:-1])[path[-1]] = value

    return change


def drop(*path: str | int) -> Change:
    return lambda card: at(card, *path[:-1]).pop(path[-1])


def test_the_golden_card_is_read() -> None:
    card = parse_rate_card(GOLDEN.read_bytes())
    assert (card.card_id, card.currency, card.decimal_places) == ("standard-2026", "EUR", 2)
    assert card.rounding is Rounding.HALF_EVEN
    assert card.minimum == 50
    assert [card.discount(tier) for tier in TIERS] == [0, 5, Decimal("12.5")]
    assert card.digest == "4327a87c04f2f5744cd2d6e355a100de4f44d9508c3fc1f0dbe793888b4d7121"
    first, second, third = card.components
    assert (first.meter, first.basis, first.kind) == (Meter.INFERENCES, Basis.USAGE, PriceKind.GRADUATED)
    assert [(step.up_to, step.amount) for step in first.steps] == [
        (100_000, Decimal("2.00")), (None, Decimal("1.50")),
    ]  # fmt: skip
    assert second.models == ("page_segmentation",)
    assert (third.per, third.free) == (2**30, 2**30)
    assert not card.prices_overage


def test_white_space_and_order_make_no_other_card() -> None:
    spaced = json.dumps(CARD, indent=2, sort_keys=False).encode()
    assert parse_rate_card(spaced) == parse_rate_card(GOLDEN.read_bytes())


def test_every_problem_is_told_at_once() -> None:
    card = changed(
        put("XXX", "currency"), put(1.5, "minimum"), drop("rounding", "mode"), put("a", "more"),
        put(3, "components", 0, "per"), put("-1", "components", 1, "price", "amount"),
    )  # fmt: skip
    told = problems(card)
    assert len(told) == 6
    for name in ("currency", "minimum", "rounding.mode", "more", "components[0].per",
                 "components[1].price.amount"):  # fmt: skip
        assert any(problem.startswith(name + " ") for problem in told), name


OVERAGE = put("overage", "components", 0, "basis")
# What is wrong by its form: the schema and the validator both refuse it.
MALFORMED: dict[str, Change] = {
    "another format": put(2, "format"),
    "true for 1": put(True, "format"),
    "no format": drop("format"),
    "small currency": put("eur", "currency"),
    "no currency": put("XXX", "currency"),
    "a code for tests": put("XTS", "currency"),
    "a float": put(0.08, "components", 2, "price", "amount"),
    "a whole number": put(50, "minimum"),
    "an exponent": put("1E3", "minimum"),
    "a sign": put("-1.00", "minimum"),
    "a leading zero": put("01.00", "minimum"),
    "no digit before the point": put(".5", "minimum"),
    "no digit behind the point": put("5.", "minimum"),
    "13 decimal places": put("0.0000000000001", "components", 1, "price", "amount"),
    "a comma": put("1,5", "minimum"),
    "a line end": put("1\n", "minimum"),
    "more than all": put("100.1", "discount_percent", "pro"),
    "a tier there is not": put("5", "discount_percent", "gold"),
    "five decimal places": put(5, "rounding", "decimal_places"),
    "rounding down": put("down", "rounding", "mode"),
    "a moment with an offset": put("2026-01-01T00:00:00+00:00", "valid_from"),
    "the middle of a month": put("2026-01-15T00:00:00Z", "valid_from"),
    "no beginning": put(None, "valid_from"),
    "a meter there is not": put("tokens", "components", 0, "meter"),
    "a basis there is not": put("all", "components", 0, "basis"),
    "a price there is not": put({"kind": "volume", "amount": "1"}, "components", 1, "price"),
    "per seven": put(7, "components", 0, "per"),
    "per a float": put(1000.5, "components", 0, "per"),
    "less than nothing free": put(-1, "components", 0, "free"),
    "no step": put([], "components", 0, "price", "tiers"),
    "a step up to 0": put(0, "components", 0, "price", "tiers", 0, "up_to"),
    "steps and an amount": put("1", "components", 0, "price", "amount"),
    "the id of the minimum": put("minimum", "components", 0, "id"),
    "an id with a space": put("a b", "components", 0, "id"),
    "a model with a space": put(["a b"], "components", 1, "models"),
    "a model twice": put(["a", "a"], "components", 1, "models"),
    "no list of models": put("page_segmentation", "components", 1, "models"),
    "an empty description": put("", "components", 1, "description"),
    "an unknown field": put(None, "components", 1, "unit"),
    "a list": put([], "rounding"),
    "17 steps": put([{"up_to": n, "amount": "1"} for n in range(1, 17)] + [{"up_to": None, "amount": "1"}],
                    "components", 0, "price", "tiers"),
}  # fmt: skip
# What only the validator knows: how the parts fit together.
CONTRADICTORY: dict[str, tuple[Change, ...]] = {
    "it ends before it begins": (put("2025-12-01T00:00:00Z", "valid_until"),),
    "an id twice": (put("inferences", "components", 1, "id"),),
    "a price for the same twice": (put([], "components", 1, "models"),),
    "a model priced twice": (put(["page_segmentation"], "components", 0, "models"),),
    "models not sorted": (put(["b", "a"], "components", 1, "models"),),
    "steps that go back": (
        put([{"up_to": 5, "amount": "1"}, {"up_to": 5, "amount": "1"}, {"up_to": None, "amount": "1"}],
            "components", 0, "price", "tiers"),
    ),
    "a last step with an end": (put(200_000, "components", 0, "price", "tiers", 1, "up_to"),),
    "a step without an end before the last": (put(None, "components", 0, "price", "tiers", 0, "up_to"),),
    "overage of bytes": (put("overage", "components", 2, "basis"), put(0, "components", 2, "free")),
    "overage with free units": (OVERAGE,),
    "overage of one model": (put("overage", "components", 1, "basis"),),
    "a minimum finer than the currency": (put("50.001", "minimum"),),
    "nothing to charge": (put([], "components"), put("0", "minimum")),
    "a control character": (put("a\x07b", "components", 0, "description"),),
}  # fmt: skip
GOOD: dict[str, tuple[Change, ...]] = {
    "as it is": (),
    "an end": (put("2026-02-01T00:00:00Z", "valid_until"),),
    "no discounts": (put({}, "discount_percent"),),
    "everything off": (put("100", "discount_percent", "pro"),),
    "no minimum": (put("0", "minimum"),),
    "just a minimum": (put([], "components"),),
    "no minor unit": (put(0, "rounding", "decimal_places"), put("50", "minimum"), put("JPY", "currency")),
    "overage": (OVERAGE, put(0, "components", 0, "free")),
    "one step": (put([{"up_to": None, "amount": "0"}], "components", 0, "price", "tiers"),),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_card_is_refused_by_validator_and_schema(name: str) -> None:
    card = changed(MALFORMED[name])
    assert problems(card)
    assert not SCHEMA.conforms(card)


@pytest.mark.parametrize("name", CONTRADICTORY)
def test_a_contradictory_card_is_refused(name: str) -> None:
    assert len(problems(changed(*CONTRADICTORY[name]))) == 1


@pytest.mark.parametrize("name", GOOD)
def test_a_good_card_is_taken_by_validator_and_schema(name: str) -> None:
    card = changed(*GOOD[name])
    assert isinstance(parse_rate_card(json.dumps(card).encode()), RateCard)
    assert SCHEMA.conforms(card)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"format":1,"format":1}', b"\xff", b"[" * 5_000])
def test_what_is_no_card_is_refused(body: bytes) -> None:
    with pytest.raises(LotaBotsError) as caught:
        parse_rate_card(body)
    assert caught.value.code is Code.RATE_CARD_INVALID


def _places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path, *(found for name, child in children for found in _places(child, (*path, name)))]


@given(
    st.sampled_from([path for path in _places(CARD) if path]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["1", "0.5"]),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=4,
    ),
)
def test_any_value_in_any_place_gives_a_card_or_a_refusal(path: tuple[str | int, ...], value: Any) -> None:
    card = changed(put(value, *path))
    try:
        parse_rate_card(json.dumps(card).encode())
    except LotaBotsError as error:
        assert error.code is Code.RATE_CARD_INVALID  # noqa: PT017 - both ways out are right
    else:
        assert SCHEMA.conforms(card), "the schema refuses what the validator takes"


def test_the_names_that_two_rooms_share_are_the_same() -> None:
    assert tuple(Tier) == TIERS
    assert set(Meter) == set(Meters.__dataclass_fields__)
    assert len(GOLDEN.read_bytes()) < MAX_RATE_CARD_BYTES
