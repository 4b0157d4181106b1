"""The bill beforehand: what a month costs under the licence's rate card."""

from __future__ import annotations

import sys
from typing import Any

import click

from lotabotsd.cli.session import Session, json_option, pass_session, show, warn
from lotabotsd.cli.tables import Cell, grouped, moment_text, pairs, table
from lotabotsd.foundation.clock import NANOSECONDS

_HEADINGS = ("COMPONENT", "STEP", "ORGANISATION", "MODEL", "QUANTITY", "PRICE", "AMOUNT")


@click.group()
def bill() -> None:
    """What a month costs, before the bill comes."""


@bill.command("preview")
@click.option("--month", default="", help="As in 2026-11.  [default: the running month]")
@json_option
@click.option("--csv", "form", flag_value="csv", help="Print the lines as CSV for spreadsheets.")
@click.option("--lines", "form", flag_value="lines", help="Print the lines as the vendor's tool does.")
@click.option("--focus", "form", flag_value="focus", help="Print the lines as FOCUS 1.2 CSV.")
@pass_session
def preview(session: Session, month: str, as_json: bool, form: str | None) -> None:
    """Show the bill of a month up to now, by the rate card.

    The vendor rates the signed reports by the same rules: for the same usage the lines are the same bytes.
    """
    if form is not None:
        if as_json:
            raise click.UsageError("give one of --json, --csv, --lines and --focus")
        sys.stdout.buffer.write(session.client.get_bytes("bill", form, month=month))
        sys.stdout.buffer.flush()
        return
    found = session.client.get("bill", month=month)
    show(found, _bill, as_json=as_json)
    if found["development"] and not as_json:
        warn("made under the development root: never billed")


def _bill(found: dict[str, Any]) -> str:
    places = max((len(line["amount"]) for line in found["lines"]), default=0)
    rows: list[list[Cell]] = [
        [
            line["component"],
            line["step"],
            found["names"].get(line["organisation"], line["organisation"]),
            line["model"],
            line["raw_quantity"] if line["meter"] else None,
            _price(line),
            line["amount"].rjust(places),
        ]
        for line in found["lines"]
    ]
    head: list[tuple[str, Cell]] = [
        ("month", found["month"]),
        ("counted from", moment_text(found["counted_from"] * NANOSECONDS)),
        ("counted until", moment_text(found["counted_until"] * NANOSECONDS)),
        ("customer", found["customer"]),
        ("rate card", found["card"]["card_id"]),
        ("tier", found["tier"]),
    ]
    totals: list[tuple[str, Cell]] = []
    if found["list_total"] != found["total"]:
        totals.append(("before discount", f"{found['list_total']} {found['currency']}"))
    totals.append(("total", f"{found['total']} {found['currency']}"))
    if not found["complete"]:
        totals.append(("", "not a whole month: it goes on, or the ledger begins later"))
    return f"{pairs(head)}\n\n{table(_HEADINGS, rows, empty='nothing to pay')}\n\n{pairs(totals)}"


def _price(line: dict[str, Any]) -> str:
    return line["unit_price"] if line["per"] == 1 else f"{line['unit_price']} per {grouped(line['per'])}"
