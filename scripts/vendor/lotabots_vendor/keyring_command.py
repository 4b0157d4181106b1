"""`keyring rotate`: a new issuing key for the vendor, a keyring file for every appliance."""

from __future__ import annotations

from pathlib import Path

import click

from .authority import rotate_issuing
from .desk import Desk, pairs
from .passphrase import read_passphrase
from .root_command import issuing_days, passphrase_file


@click.group()
def keyring() -> None:
    """The issuing keys that the root vouches for."""


@keyring.command("rotate")
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), required=True, help="The vendor's directory."
)
@click.option(
    "--revoke", multiple=True, metavar="KEYID", help="Trust this issuing key no longer (repeatable)."
)
@passphrase_file
@issuing_days
@click.pass_obj
def rotate(
    desk: Desk, directory: Path, revoke: tuple[str, ...], passphrase_file: Path | None, issuing_days: int
) -> None:
    """Make the next issuing key and the keyring statement that names it; needs DIR/offline.

    Licences issued before stay valid, except those that a revoked key signed.
    """
    following, path = rotate_issuing(
        directory, read_passphrase(passphrase_file), desk.now(), issuing_days, revoke
    )
    facts = {
        "version": following.version,
        "issuing_key": following.keys[-1].keyid,
        "revoked": sorted(following.revoked),
        "keyring": str(path),
    }
    lines = pairs([(name, (", ".join(v) or "-") if isinstance(v, list) else v) for name, v in facts.items()])
    desk.answer(facts, lines)
