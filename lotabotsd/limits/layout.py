"""The bytes of the limits table, layout 1: frozen (ARCHITECTURE.md, "The limits table"). Pure.

    header page | one page per worker | slots | cells, worker by worker

All numbers are little-endian and unsigned. The holder, the dirty mark and the intent's state are single
bytes, so that no process can die in the middle of writing one.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from lotabotsd.foundation.errors import Code, LotaBotsError

MAGIC = b"LBLIMITS"
LAYOUT = 1
HEADER_BYTES = 4096
WORKER_BYTES = 8192
SLOT_BYTES = 64
CELL_BYTES = 24
MAX_WORKERS = 254  # a worker's number + 1 fits into one byte
MAX_SLOTS = 1 << 24
MAX_SCOPES = 8  # in one intent
COUNTERS = 64  # per worker

# Header: magic, layout, workers, slots, header bytes, worker bytes, slot bytes, cell bytes, CRC-32 of these
# 64 bytes with the CRC as zero, file bytes, boot id.
HEADER = struct.Struct("<8sIIIIIIIIQ16s")
HEADER_CRC = 36
GENERATION = 64  # of the policy; written by the daemon
RETIRED = (1 << 64) - 1  # the generation of a table that another one replaced: nobody admits by it
REPLAYS = 72  # intents of dead workers carried out by another
HOLDER = 128  # one byte: 1 + the worker that holds the lock, or 0; the lock is on this byte of the file
DIRTY = 129  # one byte: 1 + the worker whose intent is being carried out, or 0

# In a worker's page; only that worker writes there. As long as it lives it holds a lock on the first byte.
WORKER = struct.Struct("<IIQQQQ")  # pid, 0, heartbeat (monotonic ns), applied generation, progress, epoch
WORKER_PID = 0
WORKER_BEAT = 8
WORKER_EPOCH = 32  # of its journal
COUNTER_AREA = 64
INTENT_AREA = 1024
INTENT_STATE = 0  # one byte: 1 complete
INTENT_HEAD = struct.Struct(
    "<BHI"
)  # at 1: count of entries, 1 + the note it ends or 0, CRC-32 of the entries
INTENT_ENTRIES = 16
ENTRY_BYTES = 8 + SLOT_BYTES + CELL_BYTES
# Notes: what is committed if a record reached the journal, for whoever looks after a worker that died then.
NOTE_AREA = 2048
NOTE_BYTES = 96
NOTES = 64  # per worker
NOTE_STATE = 0  # one byte: 1 in force
NOTE_HEAD = struct.Struct(
    "<BHIQQQ"
)  # at 1: 0, count of slots, window id, record, rows reserved, rows charged
NOTE_SLOTS = 32  # slot number and epoch, MAX_SCOPES times

# tag, theoretical arrival (monotonic ns), window id, epoch, used, reserved, admitted, committed, refunded
SLOT_FIELDS = "QQIIQQQQQ"
SLOT = struct.Struct("<" + SLOT_FIELDS)
# epoch, window id, in flight, 0, reserved
CELL_FIELDS = "IIIIQ"
CELL = struct.Struct("<" + CELL_FIELDS)
# ENTRIES[n] packs n entries: slot number, 0, the slot's new values, the new values of the worker's cell
ENTRIES = tuple(struct.Struct("<" + ("II" + SLOT_FIELDS + CELL_FIELDS) * n) for n in range(MAX_SCOPES + 1))
# NOTED[n] packs a note of n slots from its second byte on
NOTED = tuple(struct.Struct(NOTE_HEAD.format + "II" * n) for n in range(MAX_SCOPES + 1))
UINT32 = struct.Struct("<I")
UINT64 = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where everything lies in a table of so many slots and workers."""

    slots: int
    workers: int
    slots_at: int = field(init=False)
    cells_at: int = field(init=False)
    file_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        if not 1 <= self.slots <= MAX_SLOTS or not 1 <= self.workers <= MAX_WORKERS:
            raise ValueError(f"a table has 1 to {MAX_SLOTS} slots and 1 to {MAX_WORKERS} workers")
        slots_at = HEADER_BYTES + self.workers * WORKER_BYTES
        cells_at = slots_at + self.slots * SLOT_BYTES
        object.__setattr__(self, "slots_at", slots_at)
        object.__setattr__(self, "cells_at", cells_at)
        object.__setattr__(self, "file_bytes", cells_at + self.workers * self.slots * CELL_BYTES)

    def worker_at(self, worker: int) -> int:
        """Where a worker's page begins."""
        return HEADER_BYTES + worker * WORKER_BYTES

    def slot_at(self, slot: int) -> int:
        """Where a slot begins."""
        return self.slots_at + slot * SLOT_BYTES

    def cell_at(self, worker: int, slot: int) -> int:
        """Where a worker's cell of a slot begins."""
        return self.cells_at + (worker * self.slots + slot) * CELL_BYTES


def header(geometry: Geometry, boot_id: bytes) -> bytes:
    """The 64 constant bytes that begin a table. `boot_id` has 16 bytes."""
    if len(boot_id) != 16:
        raise ValueError(f"a boot id has 16 bytes, not {len(boot_id)}")

    def packed(crc: int) -> bytes:
        sizes = (HEADER_BYTES, WORKER_BYTES, SLOT_BYTES, CELL_BYTES)
        return HEADER.pack(
            MAGIC, LAYOUT, geometry.workers, geometry.slots, *sizes, crc, geometry.file_bytes, boot_id
        )

    return packed(zlib.crc32(packed(0)))


def read_header(data: bytes, file_bytes: int, boot_id: bytes) -> Geometry:
    """Judge the first bytes of a file of `file_bytes`. Raises LIMITS_TABLE_DAMAGED naming what is wrong."""
    if len(data) < HEADER.size:
        raise _damaged(f"it has only {len(data)} bytes")
    magic, layout, workers, slots, *_ = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise _damaged("it does not begin as a limits table")
    if layout != LAYOUT:
        raise _damaged(f"it has layout {layout}, this release knows {LAYOUT}")
    if not 1 <= slots <= MAX_SLOTS or not 1 <= workers <= MAX_WORKERS:
        raise _damaged(f"it claims {slots} slots and {workers} workers")
    found_boot = data[HEADER.size - 16 : HEADER.size]
    geometry = Geometry(slots, workers)
    if data[: HEADER.size] != header(geometry, found_boot):
        raise _damaged("its header's checksum does not fit")
    if file_bytes != geometry.file_bytes:
        raise _damaged(f"it has {file_bytes} bytes instead of {geometry.file_bytes}")
    if found_boot != boot_id:
        raise _damaged("it was made before the last restart of this host")
    return geometry


def slot_bytes(tag: int, window_id: int, used: int) -> bytes:
    """A slot as it is when a table is made."""
    return SLOT.pack(tag, 0, window_id, 0, used, 0, 0, 0, 0)


def _damaged(what: str) -> LotaBotsError:
    return LotaBotsError(Code.LIMITS_TABLE_DAMAGED, what)
