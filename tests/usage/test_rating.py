"""The rules of rating, one by one, with numbers small enough to check by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.usage.bill_lines import (
    Line,
    LineKind,
    corrections,
    line_json,
    month_span,
    month_text,
    parse_line,
    parse_month,
    total_of,
)
from lotabotsd.usage.rate_card import RateCard, parse_rate_card
from lotabotsd.usage.rating import Plan, Usage, choose_card, rate, rate_month, share, usage_by_month
from lotabotsd.usage.windows import Kind, Meters, Row

MONTH = 202611
T = month_span(MONTH)[0]
PLAN = Plan("free", 0)
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "rate-card"
COMPONENT: dict[str, Any] = {
    "id": "inferences", "description": "Inferences", "meter": "inferences", "models": [], "basis": "usage",
    "per": 1, "free": 0, "price": {"kind": "per-unit", "amount": "1"},
}  # fmt: skip


def card(*components: dict[str, Any], **changes: Any) -> RateCard:
    """A card in euro; a component is told by what differs from one euro for each inference."""
    body = {
        "format": 1, "card_id": "test", "currency": "EUR",
        "rounding": {"decimal_places": 2, "mode": "half-even"},
        "valid_from": "2026-01-01T00:00:00Z", "valid_until": "2027-01-01T00:00:00Z",
        "components": [{**COMPONENT, **component} for component in components],
        "discount_percent": {}, "minimum": "0",
    }  # fmt: skip
    return parse_rate_card(json.dumps({**body, **changes}).encode())


def used(inferences: int, *, organisation: str = "org", model: str = "m") -> dict[tuple[str, str], Meters]:
    return {(organisation, model): Meters(1, inferences, 100, 10, 5)}


def lines(usage: Usage, prices: RateCard, plan: Plan = PLAN) -> tuple[Line, ...]:
    return rate_month(usage, prices, plan, MONTH, "apl_1")


def amounts(found: tuple[Line, ...]) -> dict[tuple[str, str], Decimal]:
    return {(line.component, line.step): line.amount for line in found}


def test_a_price_per_unit() -> None:
    [line] = lines(used(12_345), card({"per": 1000, "price": {"kind": "per-unit", "amount": "0.50"}}))
    assert (line.raw_quantity, line.billed_quantity) == (12_345, Decimal("12.345"))
    assert line.amount == line.list_amount == Decimal("6.17")  # 6.1725
    assert (line.kind, line.month, line.billing_month) == (LineKind.USAGE, "2026-11", "2026-11")


def test_every_meter_can_be_priced() -> None:
    meters = Meters(1, 2, 3, 4, 5)
    for name, quantity in zip(Meters.__dataclass_fields__, (1, 2, 3, 4, 5), strict=True):
        [line] = lines({("org", "m"): meters}, card({"meter": name}))
        assert (line.meter, line.amount) == (name, quantity)


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        (5, {"free": 5}),
        (10, {"free": 10}),
        (11, {"free": 10, "1": 1}),
        (110, {"free": 10, "1": 100}),
        (111, {"free": 10, "1": 100, "2": 1}),
    ],
)
def test_free_units_come_first_and_steps_count_behind_them(quantity: int, expected: dict[str, int]) -> None:
    tiers = [{"up_to": 100, "amount": "2"}, {"up_to": None, "amount": "1"}]
    found = lines(used(quantity), card({"free": 10, "price": {"kind": "graduated", "tiers": tiers}}))
    assert {line.step: line.raw_quantity for line in found} == expected
    assert total_of(found) == 2 * expected.get("1", 0) + expected.get("2", 0)


def test_free_units_and_steps_are_shared_in_proportion() -> None:
    tiers = [{"up_to": 20, "amount": "2"}, {"up_to": None, "amount": "1"}]
    usage = used(30, organisation="a") | used(10, organisation="b")
    found = lines(usage, card({"free": 4, "price": {"kind": "graduated", "tiers": tiers}}))
    assert [(line.step, line.organisation, line.raw_quantity) for line in found] == [
        ("free", "a", 3), ("free", "b", 1), ("1", "a", 15), ("1", "b", 5), ("2", "a", 12), ("2", "b", 4),
    ]  # fmt: skip


def test_a_share_gives_everyone_his_own_and_empties_every_step() -> None:
    assert share([1, 1, 1], [2, 1]) == [[1, 1, 0], [0, 0, 1]]
    assert share([0, 0], [0]) == [[0, 0]]
    assert share([5], []) == []


def test_the_lines_of_a_step_add_up_to_its_rounded_price() -> None:
    usage = used(1, organisation="a") | used(1, organisation="b") | used(1, organisation="c")
    found = lines(usage, card({"price": {"kind": "per-unit", "amount": "0.005"}}))
    # Running sums 0.005, 0.010, 0.015 are rounded to 0.00, 0.01, 0.02: half to the even cent.
    assert [line.amount for line in found] == [Decimal("0.00"), Decimal("0.01"), Decimal("0.01")]


@pytest.mark.parametrize(("mode", "cents"), [("half-even", "0.12"), ("half-up", "0.13")])
def test_an_exact_half_is_rounded_as_the_card_says(mode: str, cents: str) -> None:
    prices = card(
        {"price": {"kind": "per-unit", "amount": "0.125"}}, rounding={"decimal_places": 2, "mode": mode}
    )
    assert total_of(lines(used(1), prices)) == Decimal(cents)


def test_a_model_with_its_own_price_does_not_count_among_the_others() -> None:
    prices = card({}, {"id": "big", "models": ["big"], "price": {"kind": "per-unit", "amount": "3"}})
    found = lines(used(5) | used(7, model="big"), prices)
    assert [(line.component, line.model, line.amount) for line in found] == [
        ("inferences", "m", 5), ("big", "big", 21),
    ]  # fmt: skip


def test_overage_begins_above_what_the_licence_includes() -> None:
    prices = card({"id": "over", "basis": "overage", "price": {"kind": "per-unit", "amount": "2"}})
    usage = used(60) | used(50, model="n")
    assert amounts(lines(usage, prices, Plan("pro", 200))) == {("over", "included"): 0}
    found = lines(usage, prices, Plan("pro", 100))
    assert total_of(found) == 20
    assert sum(line.raw_quantity for line in found if line.step == "1") == 10
    # A licence that names no number includes everything.
    assert total_of(lines(usage, prices, Plan("pro", 0))) == 0


def test_a_tiers_discount_is_inside_each_line() -> None:
    prices = card({"price": {"kind": "per-unit", "amount": "0.10"}}, discount_percent={"pro": "12.5"})
    [line] = lines(used(3), prices, Plan("pro", 0))
    assert (line.list_unit_price, line.unit_price) == (Decimal("0.1"), Decimal("0.0875"))
    assert (line.list_amount, line.amount) == (Decimal("0.30"), Decimal("0.26"))  # 0.2625
    [full] = lines(used(3), prices, Plan("enterprise", 0))
    assert full.amount == full.list_amount


def test_the_minimum_is_a_line_of_its_own_and_is_not_discounted() -> None:
    prices = card({}, discount_percent={"pro": "50"}, minimum="10.00")
    found = lines(used(4), prices, Plan("pro", 0))
    assert amounts(found) == {("inferences", "1"): 2, ("minimum", "1"): 8}
    assert (found[-1].organisation, found[-1].model, found[-1].meter) == ("", "", "")
    assert amounts(lines(used(20), prices, Plan("pro", 0))) == {("inferences", "1"): 10}
    assert total_of(lines({}, prices)) == 10  # a month without any use


def test_charged_usage_counts_once_in_the_month_that_it_is_for() -> None:
    row = Row(1, Kind.USAGE, T, T + 3_600, "o", "k", "m", "served", 1, 0, Meters(1, 2, 3, 4, 5), 0)
    late = replace(row, start=month_span(MONTH)[1], end=month_span(MONTH)[1] + 3_600, late_for=T + 7_200)
    others = [
        replace(row, charged=0), replace(row, kind=Kind.APPLIANCE, charged=0),
        replace(row, kind=Kind.GAP, charged=0), replace(row, start=T - 3_600, end=T),
    ]  # fmt: skip
    found = usage_by_month([row, late, *others, replace(row, key="another")])
    assert found[MONTH] == {("o", "m"): Meters(3, 6, 9, 12, 15)}
    assert found[202610] == {("o", "m"): Meters(1, 2, 3, 4, 5)}


def test_a_month_of_another_card_is_refused() -> None:
    for month in (202512, 202701):
        with pytest.raises(LotaBotsError) as caught:
            rate([], card({}), PLAN, [month], "apl_1")
        assert caught.value.code is Code.CONFLICT
        assert month_text(month) in caught.value.detail
    assert rate([], card({}), PLAN, [202601, 202612], "apl_1") == ()


def test_a_line_survives_being_written_and_its_bytes_are_frozen() -> None:
    prices = parse_rate_card((GOLDEN / "standard.json").read_bytes())
    usage = {
        ("org_archive", "page_orientation"): Meters(4_000, 100_000, 10**11, 2 * 2**30, 10**9),
        ("org_archive", "page_segmentation"): Meters(500, 5_000, 10**10, 2**30, 10**9),
        ("org_research", "page_orientation"): Meters(2_500, 60_000, 10**11, 2**30, 10**9),
    }
    found = lines(usage, prices, Plan("pro", 0))
    assert [parse_line(line_json(line)) for line in found] == list(found)
    assert b"".join(line_json(line) + b"\n" for line in found) == (GOLDEN / "lines.jsonl").read_bytes()


def test_nothing_changed_needs_no_correction() -> None:
    found = lines(used(5), card({}, minimum="10"))
    assert corrections(found, found, revision=1, billing_month="2026-12") == ()
    assert corrections((), (), revision=1, billing_month="2026-12") == ()


def test_more_use_is_corrected_up_and_the_minimum_down() -> None:
    prices = card({}, minimum="10.00")
    before = lines(used(5), prices)
    more, less = corrections(before, lines(used(8), prices), revision=1, billing_month="2026-12")
    assert (more.component, more.raw_quantity, more.amount) == ("inferences", 3, 3)
    assert (less.component, less.amount) == ("minimum", -3)
    assert {line.kind for line in (more, less)} == {LineKind.CORRECTION}
    assert (more.month, more.billing_month, more.revision) == ("2026-11", "2026-12", 1)
    assert not {more.id, less.id} & {line.id for line in before}
    again, gone = corrections(
        (*before, more, less), lines(used(20), prices), revision=2, billing_month="2027-01"
    )
    assert (again.component, again.amount) == ("inferences", 12)
    assert (gone.component, gone.amount) == ("minimum", -2)
    assert again.id not in {more.id, less.id}


def test_a_line_that_is_gone_is_taken_back() -> None:
    prices = card({}, minimum="10.00")
    before = lines(used(5), prices)
    found = corrections(before, lines(used(10), prices), revision=1, billing_month="2026-12")
    assert [(line.component, line.amount) for line in found] == [("inferences", 5), ("minimum", -5)]
    assert total_of((*before, *found)) == 10


@pytest.mark.parametrize("text", ["", "2026", "2026-13", "2026-00", "26-01", "2026-1", "2026-011", "1999-01"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(LotaBotsError) as caught:
        parse_month(text)
    assert caught.value.code is Code.VALUE_INVALID


def test_a_month_is_a_span_of_utc() -> None:
    assert month_text(parse_month("2026-01")) == "2026-01"
    since, until = month_span(202601)
    assert (since, until) == (1_767_225_600, 1_767_225_600 + 31 * 86_400)
    assert month_span(202512)[1] == since


def _card_from(day: str, card_id: str) -> bytes:
    value = json.loads((GOLDEN / "standard.json").read_bytes())
    return json.dumps({**value, "valid_from": f"{day}T00:00:00Z", "card_id": card_id}).encode()


def test_the_newest_card_that_was_sent_for_a_month_takes_the_place_of_the_licences() -> None:
    own, march, june = (
        _card_from(day, name)
        for day, name in (("2026-01-01", "own"), ("2026-03-01", "a"), ("2026-06-01", "b"))
    )
    assert choose_card([], None, 202603) is None
    assert choose_card([], own, 202603) == own
    sent = [june, march]
    assert [choose_card(sent, own, month) for month in (202602, 202603, 202605, 202606)] == [
        own, march, march, june,
    ]  # fmt: skip
    assert choose_card(sent, None, 202602) == june  # rating with it says which months it is for
