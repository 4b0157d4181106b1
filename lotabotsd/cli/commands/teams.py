"""Teams."""

from __future__ import annotations

from typing import Any

import click

from lotabotsd.cli.control_client import ControlClient
from lotabotsd.cli.session import Session, json_option, make_sure, pass_session, say_spread, show, yes_option
from lotabotsd.cli.tables import limit_text, moment_text, pairs, table
from lotabotsd.foundation.errors import Code, LotaBotsError

from .identity import ROLES, find_member, find_organisation, limit_options, limits_body

LIMITS = ("rate_per_minute", "concurrency", "quota_per_month")


@click.group()
def team() -> None:
    """Teams: members with shared limits and roles of their own."""


def organisation_option(command: Any) -> Any:
    """Add `--organisation`."""
    return click.option("--organisation", help="Its id or name.  [default: the only one]")(command)


@team.command("create")
@click.argument("name")
@organisation_option
@limit_options
@json_option
@pass_session
def create(
    session: Session,
    name: str,
    organisation: str | None,
    rate_per_minute: int,
    concurrency: int,
    quota_per_month: int,
    as_json: bool,
) -> None:
    """Make a team called NAME. Its limits are for all of its keys together."""
    owner = find_organisation(session.client, organisation)
    body = {"name": name, "limits": limits_body(rate_per_minute, concurrency, quota_per_month)}
    made = session.client.post("organisations", owner["organisation_id"], "teams", body=body)
    show(made, lambda m: f"team {m['team_id']} ({m['name']}) made", as_json=as_json)
    say_spread(made.get("spread"))


@team.command("list")
@click.option("--organisation", help="Only of this one (id or name).")
@json_option
@pass_session
def list_teams(session: Session, organisation: str | None, as_json: bool) -> None:
    """List the teams and their limits."""
    if organisation is None:
        owners = session.client.all_items("organisations")
    else:
        owners = [find_organisation(session.client, organisation)]
    found = [
        (owner["name"], item)
        for owner in owners
        for item in session.client.all_items("organisations", owner["organisation_id"], "teams")
    ]
    if as_json:
        show([item for _, item in found], str, as_json=True)
    else:
        click.echo(_teams(found))


@team.command("show")
@click.argument("team")
@organisation_option
@json_option
@pass_session
def show_team(session: Session, team: str, organisation: str | None, as_json: bool) -> None:
    """Show a TEAM (id or name): its limits and who is in it."""
    owner = find_organisation(session.client, organisation)
    found = find_team(session.client, owner, team)
    members = session.client.all_items(*_path(found), "members")
    show({**found, "members": members}, _team, as_json=as_json)


@team.command("limits", short_help="Set limits of a TEAM (id or name); 0 means none.")
@click.argument("team")
@organisation_option
@click.option("--rate-per-minute", type=click.IntRange(min=0), help="Requests per minute.")
@click.option("--concurrency", type=click.IntRange(min=0), help="Requests at the same time.")
@click.option("--quota-per-month", type=click.IntRange(min=0), help="Inferences per calendar month.")
@json_option
@pass_session
def limits(
    session: Session,
    team: str,
    organisation: str | None,
    rate_per_minute: int | None,
    concurrency: int | None,
    quota_per_month: int | None,
    as_json: bool,
) -> None:
    """Set limits of a TEAM (id or name); 0 means none, what is not given stays."""
    given = zip(LIMITS, (rate_per_minute, concurrency, quota_per_month), strict=True)
    changed = {name: value for name, value in given if value is not None}
    if not changed:
        raise LotaBotsError(
            Code.USAGE,
            "which limit shall change?",
            hint="give --rate-per-minute, --concurrency or --quota-per-month; 0 means none",
        )
    found = find_team(session.client, find_organisation(session.client, organisation), team)
    made = session.client.put(*_path(found), "limits", body={**found["limits"], **changed})
    show(made, lambda m: f"team {m['team_id']} ({m['name']})\n\n{_limits(m['limits'])}", as_json=as_json)
    say_spread(made.get("spread"))


