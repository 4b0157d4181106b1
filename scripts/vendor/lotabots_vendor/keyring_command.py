"""`keyring rotate | draft | sign | finish | show`: which keys issue, told to appliances by a signed file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lotabotsd.foundation.clock import rfc3339
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded, write_atomically
from lotabotsd.licence.keyring import Keyring, Use

from .authority import MAX_DOCUMENT_BYTES, existing, newest_keyring
from .ceremony import Wanted, finish, open_roots, plan, raw_root, rotate_at_once, signed, write_draft
from .desk import Desk, pairs
from .draft import Draft, draft_bytes, parse_draft
from .issuing import held_keys
from .key_uri import open_signer
from .keyring_change import MAX_ROOTS, differences, still_to_sign, words
from .passphrase import Passphrases, for_new_keys, new_passphrase_option, passphrase_option
from .records import BOOK, Records
from .revocation_list import Left, left_by
from .root_command import (
    add_root_option,
    after_a_keyring,
    issuing_days,
    remove_root_option,
    root_key_option,
    threshold_option,
    vendor_directory,
)

ALL = "all"
revoke_option = click.option(
    "--revoke", multiple=True, metavar="KEYID", help="Trust this issuing key no longer (repeatable)."
)


@click.group()
def keyring() -> None:
    """The issuing keys that the roots vouch for."""


@keyring.command("rotate", short_help="Make another issuing key, or revoke one.")
@vendor_directory
@click.option(
    "--use",
    "uses",
    type=click.Choice([*(use.value for use in Use), ALL]),
    multiple=True,
    help="What the new key may sign (repeatable).  [default: all]",
)
@revoke_option
@root_key_option
@passphrase_option
@new_passphrase_option
@issuing_days
@click.pass_obj
def rotate(
    desk: Desk,
    /,
    directory: Path,
    uses: tuple[str, ...],
    revoke: tuple[str, ...],
    root_keys: tuple[str, ...],
    passphrases: Passphrases,
    new_passphrases: Passphrases,
    issuing_days: int,
) -> None:
    """Make another issuing key and the keyring statement that names it; needs the roots.

    Keys made before stay alive; what they signed stays valid, except under those that are revoked.
    """
    wanted = Wanted(uses=_uses(uses or (ALL,)), issuing_days=issuing_days, revoke=revoke)
    planned = plan(
        existing(directory), wanted, desk.now(), for_new_keys(new_passphrases, passphrases).to_make
    )
    signers = open_roots(directory, planned, root_keys, passphrases.to_open)
    left = _left_to_do(desk, directory, planned.current, planned.following)
    path = rotate_at_once(directory, planned, signers)
    key = planned.following.keys[-1]
    facts: dict[str, Any] = {
        "version": planned.following.version,
        "issuing_key": key.keyid,
        "uses": sorted(key.uses),
        "issuing_key_file": str(next(iter(planned.files))),
        "revoked": sorted(planned.following.revoked),
        "keyring": str(path),
    }
    lines = pairs([(name, (", ".join(v) or "-") if isinstance(v, list) else v) for name, v in facts.items()])
    following = [*after_a_keyring(planned.current, planned.following), *left.lines(directory)]
    desk.answer({**facts, **left.value()}, [*lines, "", *following])


@keyring.command("draft", short_help="Write the next keyring unsigned, for roots elsewhere.")
@vendor_directory
@click.option(
    "--use",
    "uses",
    type=click.Choice([*(use.value for use in Use), ALL]),
    multiple=True,
    help="Make another issuing key for this (repeatable).  [default: make none]",
)
@revoke_option
@click.option(
    "--new-roots",
    type=click.IntRange(0, MAX_ROOTS),
    default=0,
    help="How many roots to make in DIR/offline; better are those of --add-root.",
)
@add_root_option
@remove_root_option
@threshold_option
@new_passphrase_option
@issuing_days
@click.option("--output", type=click.Path(path_type=Path), required=True, help="New file for the draft.")
@click.pass_obj
def draft(
    desk: Desk,
    /,
    directory: Path,
    uses: tuple[str, ...],
    revoke: tuple[str, ...],
    new_roots: int,
    add_root: tuple[str, ...],
    remove_root: tuple[str, ...],
    threshold: int | None,
    new_passphrases: Passphrases,
    issuing_days: int,
    output: Path,
) -> None:
    """Write the next keyring unsigned, for holders of roots in different places. Needs no root."""
    refuse_existing(output)
    wanted = Wanted(
        uses=_uses(uses),
        issuing_days=issuing_days,
        revoke=revoke,
        new_roots=new_roots,
        add_roots=tuple(raw_root(text) for text in add_root),
        remove_roots=remove_root,
        threshold=threshold,
    )
    planned = plan(existing(directory), wanted, desk.now(), new_passphrases.to_make)
    written = write_draft(planned)
    write_atomically(output, draft_bytes(written), mode=0o644)
    made = [str(file) for file in planned.files]
    _tell(desk, written, output, [*(("made", file) for file in made)], made=made)


@keyring.command("sign", short_help="Look at a draft, and add one root's signature.")
@click.option("--key", "uri", metavar="URI", help="The root that signs.")
@passphrase_option
@click.option("--check", is_flag=True, help="Only show what would be signed; nothing is written.")
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def sign(desk: Desk, uri: str | None, passphrases: Passphrases, check: bool, file: Path) -> None:
    """Show what the draft in FILE changes and add one root's signature to it; needs no directory.

    Read what is shown first (--check): the roots that stay and go, the new keys, what is revoked.
    """
    before = parse_draft(read_bounded(file, MAX_DOCUMENT_BYTES))
    if check:
        _tell(desk, before, file, [])
        return
    if uri is None:
        raise LotaBotsError(Code.USAGE, "which root signs?", hint="give --key URI, or --check to look only")
    after = signed(before, open_signer(uri, passphrases.to_open))
    write_atomically(file, draft_bytes(after), mode=0o644)
    _tell(desk, after, file, [("signed by", after.signers[-1])])


@keyring.command("finish", short_help="Put a draft in force that has enough signatures.")
@vendor_directory
@click.argument("files", metavar="FILE...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.pass_obj
def finish_draft(desk: Desk, directory: Path, files: tuple[Path, ...]) -> None:
    """Put a signed draft in force: into DIR/keyrings for appliances, into DIR/anchors for releases.

    Several FILEs are copies of one draft that were signed apart. Doing it again changes nothing.
    """
    drafts = [parse_draft(read_bounded(file, MAX_DOCUMENT_BYTES)) for file in files]
    first = drafts[0]
    left = _left_to_do(desk, existing(directory), first.current, first.following)
    path = finish(directory, drafts)
    facts = {
        "version": first.following.version,
        "threshold": first.following.threshold,
        "keyring": str(path),
        "anchors": str(directory / "anchors"),
    }
    following = [*after_a_keyring(first.current, first.following), *left.lines(directory)]
    desk.answer({**facts, **left.value()}, [*pairs(list(facts.items())), "", *following])


@keyring.command("show", short_help="Show the roots and issuing keys in force.")
@vendor_directory
@click.pass_obj
def show(desk: Desk, directory: Path) -> None:
    """Show the roots and issuing keys of the newest keyring, and which issuing keys lie in DIR/issuing."""
    found = newest_keyring(existing(directory))
    here = {held.keyid: str(held.path) for held in held_keys(directory)}
    keys = [
        {
            "keyid": key.keyid,
            "uses": sorted(key.uses),
            "not_before": rfc3339(key.not_before),
            "not_after": rfc3339(key.not_after),
            "state": _state(key.keyid in found.revoked, key.not_after <= desk.now()),
            "file": here.get(key.keyid),
        }
        for key in found.keys
    ]
    value = {
        "version": found.version,
        "issued_at": rfc3339(found.issued_at),
        "roots": sorted(found.roots),
        "threshold": found.threshold,
        "keys": keys,
        "revoked": sorted(found.revoked),
    }
    entries: list[tuple[str, object]] = [
        ("version", f"{found.version}, of {value['issued_at']}"),
        ("threshold", f"{found.threshold} of {len(found.roots)} roots"),
        *(("root", keyid) for keyid in sorted(found.roots)),
    ]
    for key in found.keys:
        state = _state(key.keyid in found.revoked, key.not_after <= desk.now())
        where = "here" if key.keyid in here else "not here"
        entries.append(
            ("key", f"{key.keyid}  {state:<7}  until {key.not_after:%Y-%m-%d}  {where:<8}  {words(key.uses)}")
        )
    desk.answer(value, pairs(entries))


def _left_to_do(desk: Desk, directory: Path, before: Keyring, after: Keyring) -> Left:
    """What counts for nothing once that keyring is in force; looked up before, since books may be damaged.

    Where the books lie elsewhere nothing is known of them.
    """
    if not (directory / BOOK).exists():
        return Left((), False, ())
    records = Records(directory)
    try:
        return left_by(records, before, after, desk.now())
    finally:
        records.close()


def refuse_existing(output: Path | None) -> None:
    """Whether a new file may be written, before anything is done that cannot be undone.

    Raises ALREADY_EXISTS: what was written once is never overwritten; FILE_UNWRITABLE without its directory.
    """
    if output is None:
        return
    if output.exists():
        raise LotaBotsError(Code.ALREADY_EXISTS, str(output), hint="choose another --output")
    if not output.parent.is_dir():
        raise LotaBotsError(
            Code.FILE_UNWRITABLE, f"{output}: there is no directory {output.parent}", hint="make it first"
        )


def _uses(names: tuple[str, ...]) -> frozenset[Use]:
    return frozenset(Use) if ALL in names else frozenset(Use(name) for name in names)


def _state(revoked: bool, ended: bool) -> str:
    if revoked:
        return "revoked"
    return "ended" if ended else "alive"


def _tell(desk: Desk, draft: Draft, file: Path, also: list[tuple[str, str]], **facts: Any) -> None:
    """What a draft says, who has signed it, and what comes next."""
    changes = differences(draft.current, draft.following)
    wanted = still_to_sign(draft.current, draft.following, draft.signers)
    value = {
        "version": draft.following.version,
        "changes": [list(change) for change in changes],
        "signatures": draft.signers,
        "complete": draft.support.met,
        "can_still_sign": wanted,
        "draft": str(file),
        **facts,
    }
    lines = pairs([*changes, *also, ("signatures", str(draft.support)), ("draft", file)])
    if draft.support.met:
        lines += ["", f"Next: lotabots-vendor keyring finish --dir DIR {file}"]
    else:
        lines += ["", f"Next: a holder of one of these: lotabots-vendor keyring sign --key URI {file}"]
        lines += [f"  {keyid}" for keyid in wanted]
    desk.answer(value, lines)
