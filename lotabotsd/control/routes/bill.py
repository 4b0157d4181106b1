"""The bill beforehand: what a month costs under the licence's rate card."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from lotabotsd.control.rooms import Rooms
from lotabotsd.usage.bill_export import Form

Month = Annotated[str, Query(max_length=7, description="As in 2026-11.  [default: the running one]")]
_MEDIA_TYPES = {Form.LINES: "application/x-ndjson", Form.CSV: "text/csv", Form.FOCUS: "text/csv"}


def routes(rooms: Rooms) -> APIRouter:
    """`/bill`"""
    router = APIRouter(tags=["bill"])

    @router.get("/bill")
    def preview(month: Month = "") -> dict[str, Any]:
        """A month's lines and their total, up to this moment."""
        return rooms.bill(month).to_dict()

    @router.get("/bill/{form}")
    def export(form: Form, month: Month = "") -> Response:
        """The lines alone, as a file: the same bytes as the vendor's."""
        return Response(rooms.bill(month).export(form), media_type=_MEDIA_TYPES[form])

    return router
