"""One request on a connection and its answer: the body without copies, a small answer in one write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from .outbox import Outbox

SMALL_ANSWER_BYTES = 64 * 1024
BODY_HIGH_WATER_BYTES = 256 * 1024


class GateCycle(RequestResponseCycle):
    """One request and its answer. Beside what ASGI needs: the body without copies, an answer in one write."""

    def __init__(self, outbox: Outbox, **parts: Any) -> None:
        super().__init__(**parts)
        self._outbox = outbox
        self._parts: list[bytes] = []
        self.held_bytes = 0
        self.when_gone: Callable[[], None] | None = None
        self.wake_bytes = BODY_HIGH_WATER_BYTES  # as much of a body that is not whole is worth a wake-up

    @property
    def whole(self) -> bool:
        """Whether all of the body has arrived, and is still wanted."""
        return not (self.more_body or self.disconnected or self.response_complete)

    @property
    def can_answer(self) -> bool:
        """Whether `answer` would neither wait nor come second."""
        return not (self.response_started or self.flow.write_paused)

    def feed(self, part: bytes) -> None:
        """A part of the body arrived. The application gets it with more, or with the end."""
        self._parts.append(part)
        self.held_bytes += len(part)
        if self.held_bytes >= self.wake_bytes:
            self.message_event.set()
        if self.held_bytes > BODY_HIGH_WATER_BYTES:
            self.flow.pause_reading()

    def take(self) -> bytes:
        """What has arrived since the last take; reading goes on, or nobody would see the client hang up."""
        self.message_event.clear()
        parts, self._parts, self.held_bytes = self._parts, [], 0
        self.flow.resume_reading()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def lose(self) -> bool:
        """The client is gone, or too slow to be waited for; whether that is news."""
        if self.response_complete or self.disconnected:
            return False
        self.disconnected = True
        self.message_event.set()
        if self.when_gone is not None:
            self.when_gone()
        return True

    async def receive(self) -> Any:
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            self.flow.resume_reading()
            await self.message_event.wait()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": self.take(), "more_body": self.more_body}

    def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Send a whole answer with one write; `headers` hold its content-length. Only while `can_answer`."""
        if self.disconnected:
            return
        self.response_started = True
        self.waiting_for_100_continue = False
        lines = [STATUS_LINE[status]]
        for name, value in headers:
            lines.append(b"%b: %b\r\n" % (name, value))
            if name == b"connection" and value == b"close":
                self.keep_alive = False
        if not self.keep_alive and (b"connection", b"close") not in headers:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != len(lines):
            raise RuntimeError("a header's value holds a line break")
        if self.scope["method"] == "HEAD":
            body = b""
        if self.keep_alive and len(body) <= SMALL_ANSWER_BYTES:
            self._outbox.write(self.transport, head + body)
        else:
            self._outbox.flush()
            self.transport.writelines([head, body])
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
