"""The licence: what it allows now, and what another one would change."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from lotabotsd.cli.session import Session, json_option, pass_session, say_spread, show
from lotabotsd.cli.tables import Cell, limit_text, moment_text, pairs, table
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import write_atomically

MAX_LICENCE_BYTES = 1024 * 1024
_LIMITS = (
    ("requests per minute", "requests_per_minute"),
    ("inferences per month", "inferences_per_month"),
    ("GPUs", "gpus"),
    ("models live", "models_live"),
    ("organisations", "organisations"),
    ("members", "members"),
)


@click.group()
def licence() -> None:
    """The licence and what it allows."""


@licence.command("show")
@click.option("--states", is_flag=True, help="Also show every state that there is, with its effect.")
@json_option
@pass_session
def show_licence(session: Session, states: bool, as_json: bool) -> None:
    """Show what the licence allows, and whose keys are trusted."""
    found = session.client.get("licence")
    show(found, _shown, as_json=as_json)
    if states and not as_json:
        rows = [[row["state"], row["code"], row["effect"]] for row in found["states"]]
        click.echo(f"\n{table(('STATE', 'CODE', 'EFFECT'), rows)}")


@licence.command("install", short_help="Install the licence in FILE (or - for standard input).")
@click.argument(
    "files", metavar="FILE...", type=click.Path(path_type=Path, allow_dash=True), nargs=-1, required=True
)
@click.option("--check", is_flag=True, help="Only say what would change.")
@json_option
@pass_session
def install(session: Session, files: tuple[Path, ...], check: bool, as_json: bool) -> None:
    """Install the licence in FILE (or - for standard input): armoured, DSSE JSON, or the one line.

    It takes effect at once in all gate workers; running requests are not disturbed. Other files of the
    vendor's may be among them, in any order: keyrings, and lists of revoked licences. Of several files,
    keyrings that are not newer than the trusted one are skipped.
    """
    from .documents import Document  # here, so that --help does not wait for it

    documents = sorted((Document.read(file) for file in files), key=lambda document: document.order)
    if check and len(documents) > 1:
        raise LotaBotsError(
            Code.USAGE,
            "--check looks at one file: the later ones would be judged without the ones before",
            hint="check and install the files one by one: keyrings first, the licence last",
        )
    trusted = _trusted_keyring(session) if len(documents) > 1 else 0
    for document in documents:
        if document.superseded(trusted):
            skipped = {"skipped": "keyring", "version": document.order[1], "trusted": trusted}
            show(skipped, _skipped_text, as_json=as_json)
            continue
        change = session.client.put_bytes(*document.path, data=document.data, check="true" if check else None)
        show(change, partial(document.words, check=check), as_json=as_json)
        say_spread(change.get("spread"))


def _trusted_keyring(session: Session) -> int:
    """The version of the keyring that the appliance trusts; 0 where it does not say."""
    trust = session.client.get("licence")["trust"]
    return int(trust["keyring"]["version"]) if trust else 0


def _skipped_text(skipped: dict[str, Any]) -> str:
    return f"keyring {skipped['version']} skipped: keyring {skipped['trusted']} is trusted already"


@licence.command("request", short_help="Write a request for a licence of this machine.")
@click.option("--note", default="", help="For the vendor, as in an order number.")
@click.option("--output", type=click.Path(path_type=Path), help="New file.  [default: standard output]")
@json_option
@pass_session
def request(session: Session, note: str, output: Path | None, as_json: bool) -> None:
    """Write a request for a licence of this machine, to send to the vendor.

    It holds HMACs of the machine's identifiers, none of the identifiers. Compare the code with what the
    vendor reads: it is the same for the same request.
    """
    if output is not None and output.exists():
        raise LotaBotsError(Code.ALREADY_EXISTS, str(output), hint="choose another --output")
    found = session.client.get("licence", "request", note=note or None)
    if output is not None:
        write_atomically(output, found["text"].encode(), mode=0o644)
        found["file"] = str(output)
    if output is None and not as_json:
        click.echo(found["text"], nl=False)
        click.echo(_requested(found), err=True)
    else:
        show(found, _requested, as_json=as_json)


@licence.command("rollback")
@json_option
@pass_session
def rollback(session: Session, as_json: bool) -> None:
    """Go back to the licence that was installed before."""
    change = session.client.post("licence", "rollback")
    show(change, lambda found: f"licence rolled back; changed:\n{change_text(found)}", as_json=as_json)
    say_spread(change.get("spread"))


def _requested(found: dict[str, Any]) -> str:
    """What is in a request, for people."""
    return pairs(
        [
            ("code", found["short_code"]),
            ("appliance", found["appliance_id"]),
            ("components", ", ".join(found["components"])),
            ("GPUs", found["gpus"]),
            ("licence now", found["licence_id"] or "-"),
            *([("note", found["note"])] if found["note"] else []),
            *([("file", found["file"])] if "file" in found else []),
            ("next", "send it to the vendor, then: lotabotsctl licence install FILE"),
        ]
    )


def _shown(found: dict[str, Any]) -> str:
    trust = found["trust"]
    if trust is None:
        return standing_text(found["standing"])
    keyring, listed = trust["keyring"], trust["revocations"]
    said = f"list {listed['version']}, {listed['licences']} licences" if listed else "no list"
    entries: list[tuple[str, Cell]] = [
        ("keyring", f"{keyring['version']}, of {keyring['issued_at'][:10]}"),
        ("revoked", said),
    ]
    return f"{standing_text(found['standing'])}\n{pairs(entries)}"


def standing_text(standing: dict[str, Any]) -> str:
    """What the licence allows, as `licence show` prints it."""
    entries: list[tuple[str, Cell]] = [
        ("state", standing["state"]),
        ("code", standing["code"]),
        ("effect", standing["effect"]),
        ("tier", standing["tier"]),
        ("customer", standing["customer"]),
        ("licence", standing["licence_id"]),
        ("expires", moment_text(standing["expires_at_ns"])),
    ]
    if standing["development"]:
        entries.append(("development", "yes: signed under the published development keys, not billed"))
    if standing["clock_suspect"]:
        entries.append(("clock", "suspect: it stands before moments already seen; expiry is judged by those"))
    entries += [(name, _limit(standing, field)) for name, field in _LIMITS]
    entries.append(("features", ", ".join(sorted(standing["features"]))))
    return pairs(entries)


def change_text(change: dict[str, Any]) -> str:
    """What a licence changes, a line each."""
    before, after = change["before"], change["after"]
    names = [("state", "state"), ("tier", "tier"), ("licence", "licence_id"), *_LIMITS]
    lines: list[tuple[str, Cell]] = []
    for name, field in names:
        if before[field] != after[field]:
            lines.append((name, f"{_limit(before, field)} -> {_limit(after, field)}"))
    if before["expires_at_ns"] != after["expires_at_ns"]:
        lines.append(
            ("expires", f"{moment_text(before['expires_at_ns'])} -> {moment_text(after['expires_at_ns'])}")
        )
    gained = sorted(set(after["features"]) - set(before["features"]))
    lost = sorted(set(before["features"]) - set(after["features"]))
    if gained:
        lines.append(("features gained", ", ".join(gained)))
    if lost:
        lines.append(("features lost", ", ".join(lost)))
    if before["code"] != after["code"]:
        lines.append(("then", after["effect"]))
    return pairs(lines, indent=2) if lines else "  nothing"


def _limit(standing: dict[str, Any], field: str) -> str:
    value = standing[field]
    if not isinstance(value, int):
        return str(value) or "-"
    if field == "inferences_per_month" and value and not standing["quota_hard"]:
        return f"{limit_text(value)} (more is billed)"
    return limit_text(value)


def read_document(file: Path) -> bytes:
    """A signed document from a file, or from standard input for `-`."""
    try:
        if str(file) == "-":
            data = sys.stdin.buffer.read(MAX_LICENCE_BYTES + 1)
        else:
            with file.open("rb") as stream:
                data = stream.read(MAX_LICENCE_BYTES + 1)
    except OSError as error:
        raise LotaBotsError(Code.FILE_UNREADABLE, f"{file}: {error.strerror}") from error
    if len(data) > MAX_LICENCE_BYTES:
        raise LotaBotsError(Code.ENVELOPE_MALFORMED, f"{file} is larger than {MAX_LICENCE_BYTES} bytes")
    return data
