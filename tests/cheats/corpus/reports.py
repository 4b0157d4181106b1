"""Cheats with usage reports: edited, packed again, signed by others, left out, sent again."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from pathlib import Path
from typing import Any

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.envelope import PayloadType, sign
from lotabotsd.foundation.errors import Code
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.foundation.keys import thumbprint
from lotabotsd.usage.report import latest_report
from lotabotsd.usage.report_body import condition_of_rows, instant, totals_of_rows
from lotabotsd.usage.report_facts import read_facts
from lotabotsd.usage.report_zip import CSV, README, REPORT, SUMS, pack, unpack

from .cheat import GOT_THROUGH, Cheat, Side, Who, code_of, entries, found, not_found, refused
from .rooms import OTHER_KEY, REPORT_KEY, body_of, forge
from .world import Change, World, codes

WEAK = bytes([1]) + bytes(31)
INFERENCES, OUTCOME, CHARGED = 10, 6, 7  # columns of a row


def errors(world: World, report: Path) -> str:
    """What makes the vendor's desk refuse a report: codes of the findings of severity error."""
    said = world.desk.ask("report", "verify", "--dir", world.desk.directory, report)
    if said.json["verdict"] != "invalid":
        return GOT_THROUGH
    assert said.exit_code == 6
    return codes(said.json, "error")


def forged(world: World, change: Change) -> str:
    """The errors of a second report whose body was changed and signed again with the appliance's own key."""
    room = world.billed_room()
    world.desk.verify(room.report())
    return errors(world, forge(room.report(5, hours=2), change))


def repacked(world: World, report: bytes) -> Path:
    """A genuine zip with another signed part."""
    genuine = world.billed_room().report()
    contents = unpack(genuine.read_bytes())
    genuine.write_bytes(pack(report, contents[CSV], contents[README]))
    return genuine


@refused(Who.MAIL, "another customer's numbers", "signature_invalid", Side.VENDOR)
def a_body_edited(world: World) -> str:
    """Changes a number in the signed body, and makes the checksums of the zip fit."""
    report = world.billed_room().report()
    contents = unpack(report.read_bytes())
    envelope = json.loads(contents[REPORT])
    body = base64.b64decode(envelope["payload"]).replace(b'"inferences":1', b'"inferences":0')
    envelope["payload"] = base64.b64encode(body).decode()
    report.write_bytes(pack(canonical_json(envelope), contents[CSV], contents[README]))
    return errors(world, report)


@found(Who.CUSTOMER, "a cheaper table for whoever bills from it", "companion", Side.VENDOR)
def the_csv_edited(world: World) -> str:
    """Lowers the quantities in usage.focus.csv: the bill is made from the signed part alone and stays the
    same."""
    report = world.billed_room().report(40_000)
    contents = unpack(report.read_bytes())
    report.write_bytes(pack(contents[REPORT], contents[CSV].replace(b"40000", b"4"), contents[README]))
    said = world.desk.verify(report)
    assert said["billable"]
    bill = world.desk.rate("--incomplete", report)
    assert bill.json["totals"] == {"EUR": "57.00"}
    return codes(said, "warning")


@refused(Who.MAIL, "a file that the vendor unpacks", "report_invalid", Side.VENDOR)
def a_zip_with_another_member(world: World) -> str:
    """Adds files to the zip, some with paths that lead elsewhere; or leaves one out."""
    report = world.billed_room().report()
    contents = unpack(report.read_bytes())
    answers = set()
    for more in ({"invoice.exe": b"MZ"}, {"../../etc/cron.d/x": b"x"}, {"/absolute": b"x"}, None):
        members = {**contents, **more} if more else {n: d for n, d in contents.items() if n != SUMS}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        report.write_bytes(buffer.getvalue())
        answers.add(errors(world, report))
    return ",".join(sorted(answers))


@refused(Who.MAIL, "a small zip that fills the vendor's disk", "report_invalid", Side.VENDOR)
def a_compressed_zip(world: World) -> str:
    """Packs the same files again, compressed."""
    report = world.billed_room().report()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in unpack(report.read_bytes()).items():
            archive.writestr(name, data)
    report.write_bytes(buffer.getvalue())
    return errors(world, report)


@refused(Who.CUSTOMER, "rows left out", "chain", Side.VENDOR)
def rows_dropped_and_the_totals_adjusted(world: World) -> str:
    """Leaves the first hour's rows out, adds the sums up anew, and signs again with the appliance's key."""

    def drop(body: Any) -> None:
        del body["rows"][:2]
        body["ledger"]["first"] += 2
        add_up(body)

    return forged(world, drop)


@refused(Who.CUSTOMER, "smaller numbers that add up", "chain", Side.VENDOR)
def numbers_lowered_and_the_totals_adjusted(world: World) -> str:
    """Lowers the inferences of a row and of its window, adds the sums up anew, and signs again."""

    def lower(body: Any) -> None:
        for row in body["rows"][:2]:
            row[INFERENCES] = 1
        add_up(body)

    return forged(world, lower)


@refused(Who.CUSTOMER, "served requests that cost nothing", "chain,charged,totals", Side.VENDOR)
def a_served_row_marked_as_free(world: World) -> str:
    """Sets `charged` to 0 in a row."""
    return forged(world, lambda body: body["rows"][0].__setitem__(CHARGED, 0))


