"""The audit trail, read only."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query

from lotabotsd.control.rooms import Rooms
from lotabotsd.identity.audit import PAGE, AuditRow


def routes(rooms: Rooms) -> APIRouter:
    """`/audit`"""
    router = APIRouter(tags=["audit"])
    audit = rooms.identity.audit

    @router.get("/audit")
    def list_rows(
        after: Annotated[int, Query(ge=0, description="Rows with a number above this one.")] = 0,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
        newest: Annotated[int | None, Query(ge=1, le=1_000, description="Only the newest ones.")] = None,
        organisation: Annotated[str | None, Query(max_length=64)] = None,
    ) -> dict[str, Any]:
        """Rows, oldest first; `next` is the `after` of the next page."""
        if newest is not None:
            items = _newest(newest, organisation)
            return {"items": [_shape(row) for row in items], "next": None}
        rows = audit.rows(after=after, limit=limit, organisation_id=organisation)
        following = rows[-1].number if len(rows) == limit else None
        return {"items": [_shape(row) for row in rows], "next": following}

    @router.get("/audit/verdict")
    def verify() -> dict[str, Any]:
        """Walk the whole chain and name its first fault."""
        verdict = audit.verify()
        return {
            "intact": verdict.intact,
            "rows": verdict.rows,
            "head": verdict.head.hex(),
            "fault": verdict.fault,
            "at": verdict.at,
        }

    def _newest(count: int, organisation: str | None) -> list[AuditRow]:
        head, _ = audit.head()
        if organisation is None:
            return audit.rows(after=max(0, head - count), limit=count)
        # An organisation's rows are spread over the trail: walk it, keeping the last ones.
        kept: list[AuditRow] = []
        after = 0
        while rows := audit.rows(after=after, limit=PAGE, organisation_id=organisation):
            kept = (kept + rows)[-count:]
            after = rows[-1].number
        return kept

    return router


def _shape(row: AuditRow) -> dict[str, Any]:
    return {
        "number": row.number,
        "at_ns": row.at_ns,
        "who": row.who,
        "source": row.source,
        "organisation_id": row.organisation_id,
        "action": row.action,
        "target": row.target,
        "before": None if row.before is None else json.loads(row.before),
        "after": None if row.after is None else json.loads(row.after),
        "outcome": row.outcome,
        "hash": row.hash.hex(),
    }
