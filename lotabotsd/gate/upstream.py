"""Step 6: send a request on to Triton's Unix socket over kept-alive connections, bytes untouched.

As many connections are busy as answers are under way, at most one per client; idle ones are bounded here and
are closed before Triton is drained (one idle connection would hold up its exit).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import httptools

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError

from .outbox import Outbox

HIGH_WATER_BYTES = 256 * 1024
LOW_WATER_BYTES = 64 * 1024
SOCKET_LOOK_SECONDS = 0.25  # the old Triton is told to stop a second after the new one took over
SMALL_CHUNK_BYTES = 8 * 1024  # smaller ones are sent on together
_FORWARDED_ANSWER_HEADERS = frozenset(
    {b"content-type", b"content-encoding", b"inference-header-content-length"}
)
Body = bytes | AsyncIterator[bytes]


@dataclass(slots=True)
class UpstreamAnswer:
    """Triton's answer: its head, and its body as it arrives."""

    status: int
    headers: list[tuple[bytes, bytes]]
    length: int | None  # of the body, where it was announced
    _connection: Connection
    _pool: UpstreamPool = field(repr=False)
    _ended: bool = False

    async def next_chunk(self, timeout_seconds: float) -> bytes:
        """The next part of the body; empty at its end. Raises RUNTIME_UNAVAILABLE or RUNTIME_TIMEOUT."""
        if self._ended:
            return b""
        chunk = await self._connection.read_chunk(timeout_seconds)
        if not chunk:
            self._ended = True
            self._pool.give_back(self._connection)
        return chunk

    def abandon(self) -> None:
        """Give up on the rest of the body, if there is any; the connection cannot be used again."""
        if not self._ended:
            self._ended = True
            self._connection.close()


