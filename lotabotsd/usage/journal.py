"""The gate's side of metering: append usage records to zero-filled segments and make them durable in groups.

One journal belongs to one life (epoch) of one worker. `append` and `sync` may run in different threads; only
one thread appends. Segments are filled with written zeros, not with posix_fallocate: extents that were only
allocated are converted at their first write, which makes every fdatasync commit file-system metadata as well.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from lotabotsd.foundation.errors import Code, LotaBotsError

from .records import (
    MAX_OPEN_BYTES,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    encode_segment_header,
    number_record,
)

UNFINISHED = ".new"  # a segment that is being made; never read
MIN_SEGMENT_BYTES = SEGMENT_HEADER_BYTES + 2 * MAX_OPEN_BYTES  # less than a receipt may have
_ZEROS = bytes(256 * 1024)
_SEGMENT_MODE = 0o640
_DIRECTORY_MODE = 0o770
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)  # refused before anything was done


class FileOps(Protocol):
    """The system calls that can fail for want of space or a sound disk; the module `os` is one."""

    def open(self, path: str, flags: int, mode: int = 0o777, /) -> int: ...
    def pwrite(self, descriptor: int, data: bytes, offset: int, /) -> int: ...
    def fdatasync(self, descriptor: int, /) -> None: ...
    def fsync(self, descriptor: int, /) -> None: ...
    def rename(self, source: str, target: str, /) -> None: ...
    def unlink(self, path: str, /) -> None: ...


def in_a_thread(work: Callable[[], None]) -> None:
    """Run work that may wait for the disk beside the caller."""
    threading.Thread(target=work, name="usage-journal", daemon=True).start()


def segment_name(epoch: int, segment: int) -> str:
    """The file name of a segment; sorts as it was written."""
    return f"{epoch:016x}-{segment:08d}.seg"


def worker_directory(journal: Path, worker: int) -> Path:
    """Where one worker's segments are."""
    return journal / str(worker)


