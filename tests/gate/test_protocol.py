"""The wire: caps and deadlines of a connection, with a real server and real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from lotabotsd.foundation.config import GateConfig
from lotabotsd.gate.counting import Counts
from lotabotsd.gate.exchange import ByteBudget, ClientGoneError, Exchange
from lotabotsd.gate.protocol import MAX_PIPELINED, SLICE_BYTES
from lotabotsd.gate.server import make_server

Story = Callable[[int], Awaitable[None]]
CLOSING = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
CAPS = GateConfig(max_header_bytes=2_048, header_timeout_seconds=5, body_timeout_seconds=5, max_connections=8)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    exchange = Exchange(scope, receive, send, "id", 5)
    try:
        body = await exchange.read_body(1 << 20, ByteBudget(1 << 30))
    except ClientGoneError:
        await exchange.answer(408, [], b"gone")
        return
    await exchange.answer(200, [], body or b"empty")


def serve(story: Story, caps: GateConfig = CAPS, app: Any = echo) -> None:
    async def play() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        started = asyncio.Event()
        server = make_server(app, caps, started.set, Counts())
        running = asyncio.create_task(server.serve(sockets=[listener]))
        await started.wait()
        try:
            await story(port)
        finally:
            server.should_exit = True
            await running

    asyncio.run(asyncio.wait_for(play(), 20))


async def talk(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


def problem_of(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    shape: dict[str, Any] = json.loads(body)
    return shape


def test_too_many_header_bytes_are_431() -> None:
    async def story(port: int) -> None:
        for request in (
            b"GET / HTTP/1.1\r\nhost: x\r\nbig: " + b"a" * 4_000 + b"\r\n\r\n",
            b"GET /" + b"a" * 4_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: 1\r\n" % n for n in range(500)) + b"\r\n",
        ):
            assert problem_of(await talk(port, request))["code"] == "headers_too_large"

    serve(story)


def test_what_is_not_http_is_400_and_closed() -> None:
    async def story(port: int) -> None:
        for request in (
            b"\x16\x03\x01\x02\x00",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        ):
            assert problem_of(await talk(port, request))["code"] == "request_malformed"

    serve(story)


def test_two_ways_to_tell_a_length_are_refused() -> None:
    async def story(port: int) -> None:
        for lines in (
            b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
            b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
            b"content-length: 3, 3\r\n\r\nabc",
            b"content-length: +3\r\n\r\nabc",
            b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        ):
            answer = await talk(port, b"POST / HTTP/1.1\r\nhost: x\r\n" + lines)
            assert problem_of(answer)["code"] == "request_malformed", lines

    serve(story)


def test_slow_headers_and_slow_bodies_are_408() -> None:
    quick = replace(CAPS, header_timeout_seconds=0.05, body_timeout_seconds=0.05)

    async def story(port: int) -> None:
        assert problem_of(await talk(port, b"GET / HT"))["code"] == "request_timeout"
        slow_body = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc"
        assert problem_of(await talk(port, slow_body))["code"] == "request_timeout"

    serve(story, quick)


def test_a_silent_connection_is_closed_without_a_word() -> None:
    quick = replace(CAPS, header_timeout_seconds=0.05)

    async def story(port: int) -> None:
        assert await talk(port, b"") == b""

    serve(story, quick)


def test_one_connection_too_many_is_503_and_the_others_live() -> None:
    async def story(port: int) -> None:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
        assert problem_of(await talk(port, b""))["code"] == "overloaded"
        reader, writer = held[0]
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")
        assert (await reader.read()).endswith(b"hi")
        for _, other in held:
            other.close()

    serve(story)


def test_kept_and_pipelined_requests_are_answered_in_order() -> None:
    async def story(port: int) -> None:
        one = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n%d"
        last = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1\r\n\r\n3"
        answer = await talk(port, one % 1 + one % 2 + last)
        assert [part[:1] for part in answer.split(b"\r\n\r\n")[1:]] == [b"1", b"2", b"3"]

    serve(story)


def test_thousands_of_requests_in_one_write_are_all_answered_and_few_of_them_are_held() -> None:
    most = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal most
        most = max(most, len(scope["extensions"]["lotabots"]["cycle"].transport.get_protocol().pipeline))
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def story(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
        writer.write(head * 5_000)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9000\r\n\r\n" + bytes(9_000) + head * 99)
        answers = 0
        while answers < 5_100:
            piece = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            assert piece.startswith(b"HTTP/1.1 204 ")
            answers += 1
        assert 0 < most <= MAX_PIPELINED + SLICE_BYTES // len(head) + 1
        writer.close()

    serve(story, app=app)


def test_an_answer_leaves_before_the_refusal_of_what_follows_it() -> None:
    async def story(port: int) -> None:
        good = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(good)
        first = await asyncio.wait_for(reader.readuntil(b"hi"), 10)
        writer.write(good + b"garbage\r\n\r\n")
        rest = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        assert first.startswith(b"HTTP/1.1 200 OK")
        assert problem_of(rest)["code"] == "request_malformed" or rest.startswith(b"HTTP/1.1 200 OK")

    serve(story)


def test_a_pause_between_two_requests_ends_the_connection_without_a_word() -> None:
    quick = replace(CAPS, idle_timeout_seconds=0.05)

    async def story(port: int) -> None:
        answer = await talk(port, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi")
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert answer.endswith(b"hi")

    serve(story, quick)


def test_the_deadline_of_one_request_is_not_that_of_the_next() -> None:
    quick = replace(CAPS, header_timeout_seconds=0.3)

    async def story(port: int) -> None:
        one = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n%d"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for turn in range(5):  # together longer than one deadline
            await asyncio.sleep(0.1)
            writer.write(one % turn)
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n%d" % turn), 10))[
                :15
            ] == b"HTTP/1.1 200 OK"
        writer.write(b"POST / HTTP")
        assert problem_of(await asyncio.wait_for(reader.read(), 10))["code"] == "request_timeout"
        writer.close()

    serve(story, quick)


def test_a_line_break_in_a_header_of_ours_breaks_the_answer_not_the_protocol() -> None:
    async def careless(scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange(scope, receive, send, "id", 5)
        await exchange.answer(200, [(b"x", b"1\r\nset-cookie: a")], b"")

    async def story(port: int) -> None:
        answer = await talk(port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"set-cookie" not in answer

    serve(story, app=careless)


def test_a_chunked_body_and_expect_continue_are_understood() -> None:
    async def story(port: int) -> None:
        chunked = CLOSING + b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
        assert (await talk(port, chunked)).endswith(b"ab")
        expecting = CLOSING + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\nok"
        assert (await talk(port, expecting)).endswith(b"ok")

    serve(story)


def test_the_application_learns_that_its_client_hung_up() -> None:
    seen: asyncio.Queue[bool] = asyncio.Queue()

    async def watch(scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange(scope, receive, send, "id", 5)
        await exchange.read_body(100, ByteBudget(100))
        assert (await receive())["type"] == "http.disconnect"
        await seen.put(exchange.client_gone)

    async def story(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()
        assert await asyncio.wait_for(seen.get(), 5) is True

    serve(story, app=watch)


def test_a_reader_that_takes_nothing_is_dropped() -> None:
    ended: asyncio.Queue[bool] = asyncio.Queue()

    async def flood(scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange(scope, receive, send, "id", 0.05)
        await exchange.start(200, [(b"content-length", str(1 << 30).encode())])
        for _ in range(1 << 10):
            await exchange.send(bytes(1 << 20), more=True)
            if exchange.client_gone:
                break
        await ended.put(exchange.client_gone)

    async def story(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await asyncio.wait_for(ended.get(), 10) is True
        writer.close()

    serve(story, app=flood)
