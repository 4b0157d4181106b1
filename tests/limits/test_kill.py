"""A worker killed between, or in the middle of, any two writes leaves accounts that another one completes."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.limits.assign import tag_of
from lotabotsd.limits.table import Scope, Table, Ticket, Totals, create_table

BOOT = b"0123456789abcdef"
NOW = 3_600_000_000_000
NOVEMBER, DECEMBER = 202611, 202612
SCOPES = tuple(
    Scope(kind, slot, tag_of(kind), rate_per_minute=600, concurrency=9, quota=100)
    for slot, kind in enumerate(("licence", "organisation", "key", "model"))
)
OTHERS = (*SCOPES[:2], Scope("key", 2, tag_of("another key")), SCOPES[3])
NEVER = 1 << 30


class Killed(BaseException):
    """The process stops here."""


class StoppingMap(mmap.mmap):
    """A memory whose process is killed after `left` writes, `torn` bytes into the next one."""

    left = NEVER
    torn = 0
    dead = False

    def __setitem__(self, key: Any, value: Any) -> None:
        if self.dead:
            return  # what a killed process would still have done
        if self.left == 0:
            self.dead = True
            if isinstance(key, slice):
                piece = value[: self.torn]
                super().__setitem__(slice(key.start, key.start + len(piece)), piece)
            raise Killed
        self.left -= 1
        super().__setitem__(key, value)


@dataclass
class Scene:
    """Worker 0 dies; worker 1 looks after it. Worker 2 died with a request open."""

    dying: Table
    memory: StoppingMap
    other: Table
    ticket: Ticket  # open in the dying worker


def reserved(table: Table, rows: int, scopes: tuple[Scope, ...] = SCOPES, window: int = NOVEMBER) -> Ticket:
    ticket = table.reserve(scopes, rows, NOW, window)
    assert isinstance(ticket, Ticket)
    return ticket


def totals(table: Table) -> list[Totals]:
    found = [table.totals(scope.slot) for scope in SCOPES]
    assert all(isinstance(one, Totals) for one in found)
    return [one for one in found if isinstance(one, Totals)]


def open_stopping(path: Path, worker: int | None) -> tuple[Table, StoppingMap]:
    """A table whose memory can be told when to stop."""
    memories: list[StoppingMap] = []

    def stopping(descriptor: int, length: int) -> mmap.mmap:
        memories.append(StoppingMap(descriptor, length))
        return memories[0]

    return Table.open(path, worker, boot_id=BOOT, map_file=stopping), memories[0]


def begin(path: Path) -> Scene:
    """A table in the middle of its life."""
    create_table(path, slots=8, workers=3, boot_id=BOOT, fill=[])
    dying, memory = open_stopping(path, 0)
    other, third = Table.open(path, 1, boot_id=BOOT), Table.open(path, 2, boot_id=BOOT)
    dying.commit(reserved(dying, 5), 5)
    dying.refund(reserved(dying, 6))
    reserved(third, 7)
    third.close()
    return Scene(dying, memory, other, reserved(dying, 8))


def close(scene: Scene) -> None:
    for table in (scene.dying, scene.other):
        table.close()


def kill(table: Table, change: Callable[[], object]) -> None:
    """Let the process stop within a change: the kernel closes its descriptors, and so frees its lock."""
    with pytest.raises(Killed):
        change()
    table.close()


CHANGES: dict[str, Callable[[Scene], object]] = {
    "reserve": lambda scene: reserved(scene.dying, 3),
    "reserve in a new month": lambda scene: reserved(scene.dying, 3, window=DECEMBER),
    "reserve with a new owner of a slot": lambda scene: reserved(scene.dying, 3, OTHERS),
    "commit": lambda scene: scene.dying.commit(scene.ticket, 4),
    "refund": lambda scene: scene.dying.refund(scene.ticket),
    "settle another dead worker": lambda scene: scene.dying.settle_worker(2),
}


def writes_of(change: str, path: Path) -> int:
    """How many writes a change makes."""
    scene = begin(path)
    left = scene.memory.left
    CHANGES[change](scene)
    count = left - scene.memory.left
    close(scene)
    return count


def before_and_after(change: str, path: Path) -> tuple[list[Totals], list[Totals]]:
    """The accounts without and with a change."""
    scene = begin(path)
    before = totals(scene.other)
    CHANGES[change](scene)
    after = totals(scene.other)
    close(scene)
    assert before != after
    return before, after


@pytest.mark.parametrize("torn", [0, 3, 20, 70])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_whole_or_not_at_all_wherever_it_is_stopped(
    tmp_path: Path, change: str, torn: int
) -> None:
    before, after = before_and_after(change, tmp_path / "table")
    replays = 0
    for stop in range(writes_of(change, tmp_path / "table")):
        scene = begin(tmp_path / "table")
        scene.memory.left, scene.memory.torn = stop, torn
        kill(scene.dying, partial(CHANGES[change], scene))
        found = totals(scene.other)
        assert found in (before, after)
        assert all(one.balanced for one in found)
        replays += scene.other.replays
        scene.other.settle_worker(0)
        scene.other.settle_worker(2)
        for one in totals(scene.other):
            assert one.balanced
            assert (one.open, one.reserved) == (0, 0)
        successor = Table.open(tmp_path / "table", 0, boot_id=BOOT)
        successor.commit(reserved(successor, 2), 2)
        assert all(one.balanced and one.used >= 2 for one in totals(successor))
        successor.close()
        scene.other.close()
    # From the dirty mark to its removal: one write per slot and cell in between.
    assert replays == 2 * len(SCOPES) + 1


@pytest.mark.parametrize("stop", range(2 * len(SCOPES) + 5))
@pytest.mark.parametrize("change", CHANGES)
def test_whoever_completes_a_change_can_be_killed_as_well(tmp_path: Path, change: str, stop: int) -> None:
    path = tmp_path / "table"
    _, after = before_and_after(change, path)
    scene = begin(path)
    scene.memory.left = writes_of(change, tmp_path / "count") - 8  # in the middle of the slots
    kill(scene.dying, partial(CHANGES[change], scene))
    second, memory = open_stopping(path, None)
    memory.left = stop
    kill(second, second.totals)
    assert totals(scene.other) == after
    assert all(one.balanced for one in after)
    scene.other.close()


def holds(journal: list[int], epoch: int, record: int) -> bool:
    return record in journal


@pytest.mark.parametrize("torn", [0, 1, 20, 70])
def test_a_ticket_is_committed_exactly_when_its_record_was_written_wherever_the_worker_stops(
    tmp_path: Path, torn: int
) -> None:
    def serve(scene: Scene, journal: list[int]) -> None:
        scene.dying.closing(scene.ticket, 4, 17)
        journal.append(17)
        scene.dying.commit(scene.ticket, 4)

    path = tmp_path / "table"
    scene = begin(path)
    before = scene.memory.left
    serve(scene, [])
    writes = before - scene.memory.left
    close(scene)
    ends = set()
    for stop in range(writes):
        scene, journal = begin(path), list[int]()
        scene.memory.left, scene.memory.torn = stop, torn
        kill(scene.dying, partial(serve, scene, journal))
        for _ in range(2):
            assert isinstance(scene.other.settle_worker(0, partial(holds, journal)), int)
        for one in totals(scene.other):
            assert one.balanced
            assert (one.committed, one.used) == ((2, 9) if journal else (1, 5))
        ends.add(bool(journal))
        scene.other.close()
    assert ends == {True, False}


@pytest.mark.parametrize("stop", range(20))
def test_settling_that_was_killed_goes_on_where_it_stopped(tmp_path: Path, stop: int) -> None:
    path = tmp_path / "table"
    create_table(path, slots=32, workers=2, boot_id=BOOT, fill=[])
    dead = Table.open(path, 0, boot_id=BOOT)
    for slot in range(20):  # three batches
        assert isinstance(dead.reserve((Scope("key", slot, 5),), 2, NOW, NOVEMBER), Ticket)
    dead.close()
    parent, memory = open_stopping(path, None)
    memory.left = 2 + stop * 3
    kill(parent, lambda: parent.settle_worker(0))
    successor = Table.open(path, 0, boot_id=BOOT)
    assert isinstance(successor.settle_worker(0), int)
    for slot in range(20):
        found = successor.totals(slot)
        assert isinstance(found, Totals)
        assert (found.admitted, found.refunded, found.open, found.reserved, found.held) == (1, 1, 0, 0, 0)
    successor.close()
