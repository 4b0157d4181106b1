"""Large and streamed answers: passed on as they come, bounded, and measured for what ran."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

MIB = 1 << 20
INFER = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}).encode()


def story_on(rig: Any, story: Callable[[], Awaitable[None]], **gate: Any) -> None:
    """Play a story against a gate with these settings."""
    rig.config = replace(rig.config, gate=replace(rig.config.gate, **gate))
    rig.publish()

    async def play(rig: Any) -> None:
        await rig.ready()
        await story()

    rig.run(play)


def test_a_large_answer_has_its_length_and_a_slow_reader_is_cut_off_in_the_end(rig: Any) -> None:
    size = 8 * MIB

    async def much(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        writer.write(bytes(size))

    async def story() -> None:
        rig.handler = much
        answer = await rig.infer()
        assert (answer.status, len(answer.body)) == (200, size)
        assert answer.headers["content-length"] == str(size)
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=4096)
        body = INFER
        writer.write(
            b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n"
            b"content-length: %d\r\n\r\n%b" % (rig.api_key.encode(), len(body), body)
        )
        got = 0
        while piece := await reader.read(1024):  # always a little, never enough
            got += len(piece)
            await asyncio.sleep(0.01)
            if not rig.connections():
                break
        assert got < size
        writer.close()

    story_on(rig, story, body_timeout_seconds=0.5)
    assert rig.outcomes() == {"client_gone": 1, "served": 1}


@pytest.mark.parametrize("ending", [b"connection: close\r\n", b""], ids=["closed behind it", "kept alive"])
def test_a_connection_whose_answer_is_never_read_does_not_stay(rig: Any, ending: bytes) -> None:
    async def some(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + bytes(200_000))

    async def story() -> None:
        rig.handler = some
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", rig.port))
        request = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n%b"
        request %= (rig.api_key.encode(), ending)
        client.send(request + b"content-length: %d\r\n\r\n%b" % (len(INFER), INFER))
        while not rig.seen:
            await asyncio.sleep(0.01)
        while rig.connections():
            await asyncio.sleep(0.01)
        client.close()

    rig.send_buffer = 4096
    story_on(rig, story, body_timeout_seconds=0.5, idle_timeout_seconds=1)


def events(*texts: str) -> bytes:
    return b"".join(b"data: %b\n\n" % text.encode() for text in texts)


def test_each_event_of_a_stream_leaves_when_it_comes(rig: Any) -> None:
    more = asyncio.Event()

    async def stream(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        first = events('{"n":1}')
        writer.write(b"%x\r\n%b\r\n" % (len(first), first))
        await writer.drain()
        await more.wait()  # the second only once the client has seen the first
        second = events('{"n":2}')
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(second), second))

    async def story() -> None:
        rig.handler = stream
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(generate(rig))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert b"text/event-stream" in head
        assert (await asyncio.wait_for(reader.readuntil(b"\n\n\r\n"), 10)).endswith(b'data: {"n":1}\n\n\r\n')
        more.set()
        assert b'{"n":2}' in await asyncio.wait_for(reader.readuntil(b"\r\n0\r\n\r\n"), 10)
        writer.close()

    story_on(rig, story)
    assert rig.outcomes() == {"served": 1}


def generate(rig: Any, *more: bytes) -> bytes:
    body = b'{"x": 1}'
    return b"\r\n".join(
        (
            b"POST /v2/models/m/generate_stream HTTP/1.1",
            b"host: x",
            b"authorization: Bearer " + rig.api_key.encode(),
            b"content-length: %d" % len(body),
            *more,
            b"",
            body,
        )
    )


def test_a_client_that_leaves_a_silent_stream_frees_its_place_at_once(rig: Any) -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            b"f\r\ndata: {}\n\n     \r\n"
        )
        while await reader.read(1000):
            pass
        gone.set()  # Triton sees that nobody listens, so that it can stop

    async def story() -> None:
        rig.take_over(silent)
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(generate(rig))
        await asyncio.wait_for(reader.readuntil(b"\n\n"), 10)
        writer.close()
        await asyncio.wait_for(gone.wait(), 10)
        while rig.worker._parts.turns.running:
            await asyncio.sleep(0.01)

    story_on(rig, story, upstream_timeout_seconds=600)
    assert rig.outcomes() == {"client_gone": 1}
    assert rig.sums()[0] == 1  # what ran is charged


def test_a_failure_inside_a_stream_is_told_in_our_words(rig: Any) -> None:
    async def failing(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        data = events('{"n":1}', '{"error":"could not open /srv/models/m/1/model.py"}')
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for piece in (data[:30], data[30:]):
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async def story() -> None:
        rig.handler = failing
        answer = await rig.send(generate(rig, b"connection: close"))
        assert b'data: {"n":1}\n\n' in answer.body
        assert b"/srv" not in answer.body
        assert b"m refused the input" in answer.body

    story_on(rig, story)
    assert rig.outcomes() == {"model_error": 1}


def test_a_stream_that_triton_breaks_off_breaks_off_at_the_client_and_is_not_charged(rig: Any) -> None:
    async def breaking(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            b"a\r\ndata: {}\n\n\r\n"
        )
        await writer.drain()
        writer.close()

    async def story() -> None:
        rig.handler = breaking
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(generate(rig))
        assert not (await asyncio.wait_for(reader.read(), 10)).endswith(b"0\r\n\r\n")
        writer.close()

    story_on(rig, story)
    assert rig.outcomes() == {"runtime_failed": 1}


def test_a_compressed_answer_is_asked_of_triton_and_passed_on(rig: Any) -> None:
    packed = gzip.compress(b'{"outputs": []}')

    async def gzipped(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        assert b"accept-encoding: gzip\r\n" in head
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b"
            % (len(packed), packed)
        )

    async def story() -> None:
        rig.handler = gzipped
        answer = await rig.infer(headers={"accept-encoding": "br, gzip;q=0.8"})
        assert (answer.headers["content-encoding"], answer.body) == ("gzip", packed)

    story_on(rig, story)


def test_a_failure_that_generate_calls_a_success_is_told_as_one_and_not_charged(rig: Any) -> None:
    async def failing(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        words = b'{"error":"generate expects exactly 1 response, got 2 at /srv/model.py"}'
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(words), words))

    async def story() -> None:
        rig.handler = failing
        answer = await rig.ask("POST", "/v2/models/m/generate", b'{"x": 1}', {"lotabots-receipt": "1"})
        assert (answer.status, answer.json()["code"]) == (400, "stream_needed")
        assert b"/srv" not in answer.body
        claims = answer.headers["lotabots-receipt"].split(".")[1]
        content = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))[
            "x-lotabots-receipt"
        ]
        assert content["response"]["bytes"] == len(answer.body)

    story_on(rig, story)
    assert rig.outcomes() == {"model_error": 1}
