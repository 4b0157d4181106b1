"""Carry the journals into the ledger and close its hours; one at a time, whoever asks."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from lotabotsd.attestation.receipt_store import KeptReceipt, ReceiptStore
from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.limits.table import Table
from lotabotsd.usage.drain import Drained, Drainer
from lotabotsd.usage.ledger import Ledger
from lotabotsd.usage.records import Receipt
from lotabotsd.usage.reserve import ensure_reserve, release_reserve
from lotabotsd.usage.windows import hour_of

log = logging.getLogger("lotabots.daemon")


def settled_in(table: Path) -> Callable[[int, int], bool]:
    """For the drainer: whether a dead worker's epoch is settled in the limits table, if there is one.

    The gate settles what a worker left by the last records of its journal, which must be there until then.
    """

    def settled(worker: int, epoch: int) -> bool:
        try:
            limits = Table.open(table, None)
        except LotaBotsError:
            return True
        try:
            return not limits.unsettled(worker, epoch)
        finally:
            limits.close()

    return settled


def keeper_of(store: ReceiptStore) -> Callable[[Sequence[Receipt]], None]:
    """For the drainer: where the receipts go that it finds in the journals."""

    def keep(receipts: Sequence[Receipt]) -> None:
        store.add([KeptReceipt(r.request_id, r.organisation_id, r.key_id, r.text) for r in receipts])

    return keep


class Bookkeeping:
    """The daemon's hand on the ledger. May be used from several threads."""

    def __init__(
        self,
        drainer: Drainer,
        ledger: Ledger,
        clock_suspect: Callable[[], bool],
        *,
        reserve: Path,
        reserve_bytes: int,
    ) -> None:
        """`reserve` is a file of `reserve_bytes` that is given up when the disk is full."""
        self._drainer = drainer
        self._ledger = ledger
        self._clock_suspect = clock_suspect
        self._reserve = reserve
        self._reserve_bytes = reserve_bytes
        self._lock = threading.Lock()
        self._problems: tuple[str, ...] = ()

    def drain_and_seal(self, cut: bool = False) -> bool:
        """Count what is new, then close the hours that ended, with `cut` the running one too.

        True when a window was closed. Raises DISK_FULL (only when the reserve did not help either),
        DATABASE_DAMAGED.
        """
        with self._lock:
            try:
                return self._drain_and_seal(cut)
            except LotaBotsError as error:
                if error.code is not Code.DISK_FULL or not release_reserve(self._reserve):
                    raise
                log.error("the disk is full: the reserve of %d bytes is given up", self._reserve_bytes)
                return self._drain_and_seal(cut)

    def keep_reserve(self) -> None:
        """Hold the reserve again once there is room for it twice. A disk that is full is told elsewhere."""
        room = os.statvfs(self._reserve.parent)
        if self._reserve.exists() or room.f_bavail * room.f_frsize < 2 * self._reserve_bytes:
            return
        ensure_reserve(self._reserve, self._reserve_bytes)

    def problems(self) -> tuple[str, ...]:
        """Journal files that the disk or the permissions refused in the last round."""
        return self._problems

    def _drain_and_seal(self, cut: bool) -> bool:
        drained: Drained = self._drainer.drain_once()
        self._problems = tuple(drained.problems)
        barrier_ns = drained.barrier_ns
        if not cut and hour_of(barrier_ns // NANOSECONDS) == hour_of(self._ledger.sealed_until):
            return False  # the common case costs no write
        return self._ledger.seal(barrier_ns, cut=cut, clock_suspect=self._clock_suspect()).windows > 0
