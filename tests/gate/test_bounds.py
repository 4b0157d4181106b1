"""The bounds of a worker that no other file proves: memory, line, drain, and readers of streams."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from lotabotsd.models.facts import ModelFacts, TensorFact

MIB = 1 << 20
INFER = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}).encode()
WIDE = TensorFact("x", "UINT8", (-1,))


def story_on(rig: Any, story: Callable[[], Awaitable[None]], **gate: Any) -> None:
    """Play a story against a gate with these settings."""
    rig.models = (*rig.models, ModelFacts("wide", ("1",), "ef" * 32, 0, (WIDE,), (WIDE,), ready=True))
    rig.config = replace(rig.config, gate=replace(rig.config.gate, **gate))
    rig.publish()

    async def play(rig: Any) -> None:
        await rig.ready()
        await story()

    rig.run(play)


def head(rig: Any, path: str, length: int, *more: bytes) -> bytes:
    """The head of a request whose body has this length."""
    return b"\r\n".join(
        (
            b"POST %b HTTP/1.1" % path.encode(),
            b"host: x",
            b"authorization: Bearer " + rig.api_key.encode(),
            b"content-length: %d" % length,
            *more,
            b"\r\n",
        )
    )


async def status_of(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Status and code of an answer that tells of a problem."""
    top = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    length = next(int(line[16:]) for line in top.split(b"\r\n") if line.startswith(b"content-length: "))
    return int(top.split()[1]), str(json.loads(await reader.readexactly(length))["code"])


async def until(holds: Callable[[], object]) -> None:
    """Wait for a condition; the story's own deadline ends it otherwise."""
    while not holds():
        await asyncio.sleep(0.01)


def test_all_bodies_together_have_a_bound_and_it_is_given_back(rig: Any) -> None:
    async def story() -> None:
        budget = rig.worker._parts.budget
        free = budget._free
        _, half_sent = await asyncio.open_connection("127.0.0.1", rig.port)
        half_sent.write(head(rig, "/v2/models/m/infer", 800_000) + bytes(700_000))
        await until(lambda: budget._free < free - 200_000)
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(head(rig, "/v2/models/m/infer", 900_000) + bytes(900_000))
        assert await status_of(reader) == (503, "overloaded")
        writer.close()
        assert (await rig.infer()).status == 200  # small ones still fit
        half_sent.close()
        await until(lambda: budget._free == free)

    story_on(rig, story, max_buffered_bytes=MIB, workers=1)
    assert rig.outcomes() == {"served": 1}


def test_streamed_bodies_count_with_what_they_hold(rig: Any) -> None:
    size = 900_000
    tensor = {"name": "x", "datatype": "UINT8", "shape": [size], "parameters": {"binary_data_size": size}}
    part = json.dumps({"inputs": [tensor]}).encode()
    request = head(
        rig,
        "/v2/models/wide/infer",
        len(part) + size,
        b"inference-header-content-length: %d" % len(part),
    )

    async def story() -> None:
        uploads = rig.worker._parts.uploads
        _, first = await asyncio.open_connection("127.0.0.1", rig.port)
        first.write(request + part + bytes(100_000))
        await until(lambda: uploads.running == 1)
        reader, second = await asyncio.open_connection("127.0.0.1", rig.port)
        second.write(request + part + bytes(100_000))
        assert await status_of(reader) == (503, "overloaded")
        first.close()
        second.close()
        await until(lambda: uploads.running == 0)

    story_on(rig, story, max_buffered_bytes=MIB, workers=1)


def test_the_line_has_a_length_and_a_longest_wait(rig: Any) -> None:
    release = asyncio.Event()

    async def slow(path: bytes, top: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    async def story() -> None:
        rig.handler = slow
        turns = rig.worker._parts.turns
        first = asyncio.create_task(rig.infer())
        await until(lambda: turns.running == 1)
        second = asyncio.create_task(rig.infer())
        await until(lambda: len(turns._line) == 1)
        third = await rig.infer()  # the line is full: told at once
        assert (third.status, third.json()["code"]) == (503, "overloaded")
        assert third.headers["retry-after"] == "1"
        answer = await second  # its turn did not come in time
        assert (answer.status, answer.json()["code"]) == (503, "overloaded")
        release.set()
        assert (await first).status == 200

    story_on(rig, story, max_in_flight=1, max_queued=1, queue_timeout_seconds=0.5, workers=1)
    assert rig.outcomes() == {"refused_unready": 2, "served": 1}


def test_what_runs_longer_than_the_drain_is_cut_and_on_record(rig: Any) -> None:
    for_ever = asyncio.Event()

    async def never(path: bytes, top: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        await for_ever.wait()

    async def story() -> None:
        rig.handler = never
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(head(rig, "/v2/models/m/infer", len(INFER)) + INFER)
        await until(lambda: rig.seen)
        rig.worker.stop()
        assert b" 200 " not in await asyncio.wait_for(reader.read(), 15)
        writer.close()

    story_on(rig, story, drain_seconds=1)
    assert rig.ended == 0
    assert rig.outcomes() == {"aborted": 1}


def test_a_reader_that_takes_nothing_of_a_stream_is_dropped_and_triton_let_go(rig: Any) -> None:
    let_go = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        event = b"data: " + b"x" * 60_000 + b"\n\n"
        try:
            while True:
                writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                await writer.drain()
        except ConnectionError:
            let_go.set()

    async def story() -> None:
        rig.take_over(endless)
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", rig.port))
        body = b'{"x": 1}'
        client.send(head(rig, "/v2/models/m/generate_stream", len(body)) + body)
        await asyncio.wait_for(let_go.wait(), 20)
        await until(lambda: rig.worker._parts.turns.running == 0)
        client.close()

    rig.send_buffer = 4096
    story_on(rig, story, body_timeout_seconds=0.5)
    assert rig.outcomes() == {"client_gone": 1}


def test_others_are_served_while_a_large_json_body_is_judged(rig: Any) -> None:
    count = 1_500_000
    body = b'{"inputs": [{"name": "x", "datatype": "UINT8", "shape": [%d], "data": [%b0]}]}'
    body %= (count, b"12, " * (count - 1))
    ended: list[str] = []

    async def story() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(head(rig, "/v2/models/wide/infer", len(body)) + body)

        async def large() -> None:
            assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            ended.append("large")

        waiting = asyncio.create_task(large())
        whole = rig.config.gate.max_buffered_bytes - len(body)
        await until(lambda: rig.worker._parts.budget._free <= whole)
        assert (await rig.infer()).status == 200
        ended.append("small")
        await waiting
        writer.close()
        assert [len(sent) for _, _, sent in rig.seen] == [len(INFER), len(body)]

    story_on(rig, story, max_body_bytes=16 * MIB, workers=1)
    assert ended == ["small", "large"]
    assert rig.outcomes() == {"served": 2}
