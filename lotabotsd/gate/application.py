"""The straight line of one request, as raw ASGI: bytes in, nine numbered steps, bytes out.

Steps 1 to 5 judge (admission.py, metering.py), 6 forwards (upstream.py), 7 to 9 measure and answer. What
needs no inference (metadata, attestation, health) is in side_doors.py.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.foundation.identifiers import uuid7_bytes, uuid_text
from lotabotsd.models.facts import ModelFacts
from lotabotsd.policy.grant import Grant
from lotabotsd.usage.records import Outcome

from . import routes, side_doors
from .admission import Refused, Reserved
from .bodies import inflate, judge_generate, judge_infer, with_header
from .exchange import ClientGoneError, Exchange, Headers
from .metering import Measured, OpenRequest
from .parts import Parts, Serving
from .predict import PredictRequest, infer_body, parse_predict, predictions
from .routes import INFERENCES, NEEDS_NO_KEY, NoRoute, Route, Verb
from .upstream import UpstreamAnswer

log = logging.getLogger("lotabots.gate")

HEADER_LENGTH = b"inference-header-content-length"
MAX_ERROR_BYTES = 64 * 1024
MAX_PREDICT_ANSWER_BYTES = 16 << 20
# A header that decides how the body is read must not come twice with two meanings.
_SINGLE_HEADERS = frozenset(
    {b"authorization", b"content-length", b"content-type", b"content-encoding", HEADER_LENGTH}
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
        if route.verb not in INFERENCES:
            await side_doors.open_door_with_key(parts, serving, exchange, route, grant)
            return
        permission = "predict" if route.verb is Verb.PREDICT else "infer"
        refused = serving.admission.standing(wall_ns)  # 2
        model = refused or serving.admission.permit(grant, permission, route.model, route.version)  # 3
        if isinstance(model, Refused):
            await self._refuse_on_record(serving, exchange, identifier, grant, route, model)
            return
        await Inference(parts, serving, exchange, identifier, grant, route, model).run()

    async def _refuse_on_record(
        self,
        serving: Serving,
        exchange: Exchange,
        identifier: bytes,
        grant: Grant,
        route: Route,
        refused: Refused,
    ) -> None:
        record_refusal(serving, grant, route.model, identifier, refused)
        await exchange.refuse_as(refused)


class Inference:
    """Steps 4 to 9 of one request that a known key sent to a model it may use."""

    def __init__(
        self,
        parts: Parts,
        serving: Serving,
        exchange: Exchange,
        identifier: bytes,
        grant: Grant,
        route: Route,
        model: ModelFacts,
    ) -> None:
        self._parts = parts
        self._serving = serving
        self._exchange = exchange
        self._identifier = identifier
        self._grant = grant
        self._route = route
        self._model = model
        self._terms = serving.admission.terms(grant, parts.config.gate.upstream_timeout_seconds)
        self._predict: PredictRequest | None = None
        self._forward_headers: Headers = []

    async def run(self) -> None:
        """Walk the line; whatever happens after step 5, the record is closed exactly once."""
        serving, exchange, clock = self._serving, self._exchange, self._parts.clock
        body = await self._read()
        rows, sent = self._judge(body)
        reserved = await serving.reserve(self._grant, self._model.name, rows)  # 4
        if isinstance(reserved, Refused):
            record_refusal(serving, self._grant, self._model.name, self._identifier, reserved)
            await exchange.refuse_as(reserved)
            return
        ticket = reserved.ticket
        try:
            opened = serving.meter.open(  # 5
                self._grant,
                self._model.name,
                self._route.version,
                self._identifier,
                rows,
                len(body),
                ticket.window_id,
            )
        except LotaBotsError:
            serving.table.refund(ticket)
            raise
        try:
            exchange.extra_headers += serving.rate_headers.of(ticket, clock.monotonic_ns(), clock.wall_ns())
            await self._forward_and_answer(opened, reserved, sent)
        except LotaBotsError as error:
            if not opened.closed:
                serving.meter.close(opened, Measured(_outcome_of(error), error.http_status), ticket)
            raise
        finally:
            if not opened.closed:  # cancelled at the end of the drain time, or a bug
                serving.meter.close(opened, Measured(Outcome.ABORTED), ticket)

    async def _read(self) -> bytes:
        exchange = self._exchange
        limit = self._parts.config.gate.max_body_bytes
        body = await exchange.read_body(limit, self._parts.budget)
        encoding = exchange.headers.get(b"content-encoding", b"identity")
        if encoding != b"identity":
            body = inflate(encoding, body, limit)
            self._parts.budget.take(len(body))
            exchange.held_bytes += len(body)
        return body

    def _judge(self, body: bytes) -> tuple[int, bytes]:
        """The number of inferences that this body asks for, and the body to send on."""
        header_length = self._exchange.headers.get(HEADER_LENGTH)
        if self._route.verb is Verb.PREDICT:
            content_type = self._exchange.headers.get(b"content-type", b"")
            self._predict = parse_predict(body, content_type, self._model)
            return len(self._predict.images), body
        judge = judge_infer if self._route.verb is Verb.INFER else judge_generate
        facts = judge(body, header_length, self._model, self._terms)
        sent, header_length = with_header(body, header_length, facts)
        if header_length is not None:
            self._forward_headers.append((HEADER_LENGTH, header_length))
        return facts.rows, sent

    async def _forward_and_answer(self, opened: OpenRequest, reserved: Reserved, body: bytes) -> None:
        parts, serving = self._parts, self._serving
        if self._predict is not None:
            spec = self._model.predict
            assert spec is not None
            tensors = [await parts.decoders.decode(image, spec) for image in self._predict.images]
            priority = self._terms.priority(0, self._model.priority_levels)
            body, header_length = infer_body(self._model, tensors, priority)
            self._forward_headers = [(HEADER_LENGTH, str(header_length).encode())]
        waited = await parts.turns.take()
        try:
            if waited:  # the world may have changed while it stood in line
                refused = serving.admission.still_valid(self._grant, parts.clock.wall_ns())
                if refused is not None:
                    serving.meter.close(
                        opened, Measured(refused.outcome, _status_of(refused)), reserved.ticket
                    )
                    await self._exchange.refuse_as(refused)
                    return
            path = routes.upstream_path(
                Route(Verb.INFER, self._model.name) if self._predict is not None else self._route
            )
            answer = await parts.pool.request("POST", path, body, self._forward_headers)  # 6
            if answer.status != 200:
                await self._answer_error(opened, reserved, answer)
            elif self._predict is not None:
                await self._answer_predict(opened, reserved, answer)
            else:
                await self._pass_on(opened, reserved, answer)
        finally:
            parts.turns.give()

    async def _pass_on(self, opened: OpenRequest, reserved: Reserved, answer: UpstreamAnswer) -> None:
        """Send Triton's answer on as it arrives, one chunk behind: the last waits for its record.

        Of a stream each event leaves at once, for the next may be long in coming; its last byte, which waits
        for the record, is the one that ends it.
        """
        exchange = self._exchange
        timeout = self._parts.config.gate.upstream_timeout_seconds
        output_bytes = 0
        held = b""
        started = False
        stream = self._route.verb is Verb.GENERATE_STREAM
        while chunk := await answer.next_chunk(timeout):
            output_bytes += len(chunk)
            held, due = (b"", chunk) if stream else (chunk, held)
            if due:
                if not started:
                    started = True
                    await exchange.start(200, answer.headers)
                await exchange.send(due, more=True)
            if exchange.client_gone and stream:
                answer.abandon()
                break
        await self._close_durably(opened, reserved, output_bytes)  # 7, 8
        if not started:
            await exchange.answer(200, answer.headers, held)  # 9
        else:
            await exchange.send(held, more=False)  # 9

    async def _answer_predict(self, opened: OpenRequest, reserved: Reserved, answer: UpstreamAnswer) -> None:
        assert self._predict is not None
        data = await self._collect(answer, MAX_PREDICT_ANSWER_BYTES)
        header_length = dict(answer.headers).get(HEADER_LENGTH, b"")
        length = int(header_length) if header_length.isdigit() else len(data)
        shown = json.dumps(predictions(self._model, self._predict, data, length)).encode()
        await self._close_durably(opened, reserved, len(shown))  # 7, 8
        await self._exchange.answer_json(200, shown)  # 9

    async def _answer_error(self, opened: OpenRequest, reserved: Reserved, answer: UpstreamAnswer) -> None:
        """Triton's own texts can hold host paths: the client gets the catalogue's words."""
        text = await self._collect(answer, MAX_ERROR_BYTES)
        code, detail = error_of(answer.status, text, self._model.name)
        refused = Refused(code, detail, retry_after_seconds=1 if code is Code.MODEL_NOT_READY else None)
        self._serving.meter.close(  # 7, 8: not charged, so nobody waits for the disk
            opened, Measured(Outcome.MODEL_ERROR, _status_of(refused)), reserved.ticket
        )
        await self._exchange.refuse_as(refused)  # 9

    async def _collect(self, answer: UpstreamAnswer, limit_bytes: int) -> bytes:
        timeout = self._parts.config.gate.upstream_timeout_seconds
        parts: list[bytes] = []
        size = 0
        while chunk := await answer.next_chunk(timeout):
            size += len(chunk)
            if size > limit_bytes:
                answer.abandon()
                raise LotaBotsError(Code.MODEL_FAILED, "its answer is too large")
            parts.append(chunk)
        return b"".join(parts)

    async def _close_durably(self, opened: OpenRequest, reserved: Reserved, output_bytes: int) -> None:
        gone = self._exchange.client_gone
        outcome = Outcome.CLIENT_GONE if gone else Outcome.SERVED
        measured = Measured(outcome, 200, output_bytes, delivered=not gone)
        number = self._serving.meter.close(opened, measured, reserved.ticket)
        await self._serving.meter.durable(number)


def record_refusal(serving: Serving, grant: Grant, model: str, identifier: bytes, refused: Refused) -> None:
    """A refusal of a known key goes on record; a full disk does not turn it into an acceptance."""
    serving.meter.refuse(grant, model, identifier, refused.outcome, _status_of(refused))


def _status_of(refused: Refused) -> int:
    return LotaBotsError(refused.code).http_status


def _outcome_of(error: LotaBotsError) -> Outcome:
    """How the ledger calls a failure after step 5; none of them is charged."""
    if error.code in (Code.RUNTIME_UNAVAILABLE, Code.RUNTIME_TIMEOUT):
        return Outcome.RUNTIME_FAILED
    if error.code in (Code.OVERLOADED, Code.JOURNAL_UNAVAILABLE):
        return Outcome.REFUSED_UNREADY
    return Outcome.MODEL_ERROR


_KNOWN_TEXTS: tuple[tuple[bytes, Code, str], ...] = (
    (b"unknown model", Code.MODEL_NOT_READY, "it is not loaded"),
    (b"not ready", Code.MODEL_NOT_READY, "it is being loaded"),
    (b"is not found", Code.MODEL_NOT_READY, "it is not loaded"),
    (b"maximum queue size", Code.OVERLOADED, "the model's queue is full"),
    (b"timeout expired", Code.RUNTIME_TIMEOUT, "it waited too long in the model's queue"),
    (b"start flag", Code.SEQUENCE_INVALID, "this sequence is not open: it was not started, or has ended"),
    (b"correlation id", Code.SEQUENCE_INVALID, "it keeps state, and there is no sequence_id"),
    (b"unexpected shape", Code.TENSOR_INVALID, "a tensor has another shape than the model expects"),
    (b"unable to parse 'data'", Code.TENSOR_INVALID, "an input's data do not fit its shape and datatype"),
    (b"classification", Code.TENSOR_INVALID, "the classification count does not fit the output"),
)


def error_of(status: int, text: bytes, model: str) -> tuple[Code, str]:
    """The catalogue's code for an error answer of Triton, with a detail that leaks nothing."""
    lowered = text.lower()
    for known, code, detail in _KNOWN_TEXTS:
        if known in lowered:
            return code, f"{model}: {detail}"
    if status in (400, 422):
        return Code.TENSOR_INVALID, f"{model} refused the input"
    if status == 503:
        return Code.OVERLOADED, model
    return Code.MODEL_FAILED, model
