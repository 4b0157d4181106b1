"""Organisations."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from lotabotsd.control.once import IdempotencyKey, Once
from lotabotsd.control.pages import Cursor, Limit, page
from lotabotsd.control.peers import Caller
from lotabotsd.control.rooms import Rooms
from lotabotsd.control.shapes import LimitsBody, OrganisationBody


def routes(rooms: Rooms, once: Once) -> APIRouter:
    """`/organisations`"""
    router = APIRouter(tags=["organisations"])
    identity = rooms.identity

    @router.get("/organisations")
    def list_organisations(limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
        """All organisations, oldest first."""
        return page(
            identity.list_organisations(),
            place=lambda found: (found.created_at_ns, found.organisation_id),
            shape=lambda found: found.to_dict(),
            limit=limit,
            cursor=cursor,
        )

    @router.post("/organisations", status_code=201)
    def create_organisation(
        body: OrganisationBody, who: Caller, idempotency_key: IdempotencyKey = None
    ) -> dict[str, Any]:
        """A new organisation; the licence says how many there may be."""

        def make() -> dict[str, Any]:
            made = identity.create_organisation(
                body.name, limits=body.limits.value(), caps=rooms.caps(), who=who
            )
            return made.to_dict()

        made = once(idempotency_key, f"organisation {body.model_dump_json()}", make)
        return {**made, "spread": rooms.publish().to_dict()}

    @router.get("/organisations/{organisation_id}")
    def get_organisation(organisation_id: str) -> dict[str, Any]:
        """One organisation."""
        return identity.get_organisation(organisation_id).to_dict()

    @router.put("/organisations/{organisation_id}/limits")
    def set_limits(organisation_id: str, body: LimitsBody, who: Caller) -> dict[str, Any]:
        """Other limits for an organisation; they hold at once."""
        made = identity.set_organisation_limits(organisation_id, body.value(), who=who)
        return {**made.to_dict(), "spread": rooms.publish().to_dict()}

    @router.delete("/organisations/{organisation_id}")
    def remove_organisation(organisation_id: str, who: Caller) -> dict[str, Any]:
        """Remove an organisation without unrevoked keys, its teams and members. Its usage stays."""
        identity.remove_organisation(organisation_id, who=who)
        return {"spread": rooms.publish().to_dict()}

    return router
