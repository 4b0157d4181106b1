"""Usage: what was counted, the signed reports about it, and the vendor's answers to them."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from lotabotsd.cli.session import Session, json_option, pass_session, say_spread, show
from lotabotsd.cli.tables import Cell, moment_text, pairs, printable, table
from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.foundation.errors import Exit, LotaBotsError
from lotabotsd.foundation.files import write_atomically

from .licence import change_text, read_document

PROGRESS_SECONDS = 2.0
_HEADINGS = {"organisation": "ORGANISATION", "key": "KEY", "model": "MODEL", "outcome": "OUTCOME"}


@click.group()
def usage() -> None:
    """Usage, and the signed reports about it."""


@usage.command("show")
@click.option("--since", default="", help="now, today, a date or RFC 3339.  [default: start of this month]")
@click.option("--until", default="", help="The same, exclusive.  [default: now]")
@click.option("--organisation", default="", help="Only this organisation's id.")
@click.option(
    "--by",
    default="organisation,key,model,outcome",
    show_default=True,
    help="What to tell apart, commas between.",
)
@json_option
@pass_session
def show_usage(session: Session, since: str, until: str, organisation: str, by: str, as_json: bool) -> None:
    """Show what was counted, the running hour included."""
    found = session.client.get("usage", since=since, until=until, organisation=organisation, by=by)
    show(found, _usage, as_json=as_json)


@usage.command("preview")
@json_option
@pass_session
def preview(session: Session, as_json: bool) -> None:
    """Show everything that the next usage report would say. Nothing is made or changed."""
    found = session.client.patient().get("usage", "preview")
    show(found, lambda value: json.dumps(value, indent=2, ensure_ascii=False), as_json=as_json)


@usage.command("export")
@click.option("--until", default="", help="now, today, a date or RFC 3339.  [default: the last whole hour]")
@click.option("--cut", is_flag=True, help="The same as --until now: the running hour is closed early.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Also copy the report into this directory.",
)
@json_option
@pass_session
def export(session: Session, until: str, cut: bool, output: Path | None, as_json: bool) -> None:
    """Write the next signed usage report into the outbox."""
    if cut and until not in ("", "now"):
        raise click.UsageError("--cut means --until now: give one of the two")
    with _told(session):
        client = session.client.patient()
        made = client.post("usage", "reports", body={"until": "now" if cut else until})["items"]
    if output is not None:
        for report in made:
            copy = output / report["name"]
            write_atomically(copy, session.client.get_bytes("usage", "reports", report["name"]), mode=0o644)
            report["copy"] = str(copy)
    show(made, lambda found: "\n\n".join(_report(report) for report in found), as_json=as_json)


@usage.command("reports")
@json_option
@pass_session
def list_reports(session: Session, as_json: bool) -> None:
    """List the reports in the outbox."""
    show(session.client.get("usage", "reports")["items"], _reports, as_json=as_json)


@usage.command("acknowledge", short_help="Take the vendor's answer to a report, in FILE.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--check", is_flag=True, help="Only say what would change.")
@json_option
@pass_session
def acknowledge(session: Session, file: Path, check: bool, as_json: bool) -> int:
    """Take the vendor's acknowledgement in FILE (or -): armoured, DSSE JSON, or the one line.

    A renewed licence in it is installed too, and a rate card kept for the months that it is for; exit 4 when
    one of them was refused, or the report was.
    """
    data = read_document(file)
    found = session.client.put_bytes("usage", "acknowledgements", data=data, check="true" if check else None)
    show(found, lambda value: _acknowledged(value, check=check), as_json=as_json)
    licence = found["licence"]
    if licence is not None:
        say_spread(licence.get("spread"))
    came_along = [each for each in (licence, found["rate_card"]) if each is not None]
    refused = found["verdict"] == "rejected" or any(each["refused"] for each in came_along)
    return Exit.WARNINGS if refused else Exit.OK


@contextmanager
def _told(session: Session) -> Iterator[None]:
    """Say on a terminal how many reports are written, while many are: a large ledger takes minutes."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()

    def tell() -> None:
        first = told = None
        while not done.wait(PROGRESS_SECONDS):
            try:
                number = len(session.client.get("usage", "reports")["items"])
            except LotaBotsError:
                continue  # the command itself will say what is wrong
            first = number if first is None else first
            if number not in (first, told):
                click.echo(f"{number - first} reports written, and it goes on", err=True)
            told = number

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join(PROGRESS_SECONDS)


