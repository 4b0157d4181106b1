"""Teams of an organisation, and who is in them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from lotabotsd.control.once import IdempotencyKey, Once
from lotabotsd.control.pages import Cursor, Limit, page
from lotabotsd.control.peers import Caller
from lotabotsd.control.rooms import Rooms
from lotabotsd.control.shapes import LimitsBody, RoleBody, TeamBody

TEAMS = "/organisations/{organisation_id}/teams"
TEAM = f"{TEAMS}/{{team_id}}"
MEMBER = f"{TEAM}/members/{{member_id}}"


def routes(rooms: Rooms, once: Once) -> APIRouter:
    """`/organisations/ID/teams`"""
    router = APIRouter(tags=["teams"])
    _teams(router, rooms, once)
    _members(router, rooms)
    return router


def _teams(router: APIRouter, rooms: Rooms, once: Once) -> None:
    identity, teams = rooms.identity, rooms.identity.teams

    @router.get(TEAMS)
    def list_teams(organisation_id: str, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
        """The organisation's teams, oldest first."""
        identity.get_organisation(organisation_id)
        return page(
            teams.all_of(organisation_id),
            place=lambda found: (found.created_at_ns, found.team_id),
            shape=lambda found: found.to_dict(),
            limit=limit,
            cursor=cursor,
        )

    @router.post(TEAMS, status_code=201)
    def create_team(
        organisation_id: str, body: TeamBody, who: Caller, idempotency_key: IdempotencyKey = None
    ) -> dict[str, Any]:
        """A new team without members; its limits are one more scope for each of its keys."""

        def make() -> dict[str, Any]:
            return teams.create(organisation_id, body.name, limits=body.limits.value(), who=who).to_dict()

        made = once(idempotency_key, f"team {organisation_id} {body.model_dump_json()}", make)
        return {**made, "spread": rooms.publish().to_dict()}

    @router.get(TEAM)
    def get_team(organisation_id: str, team_id: str) -> dict[str, Any]:
        """One team."""
        return teams.get(team_id, organisation_id=organisation_id).to_dict()

    @router.put(f"{TEAM}/limits")
    def set_limits(organisation_id: str, team_id: str, body: LimitsBody, who: Caller) -> dict[str, Any]:
        """Other limits for what all keys of a team use together; they hold at once."""
        made = teams.set_limits(team_id, body.value(), organisation_id=organisation_id, who=who)
        return {**made.to_dict(), "spread": rooms.publish().to_dict()}

    @router.delete(TEAM)
    def remove_team(organisation_id: str, team_id: str, who: Caller) -> dict[str, Any]:
        """Remove a team and revoke its keys; its members stay. Its usage stays in the ledger."""
        revoked = teams.remove(team_id, organisation_id=organisation_id, who=who)
        return {"revoked_keys": revoked, "spread": rooms.publish().to_dict()}


def _members(router: APIRouter, rooms: Rooms) -> None:
    teams = rooms.identity.teams

    @router.get(f"{TEAM}/members")
    def list_team_members(
        organisation_id: str, team_id: str, limit: Limit = 100, cursor: Cursor = None
    ) -> dict[str, Any]:
        """Who is in the team and with which role, oldest member first."""
        return page(
            teams.members(team_id, organisation_id=organisation_id),
            place=lambda found: (found.created_at_ns, found.member_id),
            shape=lambda found: found.to_dict(),
            limit=limit,
            cursor=cursor,
        )

    @router.put(MEMBER)
    def join(
        organisation_id: str, team_id: str, member_id: str, body: RoleBody, who: Caller
    ) -> dict[str, Any]:
        """Put a member into a team, or give it another role there; its keys of the team have that role."""
        made = teams.join(team_id, member_id, body.role, organisation_id=organisation_id, who=who)
        return {**made.to_dict(), "spread": rooms.publish().to_dict()}

    @router.delete(MEMBER)
    def leave(organisation_id: str, team_id: str, member_id: str, who: Caller) -> dict[str, Any]:
        """Take a member out of a team and revoke its keys of this team."""
        revoked = teams.leave(team_id, member_id, organisation_id=organisation_id, who=who)
        return {"revoked_keys": revoked, "spread": rooms.publish().to_dict()}
