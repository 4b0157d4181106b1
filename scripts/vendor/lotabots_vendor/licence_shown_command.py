"""`licence show | list`: licences read back as an appliance would, and from the vendor's own books."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from lotabotsd.foundation.envelope import MAX_ENVELOPE_BYTES, parse_envelope
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded
from lotabotsd.licence.claims import to_claims
from lotabotsd.licence.document import open_licence

from .authority import development_authority, existing, newest_keyring
from .desk import Desk, printable
from .keyring_command import refuse_existing
from .licence_command import development_option, directory_option, hand_out, one_of_both, summary
from .records import Records

_LICENCE_ID = re.compile(r"lic_[0-9A-Za-z]{16}")


@click.command("show", short_help="Show the licence in FILE (or -), or one issued before.")
@directory_option
@development_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["armour", "json", "line"]),
    help="How a LICENCE-ID is written.  [default: armour]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="New file, with a LICENCE-ID.  [default: standard output]",
)
@click.argument("file", metavar="FILE|LICENCE-ID", type=click.Path(path_type=Path, allow_dash=True))
@click.pass_obj
def show(
    desk: Desk, directory: Path | None, development: bool, form: str | None, output: Path | None, file: Path
) -> None:
    """Verify the licence in FILE (or - for standard input) and show its claims.

    With a LICENCE-ID, write the licence that was issued from DIR once more, as licence issue did.
    """
    if development == (directory is not None):
        raise one_of_both()
    if directory is not None and _LICENCE_ID.fullmatch(str(file)) and not file.exists():
        _again(desk, existing(directory), str(file), form or "armour", output)
        return
    if form is not None or output is not None:
        raise LotaBotsError(
            Code.USAGE,
            "--format and --output write an issued licence once more, and this is no licence id",
            hint="give --dir DIR and the licence's id, as licence list shows it",
        )
    keyring = newest_keyring(existing(directory)) if directory else development_authority().keyring
    data = (
        sys.stdin.buffer.read(MAX_ENVELOPE_BYTES + 1)
        if str(file) == "-"
        else read_bounded(file, MAX_ENVELOPE_BYTES)
    )
    opened = open_licence(data, keyring)
    claims = to_claims(opened.licence)
    facts = {"licence": claims, "signer": opened.signer, "digest": opened.digest, "development": development}
    desk.answer(facts, summary(claims, ("signer", opened.signer)))


@click.command("list")
@directory_option
@click.pass_obj
def list_issued(desk: Desk, directory: Path | None) -> None:
    """List the licences that were issued from a directory."""
    if directory is None:
        raise LotaBotsError(Code.USAGE, "which directory?", hint="give --dir DIR")
    records = Records(existing(directory))
    revoked = records.revoked()
    found = [{**entry, "revoked": str(entry["licence_id"]) in revoked} for entry in records.licences()]
    records.close()
    lines = [
        f"{entry['sequence']:>6}  {entry['licence_id']}  {entry['tier']:<10}  {entry['kind']:<11}"
        f"  {'revoked' if entry['revoked'] else str(entry['expires_at'])[:10]:<10}  {entry['customer']}"
        for entry in found
    ]
    desk.answer(found, lines or ["no licence was issued yet"])


def _again(desk: Desk, directory: Path, licence_id: str, form: str, output: Path | None) -> None:
    """Write an issued licence once more; say so where no appliance takes it any longer."""
    refuse_existing(output)
    keyring = newest_keyring(directory)
    records = Records(directory)
    try:
        data, revoked = records.licence(licence_id), records.revoked().get(licence_id)
    finally:
        records.close()
    if data is None:
        raise LotaBotsError(
            Code.NOT_FOUND,
            f"{licence_id} was not issued here",
            hint=f"see them: lotabots-vendor licence list --dir {directory}",
        )
    if revoked is not None:
        when = f"{revoked.revoked_at:%Y-%m-%d}"
        click.echo(printable(f"warning: it was revoked on {when}, for: {revoked.reason}"), err=True)
    try:
        open_licence(data, keyring)
    except LotaBotsError as error:
        click.echo(printable(f"warning: appliances refuse it, issue another one: {error}"), err=True)
    hand_out(desk, parse_envelope(data), form, output, kept=True)
