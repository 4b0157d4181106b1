"""Lines of a bill as JSON lines, as CSV for spreadsheets, and as FOCUS 1.2 rows with costs. Pure.

The JSON lines are what counts; the tables are for people and their programs.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from .bill_lines import Line, LineKind, line_json, line_value, month_span, parse_month, plain
from .focus import cell
from .rate_card import Meter
from .report_fields import instant


class Form(StrEnum):
    """How lines are written."""

    LINES = "lines"  # JSON lines: one canonical JSON object each
    CSV = "csv"
    FOCUS = "focus"  # CSV with the columns of FOCUS 1.2


@dataclass(frozen=True, slots=True)
class Account:
    """What FOCUS asks for beside the lines."""

    customer: str
    organisation_names: Mapping[str, str]


CSV_COLUMNS = (
    "appliance", "month", "billing_month", "kind", "revision", "organisation", "model", "component",
    "description", "step", "meter", "per", "raw_quantity", "billed_quantity", "list_unit_price", "unit_price",
    "list_amount", "amount", "currency", "id", "card",
)  # fmt: skip
FOCUS_COLUMNS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency",
    "ChargePeriodEnd", "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost",
    "ContractedUnitPrice", "EffectiveCost", "InvoiceId", "InvoiceIssuerName", "ListCost", "ListUnitPrice",
    "PricingCategory", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "ResourceId",
    "ServiceCategory", "ServiceName", "ServiceSubcategory", "SkuId", "SkuMeter", "SkuPriceId",
    "SubAccountId", "SubAccountName",
    "x_LineId", "x_ModelId", "x_RateCard", "x_Revision",
)  # fmt: skip
_UNITS = {
    Meter.REQUESTS.value: "Requests",
    Meter.INFERENCES.value: "Inferences",
    Meter.INPUT_BYTES.value: "Bytes",
    Meter.OUTPUT_BYTES.value: "Bytes",
    Meter.GATE_US.value: "Microseconds",
    "": "Months",  # the minimum
}
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")  # a sign before digits alone is no formula


def export(lines: Iterable[Line], form: Form, accounts: Mapping[str, Account]) -> bytes:
    """The lines in a form: UTF-8, LF line ends, in their order.

    `accounts` by appliance; only FOCUS uses them.
    """
    if form is Form.LINES:
        return b"".join(line_json(line) + b"\n" for line in lines)
    if form is Form.CSV:
        return _table(CSV_COLUMNS, (line_value(line) for line in lines))
    return _table(FOCUS_COLUMNS, (_focus(line, accounts[line.appliance]) for line in lines))


def _focus(line: Line, account: Account) -> dict[str, str | int]:
    billed, used = (month_span(parse_month(month)) for month in (line.billing_month, line.month))
    usage = bool(line.meter)
    unit = _UNITS[line.meter]
    return {
        "BilledCost": plain(line.amount),
        "BillingAccountId": line.appliance,
        "BillingAccountName": account.customer,
        "BillingCurrency": line.currency,
        "BillingPeriodEnd": instant(billed[1]),
        "BillingPeriodStart": instant(billed[0]),
        "ChargeCategory": "Usage" if usage else "Purchase",
        "ChargeClass": "Correction" if line.kind is LineKind.CORRECTION else "",
        "ChargeDescription": f"{line.description}{_step_text(line)}",
        "ChargeFrequency": "Usage-Based" if usage else "Recurring",
        "ChargePeriodEnd": instant(used[1]),
        "ChargePeriodStart": instant(used[0]),
        "ConsumedQuantity": line.raw_quantity if usage else "",
        "ConsumedUnit": unit if usage else "",
        "ContractedCost": plain(line.amount),
        "ContractedUnitPrice": plain(line.unit_price),
        "EffectiveCost": plain(line.amount),
        "InvoiceId": "",  # given by whoever writes the invoice
        "InvoiceIssuerName": "LotaBots",
        "ListCost": plain(line.list_amount),
        "ListUnitPrice": plain(line.list_unit_price),
        "PricingCategory": "Standard",
        "PricingQuantity": plain(line.billed_quantity),
        "PricingUnit": unit if line.per == 1 else f"{line.per} {unit}",
        "ProviderName": "LotaBots",
        "PublisherName": "LotaBots",
        "ResourceId": line.model,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "LotaBots",
        "ServiceSubcategory": "Machine Learning",
        "SkuId": line.component,
        "SkuMeter": unit,
        "SkuPriceId": f"{line.component}/{line.step}",
        "SubAccountId": line.organisation,
        "SubAccountName": account.organisation_names.get(line.organisation, ""),
        "x_LineId": line.id,
        "x_ModelId": line.model,
        "x_RateCard": line.card,
        "x_Revision": line.revision,
    }


def _step_text(line: Line) -> str:
    if not line.meter:
        return ""
    return f", step {line.step}" if line.step.isdecimal() else f", {line.step}"


def _table(columns: tuple[str, ...], rows: Iterable[Mapping[str, str | int]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        values = {name: str(value) for name, value in row.items()}
        writer.writerow({n: v if _NUMBER.fullmatch(v) else cell(v) for n, v in values.items()})
    return text.getvalue().encode()
