"""What becomes of a worker's open requests when it dies, and of one that is only stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.limits import layout
from lotabotsd.limits.assign import tag_of
from lotabotsd.limits.lock import TableLock
from lotabotsd.limits.table import Busy, Scope, Table, Ticket, Totals, create_table

BOOT = b"0123456789abcdef"
NOW = 3_600_000_000_000
NOVEMBER = 202611
OpenTable = Callable[..., Table]


def scope(kind: str, slot: int, name: str = "x", **limits: Any) -> Scope:
    return Scope(kind, slot, tag_of(f"{kind}:{name}"), **limits)


LICENCE = scope("licence", 0, "appliance")


def admitted(answer: object) -> Ticket:
    assert isinstance(answer, Ticket), answer
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


def test_a_dead_workers_open_requests_are_refunded(open_table: OpenTable) -> None:
    dead, living = open_table(2), open_table(0)
    limited = scope("key", 1, concurrency=3, quota=10)
    dead.commit(admitted(dead.reserve((LICENCE, limited), 2, NOW, NOVEMBER)), 2)
    lost = [admitted(dead.reserve((LICENCE, limited), 3, NOW, NOVEMBER)) for _ in range(2)]
    kept = admitted(living.reserve((LICENCE, limited), 1, NOW, NOVEMBER))
    assert len(lost) == 2
    dead.close()
    assert living.settle_worker(2) == 2
    assert totals(living, 1) == Totals(4, 1, 2, 1, 2, 1, 1, NOVEMBER)
    assert living.settle_worker(2) == 0
    living.commit(kept, 1)
    assert totals(living, 1) == Totals(4, 2, 2, 0, 3, 0, 0, NOVEMBER)


def test_a_number_belongs_to_its_worker_until_that_ends_also_while_it_is_stopped(
    open_table: OpenTable,
) -> None:
    stopped, other = open_table(2), open_table(0)
    ticket = admitted(stopped.reserve((LICENCE,), 3, NOW, NOVEMBER))
    with pytest.raises(LotaBotsError) as caught:
        open_table(2)
    assert caught.value.code is Code.LIMITS_UNAVAILABLE
    assert other.settle_worker(2) == Busy(None)
    stopped.commit(ticket, 3)  # as late as it likes: nobody took its place
    assert totals(other) == Totals(1, 1, 0, 0, 3, 0, 0, NOVEMBER)
    assert [cell.lives for cell in open_table(None).workers()] == [True, False, True, False]
    stopped.close()
    assert [cell.lives for cell in other.workers()] == [True, False, False, False]
    open_table(2)


def test_a_ticket_whose_record_was_written_is_committed_although_its_worker_died(
    open_table: OpenTable,
) -> None:
    dead, living = open_table(2), open_table(0)
    limited = scope("key", 1, quota=20)
    dead.begin(epoch=77)
    tickets = [admitted(dead.reserve((LICENCE, limited), 5, NOW, NOVEMBER)) for _ in range(3)]
    for record, ticket in enumerate(tickets, start=10):
        dead.closing(ticket, 4, record)
    dead.commit(tickets[0], 4)
    dead.close()
    asked: list[tuple[int, int]] = []

    def recorded(epoch: int, record: int) -> bool:
        asked.append((epoch, record))
        return record == 11

    assert living.unsettled(2, 77)
    assert not living.unsettled(2, 76)
    assert not living.unsettled(0, 77)
    assert not living.unsettled(4, 77)
    assert living.settle_worker(2, recorded) == 1 + 2  # one ticket, and what is left in two slots
    assert sorted(asked) == [(77, 11), (77, 12)]
    assert totals(living, 1) == Totals(3, 2, 1, 0, 8, 0, 0, NOVEMBER)
    assert not living.unsettled(2, 77)
    assert living.settle_worker(2, recorded) == 0


def test_a_note_ends_with_its_ticket_and_its_place_is_used_again(open_table: OpenTable) -> None:
    worker, other = open_table(1), open_table(0, make_lock=Impatient)
    worker.begin(epoch=5)
    for round_ in range(3 * layout.NOTES):
        ticket = admitted(worker.reserve((LICENCE,), 1, NOW, NOVEMBER))
        worker.closing(ticket, 1, round_ + 1)
        assert other.unsettled(1, 5)
        if round_ % 2:
            worker.commit(ticket, 1)
        else:
            worker.refund(ticket)  # the record could not be written
        assert not other.unsettled(1, 5)


def test_more_tickets_than_notes_are_settled_as_refunded(open_table: OpenTable) -> None:
    dead, living = open_table(2), open_table(0)
    many = layout.NOTES + 3
    tickets = [admitted(dead.reserve((LICENCE,), 1, NOW, NOVEMBER)) for _ in range(many)]
    for record, ticket in enumerate(tickets, start=1):
        dead.closing(ticket, 1, record)
    dead.close()
    living.settle_worker(2, lambda epoch, record: True)
    assert totals(living) == Totals(many, layout.NOTES, 3, 0, layout.NOTES, 0, 0, NOVEMBER)


def test_settling_reaches_every_slot_of_a_large_table(tmp_path: Path) -> None:
    path = tmp_path / "large"
    create_table(path, slots=5_000, workers=2, boot_id=BOOT, fill=[])
    dead, parent = Table.open(path, 1, boot_id=BOOT), Table.open(path, None, boot_id=BOOT)
    places = [0, 1, 2047, 2048, 4096, 4998, 4999, 17, 18, 19, 20]
    for place in places:
        admitted(dead.reserve((scope("key", place),), 1, NOW, NOVEMBER))
    dead.close()
    assert parent.settle_worker(1) == len(places)
    assert [totals(parent, place).refunded for place in places] == [1] * len(places)
    parent.close()
