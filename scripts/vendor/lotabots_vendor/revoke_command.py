"""`licence revoke | revocations`: take licences back, and the list of them for every appliance."""

from __future__ import annotations

from pathlib import Path

import click

from lotabotsd.foundation.envelope import parse_envelope
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import write_atomically
from lotabotsd.licence.keyring import Use
from lotabotsd.licence.revocations import Revoked

from .authority import existing, newest_keyring
from .desk import Desk, pairs, printable
from .keyring_command import refuse_existing
from .licence_command import (
    authority_of,
    directory_option,
    form_option,
    issuing_key_option,
    output_option,
    spelled,
)
from .passphrase import Passphrases, passphrase_option
from .records import Records
from .revocation_list import needs_writing, write_next


@click.command("revoke", short_help="Take licences back; writes the list for appliances.")
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
    refuse_existing(output)
    authority = authority_of(directory, False, passphrases, issuing_key, Use.LICENCE, desk.now())
    records = Records(existing(directory) if directory else None)
    try:
        with records.writing():
            unknown = [name for name in licence_ids if records.licence(name) is None]
            if unknown:
                raise LotaBotsError(Code.NOT_FOUND, f"{unknown[0]} was not issued here")
            now = desk.now()
            before = {name: known for name, known in records.revoked().items() if name in licence_ids}
            new = [name for name in licence_ids if records.revoke(name, Revoked(reason, now))]
            newest = records.newest_revocations()
            if new or newest is None or needs_writing(records, authority.keyring):
                newest = write_next(records, authority, now)
            number = len(records.revoked())
    finally:
        records.close()
    for name, known in before.items():
        # Its reason stays as the customer was told it first.
        click.echo(
            printable(f"{name} was revoked before, on {known.revoked_at:%Y-%m-%d}, for: {known.reason}"),
            err=True,
        )
    _hand_out(desk, newest, number, form, output, {name: known.reason for name, known in before.items()})


@click.command("revocations", short_help="Write the newest list of revoked licences again.")
@directory_option
@passphrase_option
@issuing_key_option
@form_option
@output_option
@click.pass_obj
def revocations(
    desk: Desk,
    directory: Path | None,
    passphrases: Passphrases,
    issuing_key: str | None,
    form: str,
    output: Path | None,
) -> None:
    """Write the newest list of revoked licences again.

    Where appliances refuse it by now, since the key that signed it was revoked, the next version is signed by
    a key that may; only then is a passphrase needed.
    """
    if directory is None:
        raise LotaBotsError(Code.USAGE, "which directory?", hint="give --dir DIR")
    refuse_existing(output)
    keyring = newest_keyring(existing(directory))
    records = Records(directory)
    try:
        newest = records.newest_revocations()
        if needs_writing(records, keyring):
            # Before the transaction: nobody waits for what is typed.
            authority = authority_of(directory, False, passphrases, issuing_key, Use.LICENCE, desk.now())
            with records.writing():
                newest = records.newest_revocations()
                if needs_writing(records, authority.keyring):
                    newest = write_next(records, authority, desk.now())
        number = len(records.revoked())
    finally:
        records.close()
    if newest is None:
        raise LotaBotsError(Code.NOT_FOUND, "no licence was revoked yet", hint="licence list shows them")
    _hand_out(desk, newest, number, form, output, None)


def _hand_out(
    desk: Desk,
    listed: tuple[int, bytes],
    number: int,
    form: str,
    output: Path | None,
    before: dict[str, str] | None,
) -> None:
    """Write a list, or print it; `before`: those asked for that were revoked before, and why."""
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
        **({} if before is None else {"revoked_before": before}),
    }
    desk.answer(value, pairs([("list", version), ("revoked", number), ("file", output)]))
