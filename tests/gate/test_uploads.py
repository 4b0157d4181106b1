"""Large bodies: passed on as they come, bounded, and measured for what ran."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import struct
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from lotabotsd.models.facts import ModelFacts, TensorFact

WIDE = ModelFacts(
    "wide",
    ("1",),
    "ef" * 32,
    0,
    (TensorFact("x", "UINT8", (-1,)),),
    (TensorFact("y", "UINT8", (-1,)),),
    ready=True,
)
MIB = 1 << 20
PATH = "/v2/models/wide/infer"


def head_of(size: int) -> bytes:
    """The JSON part for a tensor of `size` bytes."""
    tensor = {
        "name": "x",
        "datatype": "UINT8",
        "shape": [size],
        "parameters": {"binary_data_size": size},
    }
    return json.dumps({"inputs": [tensor]}).encode()


def request_of(rig: Any, size: int, sent: int, *more: str) -> tuple[bytes, bytes]:
    """The HTTP head and the JSON part of a request whose Content-Length is that of `sent` tensor bytes."""
    part = head_of(size)
    lines = [
        f"POST {PATH} HTTP/1.1",
        "host: x",
        f"authorization: Bearer {rig.api_key}",
        f"inference-header-content-length: {len(part)}",
        *(more or (f"content-length: {len(part) + sent}",)),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode(), part


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """One answer with a Content-Length."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).decode("latin-1").split("\r\n")
    headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return int(head[0].split()[1]), headers, body


def story_on(rig: Any, story: Callable[[], Awaitable[None]], **gate: Any) -> None:
    """Play a story against a gate that knows the wide model."""
    rig.models = (*rig.models, WIDE)
    rig.config = replace(rig.config, gate=replace(rig.config.gate, max_body_bytes=64 * MIB, **gate))
    rig.publish()

    async def play(rig: Any) -> None:
        await rig.ready()
        await story()

    rig.run(play)


@pytest.mark.thorough
def test_a_large_body_is_passed_on_while_it_comes_and_triton_holds_the_client_back(rig: Any) -> None:
    size = 48 * MIB
    go_on = asyncio.Event()
    sent = 0

    async def slow_triton(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        got = 0
        while got < size + len(head_of(size)):
            got += len(await reader.read(1 << 18))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async def story() -> None:
        nonlocal sent
        rig.take_over(slow_triton)
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        head, part = request_of(rig, size, size)
        writer.write(head + part)

        async def push() -> None:
            nonlocal sent
            block = bytes(1 << 18)
            while sent < size:
                writer.write(block)
                await writer.drain()
                sent += len(block)

        pushing = asyncio.create_task(push())
        before = -1
        while sent != before:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.3)
        assert 0 < sent < 16 * MIB  # what sockets and the gate hold; the rest waits at the client
        assert rig.worker._parts.budget._free > rig.config.gate.max_buffered_bytes - 4 * MIB
        go_on.set()
        await pushing
        status, _, body = await answer_of(reader)
        assert (status, body) == (200, b"ok")
        writer.close()

    story_on(rig, story)
    assert rig.outcomes() == {"served": 1}
    assert rig.sums() == (1, size + len(head_of(size)))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "chunked"])
def test_a_large_body_of_unknown_length_reaches_triton_with_its_length(rig: Any, coding: str) -> None:
    tensor = os.urandom(300_000)
    part = head_of(len(tensor))
    whole = part + tensor
    sent = {"gzip": gzip.compress, "deflate": zlib.compress}.get(coding, bytes)(whole)

    async def story() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        lines = (
            ("transfer-encoding: chunked",)
            if coding == "chunked"
            else (f"content-encoding: {coding}", f"content-length: {len(sent)}")
        )
        head, _ = request_of(rig, len(tensor), 0, *lines)
        writer.write(head)
        await writer.drain()
        for start in range(0, len(sent), 100_000):
            piece = sent[start : start + 100_000]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if coding == "chunked" else piece)
            await writer.drain()
        if coding == "chunked":
            writer.write(b"0\r\n\r\n")
        assert (await answer_of(reader))[0] == 200
        writer.close()
        _, seen_head, seen = rig.seen[-1]
        assert seen == whole
        assert b"content-length: %d" % len(whole) in seen_head
        assert b"encoding" not in seen_head

    story_on(rig, story)
    assert rig.outcomes() == {"served": 1}


