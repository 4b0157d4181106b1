"""The worked example in docs/billing.md is what the code gives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from lotabotsd.usage.bill_lines import Line, corrections, parse_line, plain, total_of
from lotabotsd.usage.rate_card import parse_rate_card
from lotabotsd.usage.rating import Plan, rate_month
from lotabotsd.usage.windows import Meters

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "rate-card"
MONTH = 202611


def spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def table(lines: Sequence[Line]) -> str:
    """Lines as the page shows them."""
    rows = [
        (
            line.component, line.step, line.organisation, line.model, spaced(line.raw_quantity),
            f"{plain(line.unit_price)} per {spaced(line.per)}" if line.step.isdecimal() else "",
            plain(line.list_amount), plain(line.amount),
        )
        for line in lines
    ]  # fmt: skip
    head = ("component", "step", "organisation", "model", "quantity", "price", "list amount", "amount")
    total = ("**total**", "", "", "", "", "", "", f"**{plain(total_of(lines))}**")
    written = [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows, total)]
    return "\n".join(written)


def november(late: int = 0) -> tuple[Line, ...]:
    usage = {
        ("org_archive", "page_orientation"): Meters(4_000, 100_000, 0, 2 * 2**30, 0),
        ("org_archive", "page_segmentation"): Meters(500, 5_000, 0, 2**30, 0),
        ("org_research", "page_orientation"): Meters(2_500, 60_000 + late, 0, 2**30, 0),
    }
    card = parse_rate_card((GOLDEN / "standard.json").read_bytes())
    return rate_month(usage, card, Plan("pro", 0), MONTH, "apl_1")


def bill() -> Sequence[Line]:
    return november()


def correction() -> Sequence[Line]:
    return corrections(november(), november(1_000), revision=1, billing_month="2026-12")


@pytest.mark.parametrize("lines", [bill, correction])
def test_the_table_on_the_page_is_what_the_code_gives(lines: object) -> None:
    name, made = lines.__name__, lines()  # type: ignore[attr-defined, operator]
    page = (ROOT / "docs" / "billing.md").read_text()
    found = re.search(rf"<!-- test: {name} -->\n(.*?)\n<!-- end -->", page, re.DOTALL)
    assert found is not None
    assert found[1] == table(made)


def test_the_bill_on_the_page_is_the_golden_one() -> None:
    golden = [parse_line(line) for line in (GOLDEN / "lines.jsonl").read_bytes().splitlines()]
    assert list(november()) == golden
    assert total_of(correction()) == total_of(november(1_000)) - total_of(november())
