"""The wire: uvicorn's httptools protocol with caps on headers and connections, and with deadlines.

By itself uvicorn accepts tens of megabytes of headers and waits for ever; here every connection has a
header cap, a header, body and idle deadline, and the server a cap on connections.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import problem


@dataclass(frozen=True, slots=True)
class Caps:
    """What one connection may cost."""

    header_bytes: int
    header_timeout_seconds: float
    body_timeout_seconds: float
    connections: int


def gate_protocol(caps: Caps) -> type[GateProtocol]:
    """The protocol class with these caps; uvicorn makes one instance per connection."""
    return type("GateProtocol", (GateProtocol,), {"caps": caps})


class GateProtocol(HttpToolsProtocol):
    """uvicorn's protocol, bounded in every direction."""

    caps: Caps
    _deadline: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _begun = False  # a byte of a request is there, and it is not answered yet
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        super().connection_made(transport)
        if len(self.connections) > self.caps.connections:
            self._refuse(Code.OVERLOADED, "there are too many connections")
            return
        self._arm(self.caps.header_timeout_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._arm(self.caps.header_timeout_seconds)
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._header_bytes = 0
        self._begun = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._disarm()
        super().on_headers_complete()
        # The application learns here whether its client is still there.
        self.scope["extensions"] = {"lotabots": {"cycle": self.cycle}}
        self._arm(self.caps.body_timeout_seconds)

    def on_message_complete(self) -> None:
        self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._begun = False
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        if not self._refused:
            self._refuse(Code.REQUEST_MALFORMED, "this is not HTTP/1.1")

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self.caps.header_bytes and not self._refused:
            self._refuse(Code.HEADERS_TOO_LARGE, f"they are limited to {self.caps.header_bytes} bytes")
            raise httptools.HttpParserError("headers too large")  # ends the parsing of what was read

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, self._too_slow)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # the application sees a client that went away
            self.cycle.message_event.set()
        if self._begun:
            self._refuse(Code.REQUEST_TIMEOUT, "")
        else:
            self.transport.close()  # nothing was asked, so nothing is answered

    def _refuse(self, code: Code, detail: str) -> None:
        """Answer outside the application, and close."""
        self._refused = True
        self._disarm()
        if self.transport.is_closing():
            return
        status, headers, body = problem_answer(problem(code, detail))
        lines = [STATUS_LINE[status]]
        lines += [name + b": " + value + b"\r\n" for name, value in headers]
        self.transport.write(b"".join([*lines, b"connection: close\r\n\r\n", body]))
        self.transport.close()


Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


def problem_answer(shape: dict[str, Any], retry_after_seconds: int | None = None) -> Answer:
    """The HTTP form of a problem. `error` repeats the text for clients of the KServe protocol."""
    text = f"{shape['title']}: {shape['detail']}" if shape["detail"] != shape["title"] else shape["title"]
    body = json.dumps({**shape, "error": f"{text} ({shape['hint']})"}).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if shape["status"] == 401:
        headers.append((b"www-authenticate", b'Bearer realm="lotabots"'))
    if retry_after_seconds is not None:
        headers.append((b"retry-after", str(retry_after_seconds).encode()))
    return shape["status"], headers, body
