"""`licence revoke | revocations`: take licences back, and the list of them for every appliance."""

from __future__ import annotations

from pathlib import Path

import click

from lotabotsd.foundation.envelope import parse_envelope
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import write_atomically
from lotabotsd.licence.keyring import Use
from lotabotsd.licence.revocations import Revocations, Revoked

from .authority import existing
from .desk import Desk, pairs
from .licence_command import authority_of, directory_option, issuing_key_option, spelled
from .passphrase import Passphrases, passphrase_option
from .records import Records
from .statements import revocations_body

form_option = click.option(
    "--format", "form", type=click.Choice(["armour", "json", "line"]), default="armour", show_default=True
)
output_option = click.option(
    "--output", type=click.Path(path_type=Path), help="New file.  [default: standard output]"
)


@click.command("revoke")
@directory_option
@passphrase_option
@issuing_key_option
@click.option("--reason", required=True, help="Why, as the customer is told.")
@form_option
@output_option
@click.argument("licence_ids", metavar="LICENCE-ID...", nargs=-1, required=True)
@click.pass_obj
def revoke(
    desk: Desk,
    directory: Path | None,
    passphrases: Passphrases,
    issuing_key: str | None,
    reason: str,
    form: str,
    output: Path | None,
    licence_ids: tuple[str, ...],
) -> None:
    """Take licences back, and write the list of all that were ever taken back.

    An appliance learns of it from the list alone: send it with whatever you send next. It cannot be undone; a
    customer who gets back what was taken gets a new licence.
    """
    if output is not None and output.exists():
        raise LotaBotsError(Code.ALREADY_EXISTS, str(output), hint="choose another --output")
    authority = authority_of(directory, False, passphrases, issuing_key, Use.LICENCE, desk.now())
    records = Records(existing(directory) if directory else None)
    try:
        with records.writing():
            unknown = [name for name in licence_ids if records.licence(name) is None]
            if unknown:
                raise LotaBotsError(Code.NOT_FOUND, f"{unknown[0]} was not issued here")
            now = desk.now()
            new = [name for name in licence_ids if records.revoke(name, Revoked(reason, now))]
            newest = records.newest_revocations()
            if new or newest is None:
                version = (newest[0] if newest else 0) + 1
                body = revocations_body(Revocations(version, now, records.revoked()))
                newest = version, authority.sign_revocations(body, now).to_json()
                records.add_revocations(*newest)
            number = len(records.revoked())
    finally:
        records.close()
    _hand_out(desk, newest, number, form, output)


@click.command("revocations")
@directory_option
@form_option
@output_option
@click.pass_obj
def revocations(desk: Desk, directory: Path | None, form: str, output: Path | None) -> None:
    """Write the newest list of revoked licences again."""
    if directory is None:
        raise LotaBotsError(Code.USAGE, "which directory?", hint="give --dir DIR")
    if output is not None and output.exists():
        raise LotaBotsError(Code.ALREADY_EXISTS, str(output), hint="choose another --output")
    records = Records(existing(directory))
    newest, number = records.newest_revocations(), len(records.revoked())
    records.close()
    if newest is None:
        raise LotaBotsError(Code.NOT_FOUND, "no licence was revoked yet", hint="licence list shows them")
    _hand_out(desk, newest, number, form, output)


def _hand_out(desk: Desk, listed: tuple[int, bytes], number: int, form: str, output: Path | None) -> None:
    version, envelope = listed
    text = spelled(parse_envelope(envelope), form)
    if output is not None:
        write_atomically(output, text.encode(), mode=0o640)
    elif not desk.as_json:
        click.echo(text, nl=not text.endswith("\n"))
        click.echo(f"list {version}: {number} revoked", err=True)
        return
    value = {
        "version": version,
        "revoked": number,
        "file": str(output) if output else None,
        "text": None if output else text,
    }
    desk.answer(value, pairs([("list", version), ("revoked", number), ("file", output)]))
