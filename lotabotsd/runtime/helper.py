"""The runtime helper: six fixed verbs over a Unix socket; whoever else asks, or asks more, is refused."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from lotabotsd.foundation.config import Config
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.sockets import Peer, peer_of

from .embedded import EmbeddedRuntime
from .messages import MAX_LINE_BYTES, Verb, answer_line, error_line, parse_request

log = logging.getLogger(__name__)
REQUEST_SECONDS = 5.0
MAX_CALLERS = 16


class RuntimeHost(Protocol):
    """What owns Triton: each method is one verb and takes nothing, so that nobody can ask for more."""

    async def ensure(self) -> dict[str, Any]: ...

    async def start(self) -> dict[str, Any]: ...

    async def stop(self) -> dict[str, Any]: ...

    async def promote(self) -> dict[str, Any]: ...

    async def inspect(self) -> dict[str, Any]: ...

    async def logs(self) -> dict[str, Any]: ...

    async def reload(self, config: Config) -> None: ...  # no verb: the administrator's signal

    async def close(self) -> None: ...  # no verb: the helper ends


async def serve_helper(
    config: Config,
    listener: socket.socket,
    allowed_uids: frozenset[int],
    stop: asyncio.Event,
    reloads: Reloads | None = None,
) -> None:
    """Serve until `stop` is set, then end Triton and everything it started.

    Must run on the main thread (the kernel ends Triton when the thread that started it ends).
    Raises CONFIG_INVALID when the container runtime's user does not exist.
    """
    if config.runtime.kind == "container":
        # Only here: nobody but this process has anything to do with the engine and its library.
        from .container import ContainerRuntime

        host: RuntimeHost = ContainerRuntime(config)
    else:
        host = EmbeddedRuntime(config)
    if reloads is not None:
        reloads.host = host
    await serve_host(host, listener, allowed_uids, stop)


class Reloads:
    """The administrator's wish that the configuration be read again; one at a time."""

    def __init__(self, read: Callable[[], Config]) -> None:
        """`read` gives the configuration as it is now, or raises CONFIG_INVALID."""
        self._read = read
        self._wish: asyncio.Task[None] | None = None
        self.host: RuntimeHost | None = None

    def wish(self) -> None:
        """Read it, and tell the runtime; what is wrong with it is logged, and everything stays as it was."""
        if self.host is not None and (self._wish is None or self._wish.done()):
            self._wish = asyncio.create_task(self._reload(self.host))

    async def _reload(self, host: RuntimeHost) -> None:
        try:
            await host.reload(self._read())
        except LotaBotsError as error:
            log.error("the configuration stays as it was: %s", error, extra={"code": error.code.value})


async def serve_host(
    host: RuntimeHost, listener: socket.socket, allowed_uids: frozenset[int], stop: asyncio.Event
) -> None:
    """Answer one request per connection for `host`; `listener` is closed at the end."""
    verbs: dict[Verb, Callable[[], Awaitable[dict[str, Any]]]] = {
        Verb.ENSURE: host.ensure,
        Verb.START: host.start,
        Verb.STOP: host.stop,
        Verb.PROMOTE: host.promote,
        Verb.INSPECT: host.inspect,
        Verb.LOGS: host.logs,
    }
    callers: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        callers.add(task)
        try:
            line = await _answer(
                reader, _peer(writer), allowed_uids, verbs, crowded=len(callers) > MAX_CALLERS
            )
            writer.write(line)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            log.debug("a caller went away")
        finally:
            callers.discard(task)
            writer.close()

    server = await asyncio.start_unix_server(answer, sock=listener, limit=MAX_LINE_BYTES)
    try:
        await stop.wait()
    finally:
        server.close()
        for task in callers:  # first, so that none of them starts Triton after it was stopped
            task.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        try:
            await host.close()
        except LotaBotsError as error:  # a container goes on without us; the next helper finds it
            log.error("Triton could not be ended: %s", error, extra={"code": error.code.value})


async def _answer(
    reader: asyncio.StreamReader,
    peer: Peer,
    allowed_uids: frozenset[int],
    verbs: dict[Verb, Callable[[], Awaitable[dict[str, Any]]]],
    *,
    crowded: bool,
) -> bytes:
    """One request judged and carried out; a refusal is logged with who asked."""
    try:
        if peer.uid not in allowed_uids:
            raise LotaBotsError(Code.PEER_REFUSED, "only the user of lotabotsd may ask the helper")
        if crowded:
            raise LotaBotsError(Code.OVERLOADED, f"more than {MAX_CALLERS} requests at once")
        verb = parse_request(await _line(reader))
        log.debug("asked", extra={"verb": verb.value, "peer_uid": peer.uid})
        return answer_line(await verbs[verb]())
    except LotaBotsError as error:
        if error.code in (Code.PEER_REFUSED, Code.HELPER_REFUSED):
            log.warning("refused: %s", error, extra={"peer_uid": peer.uid, "pid": peer.pid})
        else:
            log.error("%s", error, extra={"code": error.code.value})
        return error_line(error)


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            return await reader.readuntil(b"\n")
    except (TimeoutError, asyncio.IncompleteReadError) as error:
        raise LotaBotsError(Code.HELPER_REFUSED, "the request did not arrive whole") from error
    except asyncio.LimitOverrunError as error:
        raise LotaBotsError(
            Code.HELPER_REFUSED, f"the request is longer than {MAX_LINE_BYTES} bytes"
        ) from error


def _peer(writer: asyncio.StreamWriter) -> Peer:
    with socket.socket(fileno=writer.get_extra_info("socket").dup().detach()) as connection:
        return peer_of(connection)
