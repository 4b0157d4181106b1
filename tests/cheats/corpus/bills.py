"""Cheats with prices and bills: edited cards, old cards, tricks with numbers, months and names."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lotabotsd.foundation.envelope import Envelope, PayloadType, parse_envelope
from lotabotsd.foundation.errors import Code
from lotabotsd.usage.report_zip import CSV, unpack

from .cheat import GOT_THROUGH, Cheat, Side, Who, entries, found, not_found, refused
from .reports import errors
from .rooms import HOUR, RESEARCH, UsageRoom, forge
from .world import CARD, World

MARCH, APRIL = datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC)  # the months' ends
AMOUNTS = (
    "-1", "1e3", "1E-3", "NaN", "Infinity", "+1", "1_000", "0x10", " 1", "1 ", "1.", ".5", "01", "", "1,50",
    "٣", "1" * 13, "0." + "1" * 13, 1, 1.5, True, None, [], {},
)  # fmt: skip


def month(world: World) -> tuple[UsageRoom, Path]:
    """A whole month of use, verified."""
    room = world.billed_room()
    room.use(60_000)
    report = room.report_until(MARCH)
    world.desk.verify(report)
    return room, report


def card(world: World, name: str, change: Any = lambda body: None) -> Path:
    """A signed card like the golden one, changed."""
    body = json.loads(CARD.read_bytes())
    change(body)
    plain, signed = world.folder / f"{name}.json", world.folder / f"{name}.card"
    plain.write_text(json.dumps(body))
    world.desk.run("rate-card", "sign", *world.desk.keys, "--output", signed, plain)
    return signed


def cheaper(body: Any) -> None:
    """A tenth of the prices."""
    body["components"][0]["price"]["tiers"][0]["amount"] = "0.20"


@refused(Who.MAIL, "other prices", Code.SIGNATURE_INVALID, Side.VENDOR)
def a_rate_card_edited(world: World) -> str:
    """Changes the body inside the signed card."""
    _, report = month(world)
    signed = card(world, "genuine")
    shown = world.desk.run("rate-card", "show", "--dir", world.desk.directory, signed)
    assert shown.json["card"]["card_id"] == "standard-2026"
    envelope = parse_envelope(signed.read_bytes())
    body = envelope.body.replace(b'"2.00"', b'"0.02"')
    assert body != envelope.body
    signed.write_bytes(Envelope(PayloadType.RATE_CARD, body, envelope.signatures).to_json())
    return world.desk.rate("--card", signed, report).code


@refused(Who.CUSTOMER, "prices of his own", Code.SIGNER_UNKNOWN, Side.VENDOR)
def a_rate_card_signed_by_oneself(world: World) -> str:
    """Sends a card that he signed himself."""
    _, report = month(world)
    own = world.folder / "own.card"
    body = json.loads(CARD.read_bytes())
    own.write_bytes(world.workshop.signed(PayloadType.RATE_CARD, body, world.workshop.stranger))
    return world.desk.rate("--card", own, report).code


@refused(Who.CLERK, "a month at last year's prices", Code.CONFLICT, Side.VENDOR)
def an_older_cheaper_card_for_a_billed_month(world: World) -> str:
    """Bills a month, then bills it again with an old, cheaper card."""
    _, report = month(world)
    assert world.desk.rate(report).json["totals"] == {"EUR": "95.00"}
    return world.desk.rate("--card", card(world, "old", cheaper), report).code


@found(Who.CLERK, "a month at last year's prices", "not billed: rate card", Side.VENDOR)
def an_older_card_whose_time_is_over(world: World) -> str:
    """Bills with a card that ended last year: the month stays unbilled."""
    _, report = month(world)

    def ended(body: Any) -> None:
        cheaper(body)
        body.update(valid_from="2025-01-01T00:00:00Z", valid_until="2026-01-01T00:00:00Z")

    said = world.desk.rate("--card", card(world, "ended", ended), report)
    assert said.json["lines"] == []
    return "not billed: rate card" if "not billed: rate card" in said.err else GOT_THROUGH


@not_found(
    Who.CLERK,
    "a friend's month at last year's prices",
    "The vendor's own choice: --card is for prices that were agreed later. Every line names the card by "
    "its hash, and the card in the customer's licence is what counts without it. A card with an end "
    "cannot be used after it.",
)
def an_older_open_card_for_a_new_month(world: World) -> str:
    """Bills a new month with an old card that has no end."""
    _, report = month(world)
    old = card(world, "old", cheaper)
    said = world.desk.rate("--card", old, report).json
    assert said["totals"] == {"EUR": "50.00"}  # the minimum
    digest = world.desk.run("rate-card", "show", "--dir", world.desk.directory, old).json["digest"]
    assert {line["card"] for line in said["lines"]} == {digest}
    return GOT_THROUGH


@found(Who.CLERK, "a month paid for twice", "0 of them new", Side.VENDOR)
def a_month_billed_twice(world: World) -> str:
    """Runs the bill again, also with the report given twice: no line is added, and the bytes are the same."""
    _, report = month(world)
    first = world.desk.rate(report)
    again = world.desk.rate(report, report)
    assert again.out == first.out
    return "0 of them new" if "0 of them new" in again.err else GOT_THROUGH


@refused(Who.CLERK, "a month without its dear report", Code.CONFLICT, Side.VENDOR)
def a_verified_report_left_out_of_its_month(world: World) -> str:
    """Verified two reports of a month and bills with the cheap one alone."""
    room = world.billed_room()
    room.use(60_000)
    world.desk.verify(room.report_until(datetime(2026, 3, 20, tzinfo=UTC)))
    rest = room.report_until(MARCH)
    world.desk.verify(rest)
    return world.desk.rate(rest).code


@found(Who.CUSTOMER, "a month without its dear report", "not billed yet", Side.VENDOR)
def a_report_in_the_middle_of_the_month_kept_back(world: World) -> str:
    """Sends the month's first and last reports and keeps the one between; the month is not billed before
    it comes."""
    room = world.billed_room()
    first = room.report_until(datetime(2026, 3, 10, tzinfo=UTC))
    room.use(60_000)
    kept = room.report_until(datetime(2026, 3, 20, tzinfo=UTC))
    last = room.report_until(MARCH)
    for report in (first, last):
        world.desk.verify(report)
    said = world.desk.rate(first, last)
    assert said.json["lines"] == []
    world.desk.verify(kept)
    assert world.desk.rate(kept).json["totals"] == {"EUR": "95.00"}
    return "not billed yet" if "not billed yet: nothing is reported from" in said.err else GOT_THROUGH


@refused(Who.CLERK, "a bill over a file that nobody checked", Code.CONFLICT, Side.VENDOR)
def a_report_billed_without_being_verified(world: World) -> str:
    """Bills a report that was never verified."""
    room = world.billed_room()
    return world.desk.rate(room.report_until(MARCH)).code


@found(Who.CUSTOMER, "usage in a month that has no price", "clock_suspect,late", Side.VENDOR)
def the_clock_set_back_before_the_rate_card(world: World) -> str:
    """Uses the appliance with the clock in a year for which there is no card; the bill says what it left
    out."""
    room = world.billed_room()
    world.clock.advance(-400 * 24 * HOUR)
    room.use(60_000)
    room.seal()
    world.clock.advance(400 * 24 * HOUR)
    report = room.report_until(MARCH)
    said = world.desk.verify(report)
    bill = world.desk.rate(report)
    assert "2025-01 of apl_test: not billed: rate card standard-2026 is not for it" in bill.err
    return ",".join(sorted({finding["code"] for finding in said["findings"]}))


@found(Who.CUSTOMER, "usage in a month that has no price", "late", Side.VENDOR)
def late_rows_forged(world: World) -> str:
    """Writes into the open hour's counts that they came too late for a month before there was a rate card."""
    room = world.billed_room()
    room.use(60_000)
    room.drain()
    room.tamper("UPDATE accumulators SET late_for = 1735689600")  # 2025-01-01
    report = room.report_until(MARCH)
    said = world.desk.verify(report)
    bill = world.desk.rate(report)
    assert "2025-01 of apl_test: not billed: rate card standard-2026 is not for it" in bill.err
    return ",".join(sorted({finding["code"] for finding in said["findings"]}))


