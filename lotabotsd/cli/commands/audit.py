"""The audit trail."""

from __future__ import annotations

from typing import Any

import click

from lotabotsd.cli.session import Session, json_option, pass_session, show
from lotabotsd.cli.tables import moment_text, table
from lotabotsd.foundation.errors import Exit


@click.group()
def audit() -> None:
    """The audit trail: who changed what, and what was refused."""


@audit.command("list")
@click.option("--organisation", help="Only rows about this organisation's id.")
@click.option(
    "--limit", type=click.IntRange(1, 1_000), default=50, show_default=True, help="The newest rows."
)
@json_option
@pass_session
def list_rows(session: Session, organisation: str | None, limit: int, as_json: bool) -> None:
    """Show the newest rows, the newest last."""
    found = session.client.get("audit", organisation=organisation, newest=limit)
    show(found["items"], _rows, as_json=as_json)


@audit.command("verify")
@json_option
@pass_session
def verify(session: Session, as_json: bool) -> int:
    """Walk the chain of rows and name the first fault. Exit 3 when there is one."""
    verdict = session.client.get("audit", "verdict")
    show(verdict, _verdict, as_json=as_json)
    return Exit.OK if verdict["intact"] else Exit.CHECK_FAILED


def _rows(items: list[dict[str, Any]]) -> str:
    rows = [
        (
            str(item["number"]),
            moment_text(item["at_ns"]),
            item["who"],
            item["source"],
            item["action"],
            item["target"],
            item["outcome"],
        )
        for item in items
    ]
    return table(("NUMBER", "WHEN", "WHO", "FROM", "ACTION", "TARGET", "OUTCOME"), rows)


def _verdict(verdict: dict[str, Any]) -> str:
    if verdict["intact"]:
        return f"intact: {verdict['rows']} rows, head {verdict['head']}"
    return f"{verdict['fault']} at row {verdict['at']}; {verdict['rows']} rows before it are intact"
