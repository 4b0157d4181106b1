"""From a change to the gate's workers: announced, waited for, bounded."""

from __future__ import annotations

import threading

import pytest

from lotabotsd.daemon.publishing import WAIT_SECONDS, live_workers, spread_of
from lotabotsd.daemon.wiring import open_gate
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.identity.records import IdentityCaps
from lotabotsd.limits.scope import WorkerCell
from lotabotsd.limits.table import Table


def cell(*, lives: bool = True, applied: int = 0) -> WorkerCell:
    return WorkerCell(7, 0, applied, 0, lives)


def test_a_worker_is_live_as_long_as_its_process_is_also_when_it_says_nothing() -> None:
    assert live_workers([cell()]) == [cell()]
    assert live_workers([cell(lives=False)]) == []


def test_a_change_is_complete_when_every_live_worker_applied_it() -> None:
    assert spread_of([cell(applied=5), cell(applied=6)], 5).complete
    late = spread_of([cell(applied=5), cell(applied=4)], 5)
    assert (late.workers, late.applied, late.complete) == (2, 1, False)


def test_a_dead_worker_does_not_hold_up_a_change_and_none_at_all_neither() -> None:
    assert spread_of([cell(applied=5), cell(applied=4, lives=False)], 5).complete
    assert spread_of([], 5).complete


def test_a_publication_is_told_in_the_limits_table(appliance) -> None:
    open_gate(appliance, triton_runs=False)
    before = appliance.publishing.generation()
    appliance.identity.create_organisation("Ours", caps=IdentityCaps())
    same = appliance.publishing.publish()
    assert (same.changed, same.generation) == (False, before)  # without keys nothing changes at the gate
    owner = appliance.identity.list_organisations()[0].organisation_id
    member = appliance.identity.create_member(owner, "app", caps=IdentityCaps())
    appliance.identity.create_key(owner, member.member_id, name="k", expires_in_days=1, caps=IdentityCaps())
    assert appliance.publishing.publish().generation == before + 1
    table = Table.open(appliance.config.paths.limits_table, None)
    assert table.generation == before + 1
    table.close()


def test_waiting_for_a_live_worker_that_never_applies_ends_in_time(appliance, clock) -> None:
    open_gate(appliance, triton_runs=False)
    worker = Table.open(appliance.config.paths.limits_table, 0)
    worker.beat(clock.monotonic_ns(), 0)
    paused: list[float] = []

    def pause(seconds: float) -> None:
        paused.append(seconds)
        clock.advance(seconds)
        worker.beat(clock.monotonic_ns(), 0)

    appliance.publishing._pause = pause
    spread = appliance.publishing.publish_and_wait()
    assert (spread.workers, spread.applied) == (1, 0)
    assert sum(paused) <= WAIT_SECONDS + 0.1
    worker.close()


def test_waiting_ends_as_soon_as_the_worker_applied_it(appliance, clock) -> None:
    open_gate(appliance, triton_runs=False)
    worker = Table.open(appliance.config.paths.limits_table, 0)
    worker.beat(clock.monotonic_ns(), 0)
    appliance.publishing._pause = lambda _: worker.beat(clock.monotonic_ns(), worker.generation)
    assert appliance.publishing.publish_and_wait().complete
    worker.close()


def test_waiting_ends_when_a_silent_worker_is_gone(appliance, clock) -> None:
    open_gate(appliance, triton_runs=False)
    worker = Table.open(appliance.config.paths.limits_table, 0)
    worker.beat(clock.monotonic_ns(), 0)
    paused: list[float] = []

    def pause(seconds: float) -> None:
        clock.advance(seconds)
        paused.append(seconds)
        if sum(paused) > 2:
            worker.close()  # as the gate's parent sees to it

    appliance.publishing._pause = pause
    spread = appliance.publishing.publish_and_wait()
    assert spread.complete
    assert spread.workers == 0
    assert 2 < sum(paused) < 2.1


def test_who_waits_for_a_publication_shares_the_next_one(appliance) -> None:
    open_gate(appliance, triton_runs=False)
    publishing = appliance.publishing
    looked: list[int] = []
    first, go_on = threading.Event(), threading.Event()
    source = publishing._source

    def slow_source():
        looked.append(1)
        if len(looked) == 1:
            first.set()
            assert go_on.wait(10)
        return source()

    publishing._source = slow_source
    generations: list[int] = []
    threads = [
        threading.Thread(target=lambda: generations.append(publishing.publish().generation)) for _ in range(5)
    ]
    threads[0].start()
    assert first.wait(10)
    for thread in threads[1:]:
        thread.start()
    while publishing._asked < 6:  # the first publication of all was `open_gate`'s
        threads[1].join(0.001)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert len(generations) == 5
    assert len(looked) == 2  # the first, and one for all who came while it ran


def test_a_publication_that_failed_is_tried_again_by_the_next(appliance) -> None:
    open_gate(appliance, triton_runs=False)
    publishing = appliance.publishing
    source = publishing._source

    def failing():
        raise LotaBotsError(Code.DISK_FULL)

    publishing._source = failing
    with pytest.raises(LotaBotsError):
        publishing.publish()
    publishing._source = source
    assert publishing.publish().generation == publishing.generation()
