"""The wire: uvicorn's httptools protocol with caps on headers and connections, and with deadlines.

By itself uvicorn accepts tens of megabytes of headers and waits for ever; here every connection has a
header cap, a header, body and idle deadline, and the server a cap on connections. A connection has one
timer, which is set anew only when it fires: a request that comes and goes in time touches no timer.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn._types import ASGIVersions
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import problem
from lotabotsd.limits.counters import Counter

from .counting import Counts
from .cycle import GateCycle
from .outbox import Outbox

MAX_PIPELINED = (
    32  # requests that wait on one connection for the answer to the one before, and those of a slice
)
SLICE_BYTES = 4 * 1024
_NEVER = float("inf")
_ASGI: ASGIVersions = {"version": "3.0", "spec_version": "2.3"}


@dataclass(frozen=True, slots=True)
class Caps:
    """What one connection may cost."""

    header_bytes: int
    header_timeout_seconds: float
    body_timeout_seconds: float
    idle_timeout_seconds: float
    connections: int


def gate_protocol(caps: Caps, counts: Counts | None = None) -> type[GateProtocol]:
    """The protocol class with these caps; uvicorn makes one instance per connection."""
    shared = {"caps": caps, "outbox": Outbox(), "counts": counts or Counts()}
    return type("GateProtocol", (GateProtocol,), shared)


class GateProtocol(HttpToolsProtocol):
    """uvicorn's protocol, bounded in every direction."""

    caps: Caps
    outbox: Outbox
    counts: Counts
    _header_bytes = 0
    _begun = False  # a byte of a request is there, and it is not answered yet
    _in_body = False
    _announced = _body_left = 0  # of a body of known length
    _unparsed = b""  # what was read behind the requests that wait
    _refused = False
    _running: GateCycle | None = None  # the request that is being answered
    _due = _NEVER  # when the client has been too slow, on the loop's clock
    _idle = False  # `_due` is the end of the pause between two requests
    _timer: asyncio.TimerHandle | None = None
    _timer_at = _NEVER

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        super().connection_made(transport)
        self.counts.add(Counter.CONNECTIONS)
        if len(self.connections) > self.caps.connections:
            self.counts.add(Counter.CONNECTIONS_REFUSED)
            self._refuse(Code.OVERLOADED, "there are too many connections")
            return
        self._due = self.loop.time() + self.caps.header_timeout_seconds
        self._set_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._due = _NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running is not None and self._running.lose():
            self.counts.add(Counter.CLIENTS_GONE)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._idle or (self._due == _NEVER and (self.cycle is None or self.cycle.response_complete)):
            self._idle = False
            self._due = self.loop.time() + self.caps.header_timeout_seconds
        self._parse(data)
        self._set_due()

    def _parse(self, data: bytes) -> None:
        """Parse what was read; the rest waits once enough requests wait for the answer to the one before.

        A body is parsed as it came. Everything else in slices, which hold few heads: one read of the socket
        could hold thousands.
        """
        if self._unparsed:  # one more read, before the pause took effect
            self._unparsed += data
            return
        at = 0
        while at < len(data) and not self._refused and not self.transport.is_closing():
            if len(self.pipeline) >= MAX_PIPELINED:
                self._unparsed = data[at:]
                self.flow.pause_reading()
                return
            size = max(SLICE_BYTES, self._body_left)
            super().data_received(data if at == 0 and size >= len(data) else data[at : at + size])
            at += size

    # -- httptools callbacks
    def on_message_begin(self) -> None:
        self._header_bytes = 0
        self._announced = 0
        self._begun = True
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        elif name == b"content-length" and value.isdigit():
            self._announced = int(value)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._due = _NEVER
        self._in_body = True
        self._body_left = self._announced
        before = self.cycle
        version = self.parser.get_http_version()
        path, query = _target(self.url)
        self.scope = {  # what our application reads, and no more
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": self.parser.get_method().decode("ascii"),
            "path": path.decode("ascii"),
            "raw_path": path,
            "query_string": query,
            "headers": self.headers,
            "client": self.client,
            "server": self.server,
            "scheme": "http",
            "root_path": "",
        }
        cycle = GateCycle(
            self.outbox,
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        # The application learns here whether its client is still there.
        self.scope["extensions"] = {"lotabots": {"cycle": cycle}}
        self.cycle = cycle
        if before is None or before.response_complete:
            self._run(cycle)
        else:  # pipelined: it waits for the one before
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def _run(self, cycle: RequestResponseCycle) -> None:
        """Begin with a request; with pipelining, another one than the last that arrived."""
        assert isinstance(cycle, GateCycle)
        self._running = cycle
        self._start_asgi_task(cycle, self.app)

    def on_body(self, body: bytes) -> None:
        self._body_left -= len(body)
        cycle = self.cycle
        assert isinstance(cycle, GateCycle)
        if not cycle.response_complete:
            cycle.feed(body)

    def on_message_complete(self) -> None:
        self._due = _NEVER
        self._in_body = False
        self._body_left = 0
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._begun = bool(self.pipeline)
        if self.transport.is_closing():
            self._end_slow_reader()
            return
        if self.pipeline:  # what is still to be read waits until these are answered
            self._run(self.pipeline.pop()[0])
            return
        self.flow.resume_reading()
        data, self._unparsed = self._unparsed, b""
        self._parse(data)
        self._set_due()

    def shutdown(self) -> None:
        self.outbox.flush()
        super().shutdown()

    def send_400_response(self, msg: str) -> None:
        if not self._refused:
            self._refuse(Code.REQUEST_MALFORMED, "this is not HTTP/1.1")

    # -- bounds
    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self.caps.header_bytes and not self._refused:
            self._refuse(Code.HEADERS_TOO_LARGE, f"they are limited to {self.caps.header_bytes} bytes")
            raise httptools.HttpParserError("headers too large")  # ends the parsing of what was read

    def _set_due(self) -> None:
        """Give the phase that the connection is in its deadline, unless it has one."""
        if self._due == _NEVER:
            if self._in_body:
                self._due = self.loop.time() + self.caps.body_timeout_seconds
            elif not self._begun:
                self._due = self.loop.time() + self.caps.idle_timeout_seconds
                self._idle = True
        if self._due < self._timer_at:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._due
        self._timer = self.loop.call_at(self._due, self._look)

    def _look(self) -> None:
        """The timer fired; it was set for the nearest deadline, which may be over by now."""
        self._timer, self._timer_at = None, _NEVER
        if self._due == _NEVER or self._refused or self.transport.is_closing():
            return
        if self.loop.time() < self._due:
            self._set_timer()
        else:
            self._too_slow()

    def _too_slow(self) -> None:
        self._due = _NEVER
        if isinstance(self.cycle, GateCycle):
            self.cycle.lose()  # the application sees a client that went away
        if self._begun:
            self._refuse(Code.REQUEST_TIMEOUT, "")
        elif self.transport.get_write_buffer_size():
            self.transport.abort()  # it has not even taken the answer to what it asked
        else:
            self.transport.close()  # nothing was asked, so nothing is answered

    def _end_slow_reader(self) -> None:
        """A closed transport waits for its reader, who may never read: not for ever."""
        if self.transport.get_write_buffer_size():
            self.loop.call_later(self.caps.body_timeout_seconds, self.transport.abort)

    def _refuse(self, code: Code, detail: str) -> None:
        """Answer outside the application, and close."""
        self._refused = True
        self._due = _NEVER
        self.outbox.flush()  # the answer to a request before this one
        if self.transport.is_closing():
            return
        status, headers, body = problem_answer(problem(code, detail))
        self.counts.answered(status)
        lines = [STATUS_LINE[status]]
        lines += [name + b": " + value + b"\r\n" for name, value in headers]
        self.transport.write(b"".join([*lines, b"connection: close\r\n\r\n", body]))
        self.transport.close()
        self._end_slow_reader()


def _target(url: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request target; raises what httptools turns into a 400."""
    if url.startswith(b"/"):  # origin-form (RFC 9112, section 3.2.1), which is what everybody sends
        path, _, query = url.partition(b"?")
        return path, query
    parsed = httptools.parse_url(url)
    return parsed.path, parsed.query or b""


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
