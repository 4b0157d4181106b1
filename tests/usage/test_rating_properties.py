"""What holds for every bill: it does not matter how rows came, all adds up, more never costs less."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lotabotsd.usage.bill_lines import Line, corrections, line_json, month_span, total_of
from lotabotsd.usage.rate_card import DECIMAL, PER, Meter, RateCard, parse_rate_card
from lotabotsd.usage.rating import Plan, rate, rate_month, share, usage_by_month
from lotabotsd.usage.windows import HOUR, Kind, Meters, Row

MONTHS = (202610, 202611)
BEGIN, END = month_span(MONTHS[0])[0], month_span(MONTHS[1])[1]
MODELS = ("a", "b", "c")

amounts = st.from_regex(DECIMAL, fullmatch=True) | st.sampled_from(["0.005", "0.015", "1", "0"])
counts = st.integers(0, 50) | st.integers(0, 10**12)
plans = st.builds(Plan, st.sampled_from(["free", "pro", "enterprise"]), st.integers(0, 100))


@st.composite
def prices(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.booleans()):
        return {"kind": "per-unit", "amount": draw(amounts)}
    ends: list[int | None] = [*sorted(draw(st.sets(st.integers(1, 200), max_size=3))), None]
    return {"kind": "graduated", "tiers": [{"up_to": end, "amount": draw(amounts)} for end in ends]}


@st.composite
def cards(draw: st.DrawFn) -> RateCard:
    components = []
    for number, (meter, models) in enumerate(
        draw(
            st.sets(
                st.tuples(st.sampled_from([*Meter]), st.sampled_from([(), ("a",), ("b", "c")])), max_size=4
            )
        )
    ):
        components.append(
            {
                "id": f"c{number}", "description": "A component", "meter": meter.value, "models": [*models],
                "basis": "usage", "per": draw(st.sampled_from(PER)), "free": draw(st.integers(0, 60)),
                "price": draw(prices()),
            }
        )  # fmt: skip
    if draw(st.booleans()):
        components.append(
            {
                "id": "over", "description": "Overage", "meter": "inferences", "models": [],
                "basis": "overage", "per": 1, "free": 0, "price": draw(prices()),
            }
        )  # fmt: skip
    places = draw(st.integers(0, 4))
    body = {
        "format": 1, "card_id": "drawn", "currency": "EUR",
        "rounding": {"decimal_places": places, "mode": draw(st.sampled_from(["half-even", "half-up"]))},
        "valid_from": "2026-01-01T00:00:00Z", "valid_until": None, "components": components,
        "discount_percent": {"pro": draw(st.sampled_from(["0", "5", "12.5", "33.3333", "100"]))},
        "minimum": str(draw(st.integers(0 if components else 1, 20))),
    }  # fmt: skip
    return parse_rate_card(json.dumps(body).encode())


@st.composite
def usage_rows(draw: st.DrawFn) -> Row:
    start = draw(st.integers(BEGIN // HOUR, END // HOUR - 1)) * HOUR
    late = draw(st.booleans()) and start > BEGIN
    meters = Meters(*(draw(counts) for _ in range(5)))
    return Row(
        1, Kind.USAGE, start, start + HOUR, draw(st.sampled_from(["o", "p"])), "k",
        draw(st.sampled_from(MODELS)), "served", draw(st.sampled_from([1, 1, 1, 0])),
        draw(st.integers(BEGIN // HOUR, start // HOUR - 1)) * HOUR if late else 0, meters, 0,
    )  # fmt: skip


row_lists = st.lists(usage_rows(), max_size=8)


def rated(rows: Sequence[Row], card: RateCard, plan: Plan) -> tuple[Line, ...]:
    return rate(rows, card, plan, MONTHS, "apl_1")


@given(row_lists, cards(), plans, st.randoms())
def test_rows_in_any_order_give_the_same_bytes(
    rows: list[Row], card: RateCard, plan: Plan, random: Any
) -> None:
    first = [line_json(line) for line in rated(rows, card, plan)]
    random.shuffle(rows)
    assert [line_json(line) for line in rated(rows, card, plan)] == first
    assert len(set(first)) == len(first)


@pytest.mark.thorough
@given(row_lists, cards(), plans, st.integers(0, 8), st.integers(0, 8))
def test_reports_split_anywhere_come_to_the_same_bill(
    rows: list[Row], card: RateCard, plan: Plan, one: int, two: int
) -> None:
    """Whatever a report leaves for a later one comes as a correction, and the sum is that of the whole."""
    cuts = (0, *sorted((min(one, len(rows)), min(two, len(rows)))), len(rows))
    for month in MONTHS:
        booked: tuple[Line, ...] = ()
        for revision, until in enumerate(cuts[1:]):
            known = usage_by_month(rows[:until]).get(month, {})
            now = rate_month(known, card, plan, month, "apl_1")
            new = (
                now if revision == 0 else corrections(booked, now, revision=revision, billing_month="2026-12")
            )
            assert corrections((*booked, *new), now, revision=9, billing_month="2026-12") == ()
            booked = (*booked, *new)
        whole = rate_month(usage_by_month(rows).get(month, {}), card, plan, month, "apl_1")
        assert total_of(booked) == total_of(whole)
        assert sum(line.raw_quantity for line in booked) == sum(line.raw_quantity for line in whole)
        assert len({line.id for line in booked}) == len(booked)


@pytest.mark.thorough
@given(row_lists, cards(), plans)
def test_a_window_cut_in_two_makes_no_difference(rows: list[Row], card: RateCard, plan: Plan) -> None:
    halves = []
    for row in rows:
        m = row.meters
        part = Meters(m.requests // 2, m.inferences // 3, m.input_bytes // 2, m.output_bytes // 5, 0)
        rest = Meters(
            m.requests - part.requests, m.inferences - part.inferences, m.input_bytes - part.input_bytes,
            m.output_bytes - part.output_bytes, m.gate_us,
        )  # fmt: skip
        middle = row.start + HOUR // 2
        halves += [replace(row, end=middle, meters=part), replace(row, start=middle, meters=rest)]
    assert rated(halves, card, plan) == rated(rows, card, plan)


@pytest.mark.thorough
@given(row_lists, cards(), plans)
def test_everything_adds_up(rows: list[Row], card: RateCard, plan: Plan) -> None:
    unit = Decimal(1).scaleb(-card.decimal_places)
    for month in MONTHS:
        usage = usage_by_month(rows).get(month, {})
        found = rate_month(usage, card, plan, month, "apl_1")
        assert all(line.amount == line.amount.quantize(unit) for line in found)
        assert all(0 <= line.amount <= line.list_amount for line in found)
        assert total_of(found) >= card.minimum
        for component in card.components:
            named = {m for c in card.components if c.meter == component.meter for m in c.models}
            mine = [
                getattr(meters, component.meter)
                for (_, model), meters in usage.items()
                if component.basis == "overage"
                or (model in component.models or (not component.models and model not in named))
            ]
            own = [line for line in found if line.component == component.id]
            assert sum(line.raw_quantity for line in own) == sum(mine)
            for step in {line.step for line in own}:
                of_step = [line for line in own if line.step == step]
                exact = of_step[0].unit_price * sum((line.billed_quantity for line in of_step), Decimal(0))
                assert abs(total_of(of_step) - exact) <= unit / 2


@given(row_lists, usage_rows(), cards(), plans)
def test_more_use_never_costs_less(rows: list[Row], more: Row, card: RateCard, plan: Plan) -> None:
    assert total_of(rated([*rows, more], card, plan)) >= total_of(rated(rows, card, plan))


@settings(max_examples=300)
@given(st.lists(st.integers(0, 40), max_size=6), st.lists(st.integers(0, 60), min_size=1, max_size=4))
def test_a_share_keeps_both_sums(weights: list[int], cuts: list[int]) -> None:
    total = sum(weights)
    ends = [*sorted(min(cut, total) for cut in cuts), total]
    sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    shares = share(sizes, weights)
    assert [sum(units) for units in shares] == weights
    assert all(units >= 0 for one in shares for units in one)
    assert [sum(one[n] for one in shares) for n in range(len(sizes))] == (
        sizes if weights else [0] * len(sizes)
    )
