"""The limits of all workers in one mapped file: reserve, commit, refund; exact, and whole at any kill.

A worker that stops between any two instructions leaves a table that the next one completes (`intent`),
so that for every slot admitted = committed + refunded + open holds whenever the lock is free and clean.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lotabotsd.foundation.errors import Code, LotaBotsError

from . import layout, rules
from .file import adopt_or_create, create_table, current_boot_id, open_file
from .intent import Intents
from .layout import CELL, SLOT, SLOT_BYTES, UINT32, UINT64, Geometry
from .lock import TableLock, is_taken, let_go, take
from .notes import OwnNotes, notes_of
from .scope import Busy, Refusal, Remaining, Scope, Stale, Ticket, Totals, WorkerCell
from .settlement import Recorded, Settlement, nothing_recorded

__all__ = [
    "Busy",
    "Refusal",
    "Remaining",
    "Scope",
    "Stale",
    "Table",
    "Ticket",
    "Totals",
    "WorkerCell",
    "adopt_or_create",
    "create_table",
    "current_boot_id",
]

_BEAT = struct.Struct("<QQQ")  # heartbeat, applied generation, progress
_COUNTERS = struct.Struct(f"<{layout.COUNTERS}Q")


class Table:
    """One process's view of the table; `worker` is its number, None for the daemon (which admits nothing).

    Opened after exec and used from one thread: the lock excludes neither threads nor forked children.
    """

    def __init__(
        self,
        path: Path,
        descriptor: int,
        memory: mmap.mmap,
        geometry: Geometry,
        worker: int | None,
        lock: TableLock,
    ) -> None:
        self._path = path
        self._descriptor = descriptor
        self._memory = memory
        self._geometry = geometry
        self._worker = worker
        self._lock = lock
        self._intents = Intents(memory, geometry)
        self._mark = 0 if worker is None else worker + 1
        self._page = 0 if worker is None else geometry.worker_at(worker)
        self._notes = OwnNotes(memory, self._page)
        self._late: list[tuple[Ticket, int | None]] = []
        self._progress = 0

    @classmethod
    def open(
        cls,
        path: Path,
        worker: int | None,
        *,
        boot_id: bytes | None = None,
        map_file: Callable[[int, int], mmap.mmap] = mmap.mmap,
        make_lock: Callable[[int], TableLock] = TableLock,
    ) -> Table:
        """Map the table at `path`; a worker also enters its process id.

        A worker's number is its own until its process ends, whether it runs or is stopped. It calls
        `settle_worker` for whoever had the number before, then `begin`, before its first reserve.
        Raises FILE_UNREADABLE when there is none yet; LIMITS_TABLE_DAMAGED, also for another boot's;
        LIMITS_UNAVAILABLE while the number is taken.
        """
        descriptor, geometry = open_file(path, current_boot_id() if boot_id is None else boot_id)
        if worker is not None and not 0 <= worker < geometry.workers:
            os.close(descriptor)
            raise LotaBotsError(
                Code.LIMITS_TABLE_DAMAGED, f"it has room for {geometry.workers} workers, not for {worker}"
            )
        if worker is not None and not take(descriptor, geometry.worker_at(worker)):
            os.close(descriptor)
            raise LotaBotsError(Code.LIMITS_UNAVAILABLE, f"worker {worker} still lives")
        memory = map_file(descriptor, geometry.file_bytes)
        table = cls(path, descriptor, memory, geometry, worker, make_lock(descriptor))
        if worker is not None:
            table._put_own(layout.WORKER_PID, UINT32.pack(os.getpid()))
        return table

    def replaced(self) -> bool:
        """Whether another table lies at the path by now: then open that one."""
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        mine = os.fstat(self._descriptor)
        return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)

    def close(self) -> None:
        """Settle what is late, if the lock is free, and give the file back."""
        self.settle_late()
        self._memory.close()
        os.close(self._descriptor)

    # -- admission -------------------------------------------------------------------------------------

    def reserve(
        self,
        scopes: tuple[Scope, ...],
        rows: int,
        now_ns: int,
        window_id: int,
        *,
        cost: int = 1,
        window_ends_in_ns: int = 0,
        generation: int = layout.RETIRED,
    ) -> Ticket | Refusal | Busy | Stale:
        """Admit a request of `rows` rows in all its scopes, or change nothing.

        `now_ns` is monotonic. The request takes `cost` from each rate. Windows never go back: when another
        worker already charges a later window, so does this request (`Ticket.window_id`).
        `window_ends_in_ns` becomes the Retry-After of a spent quota; the caller knows the wall clock.
        `generation` is that of the policy the request was judged by: an older one than the table's admits
        nobody. It is compared under the lock, so that after `set_generation` and one moment in which the
        lock was free (`is_entered`) no admission follows an older policy, also not by a worker that was
        stopped in between.
        """
        if self._worker is None:
            raise ValueError("only a worker can reserve")
        if not self._enter():
            return self._busy()
        try:
            (in_force,) = UINT64.unpack_from(self._memory, layout.GENERATION)
            if generation < in_force:
                return Stale(in_force)
            return self._reserve(self._worker, scopes, rows, now_ns, window_id, cost, window_ends_in_ns)
        finally:
            self._leave()

    def closing(self, ticket: Ticket, rows: int, record: int) -> None:
        """Say before record `record` is written to the journal that the ticket is worth `rows` then.

        So a worker that dies before its `commit` is settled as the journal says (`settle_worker`).
        """
        self._notes.put_down(ticket, rows, record)

    def commit(self, ticket: Ticket, rows: int) -> bool:
        """The request ran and `rows` rows are charged. See `refund` for the answer."""
        return self._settle(ticket, rows)

    def refund(self, ticket: Ticket) -> bool:
        """The request ended without work: its rows and its place are given back, its rate is not.

        False when the lock was busy: the ticket is remembered and settled with the next change or beat.
        """
        return self._settle(ticket, None)

    def _reserve(
        self,
        worker: int,
        scopes: tuple[Scope, ...],
        rows: int,
        now_ns: int,
        window_id: int,
        cost: int,
        window_ends_in_ns: int,
    ) -> Ticket | Refusal:
        memory = self._memory
        geometry = self._geometry
        found: list[rules.Slot] = []
        for scope in scopes:
            if scope.slot >= geometry.slots:
                raise LotaBotsError(Code.LIMITS_UNAVAILABLE, f"the table has no slot {scope.slot}")
            slot = SLOT.unpack_from(memory, geometry.slots_at + scope.slot * SLOT_BYTES)
            if slot[rules.WINDOW] > window_id and slot[rules.TAG] == scope.tag:
                window_id = slot[rules.WINDOW]
            found.append(slot)
        values: list[int] = []
        slots: list[rules.Slot] = []
        left: list[tuple[int, ...]] = []
        passes = True
        for scope, slot in zip(scopes, found, strict=True):
            mine = rules.owned(slot, scope.tag, window_id)
            slots.append(mine)
            passes = passes and rules.admits(scope, mine, rows, cost, now_ns)
            cell = CELL.unpack_from(memory, geometry.cell_at(worker, scope.slot))
            opened = rules.opened(scope, mine, cell, rows, cost, now_ns)
            values += (scope.slot, 0, *opened)
            left.append(opened)
        if not passes:
            return rules.refusal(scopes, slots, rows, cost, now_ns, window_ends_in_ns)
        self._intents.carry_out(worker, values)
        epochs = tuple([slot[rules.EPOCH] for slot in slots])
        return Ticket(scopes, rows, window_id, epochs, slots=tuple(left))

    def _settle(self, ticket: Ticket, rows: int | None) -> bool:
        if not ticket.is_open:
            raise ValueError("this ticket was settled before")
        ticket.is_open = False
        self._progress += 1
        if not self._enter():
            self._late.append((ticket, rows))
            return False
        try:
            self._close_ticket(ticket, rows)
        finally:
            self._leave()
        return True

    def _close_ticket(self, ticket: Ticket, rows: int | None) -> None:
        assert self._worker is not None
        memory = self._memory
        geometry = self._geometry
        values: list[int] = []
        for scope, epoch in zip(ticket.scopes, ticket.epochs, strict=True):
            slot = SLOT.unpack_from(memory, geometry.slots_at + scope.slot * SLOT_BYTES)
            cell = CELL.unpack_from(memory, geometry.cell_at(self._worker, scope.slot))
            if rules.holds(slot, cell, epoch):
                values += (scope.slot, 0)
                values += rules.closed(slot, cell, ticket.window_id, ticket.rows, rows)
        self._intents.carry_out(self._worker, values, ticket.note)
        self._notes.take_up(ticket)

    # -- the lock --------------------------------------------------------------------------------------

    def _enter(self) -> bool:
        if not self._lock.acquire():
            return False
        memory = self._memory
        memory[layout.HOLDER] = self._mark
        try:
            if memory[layout.DIRTY]:
                self._intents.replay()
            while self._late:
                ticket, rows = self._late[-1]
                self._close_ticket(ticket, rows)
                self._late.pop()
        except BaseException:
            self._leave()
            raise
        return True

    def _leave(self) -> None:
        self._memory[layout.HOLDER] = 0
        self._lock.release()

    @contextmanager
    def _entered(self) -> Iterator[bool]:
        entered = self._enter()
        try:
            yield entered
        finally:
            if entered:
                self._leave()

    def _busy(self) -> Busy:
        return Busy(self.holder())

    def holder(self) -> int | None:
        """The worker that holds the lock, as it said itself; it may be gone by now."""
        mark = self._memory[layout.HOLDER]
        return mark - 1 if mark else None

    def is_entered(self) -> bool:
        """Whether another process holds the lock at this moment."""
        return is_taken(self._descriptor, layout.HOLDER)

    def settle_late(self) -> int:
        """Settle the tickets that found the lock busy; how many are still left."""
        if self._late:
            with self._entered():
                pass
        return len(self._late)

    # -- a worker's own page, and what others read there -----------------------------------------------

    @property
    def generation(self) -> int:
        """Of the policy in force; compare it with the one applied."""
        return int(UINT64.unpack_from(self._memory, layout.GENERATION)[0])

    def set_generation(self, generation: int) -> None:
        """Announce a new policy; the daemon alone does this, after its commit.

        Without the lock: the daemon has threads, and would hold it for as long as one of them computes.
        """
        self._memory[layout.GENERATION : layout.GENERATION + 8] = UINT64.pack(generation)

    def begin(self, epoch: int) -> None:
        """Enter the epoch of this worker's journal, once nothing of its predecessor is open any more."""
        self._put_own(layout.WORKER_EPOCH, UINT64.pack(epoch))

    def beat(self, now_ns: int, applied_generation: int) -> None:
        """Say that this worker lives, what policy it applies and how many tickets it settled."""
        self.settle_late()
        self._put_own(layout.WORKER_BEAT, _BEAT.pack(now_ns, applied_generation, self._progress))

    def count(self, counter: int, amount: int = 1) -> None:
        """Add to one of this worker's 64 counters; they live on in its successors until the next boot."""
        if not 0 <= counter < layout.COUNTERS:
            raise ValueError(f"there is no counter {counter}")
        at = layout.COUNTER_AREA + 8 * counter
        (value,) = UINT64.unpack_from(self._memory, self._page + at)
        self._put_own(at, UINT64.pack(value + amount))

    @property
    def worker_count(self) -> int:
        """How many workers the table has room for."""
        return self._geometry.workers

    def workers(self) -> list[WorkerCell]:
        """What every worker said last, by number."""
        return [self._cell(self._geometry.worker_at(worker)) for worker in range(self._geometry.workers)]

    def _cell(self, page: int) -> WorkerCell:
        pid, _, heartbeat, applied, progress, _ = layout.WORKER.unpack_from(self._memory, page)
        lives = page == self._page or is_taken(self._descriptor, page)
        return WorkerCell(pid, heartbeat, applied, progress, lives)

    def counters(self) -> list[tuple[int, ...]]:
        """The 64 counters of every worker, by number."""
        pages = (self._geometry.worker_at(worker) for worker in range(self._geometry.workers))
        return [_COUNTERS.unpack_from(self._memory, page + layout.COUNTER_AREA) for page in pages]

    def _put_own(self, at: int, data: bytes) -> None:
        if self._worker is None:
            raise ValueError("only a worker has a page of its own")
        self._memory[self._page + at : self._page + at + len(data)] = data

    # -- looking at slots, and after dead workers ------------------------------------------------------

    def remaining(self, scope: Scope, now_ns: int, window_id: int) -> Remaining:
        """What a scope has left now. Read without the lock: good for headers, not for decisions."""
        found = SLOT.unpack_from(self._memory, self._geometry.slot_at(scope.slot))
        return rules.remaining(scope, rules.owned(found, scope.tag, window_id), now_ns)

    def totals(self, slot: int = 0) -> Totals | Busy:
        """The accounts of one slot (0: the licence's, where every request counts)."""
        geometry = self._geometry
        with self._entered() as entered:
            if not entered:
                return self._busy()
            values = SLOT.unpack_from(self._memory, geometry.slot_at(slot))
            places = (geometry.cell_at(worker, slot) for worker in range(geometry.workers))
            return rules.totals(values, [CELL.unpack_from(self._memory, place) for place in places])

    def open_requests(self, slot: int = 0) -> int:
        """How many requests of a slot are not settled. Read without the lock: for people and metrics."""
        values = SLOT.unpack_from(self._memory, self._geometry.slot_at(slot))
        return max(0, int(values[rules.ADMITTED] - values[rules.COMMITTED] - values[rules.REFUNDED]))

    @property
    def replays(self) -> int:
        """How often the half-done change of a dead worker was finished by another one."""
        return int(UINT64.unpack_from(self._memory, layout.REPLAYS)[0])

    def settle_worker(self, worker: int, recorded: Recorded = nothing_recorded) -> int | Busy:
        """End everything that a dead worker had open; how many tickets and slots that touched.

        What `recorded` finds in its journal is committed (`closing`), the rest refunded: the table knows
        what the ledger will charge. Busy as long as the worker lives, somebody else settles it, or the lock
        is held. It can be called again after Busy or a kill: what was done stays done.
        """
        page = self._geometry.worker_at(worker)
        mine = page == self._page
        if not mine and not take(self._descriptor, page):
            return Busy(None)
        try:
            settled = Settlement(self._memory, self._geometry, self._intents, self._entered).run(
                worker, recorded
            )
        finally:
            if not mine:
                let_go(self._descriptor, page)
        return self._busy() if settled is None else settled

    def unsettled(self, worker: int, epoch: int) -> bool:
        """Whether the settlement of a dead worker may still ask for records of this epoch of its journal."""
        if worker >= self._geometry.workers:
            return False
        page = self._geometry.worker_at(worker)
        (noted,) = UINT64.unpack_from(self._memory, page + layout.WORKER_EPOCH)
        return bool(noted == epoch) and any(notes_of(self._memory, self._geometry, worker))
