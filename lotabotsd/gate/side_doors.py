"""Requests that need no inference: health, metadata, the index of models, attestation, public keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lotabotsd import __version__
from lotabotsd.attestation.service import request_receipt, request_token
from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.policy.grant import Grant

from . import routes
from .admission import Refused, allowed_model
from .bodies import parse_object
from .exchange import Exchange
from .parts import Parts, Serving
from .routes import Route, Verb

MAX_SMALL_BODY_BYTES = 64 * 1024
MAX_METADATA_BYTES = 4 << 20
# What a key's owner need not know of a model's configuration: host paths, loaded libraries, free parameters.
_PRIVATE = frozenset(
    {
        "parameters",
        "model_repository_agents",
        "model_operations",
        "default_model_filename",
        "cc_model_filenames",
    }
)
_EXTENSIONS = [
    *("classification", "sequence", "schedule_policy", "model_configuration", "binary_tensor_data"),
    *("parameters", "statistics", "generate"),
]


async def open_door(parts: Parts, exchange: Exchange, route: Route) -> None:
    """Answer what needs no key."""
    if route.verb in (Verb.HEALTH, Verb.SERVER_LIVE):
        await exchange.answer_json(200, b'{"live":true}' if route.verb is Verb.HEALTH else b"")
    elif route.verb is Verb.JWKS:
        await _answer_jwks(parts, exchange)
    else:
        readiness = parts.readiness()
        if readiness.code is not None:
            states = {component.value: state.value for component, state in readiness.states.items()}
            await exchange.refuse(readiness.code, retry_after_seconds=1, extra={"components": states})
        else:
            await exchange.answer_json(200, b'{"ready":true}' if route.verb is Verb.READINESS else b"")


async def open_door_with_key(
    parts: Parts, serving: Serving, exchange: Exchange, route: Route, grant: Grant
) -> None:
    """Answer what a known key may ask about; it counts as a request, of no inferences.

    Raises catalogue errors.
    """
    reserved = await serving.reserve(grant, route.model, 0)
    if isinstance(reserved, Refused):
        await exchange.refuse_as(reserved)
        return
    try:
        await _open(parts, serving, exchange, route, grant)
    finally:
        serving.table.commit(reserved.ticket, 0)


async def _open(parts: Parts, serving: Serving, exchange: Exchange, route: Route, grant: Grant) -> None:
    if route.verb is Verb.ATTEST:
        _need(grant, "attest")
        await _attest(parts, serving, exchange, grant)
        return
    if route.verb is Verb.RECEIPT:
        _need(grant, "receipts_read")
        await _answer_receipt(parts, exchange, route.receipt, grant)
        return
    _need(grant, "models_read")
    if route.verb is Verb.SERVER_METADATA:
        shape = {"name": "lotabots", "version": __version__, "extensions": _EXTENSIONS}
        await exchange.answer_json(200, json.dumps(shape).encode())
    elif route.verb is Verb.INDEX:
        await _answer_index(parts, serving, exchange, grant)
    elif not route.model:
        await _answer_metadata(parts, exchange, route, grant)
    else:
        if not allowed_model(grant, route.model):
            raise LotaBotsError(Code.MODEL_NOT_IN_SCOPE, route.model)
        facts = serving.policy.model(route.model)
        if facts is None:
            raise LotaBotsError(Code.MODEL_UNKNOWN, route.model)
        if route.version and route.version not in facts.versions:
            raise LotaBotsError(Code.MODEL_UNKNOWN, f"{route.model} has no version {route.version}")
        if not facts.ready:
            raise LotaBotsError(Code.MODEL_NOT_READY, route.model)
        if route.verb is Verb.MODEL_READY:
            await exchange.answer_json(200, b"")
        else:
            await _answer_metadata(parts, exchange, route, grant)


def redact(value: Any, grant: Grant) -> Any:
    """Metadata as a key's owner may see it: nothing of the host, and no other model."""
    if not isinstance(value, dict):
        return value
    shown = {name: content for name, content in value.items() if name not in _PRIVATE}
    if isinstance(shown.get("model_stats"), list):
        shown["model_stats"] = [s for s in shown["model_stats"] if allowed_model(grant, s.get("name", ""))]
    return shown


