"""One daemon per state directory: a lock that the kernel gives back when its holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lotabotsd.foundation.errors import Code, LotaBotsError


@contextmanager
def only_daemon(directory: Path) -> Iterator[None]:
    """Hold `lotabotsd.lock` in the state directory. Raises ALREADY_RUNNING, FILE_UNWRITABLE."""
    path = directory / "lotabotsd.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LotaBotsError(Code.FILE_UNWRITABLE, f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise LotaBotsError(
            Code.ALREADY_RUNNING, f"process {holder or 'unknown'} uses {directory}"
        ) from error
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
