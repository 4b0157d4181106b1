"""A disk on which single calls fail: stands where the module `os` stands for the journal."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable


class FailingFiles:
    """The module `os`, except where a script says which call fails, is short, or is to be noticed."""

    def __init__(self) -> None:
        self.fail: dict[str, list[int | None]] = {}  # call → errno per call, None for success
        self.short = False
        self.fails_too_late = False  # a rename is carried out, and then said to have failed
        self.calls: list[str] = []
        self.during: Callable[[], None] = lambda: None

    def _enter(self, name: str) -> None:
        self.calls.append(name)
        script = self.fail.get(name)
        number = script.pop(0) if script else None
        if number is not None:
            raise OSError(number, os.strerror(number))

    def open(self, path: str, flags: int, mode: int = 0o777, /) -> int:
        self._enter("open")
        return os.open(path, flags, mode)

    def pwrite(self, descriptor: int, data: bytes, offset: int, /) -> int:
        self._enter("pwrite")
        return os.pwrite(descriptor, data[: len(data) // 2 or 1] if self.short else data, offset)

    def fdatasync(self, descriptor: int, /) -> None:
        self._enter("fdatasync")
        self.during()
        os.fdatasync(descriptor)

    def fsync(self, descriptor: int, /) -> None:
        self._enter("fsync")
        os.fsync(descriptor)

    def rename(self, source: str, target: str, /) -> None:
        if self.fails_too_late:
            os.rename(source, target)  # noqa: PTH104 - the very call
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._enter("rename")
        os.rename(source, target)  # noqa: PTH104 - the very call

    def unlink(self, path: str, /) -> None:
        self._enter("unlink")
        os.unlink(path)  # noqa: PTH108 - the very call
