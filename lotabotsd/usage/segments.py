"""Reading usage journals: which segments there are, and the records in one, over damage and torn tails."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .journal import segment_name
from .records import (
    MAX_RECORD_BYTES,
    RECORD_HEADER_BYTES,
    record_is_whole,
    record_length,
)

DAMAGED = ".damaged"
_NAME = re.compile(r"([0-7][0-9a-f]{15})-([0-9]{8})\.seg")  # an epoch has 63 bits, as a ledger's integer
_WORKER = re.compile(r"0|[1-9][0-9]{0,8}")
_NOT_ZERO = re.compile(rb"[^\0]")
_CHUNK_BYTES = 64 * 1024
assert _CHUNK_BYTES >= 4 * MAX_RECORD_BYTES


@dataclass(frozen=True, slots=True, order=True)
class SegmentFile:
    """One segment by its name; sorts by worker, epoch and position."""

    worker: int
    epoch: int
    segment: int
    path: Path


@dataclass(frozen=True, slots=True)
class Found:
    """A whole record and where the next one begins."""

    record: bytes
    next_offset: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Bytes that are no record although records follow them."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class End:
    """Where the records end; `torn` when something that is no record is there instead of zeros."""

    offset: int
    torn: bool


Read = Callable[[int, int], bytes]  # (offset, length) → at most that many bytes, fewer only at the end


def list_segments(journal: Path) -> tuple[list[SegmentFile], list[str]]:
    """Every segment under the journal directory, in order, and what could not be looked at.

    Files of other names are ignored: the writer is less trusted than the reader.
    """
    found: list[SegmentFile] = []
    problems: list[str] = []
    for directory in _look_into(journal, problems):
        if _WORKER.fullmatch(directory.name) and not directory.is_symlink():
            worker = int(directory.name)
            for path in _look_into(directory, problems):
                name = _NAME.fullmatch(path.name)
                if name:
                    found.append(SegmentFile(worker, int(name.group(1), 16), int(name.group(2)), path))
    return sorted(found), problems


def _look_into(directory: Path, problems: list[str]) -> list[Path]:
    try:
        return list(directory.iterdir()) if directory.is_dir() else []
    except OSError as error:
        problems.append(f"{directory}: {error.strerror or error}")
        return []


def successor_exists(file: SegmentFile) -> bool:
    """Whether the worker went on in a later segment, so that nothing more comes in this one."""
    if (file.path.parent / segment_name(file.epoch, file.segment + 1)).exists():
        return True
    same_epoch = file.path.parent.glob(f"{file.epoch:016x}-*.seg")
    return any(_NAME.fullmatch(path.name) and path.name > file.path.name for path in same_epoch)


def open_segment(path: Path) -> tuple[int, bool]:
    """A descriptor to read from, and whether its writer has let go of it (dead, or in a later segment).

    Close the descriptor to release the lock that the second answer rests on. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return descriptor, False
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, True


def reader(descriptor: int) -> Read:
    """Read a file by offset. The reads raise OSError."""
    return lambda offset, length: os.pread(descriptor, length, offset)


def scan(read: Read, offset: int, *, final: bool) -> Iterator[Found | Lost | End]:
    """The records from `offset` on; the last thing yielded is an End.

    While a worker still writes (`final` false) the scan stops at the first bytes that are no whole record:
    they may be half of one. In a final segment it goes on behind them, and only bytes with nothing readable
    behind them are a torn tail.
    """
    at = offset
    while True:
        chunk = read(at, _CHUNK_BYTES)
        last = len(chunk) < _CHUNK_BYTES
        position = 0
        while True:
            length = _whole_record(chunk, position)
            if length == 0:
                break
            position += length
            yield Found(chunk[position - length : position], at + position)
        at += position
        if not last and len(chunk) - position < MAX_RECORD_BYTES:
            continue  # perhaps only cut by the chunk's end
        following = _find_record(read, at) if final else None
        if following is None:
            yield End(at, torn=_anything_left(read, at) if final else False)
            return
        yield Lost(at, following)
        at = following


def _whole_record(chunk: bytes, position: int) -> int:
    """The length of the whole record at `position`, or 0."""
    head = chunk[position : position + RECORD_HEADER_BYTES]
    if len(head) < RECORD_HEADER_BYTES:
        return 0
    length = record_length(head)
    if length == 0 or position + length > len(chunk):
        return 0
    return length if record_is_whole(chunk[position : position + length]) else 0


def _find_record(read: Read, offset: int) -> int | None:
    """Where the next whole record after a defect at `offset` begins (records are 8-byte aligned)."""
    at = offset + 8
    while True:
        chunk = read(at, _CHUNK_BYTES)
        last = len(chunk) < _CHUNK_BYTES
        limit = len(chunk) if last else len(chunk) - MAX_RECORD_BYTES
        position = 0
        while position < limit:
            something = _NOT_ZERO.search(chunk, position)
            if something is None:
                break
            # A record's first non-zero byte is in its CRC or, should that be zero, in its length.
            position = max(position, something.start() & ~7)
            if position < limit and _whole_record(chunk, position):
                return at + position
            position += 8
        if last:
            return None
        at += limit & ~7


def _anything_left(read: Read, offset: int) -> bool:
    at = offset
    while True:
        chunk = read(at, _CHUNK_BYTES)
        if _NOT_ZERO.search(chunk):
            return True
        if len(chunk) < _CHUNK_BYTES:
            return False
        at += len(chunk)
