"""uvicorn's server as the gate runs it: our protocol, our signals, nothing it does not need."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from lotabotsd.foundation.config import GateConfig

from .counting import Counts
from .protocol import Caps, gate_protocol


class WorkerServer(uvicorn.Server):
    """uvicorn's server without its signal handling (the worker owns the signals); says when it accepts."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._say_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._say_started()

    def stop_accepting(self) -> None:
        """Leave new connections in the socket's queue, for whoever serves it next."""
        if self.started:
            for server in self.servers:
                server.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(
    application: Any, gate: GateConfig, started: Callable[[], None], counts: Counts
) -> WorkerServer:
    """A server for a raw ASGI application with the caps of the configuration."""
    caps = Caps(
        gate.max_header_bytes,
        gate.header_timeout_seconds,
        gate.body_timeout_seconds,
        gate.idle_timeout_seconds,
        gate.max_connections,
    )
    config = uvicorn.Config(
        application,
        http=gate_protocol(caps, counts),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=int(gate.drain_seconds),
    )
    return WorkerServer(config, started)