async def _answer_metadata(parts: Parts, exchange: Exchange, route: Route, grant: Grant) -> None:
    path = routes.upstream_path(route) if route.model else "/v2/models/stats"
    answer = await parts.pool.request("GET", path, b"", [])
    timeout = parts.config.gate.upstream_timeout_seconds
    data = b""
    while chunk := await answer.next_chunk(timeout):
        data += chunk
        if len(data) > MAX_METADATA_BYTES:
            answer.abandon()
            raise LotaBotsError(Code.MODEL_FAILED, "its metadata is too large")
    if answer.status != 200:
        raise LotaBotsError(Code.MODEL_NOT_READY, route.model)
    try:
        shown = redact(json.loads(data), grant)
    except ValueError as error:
        raise LotaBotsError(Code.MODEL_FAILED, "its metadata cannot be read") from error
    await exchange.answer_json(200, json.dumps(shown, separators=(",", ":")).encode())


async def _answer_index(parts: Parts, serving: Serving, exchange: Exchange, grant: Grant) -> None:
    body = await exchange.read_body(MAX_SMALL_BODY_BYTES, parts.budget)
    only_ready = bool(parse_object(body).get("ready")) if body else False
    index = [
        {"name": facts.name, "version": version, "state": "READY" if facts.ready else "UNAVAILABLE"}
        for facts in serving.policy.models()
        for version in facts.versions
        if allowed_model(grant, facts.name) and (facts.ready or not only_ready)
    ]
    await exchange.answer_json(200, json.dumps(index).encode())


async def _attest(parts: Parts, serving: Serving, exchange: Exchange, grant: Grant) -> None:
    body = await exchange.read_body(MAX_SMALL_BODY_BYTES, parts.budget)
    request = parse_object(body) if body else {}
    unknown = set(request) - {"nonce", "audience"}
    if unknown:
        raise LotaBotsError(Code.PARAMETER_REFUSED, f"{min(unknown)[:64]!r} is not known here")
    for name in ("nonce", "audience"):
        if not isinstance(request.get(name), str | None):
            raise LotaBotsError(Code.JSON_INVALID, f"{name} must be text")
    with _host_hidden():
        issued = await request_token(
            parts.config.paths.attest_socket,
            nonce=request.get("nonce"),
            audience=request.get("audience"),
            key_id=grant.key_id,
        )
    serving.policy.refresh()  # receipts of this worker name that token from now on
    shape: dict[str, Any] = {"token": issued.token}
    if issued.detached:
        shape["detached"] = dict(issued.detached)
    await exchange.answer_json(200, json.dumps(shape).encode())


async def _answer_receipt(parts: Parts, exchange: Exchange, receipt_id: str, grant: Grant) -> None:
    """A receipt of this organisation; what is another's is as unknown as what never was."""
    with _host_hidden():
        try:
            found = await request_receipt(parts.config.paths.attest_socket, receipt_id, grant.organisation_id)
        except LotaBotsError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            await exchange.refuse(error.code, error.detail, hint=error.hint, retry_after_seconds=1)
            return
    shape = {"id": receipt_id, "receipt": found.receipt}
    await exchange.answer_json(200, json.dumps(shape).encode())


@contextmanager
def _host_hidden() -> Iterator[None]:
    """What keeps the daemon from answering names a file of the host: that is for the log."""
    try:
        yield
    except LotaBotsError as error:
        if error.code is Code.DAEMON_UNAVAILABLE:
            raise LotaBotsError(Code.DAEMON_UNAVAILABLE) from error
        raise


async def _answer_jwks(parts: Parts, exchange: Exchange) -> None:
    if parts.opened is None:
        raise LotaBotsError(Code.STARTING)
    await exchange.answer(200, [(b"content-type", b"application/jwk-set+json")], parts.opened.policy.jwks())


def _need(grant: Grant, permission: str) -> None:
    if permission not in grant.permissions:
        raise LotaBotsError(Code.PERMISSION_DENIED, f"the key's role {grant.role!r} lacks {permission!r}")
