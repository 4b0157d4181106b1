"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from .errors import Code, LotaBotsError


def write_atomically(path: Path, data: bytes, *, mode: int = 0o640) -> None:
    """Write beside, fsync, rename, fsync the directory. Raises DISK_FULL, FILE_UNWRITABLE."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            os.fchmod(descriptor, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        beside.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # on a read-only file system even this fails
            beside.unlink()
        code = Code.DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else Code.FILE_UNWRITABLE
        raise LotaBotsError(code, f"{path}: {error.strerror}") from error


def sync_directory(path: Path) -> None:
    """Make renames and new names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """Read a small file. Raises FILE_UNREADABLE when it is missing, unreadable or larger than the limit."""
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise LotaBotsError(Code.FILE_UNREADABLE, f"{path}: {error.strerror}") from error
    if len(data) > limit_bytes:
        raise LotaBotsError(Code.FILE_UNREADABLE, f"{path} is larger than {limit_bytes} bytes")
    return data


def refuse_foreign(status: os.stat_result, path: Path) -> None:
    """Nobody else may be able to change what decides what we start: a plain file, or the directory around it.

    As root: root's own, and no group's. Else, in development: root's or ours, and not for everybody to write.
    In a directory with the sticky bit nobody can replace another's file. Raises FILE_UNREADABLE.
    """
    root = os.geteuid() == 0
    owners, closed = ({0}, 0o022) if root else ({0, os.geteuid()}, 0o002)
    folder = stat.S_ISDIR(status.st_mode)
    open_to_others = status.st_mode & closed and not (folder and status.st_mode & stat.S_ISVTX)
    if not (folder or stat.S_ISREG(status.st_mode)) or status.st_uid not in owners or open_to_others:
        raise LotaBotsError(
            Code.FILE_UNREADABLE,
            f"{path} must belong to {'root' if root else 'root or us'}, and nobody else may write it",
            hint=f"chown root {path} && chmod go-w {path}",
        )
