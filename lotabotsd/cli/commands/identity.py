"""Organisations and members."""

from __future__ import annotations

from typing import Any

import click

from lotabotsd.cli.control_client import ControlClient
from lotabotsd.cli.session import Session, json_option, make_sure, pass_session, say_spread, show, yes_option
from lotabotsd.cli.tables import limit_text, moment_text, table
from lotabotsd.foundation.errors import Code, LotaBotsError

ROLES = ("owner", "admin", "developer", "operator", "billing", "auditor")


def limit_options(command: Any) -> Any:
    """Add the three limits; 0 means none."""
    for name, what in (
        ("--quota-per-month", "Inferences per calendar month."),
        ("--concurrency", "Requests at the same time."),
        ("--rate-per-minute", "Requests per minute."),
    ):
        command = click.option(name, type=click.IntRange(min=0), default=0, help=f"{what}  [0: no limit]")(
            command
        )
    return command


def limits_body(rate_per_minute: int, concurrency: int, quota_per_month: int) -> dict[str, int]:
    """The three limits as the control API takes them."""
    return {
        "rate_per_minute": rate_per_minute,
        "concurrency": concurrency,
        "quota_per_month": quota_per_month,
    }


@click.group()
def organisation() -> None:
    """Organisations: the owners of teams, members, keys and usage."""


@organisation.command("create")
@click.argument("name")
@limit_options
@json_option
@pass_session
def create_organisation(
    session: Session,
    name: str,
    rate_per_minute: int,
    concurrency: int,
    quota_per_month: int,
    as_json: bool,
) -> None:
    """Make an organisation called NAME."""
    limits = limits_body(rate_per_minute, concurrency, quota_per_month)
    made = session.client.post("organisations", body={"name": name, "limits": limits})
    show(made, lambda m: f"organisation {m['organisation_id']} ({m['name']}) made", as_json=as_json)
    say_spread(made.get("spread"))


@organisation.command("list")
@json_option
@pass_session
def list_organisations(session: Session, as_json: bool) -> None:
    """List the organisations and their limits."""
    show(session.client.all_items("organisations"), _organisations, as_json=as_json)


@organisation.command(
    "remove", short_help="Remove an ORGANISATION, its teams and members; revoke its keys first."
)
@click.argument("organisation")
@yes_option
@pass_session
def remove_organisation(session: Session, organisation: str, yes: bool) -> None:
    """Remove an ORGANISATION (id or name), its teams and members; revoke its keys first. Its usage stays."""
    found = find_organisation(session.client, organisation)
    make_sure(f"Remove organisation {found['name']}, its teams and members?", yes=yes)
    spread = session.client.delete("organisations", found["organisation_id"])
    click.echo(f"organisation {found['organisation_id']} ({found['name']}) removed")
    say_spread(spread.get("spread"))


@click.group()
def member() -> None:
    """Members: the people and programs of an organisation."""


@member.command("create")
@click.argument("name")
@click.option("--organisation", help="Its id or name.  [default: the only one]")
@click.option("--kind", type=click.Choice(("user", "service")), default="user", show_default=True)
@click.option("--role", type=click.Choice(ROLES), default="developer", show_default=True)
@json_option
@pass_session
def create_member(
    session: Session, name: str, organisation: str | None, kind: str, role: str, as_json: bool
) -> None:
    """Make a member called NAME."""
    owner = find_organisation(session.client, organisation)
    body = {"name": name, "kind": kind, "role": role}
    made = session.client.post("organisations", owner["organisation_id"], "members", body=body)
    show(made, lambda m: f"member {m['member_id']} ({m['name']}, {m['role']}) made", as_json=as_json)


@member.command("list")
@click.option("--organisation", help="Only of this one (id or name).")
@json_option
@pass_session
def list_members(session: Session, organisation: str | None, as_json: bool) -> None:
    """List the members."""
    if organisation is None:
        owners = session.client.all_items("organisations")
    else:
        owners = [find_organisation(session.client, organisation)]
    members = [
        found
        for owner in owners
        for found in session.client.all_items("organisations", owner["organisation_id"], "members")
    ]
    show(members, _members, as_json=as_json)


@member.command("remove")
@click.argument("member_id")
@click.option("--organisation", help="Its id or name.  [default: the only one]")
@yes_option
@pass_session
def remove_member(session: Session, member_id: str, organisation: str | None, yes: bool) -> None:
    """Remove the member with MEMBER_ID; its keys stop working."""
    owner = find_organisation(session.client, organisation)
    make_sure(f"Remove member {member_id} and its keys?", yes=yes)
    spread = session.client.delete("organisations", owner["organisation_id"], "members", member_id)
    click.echo(f"member {member_id} removed")
    say_spread(spread.get("spread"))


def find_organisation(client: ControlClient, name_or_id: str | None) -> dict[str, Any]:
    """The organisation meant; with none named, the only one there is. Raises NOT_FOUND, USAGE."""
    found = client.all_items("organisations")
    if name_or_id is None:
        if len(found) == 1:
            return found[0]
        if not found:
            raise LotaBotsError(
                Code.NOT_FOUND,
                "there is no organisation yet",
                hint="make one: lotabotsctl organisation create NAME",
            )
        names = ", ".join(sorted(item["name"] for item in found))
        raise LotaBotsError(Code.USAGE, "which organisation is meant?", hint=f"give --organisation: {names}")
    for item in found:
        if name_or_id in (item["organisation_id"], item["name"]):
            return item
    raise LotaBotsError(Code.NOT_FOUND, f"organisation {name_or_id}")


def find_member(
    client: ControlClient, organisation: dict[str, Any], name_or_id: str | None
) -> dict[str, Any]:
    """The member meant; with none named, the organisation's only one. Raises NOT_FOUND, USAGE."""
    found = client.all_items("organisations", organisation["organisation_id"], "members")
    if name_or_id is None:
        if len(found) == 1:
            return found[0]
        if not found:
            raise LotaBotsError(
                Code.NOT_FOUND,
                f"{organisation['name']} has no members yet",
                hint="make one: lotabotsctl member create NAME",
            )
        names = ", ".join(sorted(item["name"] for item in found))
        raise LotaBotsError(Code.USAGE, "whose key shall it be?", hint=f"give --member: {names}")
    for item in found:
        if name_or_id in (item["member_id"], item["name"]):
            return item
    raise LotaBotsError(Code.NOT_FOUND, f"member {name_or_id}")


def _organisations(items: list[dict[str, Any]]) -> str:
    rows = [
        (
            item["organisation_id"],
            item["name"],
            limit_text(item["limits"]["rate_per_minute"]),
            limit_text(item["limits"]["concurrency"]),
            limit_text(item["limits"]["quota_per_month"]),
            moment_text(item["created_at_ns"]),
        )
        for item in items
    ]
    headings = ("ORGANISATION", "NAME", "PER MINUTE", "AT ONCE", "PER MONTH", "MADE")
    return table(headings, rows, empty="no organisations yet: lotabotsctl organisation create NAME")


def _members(items: list[dict[str, Any]]) -> str:
    rows = [
        (item["member_id"], item["name"], item["kind"], item["role"], item["organisation_id"])
        for item in items
    ]
    return table(
        ("MEMBER", "NAME", "KIND", "ROLE", "ORGANISATION"),
        rows,
        empty="no members yet: lotabotsctl member create NAME",
    )
