"""Open-file-description locks on single bytes of the limits table: one for changes, one per living worker."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from fcntl import F_OFD_GETLK, F_OFD_SETLK, F_UNLCK, F_WRLCK, fcntl

from .layout import HOLDER

BOUND_NS = 2_000_000
_YIELDS = 8

# struct flock on 64-bit Linux: type, whence, start, length, pid (0 for OFD locks); fcntl(2)
_FLOCK = struct.Struct("hhqqi4x")
_LOCK = _FLOCK.pack(F_WRLCK, os.SEEK_SET, HOLDER, 1, 0)
_UNLOCK = _FLOCK.pack(F_UNLCK, os.SEEK_SET, HOLDER, 1, 0)


def take(descriptor: int, at: int) -> bool:
    """Lock byte `at` for this open file description; False when another one holds it."""
    try:
        fcntl(descriptor, F_OFD_SETLK, _FLOCK.pack(F_WRLCK, os.SEEK_SET, at, 1, 0))
    except (BlockingIOError, PermissionError):  # fcntl(2): EAGAIN or EACCES
        return False
    return True


def let_go(descriptor: int, at: int) -> None:
    """Unlock byte `at`. The kernel does it at the end of the process."""
    fcntl(descriptor, F_OFD_SETLK, _FLOCK.pack(F_UNLCK, os.SEEK_SET, at, 1, 0))


def is_taken(descriptor: int, at: int) -> bool:
    """Whether another open file description holds byte `at` now; takes nothing."""
    found = fcntl(descriptor, F_OFD_GETLK, _FLOCK.pack(F_WRLCK, os.SEEK_SET, at, 1, 0))
    return bool(_FLOCK.unpack(found)[0] != F_UNLCK)


def pause(attempt: int) -> None:
    """Let the holder run: the lock is held for microseconds, so yield first and sleep only later."""
    if attempt < _YIELDS:
        os.sched_yield()
    else:
        time.sleep(0.000_05)


class TableLock:
    """Excludes other open file descriptions, in this process and in others; not threads, not itself.

    The kernel frees it when the last descriptor of the description closes, so also at any kill. A forked
    child would share it: open it after exec, once per worker, and use it from one thread.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        now_ns: Callable[[], int] = time.monotonic_ns,
        pause: Callable[[int], None] = pause,
    ) -> None:
        self._descriptor = descriptor
        self._now_ns = now_ns
        self._pause = pause

    def acquire(self) -> bool:
        """Take the lock; False when it was not free within 2 ms."""
        try:
            fcntl(self._descriptor, F_OFD_SETLK, _LOCK)
        except (BlockingIOError, PermissionError):  # fcntl(2): EAGAIN or EACCES
            return self._keep_trying()
        return True

    def release(self) -> None:
        """Give the lock back."""
        fcntl(self._descriptor, F_OFD_SETLK, _UNLOCK)

    def _keep_trying(self) -> bool:
        deadline_ns = self._now_ns() + BOUND_NS
        attempt = 0
        while self._now_ns() < deadline_ns:
            self._pause(attempt)
            attempt += 1
            try:
                fcntl(self._descriptor, F_OFD_SETLK, _LOCK)
            except (BlockingIOError, PermissionError):
                continue
            return True
        return False
