"""Carries journal records into the ledger and frees segments whose records are committed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from lotabotsd.foundation.clock import Clock

from .batch import Batch, Cursor, Finding, FindingKind
from .journal import FileOps
from .ledger import Ledger
from .records import (
    SEGMENT_HEADER_BYTES,
    Receipt,
    Record,
    SegmentHeader,
    decode,
    decode_segment_header,
    record_number,
)
from .segments import (
    DAMAGED,
    End,
    Found,
    Lost,
    Read,
    SegmentFile,
    list_segments,
    open_segment,
    reader,
    scan,
    successor_exists,
)

_BATCH_RECORDS = 5_000
_KEPT_DAMAGED = 16  # damaged segments kept per worker for a person to look at


@dataclass(slots=True)
class Drained:
    """What one round did. `barrier_ns`: everything closed before this moment has been counted."""

    barrier_ns: int
    records: int = 0
    damaged: int = 0  # defects seen in segments and their headers
    segments_freed: int = 0
    problems: list[str] = field(default_factory=list)  # files the disk or the permissions refused


class Drainer:
    """Reads every worker's journal from where the ledger stopped.

    A worker that still writes is read up to its last whole record. One that let go of its last segment is
    dead: what it left open was aborted. Nothing is counted that a power cut could still take back.
    `may_end` (worker, epoch) says whether nobody else needs what a dead one wrote last: until then it stays.
    `keep_receipts` is given each receipt before its segment may go, now and then twice; what it raises ends
    the round before anything of that batch counts.
    """

    def __init__(
        self,
        journal: Path,
        ledger: Ledger,
        clock: Clock,
        *,
        batch_records: int = _BATCH_RECORDS,
        files: FileOps = os,
        may_end: Callable[[int, int], bool] = lambda worker, epoch: True,
        keep_receipts: Callable[[Sequence[Receipt]], None] = lambda receipts: None,
    ) -> None:
        self._journal = journal
        self._ledger = ledger
        self._clock = clock
        self._batch_records = batch_records
        self._files = files
        self._may_end = may_end
        self._keep_receipts = keep_receipts

    def drain_once(self) -> Drained:
        """One round over all journals. Raises what `Ledger.apply` does; a later round goes on from there."""
        done = Drained(self._clock.wall_ns())
        files, unseen = list_segments(self._journal)
        done.problems.extend(unseen)
        for _epoch, group in groupby(files, key=lambda file: (file.worker, file.epoch)):
            for file in group:
                if not self._drain_segment(file, done):
                    break
        if not unseen and self._journal.is_dir():
            self._end_vanished(done)
        return done

    def _drain_segment(self, file: SegmentFile, done: Drained) -> bool:
        """Count one segment's news; True when it is finished and the epoch goes on in the next."""
        cursor = self._ledger.cursor(file.worker, file.epoch)
        if file.segment < cursor.segment:
            self._free(file, done, keep=False)
            return True
        try:
            descriptor, released = open_segment(file.path)
        except FileNotFoundError:
            return False  # another drain was faster
        except OSError as error:
            self._unreadable(file, cursor, error, done)
            return False
        try:
            successor = successor_exists(file)
            disk = _Disk(self._files, descriptor, file.path.parent, self._keep_receipts)
            final = successor or (released and self._may_end(file.worker, file.epoch))
            round_ = _Round(self._ledger, disk, file, cursor, final=final, last=not successor)
            finished = round_.run(reader(descriptor), self._batch_records)
            done.records += round_.records
            done.damaged += round_.damaged
            if finished:
                self._free(file, done, keep=round_.damaged > 0)
            return finished and successor
        except OSError as error:
            self._unreadable(file, cursor, error, done)
            return False
        finally:
            os.close(descriptor)

    def _unreadable(self, file: SegmentFile, cursor: Cursor, error: OSError, done: Drained) -> None:
        done.problems.append(f"{file.path}: {error.strerror or error}")
        offset = cursor.offset if file.segment == cursor.segment else 0
        detail = error.strerror or str(error)
        self._ledger.note(
            Finding(FindingKind.UNREADABLE, file.worker, file.epoch, file.segment, offset, detail=detail)
        )

    def _free(self, file: SegmentFile, done: Drained, *, keep: bool) -> None:
        """Remove a counted segment; one with damage is kept under another name, the oldest ones make room."""
        try:
            if keep:
                self._files.rename(str(file.path), f"{file.path}{DAMAGED}")
                kept = sorted(file.path.parent.glob(f"*{DAMAGED}"))
                for old in kept[:-_KEPT_DAMAGED]:
                    self._files.unlink(str(old))
            else:
                self._files.unlink(str(file.path))
        except FileNotFoundError:
            return  # another drain was faster
        except OSError as error:
            done.problems.append(f"{file.path}: {error.strerror or error}")
            return
        done.segments_freed += 1

    def _end_vanished(self, done: Drained) -> None:
        """End epochs whose segments are all gone: a living worker always has one."""
        unended = self._ledger.unended_epochs()
        if not unended:
            return
        files, unseen = list_segments(self._journal)
        present = {(file.worker, file.epoch) for file in files}
        for worker, epoch in unended:
            if unseen or (worker, epoch) in present:
                continue
            cursor = self._ledger.cursor(worker, epoch)
            gone = Finding(FindingKind.MISSING_SEGMENT, worker, epoch, cursor.segment, cursor.offset)
            end = (cursor.segment, cursor.offset)
            batch = Batch(worker, epoch, "", cursor, (), end, ended=True, findings=(gone,))
            done.damaged += self._ledger.apply(batch)


