"""API keys: their secrets are in the answer that makes them, and nowhere else."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from lotabotsd.control.once import IdempotencyKey, Once
from lotabotsd.control.pages import Cursor, Limit, page
from lotabotsd.control.peers import Caller
from lotabotsd.control.rooms import Rooms
from lotabotsd.control.shapes import KeyBody, RotationBody
from lotabotsd.identity.records import KeyRecord, NewKey


def routes(rooms: Rooms, once: Once) -> APIRouter:
    """`/keys` and `/organisations/ID/keys`"""
    router = APIRouter(tags=["keys"])
    _reading(router, rooms)
    _changing(router, rooms, once)
    return router


def _reading(router: APIRouter, rooms: Rooms) -> None:
    identity = rooms.identity

    @router.get("/keys")
    def list_keys(limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
        """All keys of the appliance, the revoked ones too, oldest first."""
        return _page(identity.list_keys(), limit, cursor)

    @router.get("/organisations/{organisation_id}/keys")
    def list_keys_of(organisation_id: str, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
        """The organisation's keys, the revoked ones too, oldest first."""
        identity.get_organisation(organisation_id)
        return _page(identity.list_keys(organisation_id), limit, cursor)

    @router.get("/keys/{key_id}")
    def get_key(key_id: str) -> dict[str, Any]:
        """One key, without its secret."""
        return identity.get_key(key_id).to_dict()


def _changing(router: APIRouter, rooms: Rooms, once: Once) -> None:
    identity = rooms.identity

    @router.post("/organisations/{organisation_id}/keys", status_code=201)
    def create_key(
        organisation_id: str, body: KeyBody, who: Caller, idempotency_key: IdempotencyKey = None
    ) -> dict[str, Any]:
        """A new key. `text` is the key itself; it is not stored."""

        def make() -> dict[str, Any]:
            made = identity.create_key(
                organisation_id,
                body.member_id,
                name=body.name,
                team_id=body.team_id,
                environment=body.environment,
                models=tuple(body.models),
                expires_in_days=body.expires_in_days,
                limits=body.limits.value(),
                caps=rooms.caps(),
                who=who,
            )
            return _shown_once(made)

        made = once(idempotency_key, f"key {organisation_id} {body.model_dump_json()}", make)
        return {**made, "spread": rooms.publish().to_dict()}

    @router.post("/keys/{key_id}/rotate")
    def rotate_key(
        key_id: str, body: RotationBody, who: Caller, idempotency_key: IdempotencyKey = None
    ) -> dict[str, Any]:
        """A new secret under the same id; the old one works until the grace time ends."""

        def make() -> dict[str, Any]:
            return _shown_once(identity.rotate_key(key_id, body.grace_seconds, caps=rooms.caps(), who=who))

        made = once(idempotency_key, f"rotation {key_id} {body.model_dump_json()}", make)
        return {**made, "spread": rooms.publish().to_dict()}

    @router.post("/keys/{key_id}/revoke")
    def revoke_key(key_id: str, who: Caller) -> dict[str, Any]:
        """Revoke a key for ever. When `spread.complete`, no later admission uses it."""
        revoked = identity.revoke_key(key_id, who=who)
        return {**revoked.to_dict(), "spread": rooms.publish().to_dict()}


def _page(keys: list[KeyRecord], limit: int, cursor: str | None) -> dict[str, Any]:
    return page(
        keys,
        place=lambda found: (found.created_at_ns, found.key_id),
        shape=lambda found: found.to_dict(),
        limit=limit,
        cursor=cursor,
    )


def _shown_once(made: NewKey) -> dict[str, Any]:
    return {**made.record.to_dict(), "text": made.text}
