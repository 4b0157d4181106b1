"""A licence for this machine: the request for one, and whose word counts (keyrings, revoked licences)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query

from lotabotsd.control.peers import Caller
from lotabotsd.control.rooms import Rooms
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.identity.audit import REFUSED
from lotabotsd.identity.records import Actor

from .licence import DOCUMENT_BODY, Document

Kept = TypeVar("Kept")
OnlyCheck = Annotated[bool, Query(alias="check", description="Only say what would change.")]


def routes(rooms: Rooms) -> APIRouter:
    """`/licence/request`, `/licence/keyring`, `/licence/revocations`"""
    router = APIRouter(tags=["licence"])
    licence, trust = rooms.licence, rooms.licence.trust

    @router.get("/licence/request")
    def request(
        note: Annotated[str, Query(description="For the vendor, as in an order number.")] = "",
    ) -> dict[str, Any]:
        """A request for a licence of this machine, for the vendor. Nothing is remembered of it."""
        return rooms.licence_request(note)

    @router.put("/licence/keyring", openapi_extra=DOCUMENT_BODY)
    def install_keyring(document: Document, who: Caller, check: OnlyCheck = False) -> dict[str, Any]:
        """Trust the vendor's next keyring. One that revokes a key may end the standing."""
        before = trust.newest_sound().version
        if check:
            following = trust.install_keyring(document, check_only=True)
        else:
            following = _kept(rooms, who, "keyring", document, trust.install_keyring, lambda k: k.version)
        return {"before": before, "version": following.version, "spread": _spread(rooms, check)}

    @router.put("/licence/revocations", openapi_extra=DOCUMENT_BODY)
    def install_revocations(document: Document, who: Caller, check: OnlyCheck = False) -> dict[str, Any]:
        """Keep the vendor's newest list of revoked licences; `here`: this appliance's licence is on it."""
        known, keep = trust.revocations(), trust.install_revocations
        if check:
            found = keep(document, check_only=True).revocations
        else:
            opened = _kept(rooms, who, "revocations", document, keep, lambda o: o.revocations.version)
            found = opened.revocations
        return {
            "before": known.revocations.version if known else 0,
            "version": found.version,
            "licences": len(found.licences),
            "here": licence.standing().licence_id in found.licences,
            "spread": _spread(rooms, check),
        }

    return router


def _spread(rooms: Rooms, check: bool) -> dict[str, Any] | None:
    return None if check else rooms.publish().to_dict()


def _kept(
    rooms: Rooms,
    who: Actor,
    what: str,
    document: bytes,
    keep: Callable[..., Kept],
    version: Callable[[Kept], int],
) -> Kept:
    """Judge a document of trust, write the audit row, then keep it."""
    audit, action = rooms.identity.audit, f"licence.{what}"
    try:
        number = version(keep(document, check_only=True))
        audit.record(who, action, f"version {number}", None, {"version": number})
        return keep(document)
    except LotaBotsError as error:
        audit.record(who, action, "", None, {"code": error.code.value, "detail": error.detail}, REFUSED)
        raise
