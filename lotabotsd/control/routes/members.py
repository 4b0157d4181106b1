"""Members of an organisation."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from lotabotsd.control.once import IdempotencyKey, Once
from lotabotsd.control.pages import Cursor, Limit, page
from lotabotsd.control.peers import Caller
from lotabotsd.control.rooms import Rooms
from lotabotsd.control.shapes import MemberBody, RoleBody


def routes(rooms: Rooms, once: Once) -> APIRouter:
    """`/organisations/ID/members`"""
    router = APIRouter(tags=["members"])
    identity = rooms.identity

    @router.get("/organisations/{organisation_id}/members")
    def list_members(organisation_id: str, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
        """The organisation's members, oldest first."""
        identity.get_organisation(organisation_id)
        return page(
            identity.list_members(organisation_id),
            place=lambda found: (found.created_at_ns, found.member_id),
            shape=lambda found: found.to_dict(),
            limit=limit,
            cursor=cursor,
        )

    @router.post("/organisations/{organisation_id}/members", status_code=201)
    def create_member(
        organisation_id: str, body: MemberBody, who: Caller, idempotency_key: IdempotencyKey = None
    ) -> dict[str, Any]:
        """A new user or service account; the licence says how many there may be."""

        def make() -> dict[str, Any]:
            made = identity.create_member(
                organisation_id, body.name, body.kind, body.role, caps=rooms.caps(), who=who
            )
            return made.to_dict()

        return once(idempotency_key, f"member {organisation_id} {body.model_dump_json()}", make)

    @router.get("/organisations/{organisation_id}/members/{member_id}")
    def get_member(organisation_id: str, member_id: str) -> dict[str, Any]:
        """One member."""
        return identity.get_member(member_id, organisation_id=organisation_id).to_dict()

    @router.put("/organisations/{organisation_id}/members/{member_id}/role")
    def set_role(organisation_id: str, member_id: str, body: RoleBody, who: Caller) -> dict[str, Any]:
        """Another role for a member, and so for its keys without a team; it holds at once."""
        made = identity.set_role(member_id, body.role, organisation_id=organisation_id, who=who)
        return {**made.to_dict(), "spread": rooms.publish().to_dict()}

    @router.delete("/organisations/{organisation_id}/members/{member_id}")
    def remove_member(organisation_id: str, member_id: str, who: Caller) -> dict[str, Any]:
        """Remove a member and revoke its keys, those of teams too."""
        revoked = identity.remove_member(member_id, organisation_id=organisation_id, who=who)
        return {"revoked_keys": revoked, "spread": rooms.publish().to_dict()}

    return router
