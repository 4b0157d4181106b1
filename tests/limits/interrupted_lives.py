"""Workers of the limits table whose process can be killed or stopped at any of its writes."""

from __future__ import annotations

import mmap
import os
import threading
from dataclasses import dataclass, field
from typing import Any

from lotabotsd.limits.lock import TableLock
from lotabotsd.limits.table import Scope, Table, Ticket

NEVER = 1 << 30


class Killed(BaseException):
    """The process stops here for ever."""


class Memory(mmap.mmap):
    """A memory whose process is killed, or stopped for a while, before its write number `left`."""

    left = NEVER
    torn = 0  # bytes of that write that are made before a kill
    kills = True
    dead = False

    def interrupt(self, left: int, torn: int, *, kills: bool) -> None:
        self.left, self.torn, self.kills = left, torn, kills
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __setitem__(self, key: Any, value: Any) -> None:
        if self.dead:
            return  # what a killed process would still have done
        if self.left == 0:
            self.left = NEVER
            if not self.kills:
                self.reached.set()
                self.go_on.wait()
            if self.kills:
                self.dead = True
                if isinstance(key, slice):
                    piece = value[: self.torn]
                    super().__setitem__(slice(key.start, key.start + len(piece)), piece)
                raise Killed
        self.left -= 1
        super().__setitem__(key, value)


class Impatient(TableLock):
    """A lock that gives up at once, so that nobody waits for a stopped holder."""

    def __init__(self, descriptor: int) -> None:
        ticks = iter(range(0, 1 << 50, 3_000_000))
        super().__init__(descriptor, now_ns=lambda: next(ticks), pause=lambda attempt: None)


@dataclass(eq=False)  # two that look alike are two: lists are searched for just this one
class Request:
    """One request that was admitted, or perhaps admitted when its worker died in the middle."""

    scopes: tuple[Scope, ...]
    rows: int
    charged: int = 0
    window_id: int = 0
    state: str = "open"  # then: recorded (and committed in the end), ended, lost
    settled: bool = False  # the table knows
    sure: bool = True  # that it was admitted


@dataclass
class Life:
    """One process of one worker, with its journal."""

    table: Table
    memory: Memory
    epoch: int
    journal: set[int] = field(default_factory=set)
    open: list[tuple[Ticket, Request]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    thread: threading.Thread | None = None  # in which it is stopped
    ended: list[BaseException | None] = field(default_factory=list)  # how what it did in there went

    def go_on(self) -> None:
        """It was stopped, and moves again."""
        thread, self.thread = self.thread, None
        assert thread is not None
        self.memory.go_on.set()
        thread.join()
        assert self.ended == [None]

    def die(self) -> None:
        """What the kernel does at the end of a process."""
        if self.thread is not None:
            self.memory.kills = True
            self.go_on()
        self.memory.close()
        os.close(self.table._descriptor)
