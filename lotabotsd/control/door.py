"""The door in front of every route: who may come in, and how much they may carry. Raw ASGI."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lotabotsd.foundation.errors import Code, problem
from lotabotsd.foundation.sockets import Peer

from .peers import SCOPE_KEY, Admins
from .problems import problem_response

MAX_BODY_BYTES = 2 * 1024 * 1024  # a licence file has at most 1 MiB


class Door:
    """Refuses peers who are no admins (403) and bodies that are too large (413), before any route."""

    def __init__(self, app: ASGIApp, admins: Admins, refused: Callable[[Peer, str], None]) -> None:
        self._app = app
        self._admins = admins
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        peer: Peer | None = scope.get(SCOPE_KEY)
        if peer is None or not self._admins.includes(peer):
            if peer is not None:
                self._refused(peer, f"{scope['method']} {scope['path']}")
            await problem_response(problem(Code.PEER_REFUSED))(scope, receive, send)
            return
        body = await _whole_body(receive)
        if body is None:
            refusal = problem(
                Code.BODY_TOO_LARGE, f"more than {MAX_BODY_BYTES} bytes", hint="send a smaller document"
            )
            await problem_response(refusal, {"connection": "close"})(scope, receive, send)
            return
        given = False

        async def receive_body() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, receive_body, send)


async def _whole_body(receive: Receive) -> bytes | None:
    """The request's body; None when it is larger than allowed. A client that hung up sent what it sent."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY_BYTES:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
