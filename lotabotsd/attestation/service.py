"""The daemon's socket for the gate, "make a token" and "find a receipt", and the gate's calls to it.

One connection carries one line in and one line out (ARCHITECTURE.md, "The attest socket").
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.sockets import Peer, peer_of

from .request import (
    ANY_AUDIENCE,
    MAX_ANSWER_BYTES,
    MAX_REQUEST_BYTES,
    AttestRequest,
    FoundReceipt,
    Issued,
    ReceiptRequest,
    error_line,
    parse_answer,
    parse_receipt_answer,
    parse_request,
)

log = logging.getLogger(__name__)


class AttestService:
    """Serves whom `admit` lets in, `max_concurrent` at a time: `issue` makes tokens, `find` finds receipts.

    `find` raises NOT_FOUND for what is not there, and for what is another organisation's.
    """

    def __init__(
        self,
        issue: Callable[[AttestRequest], Awaitable[Issued]],
        find: Callable[[ReceiptRequest], Awaitable[FoundReceipt]],
        admit: Callable[[Peer], bool],
        *,
        max_concurrent: int = 8,
        max_connections: int = 64,
        deadline_seconds: float = 5.0,
    ) -> None:
        self._issue = issue
        self._find = find
        self._admit = admit
        self._max_concurrent = max_concurrent
        self._max_connections = max_connections
        self._deadline_seconds = deadline_seconds
        self._connections = 0
        self._issuing = 0

    async def start(self, listener: socket.socket) -> asyncio.Server:
        """Begin to serve a listening Unix socket; close the returned server to end."""
        # The limit counts the bytes before the line end.
        return await asyncio.start_unix_server(self._serve, sock=listener, limit=MAX_REQUEST_BYTES - 1)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections > self._max_connections:
                return
            writer.write(await self._answer(reader, writer.get_extra_info("socket")))
            async with asyncio.timeout(self._deadline_seconds):
                await writer.drain()
        except (TimeoutError, ConnectionError):
            pass  # the caller went away or does not read
        finally:
            self._connections -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, connection: socket.socket) -> bytes:
        """The answer line. The request is read before anything is refused, so that the refusal arrives."""
        try:
            async with asyncio.timeout(self._deadline_seconds):
                request = await self._read(reader)
                self._check_peer(connection)
                return (await self._serve_bounded(parse_request(request))).to_line()
        except TimeoutError:
            return error_line(
                LotaBotsError(Code.REQUEST_TIMEOUT, f"{self._deadline_seconds:g} s have passed")
            )
        except LotaBotsError as failure:
            return error_line(failure)

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as error:
            raise LotaBotsError(
                Code.BODY_TOO_LARGE, f"a line has at most {MAX_REQUEST_BYTES} bytes"
            ) from error
        except asyncio.IncompleteReadError as error:
            raise LotaBotsError(Code.JSON_INVALID, "the line has no end") from error

    def _check_peer(self, connection: socket.socket) -> None:
        peer = peer_of(connection)
        if not self._admit(peer):
            log.warning("attest socket refused a caller", extra={"peer_uid": peer.uid, "pid": peer.pid})
            raise LotaBotsError(Code.PEER_REFUSED, hint="only the gate asks here")

    async def _serve_bounded(self, request: AttestRequest | ReceiptRequest) -> Issued | FoundReceipt:
        if self._issuing >= self._max_concurrent:
            raise LotaBotsError(Code.OVERLOADED, f"{self._issuing} requests are being answered")
        self._issuing += 1
        try:
            if isinstance(request, ReceiptRequest):
                return await self._find(request)
            return await self._issue(request)
        finally:
            self._issuing -= 1


async def request_token(
    path: Path,
    *,
    nonce: str | None,
    audience: str | None = None,
    key_id: str = "",
    deadline_seconds: float = 5.0,
) -> Issued:
    """Ask the daemon for a token. Raises what the daemon answered, or DAEMON_UNAVAILABLE."""
    request = AttestRequest(nonce, ANY_AUDIENCE if audience is None else audience, key_id).to_line()
    if len(request) > MAX_REQUEST_BYTES:
        raise LotaBotsError(Code.BODY_TOO_LARGE, "nonce and audience are too long")
    return parse_answer(await _ask(path, request, deadline_seconds))


async def request_receipt(
    path: Path, receipt_id: str, organisation_id: str, *, deadline_seconds: float = 5.0
) -> FoundReceipt:
    """Ask the daemon for a receipt. Raises what the daemon answered (NOT_FOUND), or DAEMON_UNAVAILABLE."""
    request = ReceiptRequest(receipt_id, organisation_id).to_line()
    return parse_receipt_answer(await _ask(path, request, deadline_seconds))


async def _ask(path: Path, request: bytes, deadline_seconds: float) -> bytes:
    try:
        async with asyncio.timeout(deadline_seconds):
            return await _exchange(path, request)
    except TimeoutError as error:
        raise LotaBotsError(Code.DAEMON_UNAVAILABLE, f"no answer within {deadline_seconds:g} s") from error
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise LotaBotsError(Code.DAEMON_UNAVAILABLE, f"{path}: {error}") from error


async def _exchange(path: Path, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path), limit=MAX_ANSWER_BYTES - 1)
    try:
        writer.write(request)
        return await reader.readuntil(b"\n")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
