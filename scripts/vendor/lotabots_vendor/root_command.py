"""`root init | rotate | key`: the offline roots, how many of them must sign, and the anchors for releases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lotabotsd.foundation.clock import rfc3339
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.licence.keyring import Keyring, Use

from .authority import existing, newest_keyring
from .ceremony import OFFLINE, Wanted, create, open_roots, plan, raw_root, rotate_at_once
from .desk import Desk, pairs
from .issuing import KINDS
from .key_uri import NewKey, keyid_of, path_of
from .keyring_change import MAX_ROOTS, differences
from .passphrase import Passphrases, for_new_keys, new_passphrase_option, passphrase_option

vendor_directory = click.option(
    "--dir", "directory", type=click.Path(path_type=Path), required=True, help="The vendor's directory."
)
issuing_days = click.option(
    "--issuing-days",
    type=click.IntRange(1, 3650),
    default=1095,
    show_default=True,
    help="Life of the issuing key.",
)
add_root_option = click.option(
    "--add-root",
    multiple=True,
    metavar="PUBLIC",
    help="A new root made elsewhere with root key (repeatable).",
)
remove_root_option = click.option(
    "--remove-root", multiple=True, metavar="KEYID", help="A root that signs no longer (repeatable)."
)
threshold_option = click.option(
    "--threshold",
    type=click.IntRange(1, MAX_ROOTS),
    help="How many roots must sign from then on.  [default: as now]",
)
root_key_option = click.option(
    "--root-key",
    "root_keys",
    multiple=True,
    metavar="URI",
    help="A root that signs (repeatable).  [default: those needed of DIR/offline]",
)


@click.group()
def root() -> None:
    """The offline roots that everything hangs on."""


@root.command("init", short_help="Make the roots, an issuing key and the first keyring.")
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), required=True, help="New directory for everything."
)
@click.option(
    "--roots", type=click.IntRange(1, MAX_ROOTS), default=1, show_default=True, help="How many roots to make."
)
@click.option(
    "--threshold",
    type=click.IntRange(1, MAX_ROOTS),
    default=1,
    show_default=True,
    help="How many of them must sign a keyring.",
)
@passphrase_option
@issuing_days
@click.pass_obj
def init(
    desk: Desk, directory: Path, roots: int, threshold: int, passphrases: Passphrases, issuing_days: int
) -> None:
    """Make roots, an issuing key, the keyring that names it, and the anchors for build-bundle.

    --passphrase-file once is for all keys; several times, for root 1, root 2, … and last the issuing key.
    Then carry DIR/offline away, each root to its holder: they are needed again only for the next keyring.
    """
    anchors = create(
        directory, passphrases.to_make, desk.now(), days=issuing_days, roots=roots, threshold=threshold
    )
    facts: dict[str, Any] = {
        "root": next(iter(anchors.roots)),
        "roots": sorted(anchors.roots),
        "threshold": anchors.threshold,
        "issuing_key": anchors.keyring.keys[0].keyid,
        "issuing_key_ends": rfc3339(anchors.keyring.keys[0].not_after),
        "anchors": str(directory / "anchors"),
        "offline": str(directory / OFFLINE),
    }
    shown = [(name, value) for name, value in facts.items() if name not in ("root", "roots")]
    lines = pairs([*(("root", keyid) for keyid in facts["roots"]), *shown])
    lines += [
        "",
        "Carry the offline directory away from this machine, twice; with several roots, each to its holder.",
        "Releases: build-bundle --anchors DIR",
    ]
    desk.answer(facts, lines)


@root.command("rotate", short_help="Replace, add or remove roots; change the threshold.")
@vendor_directory
@click.option("--new-roots", type=click.IntRange(0, MAX_ROOTS), help="How many roots to make in DIR/offline.")
@add_root_option
@remove_root_option
@threshold_option
@root_key_option
@passphrase_option
@new_passphrase_option
@click.pass_obj
def rotate(
    desk: Desk,
    /,
    directory: Path,
    new_roots: int | None,
    add_root: tuple[str, ...],
    remove_root: tuple[str, ...],
    threshold: int | None,
    root_keys: tuple[str, ...],
    passphrases: Passphrases,
    new_passphrases: Passphrases,
) -> None:
    """Replace, add or remove roots, or change how many must sign; without options, replace all by new ones.

    The next keyring is signed by enough of the present roots and of the new ones, so that appliances follow
    it by its file alone; new releases carry the new anchors. Where the roots are apart: keyring draft.
    """
    wanted = _wanted_roots(existing(directory), new_roots, add_root, remove_root, threshold)
    planned = plan(directory, wanted, desk.now(), for_new_keys(new_passphrases, passphrases).to_make)
    signers = open_roots(directory, planned, root_keys, passphrases.to_open)
    path = rotate_at_once(directory, planned, signers)
    made = [str(file) for file in planned.files]
    facts = {
        "version": planned.following.version,
        "roots": sorted(planned.following.roots),
        "threshold": planned.following.threshold,
        "new_root_files": made,
        "keyring": str(path),
        "anchors": str(directory / "anchors"),
    }
    lines = pairs([*differences(planned.current, planned.following), ("keyring", path)])
    lines += ["", *([f"Carry away, each to its holder: {', '.join(made)}"] if made else [])]
    lines += after_a_keyring(planned.current, planned.following)
    desk.answer(facts, lines)


@root.command("key", short_help="Make one root key on its holder's own machine.")
@passphrase_option
@click.argument("file", metavar="URI")
@click.pass_obj
def key(desk: Desk, passphrases: Passphrases, file: str) -> None:
    """Make one root key on its holder's own machine, and print the public half for --add-root."""
    path = path_of(file)
    made = NewKey(passphrases.to_make([path.name])[0])
    made.save(path)
    facts = {"root": keyid_of(made), "public": b64url(made.public), "file": str(path)}
    lines = pairs(list(facts.items()))
    lines += ["", "Give the public half to whoever writes the draft: keyring draft --add-root PUBLIC"]
    desk.answer(facts, lines)


def after_a_keyring(before: Keyring, after: Keyring) -> list[str]:
    """What to do once a keyring is in force."""
    lines = [
        "Next: send the keyring to every appliance, before anything that a new key signs.",
        "Releases from now on carry the new anchors: build-bundle --anchors DIR",
    ]
    lines += [
        f"No key may sign {KINDS[use]} now: lotabots-vendor keyring rotate --use {use.value}"
        for use in Use
        if not after.trusted_keys(use, after.issued_at)
    ]
    if set(before.roots) - set(after.roots):
        lines.append("The roots that left are needed no more once DIR/keyrings is backed up.")
    return lines


def _wanted_roots(
    directory: Path,
    new_roots: int | None,
    add_root: tuple[str, ...],
    remove_root: tuple[str, ...],
    threshold: int | None,
) -> Wanted:
    """What the options say; none at all replaces every root by a new one."""
    keyring = newest_keyring(directory)
    if new_roots is None and not add_root and not remove_root and threshold is None:
        return Wanted(new_roots=len(keyring.roots), remove_roots=tuple(sorted(keyring.roots)))
    return Wanted(
        new_roots=new_roots or 0,
        add_roots=tuple(raw_root(text) for text in add_root),
        remove_roots=remove_root,
        threshold=threshold,
    )
