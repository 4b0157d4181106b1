"""The usage of a report as FOCUS 1.2 rows, for people and their spreadsheets; informational. Pure.

Prices are the vendor's: every cost is 0 and the currency XXX (ISO 4217: none). The signed JSON beside it is
what counts. One line per organisation, key and model with charged usage in the period. A report of format 1
keeps the columns and spellings that it was made with; since format 2 the FOCUS validator
misses nothing but the number of an invoice, which there is none of.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from .report_fields import instant
from .windows import Kind, Meters, Row

FIRST_COLUMNS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd",
    "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "EffectiveCost",
    "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName",
    "ResourceId", "ServiceCategory", "ServiceName", "SkuId", "SkuMeter", "SubAccountId", "SubAccountName",
    "x_ApiKeyId", "x_ApiKeyName", "x_InputBytes", "x_ModelId", "x_OutputBytes", "x_Requests",
)  # fmt: skip
COLUMNS = tuple(sorted((*FIRST_COLUMNS, "ChargeFrequency", "InvoiceId", "ServiceSubcategory")))
_COSTS = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")
_FIXED = {
    "BilledCost": "0",
    "BillingCurrency": "XXX",
    "ChargeCategory": "Usage",
    "ChargeClass": "",
    "ConsumedUnit": "Inferences",
    "ContractedCost": "0",
    "EffectiveCost": "0",
    "InvoiceIssuerName": "LotaBots",
    "ListCost": "0",
    "PricingUnit": "Inferences",
    "ProviderName": "LotaBots",
    "PublisherName": "LotaBots",
    "ServiceCategory": "AI and Machine Learning",
    "ServiceName": "LotaBots",
    "SkuId": "inferences",
    "SkuMeter": "Inferences",
}
_FORMULA = ("=", "+", "-", "@")  # a tab or line end cannot come first: names in reports are printable


def focus_csv(
    rows: Sequence[Row],
    *,
    period_from: int,
    period_until: int,
    appliance_id: str,
    customer: str,
    organisation_names: Mapping[str, str],
    key_names: Mapping[str, str],
    first_format: bool = False,
) -> bytes:
    """The CSV, UTF-8 with LF line ends, in a fixed order of columns and lines.

    `first_format` is for a report of format 1, whose file names no frequency and writes whole numbers.
    """
    sums: dict[tuple[str, str, str], Meters] = {}
    for row in rows:
        if row.kind is Kind.USAGE and row.charged:
            name = (row.organisation, row.key, row.model)
            sums[name] = sums.get(name, Meters()) + row.meters
    fixed = {
        **_FIXED,
        "BillingAccountId": appliance_id,
        "BillingAccountName": customer,
        "BillingPeriodEnd": instant(period_until),
        "BillingPeriodStart": instant(period_from),
        "ChargePeriodEnd": instant(period_until),
        "ChargePeriodStart": instant(period_from),
    }
    columns = FIRST_COLUMNS if first_format else COLUMNS
    if not first_format:
        fixed |= {"ChargeFrequency": "Usage-Based", "InvoiceId": "", "ServiceSubcategory": "Machine Learning"}
        fixed |= dict.fromkeys(_COSTS, "0.00")
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for (organisation, key, model), meters in sorted(sums.items()):
        line = {
            **fixed,
            "ChargeDescription": f"Inferences of {model}",
            "ConsumedQuantity": _quantity(meters.inferences, first_format),
            "PricingQuantity": _quantity(meters.inferences, first_format),
            "ResourceId": model,
            "SubAccountId": organisation,
            "SubAccountName": organisation_names.get(organisation, ""),
            "x_ApiKeyId": key,
            "x_ApiKeyName": key_names.get(key, ""),
            "x_InputBytes": str(meters.input_bytes),
            "x_ModelId": model,
            "x_OutputBytes": str(meters.output_bytes),
            "x_Requests": str(meters.requests),
        }
        writer.writerow({column: cell(value) for column, value in line.items()})
    return text.getvalue().encode()


def _quantity(number: int, first_format: bool) -> str:
    """FOCUS wants its quantities to be decimals, also whole ones."""
    return str(number) if first_format else f"{number}.0"


def cell(value: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if value.startswith(_FORMULA) else value
