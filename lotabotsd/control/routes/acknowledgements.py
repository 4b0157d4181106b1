"""Acknowledgements: what comes back from the vendor about usage reports."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from lotabotsd.control.peers import Caller
from lotabotsd.control.rooms import Acknowledged, Rooms
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.identity.audit import REFUSED
from lotabotsd.identity.records import Actor

from .licence import DOCUMENT_BODY, Document, install_audited

_ACTION = "usage.acknowledge"


def routes(rooms: Rooms) -> APIRouter:
    """`/usage/acknowledgements` and `/usage/duty`"""
    router = APIRouter(tags=["usage"])

    @router.put("/usage/acknowledgements", openapi_extra=DOCUMENT_BODY)
    def acknowledge(
        document: Document,
        who: Caller,
        check: Annotated[bool, Query(description="Only say what would change.")] = False,
    ) -> dict[str, Any]:
        """Take an acknowledgement, and install the licence that came with it.

        A licence that is refused does not undo the acknowledgement: `licence` says why.
        """
        if check:
            found = rooms.look_at_acknowledgement(document)
            return {**found.value, "licence": _checked(rooms, found), "duty": rooms.duty()}
        found = _audited(rooms, who, document)
        return {**found.value, "licence": _installed(rooms, who, found), "duty": rooms.duty()}

    @router.get("/usage/duty")
    def duty() -> dict[str, Any]:
        """How the usage reports that the licence asks for stand."""
        return rooms.duty()

    return router


def _audited(rooms: Rooms, who: Actor, document: bytes) -> Acknowledged:
    """Judge, write the audit row, then act: without its row nothing changes."""
    audit = rooms.identity.audit
    try:
        planned = rooms.look_at_acknowledgement(document).value
        told = {name: planned[name] for name in ("sequence", "verdict", "head", "issued_at", "known")}
        audit.record(who, _ACTION, planned["report"], None, told)
        found = rooms.acknowledge(document)
    except LotaBotsError as error:
        audit.record(who, _ACTION, "", None, {"code": error.code.value, "detail": error.detail}, REFUSED)
        raise
    rooms.publish()  # the duty to report is part of the standing
    return found


def _installed(rooms: Rooms, who: Actor, found: Acknowledged) -> dict[str, Any] | None:
    if found.licence is None:
        return None
    try:
        return {"refused": None, **install_audited(rooms, who, found.licence)}
    except LotaBotsError as error:
        return {"refused": error.problem()}


def _checked(rooms: Rooms, found: Acknowledged) -> dict[str, Any] | None:
    if found.licence is None:
        return None
    try:
        return {"refused": None, **rooms.licence.install(found.licence, check_only=True).to_dict()}
    except LotaBotsError as error:
        return {"refused": error.problem()}
