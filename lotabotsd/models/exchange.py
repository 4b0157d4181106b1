"""Two directories change places in one step of the file system (renameat2(2), RENAME_EXCHANGE)."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import sync_directory

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def put_in_place(new: Path, target: Path) -> bool:
    """Move the directory `new` to `target`. What was there is then at `new`; returns whether there was any.

    Whoever opens `target` finds the old one or the new one whole. Raises FILE_UNWRITABLE.
    """
    try:
        existed = target.exists()
        if existed:
            _exchange(new, target)
        else:
            new.rename(target)
        sync_directory(target.parent)
        sync_directory(new.parent)
    except OSError as error:
        raise LotaBotsError(Code.FILE_UNWRITABLE, f"{target}: {error.strerror}") from error
    return existed


def _exchange(first: Path, second: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.renameat2(
        _AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), ctypes.c_uint(_RENAME_EXCHANGE)
    )
    if result == 0:
        return
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(number, os.strerror(number), str(second))
    # A file system without it: two steps. Triton reads a model only when the daemon tells it to load, and
    # the daemon does not do so between them; after a power cut in between, the next start prepares anew.
    aside = first.with_name(f"{first.name}.aside")
    second.rename(aside)
    first.rename(second)
    aside.rename(first)
