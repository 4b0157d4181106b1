"""API keys."""

from __future__ import annotations

import time
from typing import Any

import click

from lotabotsd.cli.session import Session, json_option, pass_session, say_spread, show
from lotabotsd.cli.tables import duration_text, moment_text, table
from lotabotsd.foundation.identifiers import random_base62

from .identity import find_member, find_organisation, limit_options, limits_body
from .teams import find_team


@click.group()
def key() -> None:
    """API keys: what an in-house app shows to the gate."""


@key.command("create")
@click.argument("name")
@click.option("--organisation", help="Its id or name.  [default: the only one]")
@click.option("--member", help="The owner's id or name.  [default: the organisation's only member]")
@click.option("--team", help="The team it is of, id or name; the owner must be in it.  [default: none]")
@click.option("--model", "models", multiple=True, help="A model it may use; may be repeated.  [default: all]")
@click.option("--environment", type=click.Choice(("live", "test")), default="live", show_default=True)
@click.option("--expires-in-days", type=click.IntRange(min=1), default=90, show_default=True)
@limit_options
@json_option
@pass_session
def create(
    session: Session,
    name: str,
    organisation: str | None,
    member: str | None,
    team: str | None,
    models: tuple[str, ...],
    environment: str,
    expires_in_days: int,
    rate_per_minute: int,
    concurrency: int,
    quota_per_month: int,
    as_json: bool,
) -> None:
    """Make an API key called NAME. Its text is shown now and never again."""
    owner = find_organisation(session.client, organisation)
    body = {
        "name": name,
        "member_id": find_member(session.client, owner, member)["member_id"],
        "team_id": None if team is None else find_team(session.client, owner, team)["team_id"],
        "models": list(models) or ["*"],
        "environment": environment,
        "expires_in_days": expires_in_days,
        "limits": limits_body(rate_per_minute, concurrency, quota_per_month),
    }
    made = session.client.post(
        "organisations", owner["organisation_id"], "keys", body=body, once=random_base62(22)
    )
    show(made, _new_key, as_json=as_json)
    say_spread(made.get("spread"))


@key.command("list")
@click.option("--organisation", help="Only of this one (id or name).")
@json_option
@pass_session
def list_keys(session: Session, organisation: str | None, as_json: bool) -> None:
    """List the keys; never their secrets."""
    if organisation is None:
        items = session.client.all_items("keys")
    else:
        owner = find_organisation(session.client, organisation)
        items = session.client.all_items("organisations", owner["organisation_id"], "keys")
    show(items, lambda found: _keys(found, time.time_ns()), as_json=as_json)


@key.command("rotate")
@click.argument("key_id")
@click.option(
    "--grace-seconds",
    type=click.IntRange(min=0),
    default=86_400,
    show_default=True,
    help="How long the old secret goes on working.",
)
@json_option
@pass_session
def rotate(session: Session, key_id: str, grace_seconds: int, as_json: bool) -> None:
    """Give the key with KEY_ID a new secret, shown now and never again."""
    made = session.client.post("keys", key_id, "rotate", body={"grace_seconds": grace_seconds})
    show(made, _new_key, as_json=as_json)
    say_spread(made.get("spread"))


@key.command("revoke")
@click.argument("key_id")
@json_option
@pass_session
def revoke(session: Session, key_id: str, as_json: bool) -> None:
    """Revoke the key with KEY_ID for ever. No request is admitted with it once this returns."""
    answer = session.client.post("keys", key_id, "revoke")
    show(answer, lambda found: f"key {found['key_id']} ({found['name']}) revoked", as_json=as_json)
    say_spread(answer.get("spread"))


def _new_key(made: dict[str, Any]) -> str:
    return (
        f"key {made['key_id']} ({made['name']}), valid until {moment_text(made['expires_at_ns'])}\n\n"
        f"  {made['text']}\n\n"
        "Keep it now: it is shown only once. Send it as the header  Authorization: Bearer <key>"
    )


def _keys(items: list[dict[str, Any]], now_ns: int) -> str:
    rows = [
        (
            item["key_id"],
            item["name"],
            item["organisation_name"],
            item["team_name"],
            item["role"],
            ", ".join(item["models"]),
            item["environment"],
            _standing(item, now_ns),
        )
        for item in items
    ]
    headings = ("KEY", "NAME", "ORGANISATION", "TEAM", "ROLE", "MODELS", "KIND", "STATE")
    return table(headings, rows, empty="no keys yet: lotabotsctl key create NAME")


def _standing(item: dict[str, Any], now_ns: int) -> str:
    if item["revoked"]:
        return "revoked"
    left = item["expires_at_ns"] - now_ns
    return f"ends in {duration_text(left)}" if left > 0 else "expired"
