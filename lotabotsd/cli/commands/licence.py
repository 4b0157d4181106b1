"""The licence: what it allows now, and what another one would change."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from lotabotsd.cli.session import Session, json_option, pass_session, say_spread, show
from lotabotsd.cli.tables import Cell, limit_text, moment_text, pairs
from lotabotsd.foundation.errors import Code, LotaBotsError

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
@json_option
@pass_session
def show_licence(session: Session, as_json: bool) -> None:
    """Show what the licence allows now."""
    show(session.client.get("licence"), lambda found: standing_text(found["standing"]), as_json=as_json)


@licence.command("install", short_help="Install the licence in FILE (or - for standard input).")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--check", is_flag=True, help="Only say what would change.")
@json_option
@pass_session
def install(session: Session, file: Path, check: bool, as_json: bool) -> None:
    """Install the licence in FILE (or - for standard input): armoured, DSSE JSON, or the one line.

    It takes effect at once in all gate workers; running requests are not disturbed.
    """
    data = read_document(file)
    change = session.client.put_bytes("licence", data=data, check="true" if check else None)
    title = "this would change:" if check else "licence installed; changed:"
    show(change, lambda found: f"{title}\n{change_text(found)}", as_json=as_json)
    say_spread(change.get("spread"))


@licence.command("rollback")
@json_option
@pass_session
def rollback(session: Session, as_json: bool) -> None:
    """Go back to the licence that was installed before."""
    change = session.client.post("licence", "rollback")
    show(change, lambda found: f"licence rolled back; changed:\n{change_text(found)}", as_json=as_json)
    say_spread(change.get("spread"))


def standing_text(standing: dict[str, Any]) -> str:
    """What the licence allows, as `licence show` prints it."""
    entries: list[tuple[str, Cell]] = [
        ("state", standing["state"]),
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
