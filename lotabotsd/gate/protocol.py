"""The wire: uvicorn's httptools protocol with caps on headers and connections, and with deadlines.

By itself uvicorn accepts tens of megabytes of headers and waits for ever; here every connection has a
header cap, a header, body and idle deadline, and the server a cap on connections. A connection has one
timer, which is set anew only when it fires: a request that comes and goes in time touches no timer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn._types import ASGIVersions
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import problem
from lotabotsd.limits.counters import Counter

from .counting import Counts
from .outbox import Outbox

SMALL_ANSWER_BYTES = 64 * 1024
BODY_HIGH_WATER_BYTES = 256 * 1024
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


class GateProtocol(HttpToolsProtocol):
    """uvicorn's protocol, bounded in every direction."""

    caps: Caps
    outbox: Outbox
    counts: Counts
    _header_bytes = 0
    _begun = False  # a byte of a request is there, and it is not answered yet
    _in_body = False
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
        super().data_received(data)
        self._set_due()

    # -- httptools callbacks
    def on_message_begin(self) -> None:
        self._header_bytes = 0
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
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._due = _NEVER
        self._in_body = True
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
        cycle = self.cycle
        assert isinstance(cycle, GateCycle)
        if not cycle.response_complete:
            cycle.feed(body)

    def on_message_complete(self) -> None:
        self._due = _NEVER
        self._in_body = False
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._begun = bool(self.pipeline)
        if self.transport.is_closing():
            self._end_slow_reader()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._run(self.pipeline.pop()[0])
        else:
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