@pytest.mark.parametrize("sent", [199_999, 200_001])
def test_another_length_than_announced_never_runs(rig: Any, sent: int) -> None:
    async def story() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        head, part = request_of(rig, 200_000, 0, "transfer-encoding: chunked")
        writer.write(head)
        await writer.drain()
        for piece in (part, bytes(100_000), bytes(sent - 100_000)):
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        status, _, body = await answer_of(reader)
        assert (status, json.loads(body)["code"]) == (400, "tensor_invalid")
        writer.close()
        assert rig.seen == []  # Triton never had all of it

    story_on(rig, story)
    assert rig.outcomes() == {"model_error": 1}
    assert rig.sums()[0] == 0


def test_a_length_that_does_not_fit_the_tensors_is_refused_before_they_come(rig: Any) -> None:
    async def story() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        head, part = request_of(rig, 200_000, 200_007)
        writer.write(head + part)  # not one byte of the tensor
        status, _, body = await answer_of(reader)
        assert (status, json.loads(body)["code"]) == (400, "tensor_invalid")
        writer.close()

    story_on(rig, story)
    assert rig.outcomes() == {}


def test_a_bomb_that_comes_in_parts_is_refused_on_the_way(rig: Any) -> None:
    size = 60 * MIB
    packed = gzip.compress(head_of(size) + bytes(size), 9)

    async def story() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        lines = ("content-encoding: gzip", "transfer-encoding: chunked")
        head, _ = request_of(rig, size, 0, *lines)
        writer.write(head)
        await writer.drain()
        writer.write(b"%x\r\n%b\r\n" % (len(packed), packed))
        status, _, body = await answer_of(reader)
        assert (status, json.loads(body)["code"]) == (413, "body_too_large")
        writer.close()
        assert rig.seen == []

    story_on(rig, story)
    assert rig.outcomes() == {"model_error": 1}


def test_a_client_that_hangs_up_amid_its_upload_pays_for_nothing(rig: Any) -> None:
    async def story() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        head, part = request_of(rig, MIB, MIB)
        writer.write(head + part + bytes(300_000))
        await writer.drain()
        while rig.worker._parts.uploads.running == 0:
            await asyncio.sleep(0.01)
        writer.close()
        while rig.worker._parts.uploads.running:
            await asyncio.sleep(0.01)
        assert rig.seen == []
        assert (await rig.infer()).status == 200  # and the worker serves on

    story_on(rig, story)
    assert rig.outcomes() == {"client_gone": 1, "served": 1}
    assert rig.sums()[0] == 1  # the served one


def test_uploads_that_stand_still_leave_half_of_the_places_to_others(rig: Any) -> None:
    async def story() -> None:
        writers = []
        for _ in range(4):
            _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            head, part = request_of(rig, MIB, MIB)
            writer.write(head + part + bytes(100_000))
            await writer.drain()
            writers.append(writer)
        while rig.worker._parts.uploads.running < 2:
            await asyncio.sleep(0.01)
        assert (await rig.infer()).status == 200
        assert rig.worker._parts.turns.running == 2
        for writer in writers:
            writer.close()

    story_on(rig, story, max_in_flight=4, workers=1)


def test_an_upload_that_takes_too_long_is_408_and_gives_its_place_back(rig: Any) -> None:
    async def story() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        head, part = request_of(rig, MIB, MIB)
        writer.write(head + part + bytes(100_000))
        status, _, body = await answer_of(reader)
        assert (status, json.loads(body)["code"]) == (408, "request_timeout")
        assert rig.worker._parts.turns.running == 0
        writer.close()

    story_on(rig, story, body_timeout_seconds=0.3)
    assert rig.outcomes() == {"client_gone": 1}


