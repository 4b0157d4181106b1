"""Disk space put aside, to be given back when the disk is full: so that what was counted can be committed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from lotabotsd.foundation.errors import Code, LotaBotsError


def ensure_reserve(path: Path, size_bytes: int) -> None:
    """Hold `size_bytes` of the file system in a file at `path`; 0 removes it. Does nothing when it is there.

    Space that is only allocated will do here, since the file is never written to.
    Raises DISK_FULL, FILE_UNWRITABLE.
    """
    if size_bytes == 0:
        release_reserve(path)
        return
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(descriptor).st_size != size_bytes:
                os.posix_fallocate(descriptor, 0, size_bytes)
                os.ftruncate(descriptor, size_bytes)
                os.fsync(descriptor)
        except OSError:
            path.unlink(missing_ok=True)  # half a reserve would fill the disk for nothing
            raise
        finally:
            os.close(descriptor)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        code = Code.DISK_FULL if full else Code.FILE_UNWRITABLE
        raise LotaBotsError(code, f"{path}: {error.strerror}") from error


def release_reserve(path: Path) -> bool:
    """Give the space back; False when there was none. Raises FILE_UNWRITABLE."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise LotaBotsError(Code.FILE_UNWRITABLE, f"{path}: {error.strerror}") from error
    return True
