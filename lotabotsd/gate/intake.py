"""Take in the body of an inference request: whole, or, when it is large and binary, only its JSON part.

What is judged is in memory; the tensors of a large request go on to Triton as they come, with back-pressure,
so that the memory of a worker does not grow with the bodies it serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.models.facts import ModelFacts

from .bodies import (
    InferFacts,
    Inflater,
    inflate,
    json_part_length,
    judge_generate,
    judge_infer,
    judge_json_part,
)
from .exchange import ByteBudget, Exchange, Headers
from .predict import PredictRequest, parse_predict
from .routes import Route, Verb
from .skeleton import skeleton

HEADER_LENGTH = b"inference-header-content-length"
STREAM_ABOVE_BYTES = 64 * 1024
SKELETON_ABOVE_BYTES = 64 * 1024
STREAM_HOLDS_BYTES = 512 * 1024  # what one streamed body has in memory at most, beside its JSON part
_PLAIN = b"identity"


class Upload:
    """A body that is still on its way: its head, and then the rest as it comes, once."""

    def __init__(self, head: bytes, rest: AsyncIterator[bytes], total_bytes: int) -> None:
        self._head = head
        self._rest = rest
        self.total_bytes = total_bytes
        self.received_bytes = len(head)
        self.whole = False  # all of it was handed on

    async def parts(self) -> AsyncIterator[bytes]:
        """All of the body, one part behind: the last one goes on when it is known that nothing follows.

        Raises TENSOR_INVALID when another number of bytes comes than was announced, and what reading raises.
        Nobody runs a request whose last byte is missing.
        """
        held = self._head
        async for part in self._rest:
            self.received_bytes += len(part)
            if self.received_bytes > self.total_bytes:
                break
            if held:
                yield held
            held = part
        if self.received_bytes != self.total_bytes:
            few = "fewer" if self.received_bytes < self.total_bytes else "more"
            raise LotaBotsError(Code.TENSOR_INVALID, f"{few} bytes came than binary_data_size announces")
        self.whole = True
        yield held


@dataclass(slots=True)
class Intake:
    """A body that was judged: the inferences it asks for, and what goes to Triton."""

    rows: int
    body: bytes = b""  # empty when it comes as `upload`
    headers: Headers = field(default_factory=list)
    upload: Upload | None = None
    predict: PredictRequest | None = None

    @property
    def byte_count(self) -> int:
        """How many plain bytes have come so far."""
        return len(self.body) if self.upload is None else self.upload.received_bytes


async def take_in(
    exchange: Exchange, route: Route, model: ModelFacts, limit_bytes: int, budget: ByteBudget
) -> Intake:
    """Read and judge a body. Raises what its judges raise, OVERLOADED, or ClientGoneError."""
    header_length = exchange.headers.get(HEADER_LENGTH)
    encoding = exchange.headers.get(b"content-encoding", _PLAIN)
    if header_length is not None and route.verb is Verb.INFER and _is_worth_streaming(exchange):
        return await _take_in_head(exchange, header_length, encoding, model, limit_bytes, budget)
    body = await exchange.read_body(limit_bytes, budget)
    if encoding != _PLAIN:
        body = inflate(encoding, body, limit_bytes)
        exchange.hold(len(body), budget)
    if route.verb is Verb.PREDICT:
        request = parse_predict(body, exchange.headers.get(b"content-type", b""), model)
        return Intake(len(request.images), body, predict=request)
    headers = [] if header_length is None else [(HEADER_LENGTH, header_length)]
    if route.verb is Verb.INFER:
        return Intake((await _judge(body, header_length, model)).rows, body, headers)
    return Intake(judge_generate(body, header_length).rows, body, headers)


async def _judge(body: bytes, header_length: bytes | None, model: ModelFacts) -> InferFacts:
    """Judge a whole infer body; others run in between when its JSON part is large."""
    length = len(body) if header_length is None else json_part_length(header_length)
    if not SKELETON_ABOVE_BYTES < length <= len(body):
        return judge_infer(body, header_length, model)
    steps = skeleton(body[:length])
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return judge_json_part(end.value, model).with_binary(len(body) - length)
        await asyncio.sleep(0)


def _is_worth_streaming(exchange: Exchange) -> bool:
    announced = exchange.headers.get(b"content-length", b"")
    small = announced.isdigit() and int(announced) <= STREAM_ABOVE_BYTES
    return not small and not exchange.body_is_here


async def _take_in_head(
    exchange: Exchange,
    header_length: bytes,
    encoding: bytes,
    model: ModelFacts,
    limit_bytes: int,
    budget: ByteBudget,
) -> Intake:
    """Wait for the JSON part, judge it, and leave the rest to be sent on as it comes."""
    length = json_part_length(header_length)
    exchange.hold(length + STREAM_HOLDS_BYTES, budget)
    exchange.wake_at(length)
    rest = _plain_parts(exchange, encoding, limit_bytes)
    parts: list[bytes] = []
    size = 0
    async for part in rest:
        parts.append(part)
        size += len(part)
        if size >= length:
            break
    else:
        raise LotaBotsError(Code.REQUEST_MALFORMED, "Inference-Header-Content-Length does not fit the body")
    exchange.wake_at(STREAM_ABOVE_BYTES)
    head = b"".join(parts)
    facts = judge_json_part(head[:length], model)
    total = length + facts.binary_bytes
    announced = exchange.headers.get(b"content-length", b"")
    if encoding == _PLAIN and announced.isdigit():
        facts.with_binary(int(announced) - length)
    if total > limit_bytes:
        raise LotaBotsError(Code.BODY_TOO_LARGE, f"it announces {total} bytes, the limit is {limit_bytes}")
    return Intake(facts.rows, headers=[(HEADER_LENGTH, header_length)], upload=Upload(head, rest, total))


async def _plain_parts(exchange: Exchange, encoding: bytes, limit_bytes: int) -> AsyncIterator[bytes]:
    """The body's plain parts as they come; an inflated one is given out in pieces."""
    if encoding == _PLAIN:
        async for part in exchange.parts(limit_bytes):
            yield part
        return
    inflater = Inflater(encoding, limit_bytes)
    async for part in exchange.parts(limit_bytes):
        for piece in inflater.feed(part):
            yield piece
    inflater.finish()
