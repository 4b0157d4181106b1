"""The control API: routes per subject under /control/v1, one error shape, one door."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp

from lotabotsd import __version__

from .door import Door
from .once import Once
from .problems import add_handlers
from .rooms import Rooms
from .routes import (
    acknowledgements,
    appliance,
    attest,
    audit,
    bill,
    keys,
    ledger,
    licence,
    members,
    organisations,
    teams,
    trust,
    usage,
)

PREFIX = "/control/v1"


def control_api(rooms: Rooms) -> FastAPI:
    """The routes and the error handlers; its OpenAPI description is at /control/v1/openapi.json."""
    app = FastAPI(
        title="LotaBots control API",
        version=__version__,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # both would load scripts from another host
        redoc_url=None,
    )
    once = Once(rooms.clock)
    api = APIRouter(prefix=PREFIX)
    for router in (
        appliance.routes(rooms),
        organisations.routes(rooms, once),
        members.routes(rooms, once),
        teams.routes(rooms, once),
        keys.routes(rooms, once),
        licence.routes(rooms),
        trust.routes(rooms),
        usage.routes(rooms),
        acknowledgements.routes(rooms),
        ledger.routes(rooms),
        bill.routes(rooms),
        attest.routes(rooms),
        audit.routes(rooms),
    ):
        api.include_router(router)
    app.include_router(api)
    add_handlers(app)
    return app


def control_app(rooms: Rooms) -> ASGIApp:
    """The whole application, behind its door."""
    return Door(control_api(rooms), rooms.admins, rooms.refused)
