"""The ledger's verdict on itself, and taking old windows out of it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from lotabotsd.control.peers import Caller
from lotabotsd.control.rooms import Rooms, Walking
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.identity.audit import REFUSED
from lotabotsd.usage.verification import Check, Verdict

_ACTION = "ledger.purge"


def routes(rooms: Rooms) -> APIRouter:
    """`/ledger`"""
    router = APIRouter(tags=["ledger"])

    @router.get("/ledger/verdict")
    def verify() -> dict[str, Any]:
        """Walk the whole chain: integrity (nothing changed) and completeness (nothing missing), apart.

        A million rows take about a minute: for large ledgers use `/ledger/verification`.
        """
        return _verdict(rooms.verify_ledger(), rooms.reconciliation())

    @router.post("/ledger/verification")
    def begin() -> dict[str, Any]:
        """Begin such a walk in the background, or join the one that is under way."""
        return _walking(rooms, rooms.begin_verification())

    @router.get("/ledger/verification")
    def progress() -> dict[str, Any]:
        """How far that walk is; its verdict once it has ended. Raises what ended it."""
        return _walking(rooms, rooms.verification())

    _purging(router, rooms)
    return router


def _purging(router: APIRouter, rooms: Rooms) -> None:
    audit = rooms.identity.audit

    @router.get("/ledger/purge")
    def look() -> dict[str, Any]:
        """What a purge would take out now: acknowledged windows older than `usage.retention_days`."""
        return {"purge": rooms.purgeable()}

    @router.post("/ledger/purge")
    def purge(who: Caller) -> dict[str, Any]:
        """Take them out; the hash of the last row stays, and the chain is verified from there on."""
        planned = rooms.purgeable()
        if planned is None:
            return {"purge": None}
        try:
            audit.record(who, _ACTION, f"rows {planned['first']} to {planned['last']}", None, planned)
            return {"purge": rooms.purge(who.who)}
        except LotaBotsError as error:
            audit.record(who, _ACTION, "", None, {"code": error.code.value, "detail": error.detail}, REFUSED)
            raise


def _walking(rooms: Rooms, walking: Walking) -> dict[str, Any]:
    if walking.failure is not None:
        raise walking.failure
    return {
        "running": walking.running,
        "row": walking.row,
        "last": walking.last,
        "verdict": _verdict(walking.verdict, rooms.reconciliation()) if walking.verdict else None,
    }


def _verdict(verdict: Verdict, compared: dict[str, Any]) -> dict[str, Any]:
    found = {name: compared[name] for name in ("requests", "inferences", "since_ns", "until_ns")}
    agrees = not found["requests"] and not found["inferences"]
    return {
        "ok": verdict.ok and agrees,
        "integrity": _check(verdict.integrity),
        "completeness": _check(verdict.completeness),
        "rows": verdict.rows,
        "head": verdict.head.hash.hex(),
        "proven_from": verdict.proven_from,
        "proven_since": verdict.proven_since,
        "triton": {"ok": agrees, **found},
    }


def _check(check: Check) -> dict[str, Any]:
    return {"ok": check.ok, "fault": check.fault, "sequence": check.sequence, "detail": check.detail}
