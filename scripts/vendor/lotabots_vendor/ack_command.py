"""`ack issue | show`: answer a usage report, and read an answer back as an appliance would."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path

import click

from lotabotsd.foundation.clock import NANOSECONDS, from_ns, rfc3339
from lotabotsd.foundation.envelope import MAX_ENVELOPE_BYTES, parse_envelope
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded, write_atomically
from lotabotsd.licence.document import open_licence
from lotabotsd.licence.keyring import Keyring, Use
from lotabotsd.usage.acknowledgement import Acknowledgement, open_acknowledgement, read_acknowledgement

from .answers import Included, acknowledgement_body
from .authority import Authority, development_authority, existing, newest_keyring
from .card_file import signed_card
from .desk import Desk, pairs
from .history import Reported, Verdict
from .licence_command import (
    authority_of,
    development_option,
    directory_option,
    form_option,
    issuing_key_option,
    one_of_both,
    output_option,
    spelled,
)
from .passphrase import Passphrases, passphrase_option
from .records import Records
from .report_command import MAX_REPORT_BYTES, remember

_REPORT_ID = re.compile(r"[0-9a-f]{8,64}")


@click.group()
def ack() -> None:
    """Acknowledgements: the answers to usage reports."""


@ack.command("issue", short_help="Answer a report that was verified here.")
@directory_option
@development_option
@passphrase_option
@issuing_key_option
@click.argument("report", metavar="FILE.zip|REPORT-ID")
@click.option("--licence", type=click.Path(path_type=Path), help="A renewed licence to go with it.")
@click.option(
    "--rate-card",
    "card_file",
    type=click.Path(path_type=Path),
    help="A signed rate card to go with it, for the months that it says.",
)
@click.option("--accept", is_flag=True, help="Accept it although verifying it found errors.")
@click.option("--reject", multiple=True, metavar="REASON", help="Reject it for this reason (repeatable).")
@form_option
@output_option
@click.pass_obj
def issue(
    desk: Desk,
    /,
    directory: Path | None,
    development: bool,
    passphrases: Passphrases,
    issuing_key: str | None,
    report: str,
    licence: Path | None,
    card_file: Path | None,
    accept: bool,
    reject: tuple[str, ...],
    form: str,
    output: Path | None,
) -> None:
    """Acknowledge a report that was verified here: its zip, or the hash that report list shows (8 digits do).

    The same report always gets the same acknowledgement. With --development and no --dir a zip is verified
    on the spot and nothing is remembered.
    """
    if accept and reject:
        raise LotaBotsError(Code.USAGE, "--accept or --reject?", hint="give one of the two")
    if output is not None and output.exists():
        raise LotaBotsError(Code.ALREADY_EXISTS, str(output), hint="choose another --output")
    authority = authority_of(
        directory, development, passphrases, issuing_key, Use.ACKNOWLEDGEMENT, desk.now()
    )
    included = Included(
        _renewed(licence, authority.keyring),
        signed_card(card_file, authority.keyring) if card_file else None,
    )
    records = Records(directory if directory is None or development else existing(directory))
    try:
        reported, verdict = _verified(desk, records, report, on_the_spot=directory is None)
        envelope, before = _issued(desk, records, authority, reported, verdict, included, accept, reject)
    finally:
        records.close()
    text = spelled(parse_envelope(envelope), form)
    if output is not None:
        write_atomically(output, text.encode(), mode=0o640)
    said = read_acknowledgement(parse_envelope(envelope).body)
    entries = [*_entries(said), ("issued before", "yes: the same again" if before else "no")]
    if output is None and not desk.as_json:
        click.echo(text, nl=not text.endswith("\n"))
        click.echo(f"report {said.sequence} of {said.appliance_id}: {said.verdict.value}", err=True)
        return
    value = {**_value(said), "already_issued": before, "file": str(output) if output else None}
    desk.answer({**value, "text": None if output else text}, pairs([*entries, ("file", output)]))


@ack.command("show", short_help="Verify the acknowledgement in FILE (or -) and show it.")
@directory_option
@development_option
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.pass_obj
def show(desk: Desk, directory: Path | None, development: bool, file: Path) -> None:
    """Verify the acknowledgement in FILE (or - for standard input) and show what it says."""
    if development == (directory is not None):
        raise one_of_both()
    keyring = newest_keyring(directory) if directory else development_authority().keyring
    data = (
        sys.stdin.buffer.read(MAX_ENVELOPE_BYTES + 1)
        if str(file) == "-"
        else read_bounded(file, MAX_ENVELOPE_BYTES)
    )
    opened = open_acknowledgement(data, partial(keyring.trusted_keys, Use.ACKNOWLEDGEMENT), keyring.revoked)
    said = opened.acknowledgement
    value = {**_value(said), "signer": opened.signer, "digest": opened.digest.hex()}
    desk.answer(value, pairs([*_entries(said), ("signer", opened.signer)]))


def _renewed(file: Path | None, keyring: Keyring) -> bytes | None:
    """The licence to go with it, verified, as the JSON of its envelope."""
    if file is None:
        return None
    return open_licence(read_bounded(file, MAX_ENVELOPE_BYTES), keyring).envelope.to_json()


def _verified(desk: Desk, records: Records, report: str, *, on_the_spot: bool) -> tuple[Reported, Verdict]:
    """The report meant and its verdict. Raises NOT_FOUND for one that was not verified here."""
    report_id = report if _REPORT_ID.fullmatch(report) else _hash_of(desk, records, report, on_the_spot)
    reported = records.report(report_id)
    known = records.verdict(reported.report_hash) if reported else None
    if reported is None or known is None:
        raise LotaBotsError(
            Code.NOT_FOUND,
            f"no one report {report_id} was verified here",
            hint="verify it first: lotabots-vendor report verify FILE; report list shows what was",
        )
    return reported, known[0]


def _hash_of(desk: Desk, records: Records, file: str, on_the_spot: bool) -> str:
    from lotabotsd.usage.report import check_report  # here, as in report_command

    check = check_report(read_bounded(Path(file), MAX_REPORT_BYTES))
    if check.facts is None or check.verdict.value == "invalid":
        found = check.findings[0].detail if check.findings else ""
        raise LotaBotsError(Code.REPORT_INVALID, found)
    if on_the_spot:
        remember(desk, records, check, check.facts)
    return check.facts.report_hash


def _issued(
    desk: Desk,
    records: Records,
    authority: Authority,
    reported: Reported,
    verdict: Verdict,
    included: Included,
    accept: bool,
    reject: tuple[str, ...],
) -> tuple[bytes, bool]:
    """The acknowledgement's envelope, and whether it was issued before."""
    if reported.development != authority.development:
        kind = "a development" if reported.development else "no development"
        hint = "give --development" if reported.development else "give --dir alone"
        raise LotaBotsError(Code.CONFLICT, f"it is {kind} report", hint=hint)
    with records.writing():
        issued = records.acknowledgement(reported.report_hash)
        if issued is not None:
            _refuse_another(issued, included, accept, reject)
            return issued, True
        body = acknowledgement_body(
            reported, verdict, issued_at=desk.now(), included=included, accept=accept, reject=reject
        )
        envelope = authority.sign_acknowledgement(body, desk.now()).to_json()
        said = read_acknowledgement(body)
        records.add_acknowledgement(reported.report_hash, said.verdict.value, desk.clock.wall_ns(), envelope)
    return envelope, False


