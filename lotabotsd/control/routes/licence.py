"""The licence: what it allows, installing another one, and going back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from lotabotsd.control.peers import Caller
from lotabotsd.control.rooms import Rooms
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.identity.audit import REFUSED
from lotabotsd.identity.records import Actor
from lotabotsd.licence.claims import to_claims
from lotabotsd.licence.standing import TABLE
from lotabotsd.licence.store import Change

DOCUMENT_BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}


async def _document(request: Request) -> bytes:
    """The body as it came, whatever it calls itself."""
    return await request.body()


Document = Annotated[bytes, Depends(_document)]


def routes(rooms: Rooms) -> APIRouter:
    """`/licence`"""
    router = APIRouter(tags=["licence"])
    licence = rooms.licence

    @router.get("/licence")
    def show() -> dict[str, Any]:
        """What the licence allows now, its claims where one is installed and usable, and whom it trusts."""
        standing = licence.standing()
        try:
            current = licence.current()
        except LotaBotsError:
            current = None  # the standing says what is wrong with it
        return {
            "standing": standing.to_dict(),
            "licence": to_claims(current) if current else None,
            "trust": _trust(rooms),
            "states": [
                {"found": found.value, "state": row.state.value, "code": row.code, "effect": row.effect}
                for found, row in TABLE.items()
            ],
        }

    @router.put("/licence", openapi_extra=DOCUMENT_BODY)
    def install(
        document: Document,
        who: Caller,
        check: Annotated[bool, Query(description="Only say what would change.")] = False,
    ) -> dict[str, Any]:
        """Install a licence; it holds at once in all gate workers."""
        if check:
            return {**licence.install(document, check_only=True).to_dict(), "spread": None}
        return install_audited(rooms, who, document)

    @router.post("/licence/rollback")
    def rollback(who: Caller) -> dict[str, Any]:
        """Go back to the licence installed before."""
        before = licence.standing()
        change = _audited(rooms, who, "licence.rollback", lambda: None, licence.rollback)
        answer = {**change.to_dict(), "before": before.to_dict()}
        return {**answer, "spread": rooms.publish().to_dict()}

    return router


def _trust(rooms: Rooms) -> dict[str, Any] | None:
    """Whom the appliance trusts; None where a keyring's file is damaged, which the standing tells."""
    try:
        return rooms.licence.trust.to_dict()
    except LotaBotsError:
        return None


def install_audited(rooms: Rooms, who: Actor, document: bytes) -> dict[str, Any]:
    """Install a licence with its audit row, publish it, and say what changed. Raises as the store does."""
    change = _audited(
        rooms,
        who,
        "licence.install",
        lambda: rooms.licence.install(document, check_only=True),
        lambda: rooms.licence.install(document),
    )
    return {**change.to_dict(), "spread": rooms.publish().to_dict()}


def _audited(
    rooms: Rooms,
    who: Actor,
    action: str,
    judge: Callable[[], Change | None],
    act: Callable[[], Change],
) -> Change:
    """Judge, write the audit row, then act: without its row the change does not happen."""
    audit = rooms.identity.audit
    try:
        planned = judge()
        before = {"licence_id": rooms.licence.standing().licence_id}
        after = {"licence_id": planned.after.licence_id, "tier": planned.after.tier} if planned else None
        audit.record(who, action, planned.after.licence_id if planned else "", before, after)
        return act()
    except LotaBotsError as error:
        audit.record(who, action, "", None, {"code": error.code.value, "detail": error.detail}, REFUSED)
        raise