def _usage(found: dict[str, Any]) -> str:
    names, by = found["names"], found["by"]
    rows: list[list[Cell]] = []
    for row in found["rows"]:
        shown: list[Cell] = [names.get(row[name], row[name]) for name in by]
        charged = {True: "yes", False: "no", None: "partly"}[row["charged"]]
        rows.append(
            [*shown, row["requests"], row["inferences"], row["input_bytes"], row["output_bytes"], charged]
        )
    headings = [
        *(_HEADINGS[name] for name in by),
        "REQUESTS",
        "INFERENCES",
        "BYTES IN",
        "BYTES OUT",
        "CHARGED",
    ]
    period = [
        ("from", moment_text(found["since"] * NANOSECONDS)),
        ("until", moment_text(found["until"] * NANOSECONDS)),
        ("sealed until", moment_text(found["sealed_until"] * NANOSECONDS)),
    ]
    return f"{pairs(period)}\n\n{table(headings, rows, empty='nothing was used')}"


def _report(made: dict[str, Any]) -> str:
    entries: list[tuple[str, Cell]] = [
        ("report", made["name"]),
        ("number", made["sequence"]),
        ("from", moment_text(made["from"] * NANOSECONDS)),
        ("until", moment_text(made["until"] * NANOSECONDS)),
        ("in the outbox", made["path"]),
    ]
    if "copy" in made:
        entries.append(("copied to", made["copy"]))
    return pairs(entries)


def _reports(items: list[dict[str, Any]]) -> str:
    rows = [
        (
            str(item["sequence"]),
            item["name"],
            item["state"],
            item["verdict"].replace("_", " "),
            moment_text(item["until"] * NANOSECONDS),
        )
        for item in items
    ]
    return table(("NUMBER", "REPORT", "STATE", "VENDOR", "UNTIL"), rows, empty="no reports yet")


def _acknowledged(found: dict[str, Any], *, check: bool) -> str:
    verdict = found["verdict"].replace("_", " ")
    entries: list[tuple[str, Cell]] = [
        ("report", found["report"]),
        ("verdict", verdict + (" (known already)" if found["known"] else "")),
        ("until", moment_text(found["until"] * NANOSECONDS)),
        ("head", found["head"]),
        ("issued", moment_text(found["issued_at"] * NANOSECONDS)),
    ]
    entries += [("", reason) for reason in found["reasons"]]
    due = found["duty"]["due_at_ns"]
    if due and not check:
        entries.append(("next one by", moment_text(due)))
    lines = ["this would be taken:" if check else "acknowledgement taken:", pairs(entries, indent=2)]
    licence, card = found["licence"], found["rate_card"]
    for name, one in (("licence", licence), ("rate card", card)):
        if one is not None and one["refused"]:
            lines.append(f"the {name} in it is refused: {printable(one['refused']['detail'])}")
            lines.append(f"    fix: {printable(one['refused']['hint'])}")
    if card is not None and not card["refused"]:
        until = f", until {card['valid_until'][:10]}" if card["valid_until"] else ""
        since = f"{card['valid_from'][:10]} and after"
        lines.append(f"rate card {card['card_id']} came along, for {since}{until}")
    if licence is not None and not licence["refused"]:
        title = "the licence in it would change:" if check else "the licence in it is installed; changed:"
        lines += [title, change_text(licence)]
    return "\n".join(lines)
