"""Usage: what was counted, and the signed reports about it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from lotabotsd.control.moments import month_start, parse_moment
from lotabotsd.control.peers import Caller
from lotabotsd.control.rooms import Rooms
from lotabotsd.control.shapes import ExportBody
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.identity.audit import REFUSED
from lotabotsd.usage.tables import DIMENSIONS, UsageRow

Moment = Annotated[str, Query(max_length=40, description="now, today, a date, or RFC 3339")]


def routes(rooms: Rooms) -> APIRouter:
    """`/usage` and `/usage/reports`"""
    router = APIRouter(tags=["usage"])
    _showing(router, rooms)
    _reporting(router, rooms)
    return router


def _showing(router: APIRouter, rooms: Rooms) -> None:
    @router.get("/usage")
    def show(
        since: Moment = "",
        until: Moment = "",
        organisation: Annotated[str, Query(max_length=64)] = "",
        by: Annotated[
            str, Query(description=f"Commas between: {', '.join(DIMENSIONS)}")
        ] = "organisation,key",
    ) -> dict[str, Any]:
        """Usage of the windows that start in [since, until), not yet sealed ones included."""
        now_ns = rooms.clock.wall_ns()
        dimensions = _dimensions(by)
        begin = parse_moment(since, now_ns) if since else month_start(now_ns)
        end = parse_moment(until, now_ns) if until else now_ns // 10**9 + 1
        rooms.count_usage()
        rows = rooms.ledger.usage(begin, end, organisation=organisation, by=dimensions)
        return {
            "since": begin,
            "until": end,
            "sealed_until": rooms.ledger.sealed_until,
            "in_flight": rooms.ledger.in_flight(),
            "by": list(dimensions),
            "rows": [_shape(row) for row in rows],
            "names": _names(rooms),
        }

    @router.get("/usage/preview")
    def preview() -> dict[str, Any]:
        """Everything that the next report would say, without making it."""
        return rooms.preview()


def _reporting(router: APIRouter, rooms: Rooms) -> None:
    audit = rooms.identity.audit

    @router.get("/usage/reports")
    def list_reports() -> dict[str, Any]:
        """The reports in the outbox, oldest first."""
        return {"items": rooms.reports(), "next": None}

    @router.post("/usage/reports", status_code=201)
    def export(body: ExportBody, who: Caller) -> dict[str, Any]:
        """Seal, freeze and write what was not reported yet into the outbox: one report, rarely more."""
        try:
            made = rooms.export(body.until)
        except LotaBotsError as error:
            audit.record(
                who, "usage.export", "", None, {"code": error.code.value, "detail": error.detail}, REFUSED
            )
            raise
        for report in made:
            audit.record(who, "usage.export", report["name"], None, {"sequence": report["sequence"]})
        return {"items": made, "next": None}

    @router.get("/usage/reports/{name}")
    def fetch(name: str) -> Response:
        """One report's bytes."""
        return Response(rooms.report_bytes(name), media_type="application/zip")


def _dimensions(by: str) -> tuple[str, ...]:
    asked = tuple(part.strip() for part in by.split(",") if part.strip())
    unknown = [part for part in asked if part not in DIMENSIONS]
    if unknown:
        raise LotaBotsError(
            Code.VALUE_INVALID, f"{unknown[0][:64]!r} is not one of {', '.join(DIMENSIONS)}", hint="mend `by`"
        )
    return asked


def _shape(row: UsageRow) -> dict[str, Any]:
    meters = row.meters
    return {
        "organisation": row.organisation,
        "key": row.key,
        "model": row.model,
        "outcome": row.outcome,
        "charged": row.charged,
        "requests": meters.requests,
        "inferences": meters.inferences,
        "input_bytes": meters.input_bytes,
        "output_bytes": meters.output_bytes,
        "gate_us": meters.gate_us,
    }


def _names(rooms: Rooms) -> dict[str, str]:
    """What people call the ids in the rows; those of removed things are missing."""
    names = {found.organisation_id: found.name for found in rooms.identity.list_organisations()}
    return names | {key.key_id: key.name for key in rooms.identity.list_keys()}
