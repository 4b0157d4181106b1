"""A bill as tables: FOCUS columns filled, costs that add up, and no cell that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from lotabotsd.usage.bill_export import CSV_COLUMNS, FOCUS_COLUMNS, Account, Form, export
from lotabotsd.usage.bill_lines import Line, LineKind, parse_line, total_of

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "rate-card"
LINES = [parse_line(line) for line in (GOLDEN / "lines.jsonl").read_bytes().splitlines()]
MINIMUM = replace(
    LINES[0], organisation="", model="", component="minimum", step="1", meter="", per=1, raw_quantity=0,
    billed_quantity=Decimal(1), list_unit_price=Decimal("9.00"), unit_price=Decimal("9.00"),
    list_amount=Decimal("9.00"), amount=Decimal("9.00"),
)  # fmt: skip
ACCOUNTS = {"apl_1": Account("Example GmbH", {"org_research": "Research", "org_archive": "Archive"})}
# FOCUS 1.2: the columns that must be present and not empty in a row of usage.
MANDATORY = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart",
    "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit",
    "ProviderName", "PublisherName", "ServiceCategory", "ServiceName",
)  # fmt: skip


def table(lines: list[Line], form: Form, accounts: dict[str, Account] | None = None) -> list[dict[str, str]]:
    data = export(lines, form, accounts or ACCOUNTS)
    assert b"\r" not in data
    return list(csv.DictReader(io.StringIO(data.decode())))


@pytest.mark.parametrize(("form", "name"), [(Form.CSV, "bill.csv"), (Form.FOCUS, "focus.csv")])
def test_the_bytes_are_frozen(form: Form, name: str) -> None:
    assert export(LINES, form, ACCOUNTS) == (GOLDEN / name).read_bytes()


def test_json_lines_are_the_lines() -> None:
    assert export(LINES, Form.LINES, {}) == (GOLDEN / "lines.jsonl").read_bytes()


def test_every_mandatory_column_is_filled() -> None:
    rows = table([*LINES, MINIMUM], Form.FOCUS)
    assert tuple(rows[0]) == FOCUS_COLUMNS
    assert not [(row["x_LineId"], column) for row in rows for column in MANDATORY if not row[column]]


def test_costs_add_up_and_are_price_times_quantity_to_the_cent() -> None:
    rows = table([*LINES, MINIMUM], Form.FOCUS)
    assert sum(Decimal(row["BilledCost"]) for row in rows) == total_of([*LINES, MINIMUM])
    for row in rows:
        for cost, price in (("ListCost", "ListUnitPrice"), ("ContractedCost", "ContractedUnitPrice")):
            exact = Decimal(row[price]) * Decimal(row["PricingQuantity"])
            assert abs(Decimal(row[cost]) - exact) < Decimal("0.01")
        assert row["BilledCost"] == row["ContractedCost"] == row["EffectiveCost"]


def test_a_minimum_is_a_purchase_and_consumes_nothing() -> None:
    [row] = table([MINIMUM], Form.FOCUS)
    assert (row["ChargeCategory"], row["ChargeFrequency"], row["PricingUnit"]) == (
        "Purchase",
        "Recurring",
        "Months",
    )
    assert row["ConsumedQuantity"] == row["ConsumedUnit"] == ""


def test_a_correction_says_so_and_keeps_its_sign() -> None:
    line = replace(LINES[2], kind=LineKind.CORRECTION, revision=1, billing_month="2026-12",
                   amount=Decimal("-1.50"), raw_quantity=-5, billed_quantity=Decimal("-0.005"))  # fmt: skip
    [row] = table([line], Form.FOCUS)
    assert (row["ChargeClass"], row["BilledCost"], row["PricingQuantity"]) == (
        "Correction",
        "-1.50",
        "-0.005",
    )
    assert (row["ChargePeriodStart"], row["BillingPeriodStart"]) == (
        "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z",
    )  # fmt: skip
    [plain] = table([line], Form.CSV)
    assert tuple(plain) == CSV_COLUMNS
    assert (plain["amount"], plain["raw_quantity"]) == ("-1.50", "-5")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+2", "@SUM(A1)", "-A1", "+cmd"])
def test_no_cell_begins_like_a_formula(text: str) -> None:
    line = replace(LINES[2], description=text, model=text, organisation="o")
    [row] = table([line], Form.CSV)
    assert row["description"] == row["model"] == "'" + text
    [row] = table([line], Form.FOCUS, {"apl_1": Account(text, {"o": text})})
    assert {row["ResourceId"], row["BillingAccountName"], row["SubAccountName"]} == {"'" + text}
    assert row["ChargeDescription"].startswith("'")


# Two of the validator's rules hold for a case that it cannot see: an invoice that was issued already, and a
# purchase for the future, which a minimum is not.
NOT_OURS = {"InvoiceId-C-005-C", "EffectiveCost-C-005-C"}


def test_the_focus_validator_finds_no_fault(
    tmp_path: Path, faults_in_focus: Callable[[Path], set[str]]
) -> None:
    correction = replace(
        LINES[2], id="line_x", kind=LineKind.CORRECTION, revision=1, amount=Decimal("-1.50"),
        list_amount=Decimal("-1.58"), raw_quantity=-789, billed_quantity=Decimal("-0.789"),
    )  # fmt: skip
    file = tmp_path / "focus.csv"
    file.write_bytes(export([*LINES, MINIMUM, correction], Form.FOCUS, ACCOUNTS))
    assert faults_in_focus(file) <= NOT_OURS
