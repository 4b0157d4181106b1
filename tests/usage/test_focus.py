"""The CSV for spreadsheets: FOCUS columns, charged usage only, and no cell that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.usage.focus import COLUMNS, FIRST_COLUMNS, focus_csv
from lotabotsd.usage.windows import Kind, Meters, Row

T = 1_795_406_400
ROW = Row(1, Kind.USAGE, T, T + 3_600, "org", "key", "model", "served", 1, 0, Meters(1, 8, 100, 10, 5), 0)
# FOCUS 1.2: the columns that must be present and not empty.
MANDATORY = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart",
    "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit",
    "ProviderName", "PublisherName", "ServiceCategory", "ServiceName",
)  # fmt: skip


def written(
    *rows: Row, customer: str = "Example", names: dict[str, str] | None = None, first: bool = False
) -> bytes:
    return focus_csv(
        rows,
        period_from=T,
        period_until=T + 7_200,
        appliance_id="apl_1",
        customer=customer,
        organisation_names=names or {},
        key_names={},
        first_format=first,
    )


def lines(*rows: Row, **more: Any) -> list[dict[str, str]]:
    data = written(*rows, **more)
    assert b"\r" not in data
    return list(csv.DictReader(io.StringIO(data.decode())))


def test_usage_is_one_line_per_organisation_key_and_model() -> None:
    found = lines(
        ROW, replace(ROW, start=T + 3_600), replace(ROW, model="b"), replace(ROW, outcome="client_gone")
    )
    assert [(line["x_ModelId"], line["ConsumedQuantity"], line["x_Requests"]) for line in found] == [
        ("b", "8.0", "1"), ("model", "24.0", "3"),
    ]  # fmt: skip
    assert found[0]["ChargePeriodStart"] == "2026-11-23T04:00:00Z"
    assert found[0]["ChargePeriodEnd"] == "2026-11-23T06:00:00Z"


def test_every_mandatory_column_is_filled() -> None:
    [line] = lines(ROW)
    assert tuple(line) == COLUMNS
    assert all(line[column] for column in MANDATORY)


def test_a_report_of_format_1_keeps_its_columns_and_whole_numbers() -> None:
    [line] = lines(ROW, first=True)
    assert tuple(line) == FIRST_COLUMNS
    assert (line["ConsumedQuantity"], line["BilledCost"]) == ("8", "0")


def test_the_focus_validator_misses_an_invoice_and_nothing_else(
    tmp_path: Path, faults_in_focus: Callable[[Path], set[str]]
) -> None:
    file = tmp_path / "usage.focus.csv"
    file.write_bytes(written(ROW, replace(ROW, model="b"), names={"org": "=Research"}))
    assert faults_in_focus(file) == {"InvoiceId-C-005-C"}  # it holds for an invoice that was issued


def test_what_is_not_charged_is_no_line() -> None:
    assert (
        lines(replace(ROW, charged=0), replace(ROW, kind=Kind.APPLIANCE), replace(ROW, kind=Kind.GAP)) == []
    )


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_no_cell_begins_like_a_formula(name: str) -> None:
    [line] = lines(replace(ROW, model=name), customer=name, names={"org": name})
    for column in ("x_ModelId", "ResourceId", "BillingAccountName", "SubAccountName"):
        assert line[column] == "'" + name


def test_quotes_and_commas_stay_in_their_cell() -> None:
    [line] = lines(ROW, names={"org": 'a "b", c'})
    assert line["SubAccountName"] == 'a "b", c'