def _refuse_another(issued: bytes, included: Included, accept: bool, reject: tuple[str, ...]) -> None:
    """Raises CONFLICT when what was issued before is not what is asked for now."""
    said = read_acknowledgement(parse_envelope(issued).body)
    if included.rate_card is not None and included.rate_card != said.rate_card:
        raise LotaBotsError(
            Code.CONFLICT,
            "the report was acknowledged without this rate card",
            hint="send it with the next acknowledgement, or in a licence",
        )
    if included.licence is not None and included.licence != said.licence:
        raise LotaBotsError(
            Code.CONFLICT,
            "the report was acknowledged without this licence",
            hint="send the licence by itself: lotabotsctl licence install FILE",
        )
    if accept and not said.accepted:
        raise LotaBotsError(
            Code.CONFLICT, "the report was rejected before", hint="an acknowledgement is not taken back"
        )
    if reject and said.accepted:
        raise LotaBotsError(
            Code.CONFLICT, "the report was accepted before", hint="an acknowledgement is not taken back"
        )


def _entries(said: Acknowledgement) -> list[tuple[str, object]]:
    value = _value(said)
    return [
        ("verdict", value["verdict"]),
        ("appliance", f"{said.appliance_id}, report {said.sequence}"),
        ("report", value["report"]),
        ("head", value["head"]),
        ("period", f"{value['from']} until {value['until']}"),
        ("issued", value["issued_at"]),
        ("licence", "included" if said.licence else "none included"),
        ("rate card", "included" if said.rate_card else "none included"),
        *(("reason", reason) for reason in said.reasons),
    ]


def _value(said: Acknowledgement) -> dict[str, object]:
    def moment(second: int) -> str:
        return rfc3339(from_ns(second * NANOSECONDS))

    return {
        "verdict": said.verdict.value,
        "appliance": said.appliance_id,
        "sequence": said.sequence,
        "report": said.report_hash.hex(),
        "head": said.head.hex(),
        "from": moment(said.period_from),
        "until": moment(said.period_until),
        "issued_at": moment(said.issued_at),
        "reasons": list(said.reasons),
        "licence": said.licence is not None,
        "rate_card": said.rate_card is not None,
    }
