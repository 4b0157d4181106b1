"""Steps 4 to 9 of one inference, of whatever kind: reserve, record, forward, measure, answer."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.limits.counters import Counter
from lotabotsd.models.facts import ModelFacts
from lotabotsd.policy.grant import Grant
from lotabotsd.usage.records import Outcome

from . import routes
from .admission import Refused, Reserved
from .events import EventStream, failure_in
from .exchange import ClientGoneError, Exchange, Headers
from .failures import error_of, refused_of
from .intake import HEADER_LENGTH, Intake, take_in
from .metering import Closed, MakeReceipt, Measured, OpenRequest
from .parts import Parts, Serving
from .predict import infer_body, predictions
from .receipts import HOLD_BYTES, About, BodyDigest, Wish
from .routes import Route, Verb
from .turns import Places
from .upstream import UpstreamAnswer

MAX_ERROR_BYTES = 64 * 1024
MAX_PREDICT_ANSWER_BYTES = 16 << 20
_CODINGS = (b"gzip", b"deflate")


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks for what."""

    identifier: bytes  # of the request, UUIDv7
    grant: Grant
    route: Route
    wish: Wish | None  # for a receipt


class Inference:
    """One request that a known key sent to a model it may use."""

    def __init__(
        self, parts: Parts, serving: Serving, exchange: Exchange, asked: Asked, model: ModelFacts
    ) -> None:
        self._parts = parts
        self._serving = serving
        self._exchange = exchange
        self._asked = asked
        self._model = model
        self._wish = asked.wish
        self._terms = serving.admission.terms(asked.grant, parts.config.gate.upstream_timeout_seconds)

    async def run(self) -> None:
        """Walk the line; whatever happens after step 5, the record is closed exactly once."""
        serving, exchange, clock, asked = self._serving, self._exchange, self._parts.clock, self._asked
        limit = self._parts.config.gate.max_body_bytes
        intake = await take_in(exchange, asked.route, self._model, self._terms, limit, self._parts.budget)
        reserved = await serving.reserve(asked.grant, self._model.name, intake.rows)  # 4
        if isinstance(reserved, Refused):
            await refuse_on_record(serving, exchange, asked, reserved, self._model)
            return
        ticket = reserved.ticket
        try:
            opened = serving.meter.open(  # 5
                asked.grant,
                self._model.name,
                asked.route.version,
                asked.identifier,
                intake.rows,
                intake.byte_count,
                ticket.window_id,
            )
        except LotaBotsError:
            serving.table.refund(ticket)
            raise
        try:
            exchange.extra_headers += serving.rate_headers.of(ticket, clock.monotonic_ns(), clock.wall_ns())
            await self._forward_and_answer(opened, reserved, intake)
        except LotaBotsError as error:
            if opened.closed or exchange.started:
                self._close(opened, reserved, _failed(refused_of(error)))
                raise
            await self._refuse(opened, reserved, refused_of(error))
        except ClientGoneError:  # behind a part of its body: nothing ran
            self._close(opened, reserved, Measured(Outcome.CLIENT_GONE, delivered=False, inferences=0))
            raise
        finally:  # cancelled at the end of the drain time, or a bug
            self._close(opened, reserved, Measured(Outcome.ABORTED))

    async def _forward_and_answer(self, opened: OpenRequest, reserved: Reserved, intake: Intake) -> None:
        if intake.predict is not None:
            await self._decode(intake)
        places = Places()
        answer: UpstreamAnswer | None = None
        try:
            if await self._wait_for_turn(places, intake):  # the world may have changed while it stood in line
                refused = self._serving.admission.still_valid(
                    self._asked.grant, self._model.name, self._parts.clock.wall_ns()
                )
                if refused is not None:
                    await self._refuse(opened, reserved, refused)
                    return
            answer = await self._ask(opened, intake)  # 6
            if self._asked.route.verb is Verb.GENERATE_STREAM:
                await self._pass_events_on(opened, reserved, answer)
                return
            places.give()  # what was asked for has run; its answer may take its time
            if answer.status != 200:
                await self._answer_error(opened, reserved, answer)
            elif intake.predict is not None:
                await self._answer_predict(opened, reserved, answer, intake)
            else:
                await self._pass_on(opened, reserved, answer)
        finally:
            places.give()
            if answer is not None:
                answer.abandon()  # whatever is left of it

    async def _decode(self, intake: Intake) -> None:
        """Turn the images of a predict request into the body of an infer request."""
        spec = self._model.predict
        assert spec is not None
        assert intake.predict is not None
        tensors = [await self._parts.decoders.decode(image, spec) for image in intake.predict.images]
        priority = self._terms.priority(0, self._model.priority_levels)
        intake.body, header_length = infer_body(self._model, tensors, priority)
        intake.headers = [(HEADER_LENGTH, str(header_length).encode())]

    async def _wait_for_turn(self, places: Places, intake: Intake) -> bool:
        """Whether there was a wait. Raises OVERLOADED, or ClientGoneError: nobody waits for the answer."""
        waited = False
        if intake.upload is not None:  # clients that send slowly have half of the places at most
            waited = await places.take(self._parts.uploads)
        waited = await places.take(self._parts.turns) or waited
        if self._exchange.client_gone:
            raise ClientGoneError
        return waited

    async def _ask(self, opened: OpenRequest, intake: Intake) -> UpstreamAnswer:
        route = self._asked.route
        path = routes.upstream_path(
            Route(Verb.INFER, self._model.name) if intake.predict is not None else route
        )
        headers = intake.headers
        if route.verb is Verb.INFER and (coding := _coding(self._exchange.headers.get(b"accept-encoding"))):
            headers = [*headers, (b"accept-encoding", coding)]
        begun_ns = time.monotonic_ns()
        upload = intake.upload
        try:
            if upload is None:
                answer = await self._parts.pool.request("POST", path, intake.body, headers)
            else:
                answer = await self._parts.pool.request(
                    "POST", path, upload.parts(), headers, length=upload.total_bytes
                )
        except LotaBotsError as error:
            if error.code in (Code.RUNTIME_UNAVAILABLE, Code.RUNTIME_TIMEOUT):
                self._parts.counts.add(Counter.UPSTREAM_FAILED)
            raise
        finally:
            taken_us = (time.monotonic_ns() - begun_ns) // 1_000
            self._parts.counts.add(Counter.UPSTREAM_REQUESTS)
            self._parts.counts.add(Counter.UPSTREAM_US, taken_us)
            opened.input_bytes = intake.byte_count
        if self._wish is not None:
            self._wish.upstream_us = taken_us
        return answer

    async def _pass_on(self, opened: OpenRequest, reserved: Reserved, answer: UpstreamAnswer) -> None:
        """Send Triton's answer on as it arrives, one chunk behind: the last waits for its record."""
        exchange, wish = self._exchange, self._wish
        gate = self._parts.config.gate
        output_bytes = 0
        held = b""
        # A small answer takes its receipt along; one of `generate` may turn out to be a failure.
        hold_bytes = HOLD_BYTES if wish is not None or self._asked.route.verb is Verb.GENERATE else 0
        while chunk := await answer.next_chunk(gate.upstream_timeout_seconds):
            output_bytes += len(chunk)
            if wish is not None:
                wish.response.update(chunk)
            if held and output_bytes > hold_bytes:
                if not exchange.started:
                    await exchange.start(
                        200, self._streamed_headers(answer), take_within_seconds=gate.body_timeout_seconds
                    )
                await exchange.send(held, more=True)
                held = chunk
            else:
                held = held + chunk if held else chunk
        if not exchange.started and self._asked.route.verb is Verb.GENERATE and (told := failure_in(held)):
            await self._refuse_failed(opened, reserved, 400, told)  # Triton says 200 to that
            return
        closed = await self._close_durably(opened, reserved, output_bytes)  # 7, 8
        if not exchange.started:
            receipt = [] if wish is None else wish.headers_with(closed)
            await exchange.answer(200, [*answer.headers, *receipt], held)  # 9
        else:
            await exchange.send(held, more=False)  # 9

    def _streamed_headers(self, answer: UpstreamAnswer) -> Headers:
        length = [] if answer.length is None else [(b"content-length", b"%d" % answer.length)]
        receipt = [] if self._wish is None else self._wish.headers_before(self._exchange.request_id)
        return [*answer.headers, *length, *receipt]

    async def _pass_events_on(self, opened: OpenRequest, reserved: Reserved, answer: UpstreamAnswer) -> None:
        """Send each event of a stream on when it comes; the stream's end waits for its record.

        Before the first event its OPEN is durable: whatever happens then, the ledger knows of the stream.
        """
        if answer.status != 200:
            await self._answer_error(opened, reserved, answer)
            return
        exchange, wish = self._exchange, self._wish
        events = EventStream(self._words)
        await self._serving.meter.durable(opened.number)
        await exchange.start(200, self._streamed_headers(answer))
        exchange.when_gone(answer.abandon)
        try:
            output_bytes = await self._copy_events(answer, events)
        finally:
            exchange.when_gone(None)
        if exchange.client_gone:
            answer.abandon()
        outcome = Outcome.MODEL_ERROR if events.failed else Outcome.SERVED
        closed = await self._close_durably(opened, reserved, output_bytes, outcome)  # 7, 8
        last = b"" if closed.receipt is None else b": lotabots-receipt %b\n\n" % closed.receipt.encode()
        await exchange.send(last if wish is not None else b"", more=False)  # 9

    async def _copy_events(self, answer: UpstreamAnswer, events: EventStream) -> int:
        """The number of bytes that were sent, until the stream's end or until nobody listens."""
        exchange = self._exchange
        timeout = self._parts.config.gate.upstream_timeout_seconds
        output_bytes = 0
        more = True
        while more and not exchange.client_gone:
            try:
                chunk = await answer.next_chunk(timeout)
            except LotaBotsError:
                if self._exchange.client_gone:  # that is why it was given up
                    break
                raise
            more = bool(chunk)
            whole = events.feed(chunk) if more else events.finish()
            if whole:
                output_bytes += len(whole)
                if self._wish is not None:
                    self._wish.response.update(whole)
                await exchange.send(whole, more=True)
        return output_bytes

    def _words(self, text: str) -> str:
        """What a client gets to hear of a failure inside a stream."""
        code, detail = error_of(400, text.encode(), self._model.name)
        return str(LotaBotsError(code, detail))

    async def _answer_predict(
        self, opened: OpenRequest, reserved: Reserved, answer: UpstreamAnswer, intake: Intake
    ) -> None:
        assert intake.predict is not None
        data = await self._collect(answer, MAX_PREDICT_ANSWER_BYTES)
        header_length = dict(answer.headers).get(HEADER_LENGTH, b"")
        length = int(header_length) if header_length.isdigit() else len(data)
        shown = json.dumps(predictions(self._model, intake.predict, data, length)).encode()
        if self._wish is not None:
            self._wish.response.update(shown)
        closed = await self._close_durably(opened, reserved, len(shown))  # 7, 8
        receipt = [] if self._wish is None else self._wish.headers_with(closed)
        await self._exchange.answer(200, [(b"content-type", b"application/json"), *receipt], shown)  # 9

    async def _answer_error(self, opened: OpenRequest, reserved: Reserved, answer: UpstreamAnswer) -> None:
        """Triton's own texts can hold host paths: the client gets the catalogue's words."""
        text = await self._collect(answer, MAX_ERROR_BYTES)
        await self._refuse_failed(opened, reserved, answer.status, text)

    async def _refuse_failed(self, opened: OpenRequest, reserved: Reserved, status: int, text: bytes) -> None:
        code, detail = error_of(status, text, self._model.name)
        retry = 1 if code is Code.MODEL_NOT_READY else None
        await self._refuse(opened, reserved, Refused(code, detail, Outcome.MODEL_ERROR, retry))

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

    async def _close_durably(
        self,
        opened: OpenRequest,
        reserved: Reserved,
        output_bytes: int,
        outcome: Outcome = Outcome.SERVED,
    ) -> Closed:
        gone = self._exchange.client_gone
        measured = Measured(Outcome.CLIENT_GONE if gone else outcome, 200, output_bytes, delivered=not gone)
        closed = self._serving.meter.close(opened, measured, reserved.ticket, self._receipt(measured))
        await self._serving.meter.durable(closed.number)
        return closed

    async def _refuse(self, opened: OpenRequest, reserved: Reserved, refused: Refused) -> None:
        """End what was opened with a refusal: not charged, so nobody waits for the disk."""
        status, headers, body = self._exchange.worded(refused)
        if self._wish is not None:
            self._wish.response = BodyDigest(self._wish.salt)  # nothing of what was read was sent
            self._wish.response.update(body)
        measured = _failed(refused)
        closed = self._serving.meter.close(  # 7, 8
            opened, measured, reserved.ticket, self._receipt(measured)
        )
        receipt = [] if self._wish is None else self._wish.headers_with(closed)
        await self._exchange.answer(status, [*headers, *receipt], body)  # 9

    def _close(self, opened: OpenRequest, reserved: Reserved, measured: Measured) -> None:
        if not opened.closed:
            self._serving.meter.close(opened, measured, reserved.ticket)

    def _receipt(self, measured: Measured) -> MakeReceipt | None:
        return receipt_maker(self._serving, self._exchange, self._asked, measured, self._model)


