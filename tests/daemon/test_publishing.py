"""From a change to the gate's workers: announced, waited for, bounded."""

from __future__ import annotations

from lotabotsd.daemon.publishing import SILENT_NS, WAIT_SECONDS, live_workers, spread_of
from lotabotsd.daemon.wiring import open_gate
from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.identity.records import IdentityCaps
from lotabotsd.limits.scope import WorkerCell
from lotabotsd.limits.table import Table

NOW = 1_000 * NANOSECONDS


def cell(pid: int = 7, *, age_ns: int = 0, applied: int = 0) -> WorkerCell:
    return WorkerCell(pid, NOW - age_ns, applied, 0)


def test_a_worker_is_live_until_it_was_silent_for_too_long() -> None:
    assert live_workers([cell(age_ns=SILENT_NS)], NOW) == [cell(age_ns=SILENT_NS)]
    assert live_workers([cell(age_ns=SILENT_NS + 1)], NOW) == []
    assert live_workers([cell(pid=0)], NOW) == []


def test_a_change_is_complete_when_every_live_worker_applied_it() -> None:
    assert spread_of([cell(applied=5), cell(applied=6)], 5, NOW).complete
    late = spread_of([cell(applied=5), cell(applied=4)], 5, NOW)
    assert (late.workers, late.applied, late.complete) == (2, 1, False)


def test_a_silent_worker_does_not_hold_up_a_change_and_none_at_all_neither() -> None:
    assert spread_of([cell(applied=5), cell(applied=4, age_ns=SILENT_NS + 1)], 5, NOW).complete
    assert spread_of([], 5, NOW).complete


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