@found(Who.CLERK, "that nobody knows what was issued", "licence_unknown", Side.VENDOR)
def the_books_of_the_vendor_deleted(world: World) -> str:
    """Deletes vendor.db: the next report names a licence that the books do not know, and is not billed."""
    room = world.billed_room()
    world.desk.verify(room.report())
    (world.desk.directory / "vendor.db").unlink()
    said = world.desk.verify(room.report())
    assert not said["billable"]
    return ",".join(sorted({f["code"] for f in said["findings"]} - {"report_missing"}))


@found(Who.CLERK, "a line that nobody pays", "correction", Side.VENDOR)
def a_billed_line_deleted_from_the_books(world: World) -> str:
    """Drops the triggers of billing.db and deletes a line; the next run writes it again, as a correction."""
    _, report = month(world)
    before = world.desk.rate(report).json
    with sqlite3.connect(world.desk.directory / "billing.db") as books:
        books.executescript(
            "DROP TRIGGER lines_stay; DELETE FROM lines WHERE position = (SELECT max(position) FROM lines)"
        )
    books.close()
    after = world.desk.rate(report).json
    assert after["totals"] == before["totals"]
    return str(after["lines"][-1]["kind"])


@refused(Who.CLERK, "a price that is read in two ways", Code.RATE_CARD_INVALID, Side.VENDOR)
def tricks_with_decimal_numbers(world: World) -> str:
    """Writes amounts with exponents, signs, NaN, other digits, or as JSON numbers into a card, and signs
    it."""
    answers = set()
    for amount in AMOUNTS:
        for name in ("minimum", "amount", "discount"):
            body = json.loads(CARD.read_bytes())
            if name == "minimum":
                body["minimum"] = amount
            elif name == "amount":
                body["components"][1]["price"]["amount"] = amount
            else:
                body["discount_percent"]["pro"] = amount
            file = world.folder / "tricky.json"
            file.write_text(json.dumps(body))
            answers.add(world.desk.ask("rate-card", "sign", *world.desk.keys, file).code)
    return ",".join(sorted(answers))


