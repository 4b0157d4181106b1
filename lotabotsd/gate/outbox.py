"""Small writes of one turn of the event loop, sent together at its end.

Each write to a socket may wake whoever waits at its other end, and that costs more than the write. Sent one
behind the other, all but the first find the other end awake. Alone in a turn, a write leaves just as soon.
"""

from __future__ import annotations

import asyncio


class Outbox:
    """The writes of one event loop that wait for the end of its turn."""

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        """Send `data` before any task or callback runs that is scheduled from now on."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting.append((transport, data))

    def flush(self) -> None:
        """Send what waits now: needed before a transport that was written to is closed."""
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            if not transport.is_closing():
                transport.write(data)
