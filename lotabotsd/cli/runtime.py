"""The process of the runtime helper: its socket, its signals, and who may ask it."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import socket
from pathlib import Path

from lotabotsd.foundation.config import Config, load
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import refuse_foreign
from lotabotsd.foundation.sockets import bind_unix, sd_notify
from lotabotsd.runtime.helper import Reloads, serve_helper

DAEMON_USER = "lotabots"


def run_helper(config: Config, config_path: Path, listeners: list[socket.socket]) -> int:
    """Serve the verbs until SIGTERM or SIGINT, then end Triton. Binds the socket when none is given.

    SIGHUP reads the configuration again.
    """

    def read() -> Config:
        refuse_untrusted(config_path)
        return load(config_path)

    listener = listeners[0] if listeners else bind_unix(config.paths.helper_socket, mode=0o660)
    asyncio.run(_serve(config, listener, Reloads(read)))
    return 0


def refuse_untrusted(config_path: Path) -> None:
    """What is started comes from the configuration: nobody else may write it, or put another one there.

    A file that is missing is told later, with the others. Raises CONFIG_INVALID.
    """
    resolved = config_path.resolve()
    try:
        for path in (resolved, resolved.parent):
            refuse_foreign(path.stat(), path)
    except OSError:
        return
    except LotaBotsError as error:
        raise LotaBotsError(Code.CONFIG_INVALID, error.detail, hint=error.hint) from error


def allowed_uids() -> frozenset[int]:
    """Who may ask: the daemon's user, and the user that this process runs as (all in one with `up`)."""
    try:
        return frozenset({os.geteuid(), pwd.getpwnam(DAEMON_USER).pw_uid})
    except KeyError:
        return frozenset({os.geteuid()})


async def _serve(config: Config, listener: socket.socket, reloads: Reloads) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reloads.wish)
    sd_notify("READY=1")
    await serve_helper(config, listener, allowed_uids(), stop, reloads)
    sd_notify("STOPPING=1")
