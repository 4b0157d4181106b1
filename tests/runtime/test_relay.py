"""The relay: bytes both ways, ends and breaks passed on, bounded connections and buffers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.foundation.config import parse
from lotabotsd.foundation.sockets import bind_unix
from lotabotsd.runtime.relay import CHUNK_BYTES, Relay, bind_endpoints, endpoints, serve_relay

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
MUCH = 64 * CHUNK_BYTES


class World:
    """A server on loopback, a relay before it, and connections through both."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.arrived: asyncio.Queue[Streams] = asyncio.Queue()
        self.stop = asyncio.Event()

    async def connect(self) -> tuple[Streams, Streams]:
        """Our end, and the one that the server has."""
        ours = await asyncio.open_unix_connection(self.path)
        return ours, await self.arrived.get()

    def server(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.arrived.put_nowait((reader, writer))


def tell(
    folder: Path, story: Callable[[World], Awaitable[Any]], *, bound: int = 8, listen: bool = True
) -> None:
    async def told() -> None:
        world = World(folder / "r.sock")
        server = await asyncio.start_server(world.server, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        if not listen:
            server.close()
        serving = asyncio.create_task(Relay(port, bound).serve(bind_unix(world.path), world.stop))
        try:
            async with asyncio.timeout(20):
                await story(world)
        finally:
            world.stop.set()
            await serving
            server.close()

    asyncio.run(told())


def test_bytes_pass_both_ways_unchanged(short: Path) -> None:
    async def story(world: World) -> None:
        (reader, writer), (inner_reader, inner_writer) = await world.connect()
        data = bytes(range(256)) * (MUCH // 256)
        for source, target in ((writer, inner_reader), (inner_writer, reader)):
            sending = asyncio.create_task(send(source, data))
            assert await target.readexactly(len(data)) == data
            await sending

    async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    tell(short, story)


def test_an_end_of_one_way_leaves_the_other_open(short: Path) -> None:
    async def story(world: World) -> None:
        (reader, writer), (inner_reader, inner_writer) = await world.connect()
        writer.write(b"question")
        writer.write_eof()
        assert await inner_reader.read() == b"question"
        inner_writer.write(b"answer" * 100_000)  # more than is on its way at one time
        inner_writer.close()
        assert await reader.read() == b"answer" * 100_000

    tell(short, story)


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_break_of_one_side_ends_the_other(short: Path, who: str) -> None:
    async def story(world: World) -> None:
        ours, theirs = await world.connect()
        (_, breaking), (left, writer) = (ours, theirs) if who == "client" else (theirs, ours)
        breaking.transport.abort()
        with pytest.raises(ConnectionError):  # the end is seen, and what is written after it does not arrive
            await write_on(left, writer)

    async def write_on(left: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            assert await left.read() == b""
            writer.write(b"x" * CHUNK_BYTES)
            await writer.drain()
            await asyncio.sleep(0)

    tell(short, story)


def test_who_does_not_read_is_not_written_to(short: Path) -> None:
    async def story(world: World) -> None:
        (_, writer), (inner_reader, _) = await world.connect()
        inner_reader._transport.pause_reading()  # type: ignore[attr-defined]
        sent = 0
        writer.transport.set_write_buffer_limits(high=0)
        try:
            async with asyncio.timeout(1):
                while True:
                    writer.write(bytes(CHUNK_BYTES))
                    await writer.drain()
                    sent += CHUNK_BYTES
        except TimeoutError:
            pass
        # The kernel's own buffers of both sockets are in it; the relay's part is some 64 KiB.
        assert sent < 32 * 1024 * 1024

    tell(short, story)


def test_one_connection_too_many_is_closed_and_a_place_is_free_again(short: Path) -> None:
    async def story(world: World) -> None:
        first = [await world.connect() for _ in range(2)]
        reader, writer = await asyncio.open_unix_connection(world.path)
        assert await reader.read() == b""
        writer.close()
        for _, their_writer in (first[0][0], first[0][1]):
            their_writer.close()
        while True:  # until the relay has seen the end
            reader, writer = await asyncio.open_unix_connection(world.path)
            arrival = asyncio.create_task(world.arrived.get())
            ended = asyncio.create_task(reader.read())
            await asyncio.wait((arrival, ended), return_when=asyncio.FIRST_COMPLETED)
            if arrival.done():
                ended.cancel()
                return
            arrival.cancel()

    tell(short, story, bound=2)


def test_without_a_server_a_connection_ends_at_once(short: Path) -> None:
    async def story(world: World) -> None:
        reader, _ = await asyncio.open_unix_connection(world.path)
        assert await reader.read() == b""

    tell(short, story, listen=False)


def test_stopping_breaks_what_is_open(short: Path) -> None:
    async def story(world: World) -> None:
        (reader, _), _ = await world.connect()
        world.stop.set()
        assert await reader.read() == b""

    tell(short, story)


def test_every_socket_of_tritons_is_made_for_its_group_and_has_its_port(short: Path) -> None:
    digest = "0" * 64
    config = parse(
        f"""
[appliance]
run_directory = "{short}"
[runtime]
kind = "container"
image = "sha256:{digest}"
transport = "tcp"
tcp_port = 9000
""".encode(),
        "test",
    )
    config.paths.triton.mkdir()
    listeners = bind_endpoints(config)
    found = {path.name: path.stat().st_mode & 0o777 for path in config.paths.triton.iterdir()}
    assert found == dict.fromkeys(("http.sock", "grpc.sock:8001", "metrics.sock"), 0o770)
    assert [port for _, port in endpoints(config)] == [9000, 9001, 9002]

    async def served() -> None:
        stop = asyncio.Event()
        serving = asyncio.create_task(serve_relay(config, listeners, stop))
        for path, _ in endpoints(config):
            with socket.socket(socket.AF_UNIX) as probe:
                await asyncio.to_thread(probe.connect, str(path))
        stop.set()
        await asyncio.wait_for(serving, 10)

    asyncio.run(served())
