"""`rate`: the lines of a bill from verified usage reports, once and then only what changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lotabotsd.foundation.clock import month_window
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded, write_atomically
from lotabotsd.licence.document import open_licence
from lotabotsd.usage.bill_export import Account, Form, export
from lotabotsd.usage.bill_lines import Line, line_value, month_text, parse_month
from lotabotsd.usage.rate_card import parse_rate_card
from lotabotsd.usage.rating import covered, rate_month, usage_by_month

from .authority import MAX_DOCUMENT_BYTES, development_authority, existing, newest_keyring
from .billing import Billed, Biller, canonical_card, months_of, notes, rated_report, terms_of
from .billing_books import Books
from .card_file import open_rate_card
from .desk import Desk
from .invoice import totals
from .licence_command import development_option, directory_option, one_of_both
from .records import Records
from .report_command import MAX_REPORT_BYTES

if TYPE_CHECKING:
    from lotabotsd.usage.report_facts import ReportFacts

JSON = "json"
FORMS = (*(form.value for form in Form), JSON)


@click.command("rate")
@directory_option
@development_option
@click.option(
    "--card",
    type=click.Path(path_type=Path),
    help="A signed rate card.  [default: the one that the licence carries]",
)
@click.option(
    "--licence",
    "licence_file",
    type=click.Path(path_type=Path),
    help="With --development: the licence that the reports were made under.",
)
@click.option("--month", help="Only this month, as in 2026-11.")
@click.option(
    "--incomplete", is_flag=True, help="Also bill months that the reports do not cover to their end."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    default="lines",
    show_default=True,
)
@click.option("--output", type=click.Path(path_type=Path), help="New file.  [default: standard output]")
@click.argument("files", metavar="REPORT...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.pass_obj
def rate(
    desk: Desk,
    directory: Path | None,
    development: bool,
    card: Path | None,
    licence_file: Path | None,
    month: str | None,
    incomplete: bool,
    form: str,
    output: Path | None,
    files: tuple[Path, ...],
) -> None:
    """Bill the months in verified usage reports: whole months, once.

    Prints every line that was billed for these months. Running it again adds nothing; a report that comes
    later adds lines of kind correction. With --development it only shows what a month would cost: nothing is
    billed or remembered.
    """
    if development == (directory is not None):
        raise one_of_both()
    if output is not None and output.exists():
        raise LotaBotsError(Code.ALREADY_EXISTS, str(output), hint="choose another --output")
    only = parse_month(month) if month else None
    reports = [_read(file) for file in files]
    if directory is None:
        billed = _trial(reports, card, licence_file, only)
    else:
        billed = _bill(desk, existing(directory), reports, card, only, incomplete=incomplete)
    lines = [line for one in billed for line in one.lines]
    data = _written(lines, JSON if desk.as_json else form, reports)
    if output is not None:
        write_atomically(output, data, mode=0o640)
    else:
        click.echo(data, nl=False)
    said = [_summary(lines, sum(one.new for one in billed)), *notes(billed)]
    if directory is None:
        said.append("under --development nothing is billed")
    click.echo("\n".join(said), err=True)


def _bill(
    desk: Desk, directory: Path, reports: Sequence[ReportFacts], card_file: Path | None, only: int | None, *,
    incomplete: bool,
) -> list[Billed]:  # fmt: skip
    card = open_rate_card(card_file, newest_keyring(directory))[1] if card_file else None
    records, books = Records(directory), Books(directory)
    try:
        _refuse_unverified(records, reports)
        biller = Biller(
            books,
            records,
            card=canonical_card(card) if card else None,
            billing_month=month_text(month_window(desk.clock.wall_ns())),
            incomplete=incomplete,
        )
        with books.writing():
            touched: set[tuple[str, int]] = set()
            for facts in reports:
                report, usage = rated_report(facts), usage_by_month(facts.rows)
                books.add_report(report, usage)
                touched.update((report.appliance, m) for m in (*months_of(report), *usage))
            return [biller.bill(a, m) for a, m in sorted(touched) if only in (None, m)]
    finally:
        books.close()
        records.close()


def _trial(
    reports: Sequence[ReportFacts], card_file: Path | None, licence_file: Path | None, only: int | None
) -> list[Billed]:
    """What the reports' months would cost by themselves; nothing is remembered."""
    if licence_file is None:
        raise LotaBotsError(Code.USAGE, "under which licence?", hint="give --licence FILE")
    keyring = development_authority().keyring
    licence = open_licence(read_bounded(licence_file, MAX_DOCUMENT_BYTES), keyring).licence
    card = open_rate_card(card_file, keyring)[1] if card_file else None
    terms = terms_of(licence, card)
    parsed = parse_rate_card(terms.card)
    billed = []
    for appliance in sorted({facts.appliance_id for facts in reports}):
        own = {facts.report_hash: facts for facts in reports if facts.appliance_id == appliance}.values()
        usage = usage_by_month(row for facts in own for row in facts.rows)
        months = set(usage).union(*(months_of(rated_report(facts)) for facts in own))
        for month in sorted(months):
            if only in (None, month):
                if not covered(parsed, month):
                    billed.append(Billed(appliance, month, (), 0, note="the rate card is not for it"))
                    continue
                lines = rate_month(usage.get(month, {}), parsed, terms.plan, month, appliance)
                billed.append(Billed(appliance, month, lines, 0))
    return billed


def _read(file: Path) -> ReportFacts:
    """A report that an appliance wrote. Raises REPORT_INVALID."""
    from lotabotsd.usage.report import check_report

    check = check_report(read_bounded(file, MAX_REPORT_BYTES))
    if check.facts is None or check.verdict.value == "invalid":
        first = check.findings[0].detail if check.findings else "it is not what an appliance wrote"
        raise LotaBotsError(Code.REPORT_INVALID, f"{file.name}: {first}")
    return check.facts


def _refuse_unverified(records: Records, reports: Sequence[ReportFacts]) -> None:
    """Raises CONFLICT for a report that nobody verified here, or that is not billed."""
    for facts in reports:
        known = records.decided(facts.report_hash)
        name = f"report {facts.sequence} of {facts.appliance_id}"
        if known is None:
            raise LotaBotsError(
                Code.CONFLICT,
                f"{name} was not verified here",
                hint="first: lotabots-vendor report verify FILE",
            )
        if not known.billable:
            raise LotaBotsError(Code.CONFLICT, f"{name} is not billed: {known.reason}", hint="leave it out")


def _written(lines: Sequence[Line], form: str, reports: Sequence[ReportFacts]) -> bytes:
    if form == JSON:
        value = {"totals": totals(lines), "lines": [line_value(line) for line in lines]}
        return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
    accounts: dict[str, Account] = {}
    for facts in sorted(reports, key=lambda facts: facts.sequence):
        before = accounts.get(facts.appliance_id)
        names = {**(before.organisation_names if before else {}), **facts.organisation_names}
        accounts[facts.appliance_id] = Account(facts.licence.customer if facts.licence else "", names)
    return export(lines, Form(form), accounts)


def _summary(lines: Sequence[Line], new: int) -> str:
    sums = ", ".join(f"{amount} {currency}" for currency, amount in totals(lines).items())
    return f"{len(lines)} lines, {new} of them new; total {sums or Decimal(0)}"