@refused(Who.CUSTOMER, "an outcome that nobody charges", "chain,charged,totals", Side.VENDOR)
def an_outcome_that_is_none(world: World) -> str:
    """Invents an outcome."""
    return forged(world, lambda body: body["rows"][0].__setitem__(OUTCOME, "tried"))


@refused(Who.CUSTOMER, "a gap that nobody sees", "chain,range", Side.VENDOR)
def a_gap_hidden_by_renumbering(world: World) -> str:
    """Leaves a whole report out and calls the next one the first."""

    def renumber(body: Any) -> None:
        body.update(sequence=1, previous_report_hash=None)
        body["ledger"].update(first=1, last=len(body["rows"]))

    return forged(world, renumber)


@refused(Who.CUSTOMER, "a month that has one hour less", "tiling", Side.VENDOR)
def a_period_made_shorter(world: World) -> str:
    """Writes another end of the period."""
    return forged(world, lambda body: body["period"].update(until="2026-03-01T14:00:00Z"))


@refused(Who.CUSTOMER, "that nobody asks about the damage", "data_condition", Side.VENDOR)
def the_data_condition_made_to_look_better(world: World) -> str:
    """Writes fewer gaps and late rows than the rows themselves show."""
    return forged(world, lambda body: body["data_condition"].update(windows=99, late_rows=9))


@refused(Who.CUSTOMER, "one signature for many reports", "key_weak", Side.VENDOR)
def a_report_of_a_weak_key(world: World) -> str:
    """Names a key of small order as his appliance's."""
    body = body_of(world.billed_room("first").report())
    body["appliance"].update(public_key=b64url(WEAK), key_id=thumbprint(WEAK))
    envelope = json.loads(sign(PayloadType.USAGE_REPORT, canonical_json(body), [REPORT_KEY]).to_json())
    envelope["signatures"][0]["keyid"] = thumbprint(WEAK)
    return errors(world, repacked(world, canonical_json(envelope)))


@refused(Who.MAIL, "a report in the customer's name", "signer_unknown", Side.VENDOR)
def a_report_signed_by_another_key(world: World) -> str:
    """Signs the customer's report with his own key; the body still names the appliance's."""
    return errors(world, forge(world.billed_room().report(), lambda body: None, key=OTHER_KEY))


@refused(Who.CUSTOMER, "real usage under the demo's keys", Code.CONFLICT, Side.VENDOR)
def a_development_report_to_be_billed(world: World) -> str:
    """Runs production on a checkout, whose reports say `development`."""
    room = world.billed_room()
    room.development = True
    report = room.report(100_000)
    said = world.desk.verify(report)
    assert (said["billable"], said["reason"]) == (False, "a development report is never billed")
    return world.desk.rate("--incomplete", report).code


@refused(Who.CUSTOMER, "names changed after the fact", Code.LEDGER_DAMAGED, Side.APPLIANCE)
def a_frozen_report_written_with_other_names(world: World) -> str:
    """Edits the frozen context of a report, its names and its licence, before its file is written again."""
    room = world.billed_room()
    room.hours(1)
    frozen = room.freeze()
    room.tamper("UPDATE reports SET context = replace(context, 'Example GmbH', 'Somebody Else')")
    changed = latest_report(room.ledger)
    assert changed is not None
    assert changed.context != frozen.context
    return code_of(lambda: room.written(changed))


@refused(Who.CUSTOMER, "a report that another key vouches for", Code.CONFLICT, Side.APPLIANCE)
def the_report_key_exchanged_between_freezing_and_writing(world: World) -> str:
    """Replaces report.key before the frozen report is written."""
    room = world.billed_room()
    room.hours(1)
    frozen = room.freeze()
    room.key = OTHER_KEY
    return code_of(lambda: room.written(frozen))


@refused(Who.CUSTOMER, "two months in each other's place", "signature_invalid", Side.VENDOR)
def two_bodies_swapped(world: World) -> str:
    """Puts the cheap month's body under the dear month's signature."""
    room = world.billed_room()
    cheap, dear = room.report(1), room.report(1_000)
    envelopes = [json.loads(unpack(report.read_bytes())[REPORT]) for report in (cheap, dear)]
    mixed = canonical_json({**envelopes[1], "payload": envelopes[0]["payload"]})
    contents = unpack(dear.read_bytes())
    dear.write_bytes(pack(mixed, contents[CSV], contents[README]))
    return errors(world, dear)


@not_found(
    Who.CUSTOMER,
    "an appliance that uses nothing",
    "A build that lies from its first hour lies for ever: the statements of an appliance are evidence to "
    "everyone who does not control it, and its owner does. The requests are real; the licence's limits hold "
    "only in the real build.",
)
def a_patched_build_that_counts_nothing(world: World) -> str:
    """Runs a build that serves and writes no records: hours of zero, well chained and well signed."""
    room = world.billed_room()
    world.clock.advance(3 * 3_600)
    room.seal()
    said = world.desk.verify(room.written(room.freeze()))
    assert said["totals"]["charged"]["requests"] == 0
    return codes(said, "error") or codes(said, "warning")


def add_up(body: Any) -> None:
    """Make totals and condition fit the rows."""
    facts = read_facts(body, "")
    body["totals"] = totals_of_rows(facts.rows)
    body["data_condition"].update(condition_of_rows(facts.rows))
    body["period"]["from"] = instant(facts.rows[0].start)


CHEATS: tuple[Cheat, ...] = entries(globals())
