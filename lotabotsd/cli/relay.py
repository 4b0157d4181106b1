"""The process of the relay: Triton's sockets, its signals, and readiness for the service manager."""

from __future__ import annotations

import asyncio
import signal

from lotabotsd.foundation.config import Config
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.sockets import sd_notify
from lotabotsd.runtime.relay import bind_endpoints, serve_relay


def run_relay(config: Config) -> int:
    """Relay until SIGTERM or SIGINT. Raises CONFIG_INVALID where Triton makes its sockets itself."""
    if config.runtime.transport != "tcp":
        raise LotaBotsError(
            Code.CONFIG_INVALID,
            f"runtime.transport is {config.runtime.transport!r}: Triton makes its sockets itself",
            hint="remove the relay: systemctl disable --now lotabots-relay",
        )
    asyncio.run(_serve(config))
    return 0


async def _serve(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    listeners = bind_endpoints(config)
    sd_notify("READY=1")
    await serve_relay(config, listeners, stop)
    sd_notify("STOPPING=1")