@team.command("remove", short_help="Remove a TEAM (id or name); its keys stop working.")
@click.argument("team")
@organisation_option
@yes_option
@pass_session
def remove(session: Session, team: str, organisation: str | None, yes: bool) -> None:
    """Remove a TEAM (id or name); its keys stop working, its members stay."""
    found = find_team(session.client, find_organisation(session.client, organisation), team)
    make_sure(f"Remove team {found['name']} and revoke its keys?", yes=yes)
    answer = session.client.delete(*_path(found))
    click.echo(f"team {found['team_id']} ({found['name']}) removed{_revoked(answer)}")
    say_spread(answer.get("spread"))


@team.command("join", short_help="Put a MEMBER into a TEAM, or give it another role there.")
@click.argument("team")
@click.argument("member")
@organisation_option
@click.option("--role", type=click.Choice(ROLES), default="developer", show_default=True)
@json_option
@pass_session
def join(
    session: Session, team: str, member: str, organisation: str | None, role: str, as_json: bool
) -> None:
    """Put a MEMBER into a TEAM (ids or names), or give it another role there.

    A key of the team has its owner's role in the team, whatever the owner's role in the organisation is.
    """
    owner = find_organisation(session.client, organisation)
    found = find_team(session.client, owner, team)
    member_id = find_member(session.client, owner, member)["member_id"]
    made = session.client.put(*_path(found), "members", member_id, body={"role": role})
    show(
        made,
        lambda m: f"member {m['member_id']} ({m['name']}) is in team {found['name']} as {m['role']}",
        as_json=as_json,
    )
    say_spread(made.get("spread"))


@team.command("leave", short_help="Take a MEMBER out of a TEAM; its keys there stop working.")
@click.argument("team")
@click.argument("member")
@organisation_option
@yes_option
@pass_session
def leave(session: Session, team: str, member: str, organisation: str | None, yes: bool) -> None:
    """Take a MEMBER out of a TEAM (ids or names); its keys of this team stop working."""
    owner = find_organisation(session.client, organisation)
    found = find_team(session.client, owner, team)
    gone = find_member(session.client, owner, member)
    make_sure(f"Take {gone['name']} out of team {found['name']} and revoke its keys there?", yes=yes)
    answer = session.client.delete(*_path(found), "members", gone["member_id"])
    click.echo(f"member {gone['member_id']} ({gone['name']}) left team {found['name']}{_revoked(answer)}")
    say_spread(answer.get("spread"))


def find_team(client: ControlClient, organisation: dict[str, Any], name_or_id: str) -> dict[str, Any]:
    """The team meant, of this organisation. Raises NOT_FOUND."""
    for item in client.all_items("organisations", organisation["organisation_id"], "teams"):
        if name_or_id in (item["team_id"], item["name"]):
            return item
    raise LotaBotsError(Code.NOT_FOUND, f"team {name_or_id}", hint="list them: lotabotsctl team list")


def _path(found: dict[str, Any]) -> tuple[str, str, str, str]:
    return "organisations", found["organisation_id"], "teams", found["team_id"]


def _revoked(answer: dict[str, Any]) -> str:
    count = len(answer["revoked_keys"])
    return f", {count} {'key' if count == 1 else 'keys'} revoked"


def _teams(found: list[tuple[str, dict[str, Any]]]) -> str:
    rows = [
        (
            item["team_id"],
            item["name"],
            owner,
            *(limit_text(item["limits"][name]) for name in LIMITS),
            moment_text(item["created_at_ns"]),
        )
        for owner, item in found
    ]
    headings = ("TEAM", "NAME", "ORGANISATION", "PER MINUTE", "AT ONCE", "PER MONTH", "MADE")
    return table(headings, rows, empty="no teams yet: lotabotsctl team create NAME")


def _team(found: dict[str, Any]) -> str:
    rows = [(item["member_id"], item["name"], item["kind"], item["role"]) for item in found["members"]]
    members = table(
        ("MEMBER", "NAME", "KIND", "ROLE"),
        rows,
        empty="nobody is in it yet: lotabotsctl team join TEAM MEMBER",
    )
    head = pairs([("team", found["team_id"]), ("name", found["name"])])
    return f"{head}\n{_limits(found['limits'])}\n\n{members}"


def _limits(found: dict[str, int]) -> str:
    return pairs(
        [
            ("per minute", limit_text(found["rate_per_minute"])),
            ("at once", limit_text(found["concurrency"])),
            ("per month", limit_text(found["quota_per_month"])),
        ]
    )
