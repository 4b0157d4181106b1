"""One request and its answer on the wire: read the body within its caps, send an answer, notice hang-ups."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError, problem

from .cycle import BODY_HIGH_WATER_BYTES, GateCycle
from .protocol import Answer, problem_answer

if TYPE_CHECKING:
    from .admission import Refused

Headers = list[tuple[bytes, bytes]]
LINGER_SECONDS = 2.0
LINGER_BYTES = 16 << 20


class ClientGoneError(Exception):
    """The client hung up before its request was whole; there is nobody to answer."""


class ByteBudget:
    """All bodies in one worker's memory; bounded, so that many large uploads cannot fill the machine."""

    def __init__(self, limit_bytes: int) -> None:
        self._free = limit_bytes

    def take(self, size: int) -> None:
        """Raises OVERLOADED when the bodies in memory already fill the budget."""
        if size > self._free:
            raise LotaBotsError(Code.OVERLOADED, "too many large requests are under way")
        self._free -= size

    def give(self, size: int) -> None:
        """Give bytes back."""
        self._free += size


class Exchange:
    """The ASGI side of one request."""

    def __init__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
        request_id: str,
        write_timeout_seconds: float,
    ) -> None:
        self._receive = receive
        self._send = send
        self._cycle: GateCycle | None = (scope.get("extensions") or {}).get("lotabots", {}).get("cycle")
        self._write_timeout_seconds = write_timeout_seconds
        self.method: str = scope["method"]
        self.raw_path: bytes = scope["raw_path"]
        self.headers: dict[bytes, bytes] = {}
        self.repeated: set[bytes] = set()
        for name, value in scope["headers"]:
            if name in self.headers:
                self.repeated.add(name)
            self.headers[name] = value
        self.request_id = request_id
        self.started = False
        self.status = 0  # of the answer
        self.received_bytes = self.sent_bytes = 0  # of bodies
        self.overloaded = False  # that is why it was refused
        # A request without either header has no body (RFC 9112, section 6.3).
        self._body_read = (
            self.headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in self.headers
        )
        self.held_bytes = 0
        self.extra_headers: Headers = []
        self.tap: Callable[[bytes], object] | None = None  # sees the body as it was sent
        self._answer_due = float("inf")  # when the client must have taken all, on the loop's clock

    @property
    def client_gone(self) -> bool:
        """Whether the client has hung up (or was cut off for being too slow)."""
        return self._cycle is not None and self._cycle.disconnected

    @property
    def body_is_here(self) -> bool:
        """Whether all of the body has arrived."""
        return self._body_read or (self._cycle is not None and self._cycle.whole)

    @property
    def body_was_read(self) -> bool:
        """Whether all of the body was taken in."""
        return self._body_read

    def when_gone(self, do: Callable[[], None] | None) -> None:
        """Call this as soon as the client hangs up before it has its answer; None forgets it."""
        if self._cycle is not None:
            self._cycle.when_gone = do
            if do is not None and self._cycle.disconnected:
                do()

    async def read_body(self, limit_bytes: int, budget: ByteBudget) -> bytes:
        """The whole body. Raises BODY_TOO_LARGE, OVERLOADED or ClientGoneError."""
        if self._cycle is not None and self._cycle.whole:  # as small requests are: nothing to wait for
            self._refuse_announced(limit_bytes)
            body = self._cycle.take()
            self._see(body, len(body), limit_bytes)
            self._body_read = True
            self.hold(len(body), budget)
            return body
        parts: list[bytes] = []
        async for part in self.parts(limit_bytes):
            self.hold(len(part), budget)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def parts(self, limit_bytes: int) -> AsyncIterator[bytes]:
        """The body as it comes; while nobody takes the next part, the client is not read.

        Raises BODY_TOO_LARGE or ClientGoneError.
        """
        self._refuse_announced(limit_bytes)
        size = 0
        while not self._body_read:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part = message.get("body", b"")
            size += len(part)
            self._see(part, size, limit_bytes)
            self._body_read = not message.get("more_body", False)
            yield part

    def wake_at(self, size: int) -> None:
        """Give out a part of the body as soon as it has so many bytes, at most 256 KiB."""
        if self._cycle is not None:
            self._cycle.wake_bytes = min(size, BODY_HIGH_WATER_BYTES)
            if self._cycle.held_bytes >= size:
                self._cycle.message_event.set()

    def hold(self, size: int, budget: ByteBudget) -> None:
        """Account for bytes of this request in memory, until its end. Raises OVERLOADED."""
        budget.take(size)
        self.held_bytes += size

    def _refuse_announced(self, limit_bytes: int) -> None:
        announced = self.headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > limit_bytes:
            raise LotaBotsError(
                Code.BODY_TOO_LARGE, f"it has {int(announced)} bytes, the limit is {limit_bytes}"
            )

    def _see(self, part: bytes, size: int, limit_bytes: int) -> None:
        """Judge and show a part of a body that has `size` bytes by now."""
        if size > limit_bytes:
            raise LotaBotsError(Code.BODY_TOO_LARGE, f"the limit is {limit_bytes} bytes")
        self.received_bytes += len(part)
        if self.tap is not None:
            self.tap(part)

    async def start(self, status: int, headers: Headers, *, take_within_seconds: float | None = None) -> None:
        """Send the head of the answer; the client must have taken all of it in time, or is dropped."""
        self.started = True
        self.status = status
        if take_within_seconds is not None:
            self._answer_due = asyncio.get_running_loop().time() + take_within_seconds
        await self._write(
            {"type": "http.response.start", "status": status, "headers": self._identified(headers)}
        )

    async def send(self, body: bytes, *, more: bool) -> None:
        """Send a part of the body; `more` False ends the answer."""
        self.sent_bytes += len(body)
        await self._write({"type": "http.response.body", "body": body, "more_body": more})

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer, also to a client that is still sending."""
        if not any(name == b"content-length" for name, _ in headers):
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        if self._body_read and self._cycle is not None and self._cycle.can_answer:
            self.started = True
            self.status = status
            self.sent_bytes += len(body)
            self._cycle.answer(status, self._identified(headers), body)
            return
        await self.start(status, headers)
        if not self._body_read:
            await self.send(body, more=True)
            await self._discard_rest()
            body = b""
        await self.send(body, more=False)

    def _identified(self, headers: Headers) -> Headers:
        return [*headers, *self.extra_headers, (b"lotabots-request-id", self.request_id.encode())]

    async def _discard_rest(self) -> None:
        """Take in, for a while, what the client still sends.

        Closing with unread data resets the connection, and the reset can overtake the answer (RFC 9112,
        section 9.6).
        """
        discarded = 0
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while discarded < LINGER_BYTES:
                    message = await self._receive()
                    discarded += len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
        except TimeoutError:
            return

    async def answer_json(self, status: int, body: bytes) -> None:
        """Send a whole JSON answer."""
        await self.answer(status, [(b"content-type", b"application/json")], body)

    async def refuse(
        self,
        code: Code,
        detail: str = "",
        *,
        hint: str | None = None,
        retry_after_seconds: int | None = None,
        extra: dict[str, Any] | None = None,
        headers: Headers | None = None,
    ) -> None:
        """Send the one JSON shape of every refusal."""
        self.overloaded = code is Code.OVERLOADED
        shape = problem(code, detail, hint=hint, instance=self.request_id, **(extra or {}))
        status, own, body = problem_answer(shape, retry_after_seconds)
        await self.answer(status, [*own, *(headers or [])], body)

    async def refuse_as(self, refused: Refused) -> None:
        """Send what admission decided."""
        await self.answer(*self.worded(refused))

    def worded(self, refused: Refused) -> Answer:
        """Status, headers and body of a refusal."""
        self.overloaded = refused.code is Code.OVERLOADED
        shape = problem(
            refused.code, refused.detail, hint=refused.hint, instance=self.request_id, **refused.extra
        )
        return problem_answer(shape, refused.retry_after_seconds)

    async def _write(self, message: dict[str, Any]) -> None:
        if self._cycle is not None and not self._cycle.flow.write_paused:
            await self._send(message)  # does not wait
            return
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(min(now + self._write_timeout_seconds, self._answer_due)):
                await self._send(message)
        except TimeoutError:
            # A reader that takes nothing for so long does not get the rest: the connection is dropped.
            self.abort()

    def abort(self) -> None:
        """Break the connection: what was sent cannot be taken back, and the rest will not come."""
        if self._cycle is not None:
            self._cycle.lose()
            self._cycle.transport.abort()