class Journal:
    """The open journal of one worker's life.

    `written` is the number of the last record appended, `durable` of the last one that a sync covered; both
    start at 0. An answer may leave when `durable` has reached the number of its CLOSE.
    """

    def __init__(
        self,
        directory: Path,
        worker: int,
        boot_id: bytes,
        epoch: int,
        segment_bytes: int,
        *,
        files: FileOps = os,
        in_background: Callable[[Callable[[], None]], None] = in_a_thread,
    ) -> None:
        """Make the first segment under `directory/<worker>/`.

        `epoch` must never have been used by this worker before: nanoseconds of wall time at start will do.
        `in_background` runs what follows a rotation, after returning: the fsync of the old segment and the
        making of the next.
        Raises JOURNAL_UNAVAILABLE.
        """
        if not 0 <= epoch < 1 << 63 or segment_bytes < MIN_SEGMENT_BYTES:
            raise ValueError("an epoch has 63 bits, a segment room for two requests")
        self._boot_id = boot_id
        self._worker = worker
        self._epoch = epoch
        self._segment_bytes = segment_bytes
        self._files = files
        self._pwrite = files.pwrite
        self._in_background = in_background
        self._state = threading.Lock()  # held for microseconds: everything below
        self._syncing = threading.Lock()  # held during a sync: one at a time, the only closer of descriptors
        self._preparing = threading.Lock()  # held while a segment is filled with zeros
        self.written = 0
        self.durable = 0
        self._poison = ""
        self._segment = -1
        self._descriptor = -1
        self._offset = segment_bytes
        self._spare: tuple[int, Path] | None = None
        self._made = 0
        self._retired: list[int] = []
        self._unsynced_name = False
        self._path = worker_directory(directory, worker)
        try:
            self._path.mkdir(exist_ok=True)
            if self._path.stat().st_uid == os.geteuid():
                self._path.chmod(self._path.stat().st_mode & 0o7777 | _DIRECTORY_MODE)
            for leftover in self._path.glob(f"*{UNFINISHED}"):
                leftover.unlink(missing_ok=True)
            self._sync_names(directory)  # a segment is lost with the directory that it is in
            self._directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unavailable("make the journal", error) from error
        try:
            with self._state:
                self._rotate()
        except LotaBotsError:
            os.close(self._directory)
            raise

    @property
    def next_number(self) -> int:
        """The number that the next record will get."""
        return self.written + 1

    @property
    def poisoned(self) -> bool:
        """Whether a sync failed (or the journal was closed): nothing more can be recorded here."""
        return bool(self._poison)

    @property
    def syncing(self) -> bool:
        """Whether a sync is under way, so that another one would wait for it."""
        return self._syncing.locked()

    def append(self, record: bytes) -> int:
        """Write one encoded record and return its number; it is in the kernel's hands, not yet durable.

        Raises JOURNAL_UNAVAILABLE and then has recorded nothing: the same number is given out again;
        ValueError for a receipt in a segment that cannot hold one.
        """
        if len(record) > self._segment_bytes - SEGMENT_HEADER_BYTES:
            raise ValueError("the record is longer than a segment")
        with self._state:
            if self._poison:
                raise LotaBotsError(Code.JOURNAL_UNAVAILABLE, self._poison)
            if self._offset + len(record) > self._segment_bytes:
                self._rotate()
            number = self.written + 1
            data = number_record(record, number)
            try:
                if self._pwrite(self._descriptor, data, self._offset) != len(data):
                    self._write_all(self._descriptor, data, self._offset)
            except OSError as error:
                raise self._unavailable("append to the journal", error) from error
            self._offset += len(data)
            self.written = number
            return number

    def sync(self) -> None:
        """Make everything durable that was written when this call started, and move `durable` there.

        May run in a thread beside `append`. After a failure the kernel may have dropped the pages, so that a
        second sync would lie: the journal stays unusable, and the worker must be replaced.
        Raises JOURNAL_UNAVAILABLE.
        """
        with self._syncing:
            with self._state:
                if self._poison:
                    raise LotaBotsError(Code.JOURNAL_UNAVAILABLE, self._poison)
                target = self.written
                retired, self._retired = self._retired, []
                current = self._descriptor
                name_too, self._unsynced_name = self._unsynced_name, False
            if target == self.durable and not retired and not name_too:
                return
            try:
                for descriptor in retired:
                    self._files.fsync(descriptor)
                if name_too:
                    self._files.fsync(self._directory)
                self._files.fdatasync(current)
            except OSError as error:
                failure = self._unavailable("make the journal durable", error)
                self._poison = failure.detail
                raise failure from error
            finally:
                for descriptor in retired:
                    os.close(descriptor)
            self.durable = target

    def close(self) -> None:
        """Sync, then let go of the segments: from now on the reader takes this epoch as ended.

        Raises JOURNAL_UNAVAILABLE when the last sync failed; the descriptors are closed all the same.
        """
        try:
            self.sync()
        finally:
            with self._syncing, self._state:
                self._poison = self._poison or "the journal is closed"
                if self._spare is not None:
                    self._discard(self._spare)
                for descriptor in (*self._retired, self._descriptor, self._directory):
                    if descriptor >= 0:
                        os.close(descriptor)
                self._retired, self._descriptor, self._spare, self._directory = [], -1, None, -1

    def _rotate(self) -> None:
        """Go on in a new segment. The state lock is held; on failure the old one stays in use."""
        spare = self._spare or self._make_segment()
        self._spare = None
        segment = self._segment + 1
        descriptor, unfinished = spare
        header = SegmentHeader(self._boot_id, self._worker, self._epoch, segment, self.written + 1)
        renaming = False
        try:
            self._write_all(descriptor, encode_segment_header(header), 0)
            renaming = True
            # Named and locked before the old one is let go: an unlocked last segment means a dead worker.
            self._files.rename(str(unfinished), str(self._path / segment_name(self._epoch, segment)))
        except OSError as error:
            self._discard(spare)
            failure = self._unavailable("begin a segment", error)
            if renaming and error.errno not in _NO_SPACE:
                # Perhaps it has its name all the same: then the reader takes the old one as finished, and
                # would free it with everything that is written behind this point.
                self._poison = failure.detail
            raise failure from error
        if self._descriptor >= 0:
            self._retired.append(self._descriptor)
        self._descriptor = descriptor
        self._segment = segment
        self._offset = SEGMENT_HEADER_BYTES
        self._unsynced_name = True
        self._in_background(self._tidy)

    def _tidy(self) -> None:
        """After a rotation: the old segment made durable and let go, the next one made in advance."""
        try:
            self.sync()
            with self._preparing:
                if self._spare is not None:
                    return
                spare = self._make_segment()
                with self._state:
                    if not self._poison:
                        self._spare = spare
                        return
                self._discard(spare)
        except LotaBotsError:
            return  # a failed sync has poisoned the journal; a failed preparation is tried again by append

    def _make_segment(self) -> tuple[int, Path]:
        """A locked, zero-filled, durable file under a name that no reader looks at."""
        self._made += 1
        path = self._path / f"{self._epoch:016x}-{threading.get_ident():x}-{self._made}{UNFINISHED}"
        descriptor = -1
        try:
            descriptor = self._files.open(
                str(path), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _SEGMENT_MODE
            )
            os.fchmod(descriptor, _SEGMENT_MODE)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for offset in range(0, self._segment_bytes, len(_ZEROS)):
                self._write_all(descriptor, _ZEROS[: self._segment_bytes - offset], offset)
            self._files.fsync(descriptor)
        except OSError as error:
            if descriptor >= 0:
                self._discard((descriptor, path))
            raise self._unavailable("make a segment", error) from error
        return descriptor, path

    def _discard(self, unfinished: tuple[int, Path]) -> None:
        """Give the space of an unused segment back; what cannot be removed now is at the next start."""
        descriptor, path = unfinished
        with contextlib.suppress(OSError):
            self._files.unlink(str(path))
        os.close(descriptor)

    def _sync_names(self, directory: Path) -> None:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._files.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _write_all(self, descriptor: int, data: bytes, offset: int) -> None:
        done = 0
        while done < len(data):
            count = self._pwrite(descriptor, data[done:], offset + done)
            if count <= 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            done += count

    def _unavailable(self, what: str, error: OSError) -> LotaBotsError:
        return LotaBotsError(
            Code.JOURNAL_UNAVAILABLE, f"worker {self._worker} cannot {what}: {error.strerror or error}"
        )