@refused(Who.CLERK, "a discount of more than everything", Code.RATE_CARD_INVALID, Side.VENDOR)
def a_discount_above_one_hundred(world: World) -> str:
    """Gives 101 percent, so that the vendor pays."""
    answers = set()
    for percent in ("101", "100.0001", "-5", "1000"):
        body = json.loads(CARD.read_bytes())
        body["discount_percent"]["pro"] = percent
        file = world.folder / "tricky.json"
        file.write_text(json.dumps(body))
        answers.add(world.desk.ask("rate-card", "sign", *world.desk.keys, file).code)
    return ",".join(sorted(answers))


@found(Who.CUSTOMER, "a command run by the vendor's spreadsheet", "a quote before it", Side.VENDOR)
def a_formula_as_a_name(world: World) -> str:
    """Names an organisation, a key and himself like a formula; every table puts a quote before it."""
    evil = "=cmd|'/c calc'!A1"
    room = world.billed_room()
    room.names = {RESEARCH: evil, "key": "@SUM(A1)"}
    room.use(60_000)
    report = room.report_until(MARCH)
    world.desk.verify(report)
    tables = [unpack(report.read_bytes())[CSV].decode()]
    for form in ("csv", "focus"):
        file = world.folder / f"bill.{form}"
        world.desk.run("rate", "--dir", world.desk.directory, "--format", form, "--output", file, report)
        tables.append(file.read_text())
    cells = [value for text in tables for row in csv.reader(io.StringIO(text)) for value in row]
    assert f"'{evil}" in cells
    formulas = [value for value in cells if value[:1] in "=+-@\t\r" and value and not _is_number(value)]
    return GOT_THROUGH if formulas else "a quote before it"


@refused(Who.CUSTOMER, "another text on the clerk's screen", "body", Side.VENDOR)
def terminal_commands_in_a_name(world: World) -> str:
    """Writes escape sequences and line ends into the names of a report."""
    room = world.billed_room()
    report = room.report()
    answers = set()
    for text in ("\x1b[2Jbillable   yes", "a\nbillable   yes", "a\u202eb", "\x00"):
        for place in ("customer", "tier"):
            bad = forge(report, lambda body, text=text, place=place: body["licence"].update({place: text}))
            answers.add(errors(world, bad))
    return ",".join(sorted(answers))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


CHEATS: tuple[Cheat, ...] = entries(globals())
