"""Small writes leave together at the end of the loop's turn, in order, and never to a closed transport."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from lotabotsd.gate.outbox import Outbox


class Paper:
    """Stands for a transport: keeps what was written to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closing


def test_writes_leave_before_anything_that_is_scheduled_after_them() -> None:
    async def play() -> None:
        outbox, paper, seen = Outbox(), Paper(), []
        outbox.write(cast(Any, paper), b"one")
        asyncio.get_running_loop().call_soon(lambda: seen.extend(paper.written))
        outbox.write(cast(Any, paper), b"two")
        assert paper.written == []
        await asyncio.sleep(0)
        assert seen == [b"one", b"two"]

    asyncio.run(play())


def test_a_flush_sends_at_once_and_only_once() -> None:
    async def play() -> None:
        outbox, paper = Outbox(), Paper()
        outbox.write(cast(Any, paper), b"one")
        outbox.flush()
        assert paper.written == [b"one"]
        await asyncio.sleep(0)
        assert paper.written == [b"one"]

    asyncio.run(play())


def test_nothing_is_written_to_a_transport_that_closed_meanwhile() -> None:
    async def play() -> None:
        outbox, gone, there = Outbox(), Paper(), Paper()
        outbox.write(cast(Any, gone), b"one")
        outbox.write(cast(Any, there), b"two")
        gone.closing = True
        await asyncio.sleep(0)
        assert (gone.written, there.written) == ([], [b"two"])

    asyncio.run(play())
