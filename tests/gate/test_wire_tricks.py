"""What a connection can be made to carry besides plain requests in a row: nothing is taken for another."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

INFER = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}).encode()
SECOND = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


def story_on(rig: Any, story: Callable[[], Awaitable[None]], **gate: Any) -> None:
    rig.config = replace(rig.config, gate=replace(rig.config.gate, **gate))
    rig.publish()

    async def play(rig: Any) -> None:
        await rig.ready()
        await story()

    rig.run(play)


def head(rig: Any, *lines: bytes, path: bytes = b"/v2/models/m/infer", version: bytes = b"1.1") -> bytes:
    first = b"POST %b HTTP/%b" % (path, version)
    return b"\r\n".join(
        (first, b"host: x", b"authorization: Bearer " + rig.api_key.encode(), *lines, b"\r\n")
    )


async def all_of(reader: asyncio.StreamReader) -> bytes:
    """Everything until the connection ends, however it ends."""
    found = b""
    with suppress(ConnectionError):
        while piece := await asyncio.wait_for(reader.read(1 << 16), 10):
            found += piece
    return found


def length(body: bytes) -> bytes:
    return b"content-length: %d" % len(body)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
def test_the_body_of_a_request_that_would_upgrade_is_no_request(
    rig: Any, protocol: bytes, at_once: bool
) -> None:
    async def story() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        upgrade = (b"connection: upgrade", b"upgrade: " + protocol, length(SECOND))
        writer.write(head(rig, *upgrade) + (SECOND if at_once else b""))
        await writer.drain()
        if not at_once:
            await asyncio.sleep(0)
            writer.write(SECOND)
        answer = await all_of(reader)
        assert answer.startswith(b"HTTP/1.1 400 ") or answer == b""  # a reset may overtake it
        assert len(re.findall(rb"HTTP/1\.1 \d", answer)) <= 1
        assert b"live" not in answer
        writer.close()

    story_on(rig, story)


def test_a_request_without_a_body_may_ask_for_an_upgrade_and_gets_its_plain_answer(rig: Any) -> None:
    async def story() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)  # and the connection ends
        assert answer.startswith(b"HTTP/1.1 200 ")
        writer.close()

    story_on(rig, story)


def test_many_pipelined_requests_with_bodies_are_all_answered(rig: Any) -> None:
    request = head(rig, length(INFER)) + INFER

    async def story() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(request * 90)
        for _ in range(90):
            top = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            assert b" 200 " in top
            size = next(int(line[16:]) for line in top.split(b"\r\n") if line.startswith(b"content-length: "))
            await reader.readexactly(size)
        writer.close()

    story_on(rig, story)
    assert rig.outcomes() == {"served": 90}


@pytest.mark.parametrize("key", [True, False])
def test_what_waits_behind_pipelined_requests_is_not_read(rig: Any, key: bool) -> None:
    """Whoever takes a body resumes reading: not while requests wait, or all that comes would be kept."""
    release = asyncio.Event()

    async def slow(path: bytes, top: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    async def story() -> None:
        rig.handler = slow
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        if key:
            writer.write(head(rig, length(INFER)) + INFER)
        small = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx"
        sent = 0

        async def push() -> None:
            nonlocal sent
            while sent < 16 << 20:
                writer.write(small * 1_000)
                await writer.drain()
                sent += 1_000 * len(small)

        async def drop() -> None:
            while await reader.read(1 << 16):
                pass

        pushing, dropping = asyncio.create_task(push()), asyncio.create_task(drop())
        most = 0
        for _ in range(60):
            await asyncio.sleep(0.01)
            (one,) = rig.worker._server.server_state.connections
            most = max(most, len(one._unparsed))
        assert 0 < most < 1 << 20
        pushing.cancel()
        dropping.cancel()
        release.set()
        writer.transport.abort()

    story_on(rig, story)


def test_a_pause_of_ours_is_not_the_clients_slowness_and_nothing_is_written_into_an_answer(rig: Any) -> None:
    more = asyncio.Event()

    async def halting(path: bytes, top: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if len(rig.seen) > 1:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\n" + b"a" * 100)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"b" * 100)
        await more.wait()
        writer.write(b"c" * 200)

    async def story() -> None:
        rig.handler = halting
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(head(rig, length(INFER)) + INFER)
        await asyncio.wait_for(reader.readuntil(b"a" * 100), 10)
        writer.write(head(rig, length(INFER)))
        await asyncio.sleep(0)
        writer.write(INFER)
        await asyncio.sleep(0.6)  # longer than a body may take
        more.set()
        assert await asyncio.wait_for(reader.readexactly(300), 10) == b"b" * 100 + b"c" * 200
        assert b" 200 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()

    story_on(rig, story, body_timeout_seconds=0.3, upstream_timeout_seconds=20)
    assert rig.outcomes() == {"served": 2}


def test_nonsense_behind_a_running_answer_breaks_the_connection_not_the_answer(rig: Any) -> None:
    more = asyncio.Event()

    async def halting(path: bytes, top: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 900000\r\n\r\n" + b"a" * 800_000)
        await more.wait()
        writer.write(b"b" * 100_000)

    async def story() -> None:
        rig.handler = halting
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(head(rig, length(INFER)) + INFER)
        await asyncio.wait_for(reader.readuntil(b"aaaa"), 10)
        writer.write(b"\x00nonsense\r\n\r\n")
        assert not re.search(rb"HTTP/1\.1 \d", await all_of(reader))
        more.set()
        writer.close()

    story_on(rig, story)


def test_a_trailer_is_no_header(rig: Any) -> None:
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(INFER), INFER)

    async def story() -> None:
        trailer = b"authorization: Bearer " + rig.api_key.encode() + b"\r\n\r\n"
        answer = await rig.send(
            b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            b"transfer-encoding: chunked\r\n\r\n" + chunk + trailer
        )
        assert (answer.status, answer.json()["code"]) == (401, "key_missing")

    story_on(rig, story)


def test_a_refusal_before_the_body_was_asked_for_ends_the_connection(rig: Any) -> None:
    async def story() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(
            b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\n"
            b"expect: 100-continue\r\ncontent-length: 500\r\n\r\n"
        )
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"connection: close" in answer.lower()
        assert b"100 Continue" not in answer
        writer.close()

    story_on(rig, story)


def test_a_client_of_http_1_0_gets_no_chunks(rig: Any) -> None:
    async def stream(path: bytes, top: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            b"a\r\ndata: {}\n\n\r\n0\r\n\r\n"
        )

    async def story() -> None:
        rig.handler = stream
        body = b'{"x": 1}'
        answer = await rig.send(
            head(rig, length(body), path=b"/v2/models/m/generate_stream", version=b"1.0") + body
        )
        assert answer.body == b"data: {}\n\n"
        assert "transfer-encoding" not in answer.headers

    story_on(rig, story)
    assert rig.outcomes() == {"served": 1}


def test_the_receipt_of_a_broken_answer_binds_what_was_told_instead(rig: Any) -> None:
    async def breaking(path: bytes, top: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of it")
        await writer.drain()
        writer.close()

    async def story() -> None:
        rig.handler = breaking
        answer = await rig.infer(headers={"lotabots-receipt": "1"})
        assert answer.status == 503
        payload = answer.headers["lotabots-receipt"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        response = claims["x-lotabots-receipt"]["response"]
        assert response["bytes"] == len(answer.body)
        assert response["commitment"] == f"sha256:{hashlib.sha256(answer.body).hexdigest()}"

    story_on(rig, story)


def test_a_failure_of_generate_in_two_parts_is_told_in_our_words(rig: Any) -> None:
    async def halting(path: bytes, top: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        words = b'{"error":"something at /opt/host/secret/path went wrong"}'
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(words), words[:20]))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(words[20:])

    async def story() -> None:
        rig.handler = halting
        answer = await rig.ask("POST", "/v2/models/m/generate", b'{"x": 1}')
        assert answer.status == 400
        assert b"/opt" not in answer.body

    story_on(rig, story)
    assert rig.outcomes() == {"model_error": 1}


def test_json_that_only_costs_time_is_refused_unparsed(rig: Any) -> None:
    async def story() -> None:
        many = b'{"images": [' + b"[]," * 10_000 + b"[]]}"
        answer = await rig.ask("POST", "/v1/models/pages/predict", many)
        assert (answer.status, answer.json()["code"]) == (400, "json_invalid")
        large = b'{"x": "' + b"a" * (1 << 20) + b'"}'
        answer = await rig.ask("POST", "/v2/models/m/generate", large)
        assert (answer.status, answer.json()["code"]) == (413, "body_too_large")

    story_on(rig, story, max_body_bytes=4 << 20)
