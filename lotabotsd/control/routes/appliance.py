"""How the appliance is: status, models, GPUs, the runtime's last lines. All read only."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from lotabotsd.control.pages import Cursor, Limit, page
from lotabotsd.control.rooms import Rooms
from lotabotsd.foundation.errors import Code, LotaBotsError

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def routes(rooms: Rooms) -> APIRouter:
    """`/status`, `/metrics`, `/models`, `/gpus`, `/runtime/lines`"""
    router = APIRouter(tags=["appliance"])

    @router.get("/status")
    def status() -> dict[str, Any]:
        """The status value: the same that lotabotsctl, doctor and the console show."""
        return rooms.status()

    @router.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """Everything countable in Prometheus' text format, version 0.0.4."""
        return Response(rooms.metrics(), media_type=METRICS_TYPE)

    @router.get("/models")
    def list_models(limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
        """The enabled models by name."""
        return page(
            rooms.models(),
            place=lambda found: (0, str(found["name"])),
            shape=lambda found: found,
            limit=limit,
            cursor=cursor,
        )

    @router.get("/models/{name}")
    def get_model(name: str) -> dict[str, Any]:
        """One model with its tensors, labels and digest."""
        for found in rooms.models():
            if found["name"] == name:
                return found
        raise LotaBotsError(Code.MODEL_UNKNOWN, name, hint="list them: lotabotsctl model list")

    @router.get("/gpus")
    def list_gpus() -> dict[str, Any]:
        """The GPUs with their health; `detail` says why there are none."""
        return rooms.gpus()

    @router.get("/runtime/lines")
    async def runtime_lines() -> dict[str, Any]:
        """The last lines that the inference server wrote."""
        return {"items": await rooms.runtime_lines(), "next": None}

    return router