def receipt_maker(
    serving: Serving, exchange: Exchange, asked: Asked, measured: Measured, model: ModelFacts | None
) -> MakeReceipt | None:
    """What signs for this request, where that is wanted; nothing is signed about a body that did not come."""
    if asked.wish is None or not exchange.body_was_read:
        return None
    route = asked.route
    about = About(
        exchange.request_id,
        exchange.method,
        exchange.raw_path.decode("ascii", "replace"),
        asked.grant.key_id,
        route.model,
        route.version,
        model,
    )
    return serving.receipts.maker(asked.wish, about, measured)


async def refuse_on_record(
    serving: Serving,
    exchange: Exchange,
    asked: Asked,
    refused: Refused,
    model: ModelFacts | None = None,
) -> None:
    """A refusal of a known key goes on record; a full disk does not turn it into an acceptance."""
    status, headers, body = exchange.worded(refused)
    measured = _failed(refused)
    if asked.wish is not None:
        asked.wish.response.update(body)
    closed = serving.meter.refuse(
        asked.grant,
        asked.route.model,
        asked.identifier,
        measured,
        receipt_maker(serving, exchange, asked, measured, model),
    )
    receipt = [] if asked.wish is None else asked.wish.headers_with(closed)
    await exchange.answer(status, [*headers, *receipt], body)


def _failed(refused: Refused) -> Measured:
    return Measured(refused.outcome, refused.status)


def _coding(accepted: bytes | None) -> bytes:
    """The compression that Triton shall apply: the first one named that it has; empty for none."""
    if accepted is None:
        return b""
    for named in accepted.lower().split(b","):
        coding, _, quality = named.partition(b";")
        if coding.strip() in _CODINGS and quality.replace(b" ", b"") not in (b"q=0", b"q=0.0"):
            return coding.strip()
    return b""
