"""The ledger: proving that it is whole, and taking old, acknowledged windows out of it."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from lotabotsd.cli.session import Session, json_option, make_sure, pass_session, show, yes_option
from lotabotsd.cli.tables import Cell, grouped, moment_text, pairs
from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.foundation.errors import Code, Exit, LotaBotsError

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0


@click.group(short_help="The chain of hours that everything billed comes from.")
def ledger() -> None:
    """The ledger: the chain of hours that everything billed comes from."""


@ledger.command("verify", short_help="Walk the chain and name its first fault.")
@json_option
@pass_session
def verify(session: Session, as_json: bool) -> int:
    """Walk the chain and name its first fault, and what Triton ran beyond it. Exit 3 when there is one.

    The walk runs in lotabotsd and may take minutes; on a terminal its progress is shown.
    """
    verdict = _walk(session)
    show(verdict, _verdict, as_json=as_json)
    return Exit.OK if verdict["ok"] else Exit.CHECK_FAILED


@ledger.command("purge", short_help="Take out old windows that the vendor acknowledged.")
@click.option("--check", is_flag=True, help="Only say what would be taken out.")
@yes_option
@json_option
@pass_session
def purge(session: Session, check: bool, yes: bool, as_json: bool) -> None:
    """Take out windows that the vendor acknowledged and that are older than usage.retention_days.

    What was never acknowledged stays, however old it is. The reports' files in the outbox stay too.
    """
    planned = session.client.get("ledger", "purge")["purge"]
    if check or planned is None:
        show(planned, lambda found: _purge(found, done=False), as_json=as_json)
        return
    until = moment_text(planned["until"] * NANOSECONDS)
    make_sure(f"take {grouped(planned['rows'])} rows, until {until}, out of the ledger for ever?", yes=yes)
    done = session.client.patient().post("ledger", "purge")["purge"]
    show(done, lambda found: _purge(found, done=True), as_json=as_json)


def _walk(session: Session) -> dict[str, Any]:
    """Begin a walk, or join the one under way, and wait for its verdict."""
    found = session.client.post("ledger", "verification")
    shown, pause_seconds = sys.stderr.isatty(), _FIRST_PAUSE_SECONDS
    while found["running"]:
        time.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
        found = session.client.get("ledger", "verification")
        if shown and found["last"]:
            click.echo(f"\r{grouped(found['row'])} of {grouped(found['last'])} rows", nl=False, err=True)
    if shown:
        click.echo("\r\x1b[K", nl=False, err=True)
    verdict: dict[str, Any] | None = found["verdict"]
    if verdict is None:
        raise LotaBotsError(Code.DAEMON_UNAVAILABLE, "it was started anew meanwhile", hint="verify again")
    return verdict


def _verdict(verdict: dict[str, Any]) -> str:
    entries: list[tuple[str, Cell]] = [
        ("integrity", _check(verdict["integrity"])),
        ("completeness", _check(verdict["completeness"])),
        ("triton", _triton(verdict["triton"])),
        ("rows", verdict["rows"]),
        ("head", verdict["head"]),
    ]
    if verdict["proven_from"] > 1:
        since = moment_text(verdict["proven_since"] * NANOSECONDS)
        proven = f"row {grouped(verdict['proven_from'])} on, since {since}; what was before is purged"
        entries.append(("proven from", proven))
    return pairs(entries)


def _check(check: dict[str, Any]) -> str:
    if check["ok"]:
        return "good"
    where = f" at row {check['sequence']}" if check["sequence"] else ""
    return f"{check['fault']}{where}: {check['detail']}"


def _triton(compared: dict[str, Any]) -> str:
    """Whether Triton's own counters agree, as far as they were compared."""
    if not compared["until_ns"]:
        return "its counters were not compared yet"
    since = moment_text(compared["since_ns"])
    if compared["ok"]:
        return f"good: it counted nothing that is not here, since {since}"
    return (
        f"it ran at least {grouped(compared['requests'])} requests with {grouped(compared['inferences'])} "
        f"inferences that are not here, since {since}: find who reaches its sockets around the gate"
    )


def _purge(found: dict[str, Any] | None, *, done: bool) -> str:
    if found is None:
        return "nothing to purge: no acknowledged window is older than usage.retention_days"
    title = "taken out:" if done else "this would be taken out:"
    entries: list[tuple[str, Cell]] = [
        ("rows", f"{grouped(found['first'])} to {grouped(found['last'])}"),
        ("reports", found["reports"]),
        ("until", moment_text(found["until"] * NANOSECONDS)),
        ("last hash", found["head"]),
    ]
    return f"{title}\n{pairs(entries, indent=2)}"
