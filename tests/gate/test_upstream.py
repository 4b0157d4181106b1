"""The pool towards Triton: kept connections, broken ones, slow ones, large bodies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.gate.upstream import UpstreamPool

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(
        next(line.split(b":")[1] for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    )
    return head, await reader.readexactly(length)


def run(
    path: Path, handler: Handler, story: Callable[[UpstreamPool], Awaitable[None]], timeout: float = 5
) -> None:
    async def play() -> None:
        server = await asyncio.start_unix_server(handler, path)
        pool = UpstreamPool(path, max_idle=2, timeout_seconds=timeout)
        try:
            await story(pool)
        finally:
            pool.close()
            server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as in the worker
        runner.run(asyncio.wait_for(play(), 20))


async def whole(pool: UpstreamPool, body: bytes = b"") -> tuple[int, bytes]:
    answer = await pool.request("POST", "/v2/x", body, [])
    parts = []
    while chunk := await answer.next_chunk(5):
        parts.append(chunk)
    return answer.status, b"".join(parts)


def test_a_connection_is_used_again(tmp_path: Path) -> None:
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while not reader.at_eof():
            try:
                _, body = await read_request(reader)
            except asyncio.IncompleteReadError:
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async def story(pool: UpstreamPool) -> None:
        for n in range(5):
            assert await whole(pool, b"x" * n) == (200, b"x" * n)
        assert connections == 1

    run(tmp_path / "s", handler, story)


def test_large_bodies_go_both_ways_whole(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, body = await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()

    async def story(pool: UpstreamPool) -> None:
        body = bytes(range(256)) * 20_000
        assert await whole(pool, body) == (200, body)

    run(tmp_path / "s", handler, story)


def test_chunked_answers_are_joined_and_private_headers_dropped(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nServer: secret\r\nContent-Type: text/event-stream\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")

    async def story(pool: UpstreamPool) -> None:
        answer = await pool.request("POST", "/v2/x", b"", [])
        assert answer.headers == [(b"content-type", b"text/event-stream")]
        data = b""
        while chunk := await answer.next_chunk(5):
            data += chunk
        assert data == b"abc"

    run(tmp_path / "s", handler, story)


def test_a_kept_connection_that_died_is_replaced_once(tmp_path: Path) -> None:
    served = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await read_request(reader)
        served += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        await writer.drain()
        await reader.read(1)  # the second request arrives, and the server dies without a word
        writer.transport.abort()

    async def story(pool: UpstreamPool) -> None:
        assert await whole(pool) == (200, b"x")
        assert await whole(pool) == (200, b"x")
        assert served == 2

    run(tmp_path / "s", handler, story)


@pytest.mark.parametrize(
    "words", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"this is not HTTP\r\n\r\n"]
)
def test_an_answer_that_breaks_off_is_a_failure(tmp_path: Path, words: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(words)
        await writer.drain()
        writer.close()

    async def story(pool: UpstreamPool) -> None:
        with pytest.raises(LotaBotsError) as caught:
            await whole(pool)
        assert caught.value.code is Code.RUNTIME_UNAVAILABLE

    run(tmp_path / "s", handler, story)


def test_an_answer_that_nobody_asked_for_ends_its_connection(tmp_path: Path) -> None:
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        one = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n%02d"
        writer.write(one % connections + one % 99)
        await reader.read()

    async def story(pool: UpstreamPool) -> None:
        assert await whole(pool) == (200, b"01")
        assert await whole(pool) == (200, b"02")

    run(tmp_path / "s", handler, story)


@pytest.mark.parametrize("extra", [b"", b"x"])
def test_large_answers_come_whole_and_keep_their_connection_unless_more_comes(
    tmp_path: Path, extra: bytes
) -> None:
    connections = 0
    body = bytes(range(256)) * 4_000

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while not reader.at_eof():
            try:
                await read_request(reader)
            except asyncio.IncompleteReadError:
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body + extra)

    async def story(pool: UpstreamPool) -> None:
        for _ in range(3):
            assert await whole(pool) == (200, body)
        assert connections == (3 if extra else 1)

    run(tmp_path / "s", handler, story)


def test_silence_is_a_timeout(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def story(pool: UpstreamPool) -> None:
        with pytest.raises(LotaBotsError) as caught:
            await whole(pool)
        assert caught.value.code is Code.RUNTIME_TIMEOUT

    run(tmp_path / "s", handler, story, timeout=0.05)


def test_nothing_listening_is_said_at_once_and_remembered(tmp_path: Path) -> None:
    async def story() -> None:
        pool = UpstreamPool(tmp_path / "none", max_idle=1, timeout_seconds=1)
        with pytest.raises(LotaBotsError) as caught:
            await pool.request("GET", "/", b"", [])
        assert caught.value.code is Code.RUNTIME_UNAVAILABLE
        assert not pool.reachable

    asyncio.run(story())


def test_it_counts_as_reachable_once_it_was_reached(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")

    async def story(pool: UpstreamPool) -> None:
        assert not pool.reachable
        await whole(pool)
        assert pool.reachable

    run(tmp_path / "s", handler, story)


def test_a_slow_taker_holds_the_answer_back(tmp_path: Path) -> None:
    """The pool stops reading when nobody takes what came: memory stays flat."""
    sent = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        total = 64 << 20
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        try:
            while sent < total:
                writer.write(bytes(65536))
                await writer.drain()
                sent += 65536
        except ConnectionError:
            return

    async def story(pool: UpstreamPool) -> None:
        answer = await pool.request("GET", "/", b"", [])
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(await answer.next_chunk(5)) > 0
        assert sent < 8 << 20
        answer.abandon()

    run(tmp_path / "s", handler, story)


def test_another_triton_at_the_same_path_takes_over_and_what_is_under_way_ends_at_the_old_one(
    tmp_path: Path,
) -> None:
    path, closed = tmp_path / "http.sock", asyncio.Event()

    def named(name: bytes) -> Handler:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while not reader.at_eof():
                try:
                    _, body = await read_request(reader)
                except asyncio.IncompleteReadError:
                    break
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
                if body == b"slow":
                    await taken_over.wait()
                writer.write(name)
            if name == b"old":
                closed.set()
            writer.close()

        return handler

    taken_over = asyncio.Event()

    async def story(pool: UpstreamPool) -> None:
        assert await whole(pool) == (200, b"old")  # kept
        slow = await pool.request("POST", "/v2/x", b"slow", [])
        after = await asyncio.start_unix_server(named(b"new"), tmp_path / "new.sock")
        (tmp_path / "new.sock").rename(path)
        async with asyncio.timeout(5):
            while await whole(pool) != (200, b"new"):
                await asyncio.sleep(0)
        taken_over.set()
        assert await slow.next_chunk(5) == b"old"
        assert await slow.next_chunk(5) == b""
        async with asyncio.timeout(5):
            while not closed.is_set():  # it is not kept: Triton's exit would wait for it
                assert (await whole(pool))[0] == 200
        assert [await whole(pool) for _ in range(3)] == [(200, b"new")] * 3
        after.close()

    run(path, named(b"old"), story)
