"""Notes of a worker: which ticket is committed once which record of its journal is written.

A worker puts the note down before it writes the record, and takes it away in the same change that commits
the ticket. So whoever looks after a worker that died in between finds the note, asks the journal whether
the record is there, and then commits exactly what the ledger charges.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

from . import layout
from .layout import Geometry
from .scope import Ticket

_NOTE = layout.NOTED[layout.MAX_SCOPES]


@dataclass(frozen=True, slots=True)
class Note:
    """A ticket that is committed if record `record` of the worker's journal exists."""

    place: int  # 1 + its place among the worker's notes
    window_id: int
    record: int
    reserved: int  # rows
    rows: int  # charged
    slots: tuple[tuple[int, int], ...]  # slot number and its epoch at admission


class OwnNotes:
    """The notes of one living worker, in its own page; a place is free again when its ticket has ended."""

    def __init__(self, memory: mmap.mmap, page: int) -> None:
        self._memory = memory
        self._area = page + layout.NOTE_AREA
        self._free = list(range(layout.NOTES, 0, -1))

    def put_down(self, ticket: Ticket, rows: int, record: int) -> None:
        """Note what the ticket is worth. Without a free place it goes without: see ARCHITECTURE.md."""
        if not self._free or ticket.note:
            return
        place = self._free.pop()
        at = self._area + (place - 1) * layout.NOTE_BYTES
        pairs = [
            number
            for scope, epoch in zip(ticket.scopes, ticket.epochs, strict=True)
            for number in (scope.slot, epoch)
        ]
        count = len(ticket.scopes)
        noted = layout.NOTED[count]
        body = noted.pack(0, count, ticket.window_id, record, ticket.rows, rows, *pairs)
        memory = self._memory
        memory[at + 1 : at + 1 + noted.size] = body
        memory[at] = 1
        ticket.note = place

    def take_up(self, ticket: Ticket) -> None:
        """The ticket's note has ended: its place is free."""
        if ticket.note:
            self._free.append(ticket.note)
            ticket.note = 0


def notes_of(memory: mmap.mmap, geometry: Geometry, worker: int) -> Iterator[Note]:
    """The notes in force in a worker's page; only once it is dead do they stay as they are."""
    area = geometry.worker_at(worker) + layout.NOTE_AREA
    for place in range(layout.NOTES):
        at = area + place * layout.NOTE_BYTES
        if memory[at] == 1:
            _, count, window_id, record, reserved, rows, *pairs = _NOTE.unpack_from(memory, at + 1)
            slots = tuple(zip(pairs[::2], pairs[1::2], strict=True))[: min(count, layout.MAX_SCOPES)]
            known = tuple(pair for pair in slots if pair[0] < geometry.slots)
            yield Note(place + 1, window_id, record, reserved, rows, known)
