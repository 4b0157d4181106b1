"""The ledger's verdict on itself."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from lotabotsd.control.rooms import Rooms
from lotabotsd.usage.verification import Check


def routes(rooms: Rooms) -> APIRouter:
    """`/ledger`"""
    router = APIRouter(tags=["ledger"])

    @router.get("/ledger/verdict")
    def verify() -> dict[str, Any]:
        """Walk the whole chain: integrity (nothing changed) and completeness (nothing missing), apart."""
        verdict = rooms.verify_ledger()
        return {
            "ok": verdict.ok,
            "integrity": _check(verdict.integrity),
            "completeness": _check(verdict.completeness),
            "rows": verdict.rows,
            "head": verdict.head.hash.hex(),
        }

    return router


def _check(check: Check) -> dict[str, Any]:
    return {"ok": check.ok, "fault": check.fault, "sequence": check.sequence, "detail": check.detail}
