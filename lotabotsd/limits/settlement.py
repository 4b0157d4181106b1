"""Settling a dead worker: what its journal says was served is committed, everything else refunded.

Every step is one change of its own, carried out as an intent in the dead worker's page: a settlement that
is killed is gone on with by the next one.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from . import layout, rules
from .intent import Intents
from .layout import CELL, CELL_BYTES, SLOT, Geometry
from .notes import Note, notes_of

# (epoch of the worker's journal, number of a record in it) → whether that record was written
Recorded = Callable[[int, int], bool]
_SCAN_CELLS = 2048


def nothing_recorded(epoch: int, record: int) -> bool:
    """For who has no journal to ask: everything open is refunded."""
    return False


class Settlement:
    """Settles one worker that is dead, and whose number nobody takes meanwhile."""

    def __init__(
        self,
        memory: mmap.mmap,
        geometry: Geometry,
        intents: Intents,
        entered: Callable[[], AbstractContextManager[bool]],
    ) -> None:
        """`entered` takes the table's lock, finishes what a dead worker began, and says whether it could."""
        self._memory = memory
        self._geometry = geometry
        self._intents = intents
        self._entered = entered

    def run(self, worker: int, recorded: Recorded) -> int | None:
        """How many tickets and slots that touched; None when the lock was busy: what was done stays done."""
        with self._entered() as entered:  # finishes its last change, which may open cells or end a note
            if not entered:
                return None
        (epoch,) = layout.UINT64.unpack_from(
            self._memory, self._geometry.worker_at(worker) + layout.WORKER_EPOCH
        )
        settled = 0
        for note in list(notes_of(self._memory, self._geometry, worker)):
            served = recorded(epoch, note.record)  # may read a file: never under the lock
            with self._entered() as entered:
                if not entered:
                    return None
                self._intents.carry_out(worker, self._committed(worker, note) if served else [], note.place)
                settled += served
        cells = list(self._open_cells(worker))
        for begin in range(0, len(cells), layout.MAX_SCOPES):
            with self._entered() as entered:
                if not entered:
                    return None
                some = cells[begin : begin + layout.MAX_SCOPES]
                self._intents.carry_out(worker, self._refunded(worker, some))
                settled += len(some)
        return settled

    def _committed(self, worker: int, note: Note) -> list[int]:
        """The change that commits a ticket, as its worker would have made it."""
        values: list[int] = []
        for number, epoch in note.slots:
            slot = SLOT.unpack_from(self._memory, self._geometry.slot_at(number))
            cell = CELL.unpack_from(self._memory, self._geometry.cell_at(worker, number))
            if rules.holds(slot, cell, epoch):
                values += (number, 0)
                values += rules.closed(slot, cell, note.window_id, note.reserved, note.rows)
        return values

    def _open_cells(self, worker: int) -> Iterator[int]:
        slots = self._geometry.slots
        for first in range(0, slots, _SCAN_CELLS):
            begin = self._geometry.cell_at(worker, first)
            chunk = self._memory[begin : begin + min(_SCAN_CELLS, slots - first) * CELL_BYTES]
            if chunk.strip(b"\0"):
                cells = enumerate(CELL.iter_unpack(chunk), start=first)
                yield from (slot for slot, cell in cells if cell[rules.CELL_IN_FLIGHT])

    def _refunded(self, worker: int, slots: list[int]) -> list[int]:
        values: list[int] = []
        for number in slots:
            slot = SLOT.unpack_from(self._memory, self._geometry.slot_at(number))
            cell = CELL.unpack_from(self._memory, self._geometry.cell_at(worker, number))
            values += (number, 0)
            values += rules.settled(slot, cell)
        return values
