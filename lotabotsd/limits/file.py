"""The file of the limits table: made whole or not at all, and adopted whenever it is valid."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

from lotabotsd.foundation.errors import Code, LotaBotsError

from . import layout
from .intent import Intents
from .layout import Geometry
from .lock import TableLock

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def current_boot_id() -> bytes:
    """16 bytes that name this boot of the kernel (proc(5)); monotonic times mean something within it."""
    return bytes.fromhex(_BOOT_ID.read_text(encoding="ascii").strip().replace("-", ""))


def create_table(
    path: Path,
    *,
    slots: int,
    workers: int,
    boot_id: bytes,
    fill: Iterable[tuple[int, int, int, int]],
    mode: int = 0o660,
) -> None:
    """Make a table and put it at `path`, replacing what was there.

    `fill` names (slot, tag, window id, rows used in that window). All its memory is claimed now, so that a
    full tmpfs fails here and not as SIGBUS in a worker. Nobody admits by the replaced one any more: a worker
    that has not noticed yet is told that its policy is too old. Raises DISK_FULL, FILE_UNWRITABLE.
    """
    geometry = Geometry(slots, workers)
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, geometry.file_bytes)
            with mmap.mmap(descriptor, geometry.file_bytes) as memory:
                memory[: layout.HEADER.size] = layout.header(geometry, boot_id)
                for slot, tag, window_id, used in fill:
                    if not 0 <= slot < slots:
                        raise ValueError(f"there is no slot {slot} among {slots}")
                    at = geometry.slot_at(slot)
                    memory[at : at + layout.SLOT_BYTES] = layout.slot_bytes(tag, window_id, used)
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)
        _put_in_place(beside, path)
    except OSError as error:
        code = Code.DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else Code.FILE_UNWRITABLE
        raise LotaBotsError(code, f"{path}: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)


def _put_in_place(beside: Path, path: Path) -> None:
    """Raises OSError."""
    try:
        before = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        beside.rename(path)
        return
    try:
        beside.rename(path)
        if os.fstat(before).st_size >= layout.HEADER_BYTES:
            os.pwrite(before, layout.UINT64.pack(layout.RETIRED), layout.GENERATION)
    finally:
        os.close(before)


def adopt_or_create(
    path: Path,
    *,
    slots: int,
    workers: int,
    boot_id: bytes,
    fill: Iterable[tuple[int, int, int, int]],
    mode: int = 0o660,
) -> bool:
    """Keep the table at `path` when it is valid, of this boot and large enough; else make it anew.

    True when it was kept: then all its values stand and `fill` is not looked at.
    """
    try:
        geometry = _finish_changes(path, boot_id)
        kept = geometry.slots >= slots and geometry.workers >= workers
    except LotaBotsError:
        kept = False
    if not kept:
        create_table(path, slots=slots, workers=workers, boot_id=boot_id, fill=fill, mode=mode)
    return kept


def _finish_changes(path: Path, boot_id: bytes) -> Geometry:
    """Carry out a change that a dead worker left, if any: a table where that fails is no good."""
    descriptor, geometry = open_file(path, boot_id)
    lock = TableLock(descriptor)
    try:
        with mmap.mmap(descriptor, geometry.file_bytes) as memory:
            if lock.acquire():  # else living workers use it, and the next of them does this
                if memory[layout.DIRTY]:
                    Intents(memory, geometry).replay()
                lock.release()
    finally:
        os.close(descriptor)
    return geometry


def open_file(path: Path, boot_id: bytes) -> tuple[int, Geometry]:
    """A descriptor of the table and its judged sizes. Raises FILE_UNREADABLE, LIMITS_TABLE_DAMAGED."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise LotaBotsError(Code.FILE_UNREADABLE, f"{path}: {error.strerror}") from error
    try:
        found = os.pread(descriptor, layout.HEADER.size, 0)
        return descriptor, layout.read_header(found, os.fstat(descriptor).st_size, boot_id)
    except LotaBotsError:
        os.close(descriptor)
        raise
    except OSError as error:
        os.close(descriptor)
        raise LotaBotsError(Code.FILE_UNREADABLE, f"{path}: {error.strerror}") from error
