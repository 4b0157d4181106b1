"""The straight line of one request, as raw ASGI: bytes in, nine numbered steps, bytes out.

Steps 1 to 3 are here, 4 to 9 in inference.py. What needs no inference (metadata, attestation, health) is in
side_doors.py.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.foundation.identifiers import uuid7_bytes, uuid_text
from lotabotsd.limits.counters import Counter

from . import routes, side_doors
from .admission import Refused
from .exchange import ClientGoneError, Exchange
from .inference import Asked, Inference, refuse_on_record
from .intake import HEADER_LENGTH
from .parts import Parts, Serving
from .receipts import NONCE, RECEIPT, wish_of
from .routes import INFERENCES, NEEDS_NO_KEY, NoRoute, Verb

log = logging.getLogger("lotabots.gate")

# A header that decides how the body is read, or what is signed, must not come twice with two meanings.
_SINGLE_HEADERS = frozenset(
    {
        *(b"authorization", b"content-length", b"content-type", b"content-encoding", HEADER_LENGTH),
        *(RECEIPT, NONCE),
    }
)
# What these say is for the log: their details name files of the host.
_OF_THE_HOST = frozenset(
    {
        *(Code.FILE_UNREADABLE, Code.FILE_UNWRITABLE, Code.DISK_FULL),
        *(Code.DATABASE_DAMAGED, Code.LIMITS_TABLE_DAMAGED, Code.JOURNAL_DAMAGED),
    }
)


class Application:
    """What uvicorn calls for every request of this worker."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        parts = self._parts
        identifier = uuid7_bytes(parts.clock.wall_ns())
        exchange = Exchange(
            scope, receive, send, uuid_text(identifier), parts.config.gate.body_timeout_seconds
        )
        if parts.draining:
            exchange.extra_headers.append((b"connection", b"close"))
        try:
            await self._serve(exchange, identifier)
        except LotaBotsError as error:
            if error.code in _OF_THE_HOST:
                log.error("%s", error, extra={"request_id": exchange.request_id, "code": error.code.value})
                error = LotaBotsError(Code.STARTING, "the gate cannot read what it judges by")
            if not exchange.started:
                await exchange.refuse(
                    error.code,
                    error.detail,
                    hint=error.hint,
                    retry_after_seconds=1 if error.http_status == 503 else None,
                    extra=error.extra,
                )
            else:  # half an answer cannot be taken back: the connection breaks, and the ledger knows
                log.warning("an answer broke off: %s", error, extra={"request_id": exchange.request_id})
                exchange.abort()
        except ClientGoneError:
            await exchange.refuse(Code.REQUEST_TIMEOUT)  # goes nowhere, but ends the exchange properly
        finally:
            parts.budget.give(exchange.held_bytes)
            self._count(exchange)

    def _count(self, exchange: Exchange) -> None:
        counts = self._parts.counts
        counts.add(Counter.REQUESTS)
        counts.answered(exchange.status)
        counts.add(Counter.RECEIVED_BYTES, exchange.received_bytes)
        counts.add(Counter.SENT_BYTES, exchange.sent_bytes)
        if exchange.overloaded:
            counts.add(Counter.OVERLOADED)

    async def _serve(self, exchange: Exchange, identifier: bytes) -> None:
        parts = self._parts
        # The route allow-list: anything unknown ends here.
        route = routes.match(exchange.method, exchange.raw_path)
        if isinstance(route, NoRoute):
            allow = [(b"allow", route.allow.encode())] if route.allow else []
            await exchange.refuse(route.code, headers=allow)
            return
        if exchange.repeated & _SINGLE_HEADERS:
            await exchange.refuse(Code.REQUEST_MALFORMED, "a header that may come once came twice")
            return
        if route.verb in NEEDS_NO_KEY:
            await side_doors.open_door(parts, exchange, route)
            return
        serving = parts.serving()
        if isinstance(serving, Code):
            await exchange.refuse(serving, retry_after_seconds=1)
            return
        wall_ns = parts.clock.wall_ns()
        grant = serving.admission.identify(exchange.headers.get(b"authorization"), wall_ns)  # 1
        if isinstance(grant, Refused):
            await exchange.refuse_as(grant)
            return
        if warning := serving.admission.licence_warning:
            exchange.extra_headers.append((b"lotabots-licence", warning))
        if route.verb not in INFERENCES:
            await side_doors.open_door_with_key(parts, serving, exchange, route, grant)
            return
        asked = Asked(identifier, grant, route, wish_of(exchange.headers))
        if asked.wish is not None:
            exchange.tap = asked.wish.request.update
        await self._infer(serving, exchange, asked, wall_ns)

    async def _infer(self, serving: Serving, exchange: Exchange, asked: Asked, wall_ns: int) -> None:
        parts, route = self._parts, asked.route
        permission = "predict" if route.verb is Verb.PREDICT else "infer"
        refused = serving.admission.standing(wall_ns)  # 2
        model = refused or serving.admission.permit(asked.grant, permission, route.model, route.version)  # 3
        if isinstance(model, Refused):
            if asked.wish is not None and exchange.body_is_here:  # what is signed about must have been seen
                await exchange.read_body(parts.config.gate.max_body_bytes, parts.budget)
            await refuse_on_record(serving, exchange, asked, model)
            return
        await Inference(parts, serving, exchange, asked, model).run()