def test_a_triton_that_takes_nothing_more_is_a_timeout(rig: Any) -> None:
    for_ever = asyncio.Event()  # held here: nobody else does

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await for_ever.wait()

    async def story() -> None:
        rig.take_over(deaf)
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        head, part = request_of(rig, 16 * MIB, 16 * MIB)
        writer.write(head + part)
        pushing = asyncio.create_task(push_all(writer, 16 * MIB))
        status, _, body = await answer_of(reader)
        assert (status, json.loads(body)["code"]) == (504, "runtime_timeout")
        pushing.cancel()
        writer.close()

    story_on(rig, story, upstream_timeout_seconds=0.3)
    assert rig.outcomes() == {"runtime_failed": 1}


async def push_all(writer: asyncio.StreamWriter, size: int) -> None:
    for _ in range(size >> 18):
        writer.write(bytes(1 << 18))
        await writer.drain()


def test_an_early_error_of_triton_is_told_and_its_connection_not_used_again(rig: Any) -> None:
    connections = 0

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        words = b'{"error":"unexpected shape for input at /srv/models"}'
        writer.write(b"HTTP/1.1 400 Bad\r\ncontent-length: %d\r\n\r\n%b" % (len(words), words))
        await reader.read()

    async def story() -> None:
        rig.take_over(hasty)
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            head, part = request_of(rig, 2 * MIB, 2 * MIB)
            writer.write(head + part + bytes(100_000))
            await writer.drain()
            while connections == 0:
                await asyncio.sleep(0.01)
            pushing = asyncio.create_task(push_all(writer, 2 * MIB - 100_000))
            status, _, body = await answer_of(reader)
            assert (status, json.loads(body)["code"]) == (400, "tensor_invalid")
            assert b"/srv" not in body
            pushing.cancel()
            writer.close()
        assert connections == 2

    story_on(rig, story)
    assert rig.outcomes() == {"model_error": 2}


def test_a_client_that_is_gone_when_its_turn_comes_does_not_run(rig: Any) -> None:
    release = asyncio.Event()

    async def slow(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    async def story() -> None:
        rig.handler = slow
        first = asyncio.create_task(rig.infer())
        while len(rig.seen) < 1:
            await asyncio.sleep(0.01)
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        body = json.dumps(
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
        ).encode()
        writer.write(
            b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n"
            b"content-length: %d\r\n\r\n%b" % (rig.api_key.encode(), len(body), body)
        )
        await writer.drain()
        while not rig.worker._parts.turns._line:
            await asyncio.sleep(0.01)
        writer.close()
        while rig.connections() > 1:
            await asyncio.sleep(0.01)
        release.set()
        assert (await first).status == 200
        while rig.worker._parts.opened.meter.open_requests:
            await asyncio.sleep(0.01)
        assert len(rig.seen) == 1

    story_on(rig, story, max_in_flight=1, workers=1)
    assert rig.outcomes() == {"client_gone": 1, "served": 1}
    assert rig.sums()[0] == 1


def test_the_rows_of_a_streamed_batch_are_counted_by_its_json_part(rig: Any) -> None:
    rows = 8
    values = struct.pack("<f", 1.0) * 2 * rows
    wide = replace(rig.models[0], name="batch", inputs=(TensorFact("x", "FP32", (20_000,)),))
    rig.models = (*rig.models, wide)
    tensor = {
        "name": "x",
        "datatype": "FP32",
        "shape": [rows, 20_000],
        "parameters": {"binary_data_size": rows * 80_000},
    }
    part = json.dumps({"inputs": [tensor]}).encode()

    async def story() -> None:
        answer = await rig.ask(
            "POST",
            "/v2/models/batch/infer",
            part + values * 10_000,
            {"inference-header-content-length": str(len(part))},
        )
        assert answer.status == 200

    story_on(rig, story)
    assert rig.sums()[0] == rows
