"""What one worker, or several in turn, may expect of the table."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.limits import layout
from lotabotsd.limits.assign import tag_of
from lotabotsd.limits.lock import TableLock
from lotabotsd.limits.table import (
    Busy,
    Refusal,
    Remaining,
    Scope,
    Stale,
    Table,
    Ticket,
    Totals,
    create_table,
)

BOOT = b"0123456789abcdef"
NOW = 3_600_000_000_000
NOVEMBER, DECEMBER = 202611, 202612
OpenTable = Callable[..., Table]


def scope(kind: str, slot: int, name: str = "x", **limits: Any) -> Scope:
    return Scope(kind, slot, tag_of(f"{kind}:{name}"), **limits)


LICENCE = scope("licence", 0, "appliance")


def admitted(answer: Ticket | Refusal | Busy | Stale) -> Ticket:
    assert isinstance(answer, Ticket), answer
    return answer


def refused(answer: Ticket | Refusal | Busy | Stale) -> Refusal:
    assert isinstance(answer, Refusal), answer
    return answer


def totals(table: Table, slot: int = 0) -> Totals:
    found = table.totals(slot)
    assert isinstance(found, Totals)
    assert found.balanced
    return found


class Impatient(TableLock):
    """A lock that gives up at once, so that no test waits."""

    def __init__(self, descriptor: int) -> None:
        ticks = iter(range(0, 1 << 40, 3_000_000))
        super().__init__(descriptor, now_ns=lambda: next(ticks), pause=lambda attempt: None)


def test_a_request_is_open_until_it_is_committed_or_refunded(table: Table) -> None:
    first = admitted(table.reserve((LICENCE,), 3, NOW, NOVEMBER))
    second = admitted(table.reserve((LICENCE,), 4, NOW, NOVEMBER))
    assert totals(table) == Totals(2, 0, 0, 2, 0, 7, 7, NOVEMBER)
    assert table.commit(first, 2)
    assert table.refund(second)
    assert totals(table) == Totals(2, 1, 1, 0, 2, 0, 0, NOVEMBER)


def test_open_requests_are_read_without_the_lock(table: Table, path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    holder = TableLock(descriptor)
    first = admitted(table.reserve((LICENCE,), 1, NOW, NOVEMBER))
    admitted(table.reserve((LICENCE,), 1, NOW, NOVEMBER))
    assert holder.acquire()
    assert table.open_requests() == 2
    os.close(descriptor)
    table.commit(first, 1)
    assert table.open_requests() == 1
    assert table.open_requests(1) == 0


def test_a_ticket_ends_only_once(table: Table) -> None:
    ticket = admitted(table.reserve((LICENCE,), 1, NOW, NOVEMBER))
    table.commit(ticket, 1)
    with pytest.raises(ValueError):
        table.commit(ticket, 1)
    with pytest.raises(ValueError):
        table.refund(ticket)
    assert totals(table).used == 1


def test_more_rows_than_reserved_can_be_committed(table: Table) -> None:
    limited = scope("key", 1, quota=5)
    table.commit(admitted(table.reserve((limited,), 1, NOW, NOVEMBER)), 7)
    assert totals(table, 1).used == 7
    assert refused(table.reserve((limited,), 1, NOW, NOVEMBER)).remaining == 0


@pytest.mark.parametrize(
    ("limits", "unit"), [({"rate_per_minute": 6, "burst": 1}, "rate"), ({"concurrency": 1}, "concurrency")]
)
def test_a_refusal_by_any_scope_changes_nothing_in_any(
    table: Table, path: Path, limits: dict[str, int], unit: str
) -> None:
    key, model = scope("key", 1), scope("model", 2, **limits)
    admitted(table.reserve((LICENCE, key, model), 1, NOW, NOVEMBER))
    before = path.read_bytes()
    for scopes in ((LICENCE, key, model), (model, key, LICENCE)):
        answer = refused(table.reserve(scopes, 1, NOW, NOVEMBER))
        assert (answer.kind, answer.unit) == ("model", unit)
    assert path.read_bytes() == before


def test_a_second_worker_cannot_spend_the_same_quota(open_table: OpenTable) -> None:
    one, two = open_table(0), open_table(1)
    limited = scope("organisation", 3, quota=10)
    ticket = admitted(one.reserve((LICENCE, limited), 6, NOW, NOVEMBER))
    answer = refused(two.reserve((LICENCE, limited), 5, NOW, NOVEMBER, window_ends_in_ns=99))
    assert answer == Refusal("organisation", "quota", 10, 4, 99)
    one.refund(ticket)
    admitted(two.reserve((LICENCE, limited), 10, NOW, NOVEMBER))
    refused(one.reserve((LICENCE, limited), 1, NOW, NOVEMBER))


def test_a_soft_quota_counts_and_never_refuses(table: Table) -> None:
    soft = scope("licence", 0, "appliance", quota=10, quota_hard=False)
    for _ in range(3):
        table.commit(admitted(table.reserve((soft,), 9, NOW, NOVEMBER)), 9)
    assert totals(table).used == 27
    assert table.remaining(soft, NOW, NOVEMBER).quota == 0


def test_a_refund_gives_back_rows_and_place_but_not_the_rate(table: Table) -> None:
    limited = scope("key", 1, rate_per_minute=60, burst=1, concurrency=1, quota=1)
    table.refund(admitted(table.reserve((limited,), 1, NOW, NOVEMBER)))
    answer = refused(table.reserve((limited,), 1, NOW, NOVEMBER))
    assert (answer.unit, answer.retry_after_ns) == ("rate", 1_000_000_000)
    admitted(table.reserve((limited,), 1, NOW + answer.retry_after_ns, NOVEMBER))


def test_concurrency_is_counted_over_all_workers(open_table: OpenTable) -> None:
    workers = [open_table(number) for number in range(4)]
    limited = scope("key", 1, concurrency=3)
    tickets = [admitted(worker.reserve((limited,), 1, NOW, NOVEMBER)) for worker in workers[:3]]
    assert refused(workers[3].reserve((limited,), 1, NOW, NOVEMBER)).unit == "concurrency"
    workers[1].commit(tickets[1], 1)
    admitted(workers[3].reserve((limited,), 1, NOW, NOVEMBER))


def test_a_new_month_starts_the_quota_anew_and_not_the_open_requests(table: Table) -> None:
    limited = scope("key", 1, quota=10, concurrency=3)
    table.commit(admitted(table.reserve((limited,), 4, NOW, NOVEMBER)), 4)
    old = [admitted(table.reserve((limited,), 3, NOW, NOVEMBER)) for _ in range(2)]
    new = admitted(table.reserve((limited,), 10, NOW, DECEMBER))
    assert totals(table, 1) == Totals(4, 1, 0, 3, 0, 10, 10, DECEMBER)
    table.commit(old[0], 3)
    table.refund(old[1])
    assert totals(table, 1) == Totals(4, 2, 1, 1, 0, 10, 10, DECEMBER)
    table.commit(new, 10)
    assert totals(table, 1).used == 10


def test_the_old_months_requests_of_another_worker_do_not_count_in_the_new(open_table: OpenTable) -> None:
    one, two = open_table(0), open_table(1)
    limited = scope("key", 1, quota=10)
    old = admitted(one.reserve((limited,), 8, NOW, NOVEMBER))
    admitted(two.reserve((limited,), 10, NOW, DECEMBER))
    assert totals(one, 1).reserved == 10
    one.commit(old, 8)
    assert totals(one, 1) == Totals(2, 1, 0, 1, 0, 10, 10, DECEMBER)


def test_windows_never_go_back(open_table: OpenTable) -> None:
    one, two = open_table(0), open_table(1)
    limited = scope("key", 1, quota=10)
    table_wide = (LICENCE, limited)
    admitted(one.reserve((LICENCE,), 1, NOW, DECEMBER))
    late = admitted(two.reserve(table_wide, 4, NOW, NOVEMBER))
    assert late.window_id == DECEMBER
    two.commit(late, 4)
    assert totals(one, 1).used == 4
    assert totals(one, 1).window_id == DECEMBER
    assert one.remaining(limited, NOW, NOVEMBER).quota == 6


def test_a_slot_with_a_new_owner_starts_anew(open_table: OpenTable) -> None:
    one, two = open_table(0), open_table(1)
    before = scope("key", 1, "before", rate_per_minute=6, burst=1, concurrency=1, quota=10)
    after = scope("key", 1, "after", rate_per_minute=6, burst=1, concurrency=2, quota=10)
    stale = admitted(one.reserve((LICENCE, before), 10, NOW, NOVEMBER))
    assert one.remaining(after, NOW, NOVEMBER) == Remaining(1, 0, 10)
    fresh = admitted(two.reserve((LICENCE, after), 10, NOW, NOVEMBER))
    one.commit(stale, 10)
    assert totals(one, 1) == Totals(1, 0, 0, 1, 0, 10, 10, NOVEMBER)
    assert totals(one, 0).committed == 1
    two.commit(fresh, 10)
    assert totals(one, 1) == Totals(1, 1, 0, 0, 10, 0, 0, NOVEMBER)


def test_an_old_ticket_does_not_touch_a_slot_that_came_back_to_its_owner(table: Table) -> None:
    key, other = scope("key", 1, "a"), scope("key", 1, "b")
    stale = admitted(table.reserve((key,), 5, NOW, NOVEMBER))
    admitted(table.reserve((other,), 5, NOW, NOVEMBER))
    fresh = admitted(table.reserve((key,), 2, NOW, NOVEMBER))
    table.refund(stale)
    assert totals(table, 1) == Totals(1, 0, 0, 1, 0, 2, 2, NOVEMBER)
    table.commit(fresh, 2)
    assert totals(table, 1) == Totals(1, 1, 0, 0, 2, 0, 0, NOVEMBER)


def test_a_policy_older_than_the_announced_one_admits_nobody(open_table: OpenTable) -> None:
    daemon, worker = open_table(None), open_table(1)
    daemon.set_generation(8)
    assert worker.reserve((LICENCE,), 1, NOW, NOVEMBER, generation=7) == Stale(8)
    assert totals(worker).admitted == 0
    admitted(worker.reserve((LICENCE,), 1, NOW, NOVEMBER, generation=8))
    admitted(worker.reserve((LICENCE,), 1, NOW, NOVEMBER, generation=9))  # read before it was announced


def test_whether_somebody_is_within_a_change_is_seen_without_the_lock(open_table: OpenTable) -> None:
    daemon, worker = open_table(None), open_table(1)
    assert not daemon.is_entered()
    with worker._entered():
        assert daemon.is_entered()
        assert daemon.holder() == 1
        assert not worker.is_entered()  # another than itself
    assert not daemon.is_entered()
    assert daemon.holder() is None


def test_what_finds_the_lock_busy_changes_nothing_or_is_settled_later(open_table: OpenTable) -> None:
    holder, other = open_table(3), open_table(0, make_lock=Impatient)
    ticket = admitted(other.reserve((LICENCE,), 5, NOW, NOVEMBER))
    lost = admitted(other.reserve((LICENCE,), 6, NOW, NOVEMBER))
    with holder._entered():
        assert other.reserve((LICENCE,), 1, NOW, NOVEMBER) == Busy(3)
        assert other.totals() == Busy(3)
        assert other.settle_worker(1) == Busy(3)
        assert not other.commit(ticket, 5)
        assert not other.refund(lost)
        assert other.settle_late() == 2
        other.beat(NOW, 1)
    assert totals(holder).open == 2
    admitted(other.reserve((LICENCE,), 1, NOW, NOVEMBER))
    assert totals(holder) == Totals(3, 1, 1, 1, 5, 1, 1, NOVEMBER)
    assert other.settle_late() == 0


def test_a_holder_without_a_number_is_not_named(open_table: OpenTable) -> None:
    daemon, worker = open_table(None), open_table(0, make_lock=Impatient)
    with daemon._entered():
        assert worker.reserve((LICENCE,), 1, NOW, NOVEMBER) == Busy(None)


def test_a_heartbeat_settles_what_is_late(open_table: OpenTable) -> None:
    holder, other = open_table(3), open_table(0, make_lock=Impatient)
    ticket = admitted(other.reserve((LICENCE,), 5, NOW, NOVEMBER))
    with holder._entered():
        other.commit(ticket, 5)
    other.beat(NOW, 1)
    assert totals(holder).committed == 1


def test_what_remains_is_told_for_each_limit(table: Table) -> None:
    limited = scope("key", 1, rate_per_minute=60, burst=3, quota=10)
    assert table.remaining(limited, NOW, NOVEMBER) == Remaining(3, 0, 10)
    admitted(table.reserve((limited,), 4, NOW, NOVEMBER))
    assert table.remaining(limited, NOW, NOVEMBER) == Remaining(2, 1_000_000_000, 6)
    assert table.remaining(limited, NOW + 1_000_000_000, DECEMBER) == Remaining(3, 0, 10)
    assert table.remaining(scope("model", 2), NOW, NOVEMBER) == Remaining(None, 0, None)


def test_costs_above_one_take_more_of_the_rate_and_count_as_one_request(table: Table) -> None:
    limited = scope("key", 1, rate_per_minute=60, burst=5, concurrency=2)
    admitted(table.reserve((limited,), 1, NOW, NOVEMBER, cost=4))
    assert table.remaining(limited, NOW, NOVEMBER).rate == 1
    assert refused(table.reserve((limited,), 1, NOW, NOVEMBER, cost=2)).retry_after_ns == 1_000_000_000
    assert totals(table, 1).open == 1


def test_the_generation_and_heartbeats_are_seen_by_all(open_table: OpenTable) -> None:
    daemon, worker = open_table(None), open_table(2)
    assert worker.generation == 0
    daemon.set_generation(41)
    assert worker.generation == 41
    worker.refund(admitted(worker.reserve((LICENCE,), 1, NOW, NOVEMBER)))
    worker.beat(NOW, 41)
    cells = daemon.workers()
    assert [cell.pid for cell in cells] == [0, 0, os.getpid(), 0]
    assert (cells[2].heartbeat_ns, cells[2].applied_generation, cells[2].progress) == (NOW, 41, 1)


def test_counters_go_on_in_the_next_worker_of_the_number(open_table: OpenTable) -> None:
    first = open_table(1)
    first.count(63, 5)
    first.close()
    successor = open_table(1)
    successor.count(63)
    counters = open_table(None).counters()
    assert counters[1] == (0,) * 63 + (6,)
    assert counters[0] == (0,) * 64
    with pytest.raises(ValueError):
        successor.count(64)


def test_the_daemon_neither_admits_nor_counts(open_table: OpenTable) -> None:
    daemon = open_table(None)
    with pytest.raises(ValueError):
        daemon.reserve((LICENCE,), 1, NOW, NOVEMBER)
    with pytest.raises(ValueError):
        daemon.count(0)


def test_a_policy_that_names_a_slot_beyond_the_table_is_refused(table: Table) -> None:
    with pytest.raises(LotaBotsError) as caught:
        table.reserve((LICENCE, scope("key", 8)), 1, NOW, NOVEMBER)
    assert caught.value.code is Code.LIMITS_UNAVAILABLE
    admitted(table.reserve((LICENCE, scope("key", 7)), 1, NOW, NOVEMBER))  # the lock is free again


def test_as_many_scopes_as_an_intent_holds(table: Table) -> None:
    scopes = tuple(scope("key", place) for place in range(layout.MAX_SCOPES))
    table.commit(admitted(table.reserve(scopes, 2, NOW, NOVEMBER)), 2)
    assert [totals(table, place).used for place in range(8)] == [2] * 8
    admitted(table.reserve((), 2, NOW, NOVEMBER))


def test_a_replaced_table_is_noticed(table: Table, path: Path) -> None:
    assert not table.replaced()
    create_table(path, slots=8, workers=4, boot_id=BOOT, fill=[])
    assert table.replaced()
    path.unlink()
    assert table.replaced()


def test_a_replaced_table_admits_nobody_and_its_tickets_still_end(table: Table, path: Path) -> None:
    ticket = admitted(table.reserve((LICENCE,), 1, NOW, NOVEMBER, generation=7))
    create_table(path, slots=8, workers=4, boot_id=BOOT, fill=[])
    assert table.reserve((LICENCE,), 1, NOW, NOVEMBER, generation=7) == Stale(layout.RETIRED)
    assert table.commit(ticket, 1)