@dataclass(frozen=True, slots=True)
class _Disk:
    """Makes durable what was read, before it counts: it may have been written and not synced yet."""

    files: FileOps
    descriptor: int
    directory: Path
    keep_receipts: Callable[[Sequence[Receipt]], None]

    def sync_records(self) -> None:
        """The segment's records. Raises OSError."""
        self.files.fdatasync(self.descriptor)

    def sync_names(self) -> None:
        """The names of the segments. Raises OSError."""
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.files.fsync(directory)
        finally:
            os.close(directory)


class _Round:
    """One reading of one segment."""

    def __init__(
        self, ledger: Ledger, disk: _Disk, file: SegmentFile, cursor: Cursor, *, final: bool, last: bool
    ) -> None:
        self._ledger = ledger
        self._disk = disk
        self._file = file
        self._cursor = cursor
        self._final = final  # nothing more will be written to this segment
        self._last = last  # there is no later segment
        self._boot_id = ""
        self._bad_header = ""  # what is wrong with it, until it is known whether records follow
        self._pending: list[tuple[int, Record | None]] = []
        self._findings: list[Finding] = []
        self.records = 0
        self.damaged = 0

    def run(self, read: Read, batch_records: int) -> bool:
        """Count what is new; True when the segment is finished. Raises OSError."""
        offset = SEGMENT_HEADER_BYTES
        if self._cursor.segment == self._file.segment:
            offset = max(offset, self._cursor.offset)
        if not self._belongs(read(0, SEGMENT_HEADER_BYTES)):
            return self._final and self._flush((self._file.segment, offset), finished=True)
        for item in scan(read, offset, final=self._final):
            if isinstance(item, Found):
                self._take(item, offset)
                offset = item.next_offset
                if len(self._pending) >= batch_records and not self._flush((self._file.segment, offset)):
                    return False
            elif isinstance(item, Lost):
                self._find(FindingKind.DAMAGE, item.start, f"{item.end - item.start} bytes")
                offset = item.end
            else:
                self._note_end(item)
        return self._flush((self._file.segment, offset), finished=self._final) and self._final

    def _belongs(self, data: bytes) -> bool:
        """Whether the header is this file's; a damaged one is believed, since the records are numbered."""
        file = self._file
        try:
            header: SegmentHeader = decode_segment_header(data)
        except ValueError as error:
            self._bad_header = str(error) if self._final else ""
            return True
        if (header.worker, header.epoch, header.segment) != (file.worker, file.epoch, file.segment):
            detail = f"worker {header.worker}, epoch {header.epoch:016x}, segment {header.segment}"
            self._find(FindingKind.MISPLACED, 0, detail)
            return False
        self._boot_id = header.boot_id.hex()
        return True

    def _take(self, item: Found, offset: int) -> None:
        self._note_bad_header()
        try:
            record = decode(item.record)
        except ValueError as error:
            self._find(FindingKind.UNKNOWN_RECORD, offset, str(error))
            self._pending.append((record_number(item.record), None))
        else:
            self._pending.append((record_number(item.record), record))

    def _note_end(self, end: End) -> None:
        """Bytes behind the last record: a killed worker's last word, or, with a later segment, damage.

        The last word may also be the header of a segment that it never came to use.
        """
        if self._last and (end.torn or self._bad_header):
            self._findings.append(self._finding(FindingKind.TORN_TAIL, end.offset, self._bad_header))
            return
        self._note_bad_header()
        if end.torn:
            self._find(FindingKind.DAMAGE, end.offset, "at the end of the segment")

    def _note_bad_header(self) -> None:
        if self._bad_header:
            self._find(FindingKind.HEADER_DAMAGED, 0, self._bad_header)
            self._bad_header = ""

    def _finding(self, kind: FindingKind, offset: int, detail: str) -> Finding:
        return Finding(kind, self._file.worker, self._file.epoch, self._file.segment, offset, detail=detail)

    def _find(self, kind: FindingKind, offset: int, detail: str) -> None:
        self._findings.append(self._finding(kind, offset, detail))
        self.damaged += 1

    def _flush(self, end: tuple[int, int], *, finished: bool = False) -> bool:
        """Commit what is pending; False when another drain was faster: a later round begins anew.

        Raises OSError.
        """
        ended = finished and self._last
        if finished and not self._last:
            end = (self._file.segment + 1, SEGMENT_HEADER_BYTES)
        start = self._cursor
        nothing = not self._pending and not self._findings and (start.segment, start.offset) == end
        if nothing and (start.ended or not ended):
            return True
        batch = Batch(
            self._file.worker, self._file.epoch, self._boot_id, start, tuple(self._pending), end, ended,
            tuple(self._findings),
        )  # fmt: skip
        self._disk.sync_records()
        if start == Cursor() or end[0] != start.segment:
            self._disk.sync_names()  # else a segment that the cursor stands in may be gone after a power cut
        receipts = [record for _, record in self._pending if isinstance(record, Receipt)]
        if receipts:
            self._disk.keep_receipts(receipts)
        if not self._ledger.apply(batch):
            return False
        self.records += len(self._pending)
        self._pending, self._findings = [], []
        self._cursor = self._ledger.cursor(self._file.worker, self._file.epoch)
        return True
