"""`invoice`: what one customer's appliances cost in a month, from the billed lines; it bills nothing."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lotabotsd.foundation.clock import NANOSECONDS, to_ns
from lotabotsd.foundation.errors import Exit
from lotabotsd.foundation.files import write_atomically
from lotabotsd.licence.claims import Kind, Licence
from lotabotsd.usage.bill_export import Form, export
from lotabotsd.usage.bill_lines import month_span, parse_month
from lotabotsd.usage.rate_card import parse_rate_card
from lotabotsd.usage.rating import covered

from .authority import existing
from .billing import card_of, newest_for
from .billing_books import Books, RatedReport
from .customers import known_as
from .desk import Desk, printable
from .history import Reported, Verdict
from .invoice import Invoice, Part, Pending, invoice_text, invoice_value, part_of, why_not_billed
from .keyring_command import refuse_existing
from .records import Records
from .root_command import vendor_directory
from .seat_command import issued_licence
from .seats import holes, owed_by

TEXT, JSON = "text", "json"


@click.command("invoice", short_help="Print one customer's bill of a month.")
@vendor_directory
@click.option("--customer", required=True, metavar="NAME", help="As customer list shows it.")
@click.option("--month", required=True, help="The month that is billed, as in 2026-11.")
@click.option(
    "--format",
    "form",
    type=click.Choice([TEXT, Form.CSV.value, JSON, Form.LINES.value]),
    default=TEXT,
    show_default=True,
)
@click.option("--output", type=click.Path(path_type=Path), help="New file.  [default: standard output]")
@click.pass_obj
def invoice(desk: Desk, directory: Path, customer: str, month: str, form: str, output: Path | None) -> int:
    """Print one customer's bill of a month over all appliances: its use, and the corrections billed in it.

    It only reads what `rate` has billed; nothing is billed or remembered. Exits 4 where something of the
    month is not billed yet, and says why.
    """
    refuse_existing(output)
    number = parse_month(month)
    made = _invoice(existing(directory), customer, number, month)
    form = JSON if desk.as_json else form
    if form == TEXT:
        data = ("\n".join(invoice_text(made)) + "\n").encode()
    elif form == JSON:
        data = json.dumps(invoice_value(made), indent=2, ensure_ascii=False).encode() + b"\n"
    else:
        data = export(made.lines, Form(form), {})
    if output is not None:
        write_atomically(output, data, mode=0o640)
    else:
        click.echo(data, nl=False)
    if output is not None or form not in (TEXT, JSON):
        for one in made.pending:
            click.echo(printable(f"not billed yet: {one.subject}: {one.why}"), err=True)
    return Exit.WARNINGS if made.pending else Exit.OK


def _invoice(directory: Path, customer: str, month: int, text: str) -> Invoice:
    # Without a billing.db nothing was ever billed; reading must not begin one.
    records, books = Records(directory), Books(directory if (directory / "billing.db").exists() else None)
    try:
        name = known_as(customer, records.customers())
        parts = [part for appliance in books.appliances() if (part := _part(books, appliance, name, text))]
        return Invoice(name, text, tuple(parts), tuple(_pending(records, books, name, month)))
    finally:
        books.close()
        records.close()


def _part(books: Books, appliance: str, customer: str, billing_month: str) -> Part | None:
    """The lines of an appliance in the months in which it was the customer's; None where there are none."""
    known = books.reports(appliance)
    lines = [
        line
        for line in books.lines_billed_in(appliance, billing_month)
        if newest_for(known, parse_month(line.month)).customer == customer
    ]
    names = {k: v for report in known for k, v in report.organisation_names.items()}
    return part_of(appliance, lines, names) if lines else None


def _pending(records: Records, books: Books, customer: str, month: int) -> list[Pending]:
    """What of the customer's month is not billed, by appliance; then licences that nobody reports under."""
    since, until = month_span(month)
    found, under = [], set()
    for seat in records.seats():
        reports = [r for r in records.reports(seat.appliance_id) if r.customer == customer]
        under |= {reported.licence_id for reported in reports}
        licence = issued_licence(records, seat.licence_id)
        own = licence is not None and licence.customer == customer and _runs(licence, since, until)
        if not own and not any(r.period_from < until and r.period_until > since for r in reports):
            continue
        known = books.reports(seat.appliance_id)
        missing = holes(records.heads(seat.appliance_id))
        reasons = why_not_billed(
            _judged(records, reports),
            frozenset(report.report_hash for report in known),
            missing,
            (since, until),
            billed=books.terms(seat.appliance_id, month) is not None,
            card_problem=_card_problem(records, known, month),
        )
        found += [Pending(seat.appliance_id, why) for why in reasons]
    revoked = records.revoked()
    for entry in records.licences():
        licence = issued_licence(records, str(entry["licence_id"]))
        if licence is None or licence.customer != customer or licence.kind is not Kind.PAID:
            continue
        if licence.licence_id not in {*under, *revoked} and _runs(licence, since, until):
            found.append(Pending(licence.licence_id, "no appliance has reported under it"))
    return found


def _judged(records: Records, reports: list[Reported]) -> list[tuple[Reported, Verdict]]:
    """Reports with what was said of each; what a person rejected is decided, and waits for nothing."""
    rejected = records.rejected()
    reports = [reported for reported in reports if reported.report_hash not in rejected]
    judged = [(reported, records.decided(reported.report_hash)) for reported in reports]
    return [(reported, known) for reported, known in judged if known is not None]


def _runs(licence: Licence, since: int, until: int) -> bool:
    """Whether a licence, with its days of grace, holds at any time in a span."""
    return to_ns(licence.starts_at) // NANOSECONDS < until and owed_by(licence).ends_at > since


def _card_problem(records: Records, known: list[RatedReport], month: int) -> str:
    """Why the month cannot be billed with the rate card that is for it; empty where it can."""
    if not known:
        return ""
    licence = issued_licence(records, newest_for(known, month).licence_id)
    if licence is None:
        return ""
    body = card_of(records, known[0].appliance, licence, month)
    if body is None:
        return f"{licence.licence_id} carries no rate card: lotabots-vendor rate --card FILE"
    card = parse_rate_card(body)
    return "" if covered(card, month) else f"rate card {card.card_id} is not for the month"
