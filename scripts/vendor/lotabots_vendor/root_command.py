"""`root init`: make the vendor's offline root, its first issuing key, and the anchors for releases."""

from __future__ import annotations

from pathlib import Path

import click

from .authority import create
from .desk import Desk, pairs
from .passphrase import read_passphrase

passphrase_file = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    help="File (mode 0600) whose first line is the passphrase of the private keys; else it is asked for.",
)
issuing_days = click.option(
    "--issuing-days",
    type=click.IntRange(1, 3650),
    default=1095,
    show_default=True,
    help="Life of the issuing key.",
)


@click.group()
def root() -> None:
    """The offline root that everything hangs on."""


@root.command("init")
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), required=True, help="New directory for everything."
)
@passphrase_file
@issuing_days
@click.pass_obj
def init(desk: Desk, directory: Path, passphrase_file: Path | None, issuing_days: int) -> None:
    """Make a root, an issuing key, the keyring that names it, and the anchors for build-bundle.

    Afterwards carry DIR/offline away: it is needed again only for `keyring rotate`.
    """
    anchors = create(directory, read_passphrase(passphrase_file, confirm=True), desk.now(), issuing_days)
    facts = {
        "root": next(iter(anchors.roots)),
        "issuing_key": anchors.keyring.keys[0].keyid,
        "issuing_key_ends": anchors.keyring.keys[0].not_after.isoformat(),
        "anchors": str(directory / "anchors"),
        "offline": str(directory / "offline"),
    }
    lines = pairs(list(facts.items()))
    lines += [
        "",
        "Carry the offline directory away from this machine, twice.",
        "Releases: build-bundle --anchors DIR",
    ]
    desk.answer(facts, lines)
