"""generate_stream: an event does not wait for the next one, and a client that leaves ends it."""

from __future__ import annotations

import asyncio
from typing import Any

from lotabotsd.identity.api_key import format_api_key

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
KEY = format_api_key("live", "K" * 12, "S" * 32)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(number: int) -> bytes:
    return b'data: {"index":%d}\n\n' % number


async def ask_for_stream(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream, asked for on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        "POST /v2/models/m/generate_stream HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nauthorization: Bearer"
    )
    writer.write(f"{head} {KEY}\r\n\r\n{{}}".encode())
    return reader, writer


def test_an_event_leaves_before_the_next_one_exists(rig: Any) -> None:
    read = asyncio.Event()

    async def hold_back(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(event(0)))
        await read.wait()
        writer.write(chunk(event(1)) + b"0\r\n\r\n")

    async def story(rig: Any) -> None:
        await rig.ready()
        reader, writer = await ask_for_stream(rig.port)
        async with asyncio.timeout(10):
            await reader.readuntil(event(0))
            read.set()
            rest = await reader.readuntil(b"0\r\n\r\n")
        assert event(1) in rest
        writer.close()

    rig.handler = hold_back
    rig.publish()
    rig.run(story)
    assert rig.outcomes() == {"served": 1}


def test_a_client_that_leaves_a_stream_ends_it_at_triton(rig: Any) -> None:
    left, closed = asyncio.Event(), asyncio.Event()

    async def go_on(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(event(0)))
        await left.wait()
        number = 0
        while not writer.is_closing():  # as long as somebody listens
            number += 1
            writer.write(chunk(event(number)))
            await asyncio.sleep(0)
        closed.set()

    async def story(rig: Any) -> None:
        await rig.ready()
        reader, writer = await ask_for_stream(rig.port)
        async with asyncio.timeout(10):
            await reader.readuntil(event(0))
            writer.transport.abort()
            left.set()
            await closed.wait()
        assert (await rig.ask("GET", "/readyz", key=None)).status == 200

    rig.handler = go_on
    rig.publish()
    rig.run(story)
    assert rig.outcomes() == {"client_gone": 1}
