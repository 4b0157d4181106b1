"""The control server: uvicorn on a socket of our own, with the peer's credentials in every request's scope.

Four ways in which it differs from plain uvicorn: the socket is bound by us (uvicorn's own has mode 0666),
the signals stay the daemon's, headers have a bound, and the ASGI scope carries who connected.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Any, cast

from starlette.types import ASGIApp
from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lotabotsd.foundation.sockets import Peer, peer_of

from .peers import SCOPE_KEY

KEEP_ALIVE_SECONDS = 15
MAX_CONNECTIONS = 64
MAX_HEADER_BYTES = 64 * 1024
DRAIN_SECONDS = 10


class PeerProtocol(HttpToolsProtocol):
    """One connection of the control socket; asks the kernel once who is at the other end."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        super().connection_made(transport)
        connection = cast(socket.socket, transport.get_extra_info("socket"))
        self._peer: Peer = peer_of(connection)
        self._in_headers = True
        self._header_bytes = 0

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True
        cast(dict[str, Any], self.scope)[SCOPE_KEY] = self._peer

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._header_bytes = 0
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response("The headers are too large.")


class ControlServer(Server):
    """uvicorn's server that leaves the signals to the daemon."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    def stop(self) -> None:
        """Accept nothing more, let running requests finish, then let `serve` return."""
        self.should_exit = True


def control_server(app: ASGIApp) -> ControlServer:
    """A server for `await server.serve(sockets=[listener])` in the running loop."""
    return ControlServer(
        Config(
            app,
            http=PeerProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )
