"""The relay: Triton's Unix sockets made here, each connection passed on to 127.0.0.1, where Triton listens.

Only for `runtime.transport = "tcp"`. It understands nothing of what it passes on. An end is passed on as an
end of that way alone, a break ends both, and for whoever does not read at most some 64 KiB wait.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path

from lotabotsd.foundation.config import Config
from lotabotsd.foundation.sockets import bind_unix

from .command import grpc_file

log = logging.getLogger(__name__)
CHUNK_BYTES = 64 * 1024
CONNECT_SECONDS = 5.0
FLUSH_SECONDS = 30.0  # for the last bytes, once both sides have ended
SPARE_CONNECTIONS = 64  # for the supervisor, metrics, and connections that are just closing
_BACKLOG = 1_024


class Relay:
    """One Unix socket and the port behind it."""

    def __init__(self, port: int, max_connections: int) -> None:
        self._port = port
        self._max_connections = max_connections
        self._connections: set[asyncio.Task[None]] = set()
        self._crowded = False

    async def serve(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Until `stop` is set; then every connection is broken. `listener` is closed at the end."""
        server = await asyncio.start_unix_server(self._accept, sock=listener, limit=CHUNK_BYTES)
        try:
            await stop.wait()
        finally:
            server.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        crowded = len(self._connections) >= self._max_connections
        if crowded and not self._crowded:
            log.warning("more than %d connections: the next are closed", self._max_connections)
        self._crowded = crowded
        if crowded:
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            await self._pass_on(reader, writer)
        except* (OSError, TimeoutError) as broken:
            log.debug("a connection broke: %s", broken.exceptions[0])
        finally:
            self._connections.discard(task)
            writer.transport.abort()  # nothing is lost: it was flushed before, or somebody is gone

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(CONNECT_SECONDS):
            behind, ahead = await asyncio.open_connection("127.0.0.1", self._port, limit=CHUNK_BYTES)
        for each in (writer, ahead):
            each.transport.set_write_buffer_limits(high=CHUNK_BYTES)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_one_way(reader, ahead))
                both.create_task(_one_way(behind, writer))
            async with asyncio.timeout(FLUSH_SECONDS):
                for each in (ahead, writer):
                    each.close()
                    await each.wait_closed()
        finally:
            ahead.transport.abort()


async def _one_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What comes in goes out, then its end; the other way goes on. Raises OSError when either side breaks."""
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def endpoints(config: Config) -> tuple[tuple[Path, int], ...]:
    """Each Unix socket of Triton's, and the port that it leads to."""
    paths, port = config.paths, config.runtime.tcp_port
    return (
        (paths.triton_http, port),
        (grpc_file(paths.triton_grpc), port + 1),
        (paths.triton_metrics, port + 2),
    )


async def serve_relay(config: Config, listeners: list[socket.socket], stop: asyncio.Event) -> None:
    """Relay every endpoint until `stop` is set; `listeners` stand in the order of `endpoints`."""
    bound = config.gate.max_in_flight + SPARE_CONNECTIONS
    async with asyncio.TaskGroup() as group:
        for (_, port), listener in zip(endpoints(config), listeners, strict=True):
            group.create_task(Relay(port, bound).serve(listener, stop))


def bind_endpoints(config: Config) -> list[socket.socket]:
    """Listen on Triton's sockets, for their group alone. Raises ADDRESS_IN_USE, FILE_UNWRITABLE."""
    return [bind_unix(path, mode=0o770, backlog=_BACKLOG) for path, _ in endpoints(config)]
