"""Take in the body of an inference request: whole, or, when it is large and binary, only its JSON part.

What is judged is in memory; the tensors of a large request go on to Triton as they come, with back-pressure,
so that the memory of a worker does not grow with the bodies it serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.models.facts import ModelFacts

from .bodies import InferFacts, json_part_length, judge_generate, judge_infer, judge_json_part
from .exchange import ByteBudget, Exchange, Headers
from .inflating import Inflater
from .parameters import Terms, edited
from .predict import PredictRequest, parse_predict
from .routes import Route, Verb
from .skeleton import Skeleton, skeleton

HEADER_LENGTH = b"inference-header-content-length"
STREAM_ABOVE_BYTES = 64 * 1024
SKELETON_ABOVE_BYTES = 64 * 1024
PIECES_AT_ONCE = 16
STREAM_HOLDS_BYTES = 512 * 1024  # what one streamed body has in memory at most, beside its JSON part
_PLAIN = b"identity"


class Upload:
    """A body that is still on its way: its head, and then the rest as it comes, once."""

    def __init__(self, came: bytes, head: bytes, rest: AsyncIterator[bytes], announced_bytes: int) -> None:
        """`came` is what the client has sent, `head` what goes to Triton instead of that."""
        self._head = head
        self._rest = rest
        self._announced_bytes = announced_bytes
        self.received_bytes = len(came)
        self.total_bytes = announced_bytes - len(came) + len(head)  # for Triton

    async def parts(self) -> AsyncIterator[bytes]:
        """All of the body, one part behind: the last one goes on when it is known that nothing follows.

        Raises TENSOR_INVALID when another number of bytes comes than was announced, and what reading raises.
        Nobody runs a request whose last byte is missing.
        """
        held = self._head
        async for part in self._rest:
            self.received_bytes += len(part)
            if self.received_bytes > self._announced_bytes:
                break
            if held:
                yield held
            held = part
        if self.received_bytes != self._announced_bytes:
            few = "fewer" if self.received_bytes < self._announced_bytes else "more"
            raise LotaBotsError(Code.TENSOR_INVALID, f"{few} bytes came than binary_data_size announces")
        yield held


@dataclass(slots=True)
class Intake:
    """A body that was judged: the inferences it asks for, and what goes to Triton."""

    rows: int
    body: bytes = b""  # empty when it comes as `upload`
    headers: Headers = field(default_factory=list)
    byte_count_before: int = 0  # of the body as it came
    upload: Upload | None = None
    predict: PredictRequest | None = None

    @property
    def byte_count(self) -> int:
        """How many plain bytes have come so far."""
        return self.byte_count_before if self.upload is None else self.upload.received_bytes


async def take_in(
    exchange: Exchange, route: Route, model: ModelFacts, terms: Terms, limit_bytes: int, budget: ByteBudget
) -> Intake:
    """Read and judge a body, and put it into the key's terms.

    Raises what its judges raise, OVERLOADED, or ClientGoneError.
    """
    header_length = exchange.headers.get(HEADER_LENGTH)
    encoding = exchange.headers.get(b"content-encoding", _PLAIN)
    if header_length is not None and route.verb is Verb.INFER and _is_worth_streaming(exchange):
        return await _take_in_head(exchange, header_length, encoding, model, terms, limit_bytes, budget)
    body = await exchange.read_body(limit_bytes, budget)
    if encoding != _PLAIN:
        body = await _inflated(encoding, body, limit_bytes)
        exchange.hold(len(body), budget)
    if route.verb is Verb.PREDICT:
        request = parse_predict(body, exchange.headers.get(b"content-type", b""), model)
        return Intake(len(request.images), body, byte_count_before=len(body), predict=request)
    if route.verb is Verb.INFER:
        facts = await _judge(body, header_length, model, terms)
    else:
        facts = judge_generate(body, header_length, model, terms)
    length = len(body) if header_length is None else int(header_length)
    changed = edited(body, facts.edits) if facts.edits else body
    length += len(changed) - len(body)
    headers = [] if header_length is None else [(HEADER_LENGTH, b"%d" % length)]
    return Intake(facts.rows, changed, headers, byte_count_before=len(body))


async def _judge(body: bytes, header_length: bytes | None, model: ModelFacts, terms: Terms) -> InferFacts:
    """Judge a whole infer body; others run in between when its JSON part is large."""
    length = len(body) if header_length is None else json_part_length(header_length)
    if not SKELETON_ABOVE_BYTES < length <= len(body):
        return judge_infer(body, header_length, model, terms)
    steps = skeleton(body[:length])
    while True:
        try:
            next(steps)
        except StopIteration as end:
            kept: Skeleton = end.value
            break
        await asyncio.sleep(0)
    facts = judge_json_part(kept.data, model, terms).with_binary(len(body) - length)
    moved = ((kept.in_body(begin), kept.in_body(stop), text) for begin, stop, text in facts.edits)
    return replace(facts, edits=tuple(moved))


async def _inflated(encoding: bytes, body: bytes, limit_bytes: int) -> bytes:
    """The plain body of a whole compressed one; others run in between."""
    inflater = Inflater(encoding, limit_bytes)
    pieces: list[bytes] = []
    for piece in inflater.feed(body):
        pieces.append(piece)
        if len(pieces) % PIECES_AT_ONCE == 0:
            await asyncio.sleep(0)
    inflater.finish()
    return b"".join(pieces)


def _is_worth_streaming(exchange: Exchange) -> bool:
    announced = exchange.headers.get(b"content-length", b"")
    small = announced.isdigit() and int(announced) <= STREAM_ABOVE_BYTES
    return not small and not exchange.body_is_here


async def _take_in_head(
    exchange: Exchange,
    header_length: bytes,
    encoding: bytes,
    model: ModelFacts,
    terms: Terms,
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
    came = b"".join(parts)
    facts = judge_json_part(came[:length], model, terms)
    total = length + facts.binary_bytes
    announced = exchange.headers.get(b"content-length", b"")
    if encoding == _PLAIN and announced.isdigit():
        facts.with_binary(int(announced) - length)
    if total > limit_bytes:
        raise LotaBotsError(Code.BODY_TOO_LARGE, f"it announces {total} bytes, the limit is {limit_bytes}")
    head = edited(came, facts.edits) if facts.edits else came
    length += len(head) - len(came)
    upload = Upload(came, head, rest, total)
    return Intake(facts.rows, headers=[(HEADER_LENGTH, b"%d" % length)], upload=upload)


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
