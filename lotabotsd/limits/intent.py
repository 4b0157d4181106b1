"""Changes to the table that happen whole or not at all, whenever their process is killed.

The worker first writes what it is going to do (new values, not differences) into its own page, then sets
the table's dirty mark, then does it, then clears the mark. Whoever takes the lock and finds the mark does
it again. All writes go through item assignment of the memory, one per step, so that a test can stop
after each of them.
"""

from __future__ import annotations

import mmap
import zlib

from lotabotsd.foundation.errors import Code, LotaBotsError

from . import layout
from .layout import CELL_BYTES, ENTRIES, ENTRY_BYTES, SLOT_BYTES, Geometry

_NUMBERS = 16  # per entry
_SLOT_IN_ENTRY = 8
_CELL_IN_ENTRY = 8 + SLOT_BYTES


class Intents:
    """Carries out changes, and those that another worker left half done. The caller holds the lock."""

    def __init__(self, memory: mmap.mmap, geometry: Geometry) -> None:
        self._memory = memory
        self._geometry = geometry

    def carry_out(self, worker: int, values: list[int], note: int = 0) -> None:
        """Set slots and the cells of `worker`; `values` are those of up to 8 entries (layout.ENTRIES).

        `note` is 1 + the place of the worker's note that ends with this change; 0 for none.
        """
        if not values:
            self._end_note(worker, note)
            return
        count = len(values) // _NUMBERS
        body = ENTRIES[count].pack(*values)
        memory = self._memory
        at = self._geometry.worker_at(worker) + layout.INTENT_AREA
        memory[at + layout.INTENT_ENTRIES : at + layout.INTENT_ENTRIES + len(body)] = body
        memory[at + 1 : at + 8] = layout.INTENT_HEAD.pack(count, note, zlib.crc32(body))
        memory[at] = 1
        memory[layout.DIRTY] = worker + 1
        self._write(worker, body)
        self._end_note(worker, note)
        memory[layout.DIRTY] = 0
        memory[at] = 0

    def replay(self) -> None:
        """Finish what the marked worker began. Raises LIMITS_TABLE_DAMAGED when its intent is damaged."""
        memory = self._memory
        worker = memory[layout.DIRTY] - 1
        if worker >= self._geometry.workers:
            raise LotaBotsError(Code.LIMITS_TABLE_DAMAGED, f"the dirty mark names worker {worker}")
        at = self._geometry.worker_at(worker) + layout.INTENT_AREA
        if memory[at] == 1:  # otherwise the intent was never complete, so nothing was changed
            body, note = self._read(at)
            self._write(worker, body)
            self._end_note(worker, note)
            (replays,) = layout.UINT64.unpack_from(memory, layout.REPLAYS)
            memory[layout.REPLAYS : layout.REPLAYS + 8] = layout.UINT64.pack(replays + 1)
        memory[layout.DIRTY] = 0
        memory[at] = 0

    def _read(self, at: int) -> tuple[bytes, int]:
        count, note, crc = layout.INTENT_HEAD.unpack_from(self._memory, at + 1)
        begin = at + layout.INTENT_ENTRIES
        body = self._memory[begin : begin + min(count, layout.MAX_SCOPES) * ENTRY_BYTES]
        if not 1 <= count <= layout.MAX_SCOPES or note > layout.NOTES or zlib.crc32(body) != crc:
            raise LotaBotsError(Code.LIMITS_TABLE_DAMAGED, "an intent's checksum does not fit")
        slots = [layout.UINT32.unpack_from(body, begin)[0] for begin in range(0, len(body), ENTRY_BYTES)]
        if max(slots) >= self._geometry.slots:
            raise LotaBotsError(Code.LIMITS_TABLE_DAMAGED, f"an intent names slot {max(slots)}")
        return body, note

    def _end_note(self, worker: int, note: int) -> None:
        if note:
            at = self._geometry.worker_at(worker) + layout.NOTE_AREA + (note - 1) * layout.NOTE_BYTES
            self._memory[at] = 0

    def _write(self, worker: int, body: bytes) -> None:
        memory = self._memory
        geometry = self._geometry
        for begin in range(0, len(body), ENTRY_BYTES):
            (slot,) = layout.UINT32.unpack_from(body, begin)
            slot_at = geometry.slot_at(slot)
            cell_at = geometry.cell_at(worker, slot)
            memory[slot_at : slot_at + SLOT_BYTES] = body[begin + _SLOT_IN_ENTRY : begin + _CELL_IN_ENTRY]
            memory[cell_at : cell_at + CELL_BYTES] = body[begin + _CELL_IN_ENTRY : begin + ENTRY_BYTES]
