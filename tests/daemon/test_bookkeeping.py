"""The daemon's hand on the ledger: hours closed once, and a reserve given up when the disk is full."""

from __future__ import annotations

import pytest

from lotabotsd.daemon.bookkeeping import settled_in
from lotabotsd.daemon.wiring import open_gate
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.limits.table import Scope, Table, Ticket
from lotabotsd.usage.drain import Drained


class FullDisk:
    """A drainer whose disk is full as often as told."""

    def __init__(self, clock, times: int) -> None:
        self._clock = clock
        self._times = times

    def drain_once(self) -> Drained:
        if self._times:
            self._times -= 1
            raise LotaBotsError(Code.DISK_FULL, "ledger.db")
        return Drained(self._clock.wall_ns())


def test_an_hour_is_closed_when_it_ended_and_once(appliance, clock) -> None:
    assert not appliance.bookkeeping.drain_and_seal()
    clock.advance(3_600)
    assert appliance.bookkeeping.drain_and_seal()
    assert not appliance.bookkeeping.drain_and_seal()
    assert appliance.ledger.verify().ok


def test_the_reserve_is_held_given_up_when_the_disk_is_full_and_held_again(appliance, clock) -> None:
    reserve = appliance.config.paths.state / "reserve"
    assert reserve.stat().st_size == 4_096
    appliance.bookkeeping._drainer = FullDisk(clock, times=1)
    appliance.bookkeeping.drain_and_seal()
    assert not reserve.exists()
    appliance.bookkeeping.keep_reserve()
    assert reserve.exists()


def test_a_disk_that_stays_full_is_told(appliance, clock) -> None:
    appliance.bookkeeping._drainer = FullDisk(clock, times=2)
    with pytest.raises(LotaBotsError) as failure:
        appliance.bookkeeping.drain_and_seal()
    assert failure.value.code is Code.DISK_FULL


def test_an_epoch_ends_once_what_its_worker_noted_is_settled(appliance) -> None:
    settled = settled_in(appliance.config.paths.limits_table)
    assert settled(0, 7)  # there is no table yet
    open_gate(appliance, triton_runs=False)
    worker = Table.open(appliance.config.paths.limits_table, 0)
    worker.begin(7)
    ticket = worker.reserve((Scope("licence", 0, 1),), 1, 0, 202603)
    assert isinstance(ticket, Ticket)
    worker.closing(ticket, 1, 12)
    worker.close()
    assert not settled(0, 7)
    assert settled(0, 6)
    parent = Table.open(appliance.config.paths.limits_table, None)
    parent.settle_worker(0, lambda epoch, record: True)
    parent.close()
    assert settled(0, 7)
