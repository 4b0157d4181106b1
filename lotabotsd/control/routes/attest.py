"""Attestation tokens, receipts, and the keys that verify them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from lotabotsd.control.rooms import Rooms
from lotabotsd.control.shapes import AttestBody


def routes(rooms: Rooms) -> APIRouter:
    """`/attest`, `/receipts` and `/jwks`"""
    router = APIRouter(tags=["attestation"])

    @router.post("/attest")
    def attest(body: AttestBody) -> dict[str, Any]:
        """A signed statement about this appliance, now; `detached` are submodules that did not fit in it."""
        issued = rooms.attest(body.nonce, body.audience)
        return {"token": issued.token, "detached": dict(issued.detached)}

    @router.get("/jwks")
    def jwks() -> dict[str, Any]:
        """The public keys of tokens and receipts."""
        return rooms.keyset.jwks()

    @router.get("/receipts/{receipt_id}")
    def receipt(receipt_id: str) -> dict[str, Any]:
        """The receipt of one answer, by the answer's request id."""
        return rooms.receipt(receipt_id)

    return router
