"""What a dead worker left: its open tickets are settled as its journal says."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path

from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.foundation.paths import Paths
from lotabotsd.limits.scope import Busy
from lotabotsd.limits.settlement import Recorded
from lotabotsd.limits.table import Table
from lotabotsd.usage.journal import worker_directory
from lotabotsd.usage.records import SEGMENT_HEADER_BYTES, decode_segment_header, record_number
from lotabotsd.usage.segments import Found, reader, scan

PAUSE_SECONDS = 0.01


def settle(paths: Paths, worker: int, seconds: float) -> bool:
    """Settle a dead worker; without a table there is nothing to settle.

    False when the lock was busy all the time, the table is damaged, or the worker's number is taken.
    """
    try:
        table = Table.open(paths.limits_table, None)
    except LotaBotsError:
        return True
    try:
        if worker >= table.worker_count:
            return True
        recorded = recorded_by(paths.journal, worker)
        deadline = time.monotonic() + seconds
        while isinstance(table.settle_worker(worker, recorded), Busy):
            if time.monotonic() > deadline:
                return False
            time.sleep(PAUSE_SECONDS)
    except LotaBotsError:
        return False
    else:
        return True
    finally:
        table.close()


def settle_beyond(paths: Paths, workers: int, seconds: float) -> None:
    """Settle the dead workers of numbers that nobody will have: there were more of them once."""
    try:
        table = Table.open(paths.limits_table, None)
    except LotaBotsError:
        return
    count = table.worker_count
    table.close()
    for worker in range(workers, count):
        settle(paths, worker, seconds)


def recorded_by(journal: Path, worker: int) -> Recorded:
    """For `Table.settle_worker`: looks into the journal once per epoch, since the worker writes no more."""

    @cache
    def last(epoch: int) -> int | None:
        return last_record(worker_directory(journal, worker), epoch)

    def recorded(epoch: int, record: int) -> bool:
        found = last(epoch)
        # Nothing is left: it was counted and freed. Then nobody gets for nothing what may have been charged.
        return found is None or record <= found

    return recorded


def last_record(directory: Path, epoch: int) -> int | None:
    """The number of the last record of an epoch whose worker is dead; None when no segment of it is left."""
    for path in sorted(directory.glob(f"{epoch:016x}-????????.seg"), reverse=True):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue  # it was counted and freed just now
        try:
            return _last_in(descriptor)
        finally:
            os.close(descriptor)
    return None


def _last_in(descriptor: int) -> int:
    """Numbers have no gap, so that a segment's first one tells of those before."""
    read = reader(descriptor)
    try:
        number = decode_segment_header(read(0, SEGMENT_HEADER_BYTES)).first_number - 1
    except ValueError:
        number = 0
    for item in scan(read, SEGMENT_HEADER_BYTES, final=True):
        if isinstance(item, Found):
            number = max(number, record_number(item.record))
    return number