class Connection(asyncio.Protocol):
    """One connection to Triton, one request at a time."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.socket = 0  # the inode that it was opened at
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._due = 0.0  # of the waiter, on the loop's clock
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._length = self._received = 0  # of the body, announced and so far
        self.length: int | None = None
        self._as_it_comes = 0  # what is left of a body that the parser does not see
        self._paused = False
        self._can_write = asyncio.Event()
        self._can_write.set()
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_done = False
        self.complete = True  # nothing is asked
        self.whole = True  # all of what is asked was sent
        self.closed = False

    # -- asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class does not derive from it

    def data_received(self, data: bytes) -> None:
        try:
            if self._as_it_comes:
                self._take_rest(data)
            else:
                self._parser.feed_data(data)
                left = self._length - self._received
                if self.head_done and not self.complete and left > LOW_WATER_BYTES:
                    self._as_it_comes = left
        except httptools.HttpParserError:
            self.close()
        self._wake()

    def _take_rest(self, data: bytes) -> None:
        """The rest of a large body of known length needs no parser, which would copy it."""
        body = data[: self._as_it_comes]
        self._as_it_comes -= len(body)
        self.on_body(body)
        if not self._as_it_comes:
            self.on_message_complete()
            self._parser = httptools.HttpResponseParser(self)  # the old one still waits for the body
            if len(body) < len(data):
                self.close()  # nobody asked for what follows

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._can_write.set()
        self._wake()

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    # -- httptools callbacks
    def on_message_begin(self) -> None:
        if self.complete:
            raise httptools.HttpParserError("nobody asked")  # nothing more on this connection can be trusted

    def on_status(self, status: bytes) -> None:
        self.status = self._parser.get_status_code()

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _FORWARDED_ANSWER_HEADERS:
            self.headers.append((name, value))
        elif name == b"content-length":
            self._length = self.length = int(value)  # the parser has judged it

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.head_done = True

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._received += len(body)
        self._buffered += len(body)
        if self._buffered > HIGH_WATER_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        self.complete = True
        if not self._parser.should_keep_alive():
            self.close()

    # -- the pool's side
    async def send(self, head: bytes, body: Body, timeout_seconds: float) -> None:
        """Write one request, with back-pressure for large bodies and for those that are still on their way.

        Raises RUNTIME_TIMEOUT when nothing is taken for so long, and whatever the body raises.
        """
        assert self._transport is not None
        self.status, self.headers, self.length = 0, [], None
        self.head_done = self.complete = False
        self._length = self._received = self._as_it_comes = 0
        self._chunks.clear()
        self._buffered = 0
        if isinstance(body, bytes) and len(body) <= LOW_WATER_BYTES:
            self._outbox.write(self._transport, head + body)
            return
        self.whole = False
        self._transport.write(head)
        async for part in _slices(body) if isinstance(body, bytes) else body:
            if self.closed or self.head_done:
                return  # gone, or answered early; what was answered tells more
            self._transport.write(part)
            if not self._can_write.is_set():
                await self._writable(timeout_seconds)
        self.whole = True

    async def _writable(self, timeout_seconds: float) -> None:
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._can_write.wait()
        except TimeoutError as error:
            raise LotaBotsError(Code.RUNTIME_TIMEOUT, "it takes no more of the request") from error

    async def read_head(self, timeout_seconds: float) -> None:
        """Wait for the head of the answer."""
        while not self.head_done:
            if self.closed:
                raise LotaBotsError(Code.RUNTIME_UNAVAILABLE, "the connection to the inference server broke")
            await self._wait(timeout_seconds)

    async def read_chunk(self, timeout_seconds: float) -> bytes:
        """The next part of the body; empty at its end."""
        while not self._chunks:
            if self.complete:
                return b""
            if self.closed:
                raise LotaBotsError(Code.RUNTIME_UNAVAILABLE, "the answer broke off")
            await self._wait(timeout_seconds)
        chunk = self._chunks.popleft()
        if self._chunks and len(chunk) < SMALL_CHUNK_BYTES:
            chunk = b"".join([chunk, *self._chunks])
            self._chunks.clear()
        self._buffered -= len(chunk)
        if (
            self._paused
            and self._buffered < LOW_WATER_BYTES
            and self._transport is not None
            and not self.closed
        ):
            self._paused = False
            self._transport.resume_reading()
        return chunk

    def close(self) -> None:
        """Drop the connection."""
        self.closed = True
        if self._transport is not None:
            self._transport.close()

    async def _wait(self, timeout_seconds: float) -> None:
        """Until something arrives. The timer is set anew only when it fires or would fire too late."""
        waiter = self._waiter = self._loop.create_future()
        self._due = self._loop.time() + timeout_seconds
        if self._timer is None or self._due < self._timer_at:
            self._set_timer()
        try:
            await waiter
        finally:
            self._waiter = None

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._due
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._timer = None
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if self._loop.time() < self._due:
            self._set_timer()
            return
        waiter.set_exception(LotaBotsError(Code.RUNTIME_TIMEOUT))
        self.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class UpstreamPool:
    """Kept-alive connections to one Unix socket."""

    def __init__(self, socket_path: Path, *, max_idle: int, timeout_seconds: float) -> None:
        self._path = str(socket_path)
        self._max_idle = max_idle
        self._timeout_seconds = timeout_seconds
        self._idle: list[Connection] = []
        self._outbox = Outbox()
        self._socket = 0  # its inode: another image of Triton takes over by putting its own socket there
        self._look_at = 0.0
        self.reachable = False  # until it answered once

    async def request(
        self,
        method: str,
        path: str,
        body: Body,
        headers: list[tuple[bytes, bytes]],
        *,
        length: int | None = None,
    ) -> UpstreamAnswer:
        """Send one request and wait for the head of its answer.

        `length` is that of a body that comes in parts. A kept connection that broke before a single byte of
        the answer is tried once more on a fresh one, unless the body came in parts: they are gone.
        Raises RUNTIME_UNAVAILABLE or RUNTIME_TIMEOUT, and whatever such a body raises.
        """
        if isinstance(body, bytes):
            length = len(body)
        assert length is not None
        head = request_head(method, path, length, headers)
        connection, fresh = await self._take()
        try:
            return await self._exchange(connection, head, body)
        except LotaBotsError as error:
            connection.close()
            once = fresh or connection.status or not isinstance(body, bytes)
            if once or error.code is not Code.RUNTIME_UNAVAILABLE:
                raise
        except BaseException:  # cancelled, or the client went away behind half a body
            connection.close()
            raise
        connection = await self._connect()
        try:
            return await self._exchange(connection, head, body)
        except BaseException:
            connection.close()
            raise

    async def _exchange(self, connection: Connection, head: bytes, body: Body) -> UpstreamAnswer:
        await connection.send(head, body, self._timeout_seconds)
        await connection.read_head(self._timeout_seconds)
        return UpstreamAnswer(connection.status, connection.headers, connection.length, connection, self)

    def _look(self) -> None:
        """Give up what is kept to a Triton that no longer is the one that is asked."""
        now = asyncio.get_running_loop().time()
        if now < self._look_at:
            return
        self._look_at = now + SOCKET_LOOK_SECONDS
        with contextlib.suppress(OSError):
            found = os.stat(self._path).st_ino  # noqa: PTH116 - once per look, and a text is what there is
            if found != self._socket:
                self._socket = found
                self.close()

    async def _take(self) -> tuple[Connection, bool]:
        self._look()
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection, False
        return await self._connect(), True

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                _, connection = await loop.create_unix_connection(
                    lambda: Connection(self._outbox), self._path
                )
        except (OSError, TimeoutError) as error:
            self.reachable = False
            raise LotaBotsError(Code.RUNTIME_UNAVAILABLE, "nothing listens at its socket") from error
        self.reachable = True
        connection.socket = self._socket
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, or close it when enough are kept."""
        fit = connection.complete and connection.whole and not connection.closed
        fit = fit and connection.socket == self._socket
        if not fit or len(self._idle) >= self._max_idle:
            connection.close()
        else:
            self._idle.append(connection)

    def close(self) -> None:
        """Drop every idle connection."""
        while self._idle:
            self._idle.pop().close()


async def _slices(body: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(body)
    for start in range(0, len(body), HIGH_WATER_BYTES):
        yield view[start : start + HIGH_WATER_BYTES]


def request_head(method: str, path: str, body_length: int, headers: list[tuple[bytes, bytes]]) -> bytes:
    """The head of a request to Triton: always with a Content-Length, never chunked."""
    more = b"".join([b"%b: %b\r\n" % header for header in headers])
    return b"%b %b HTTP/1.1\r\nhost: triton\r\ncontent-length: %d\r\n%b\r\n" % (
        method.encode(),
        path.encode(),
        body_length,
        more,
    )
