"""Tables made, adopted, refused and rebuilt."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.limits import layout
from lotabotsd.limits.lock import TableLock
from lotabotsd.limits.table import (
    Scope,
    Table,
    Ticket,
    Totals,
    adopt_or_create,
    create_table,
    current_boot_id,
)

BOOT = b"0123456789abcdef"
NOVEMBER = 202611
KEY = Scope("key", 1, 77, quota=10)


def damaged(path: Path, boot_id: bytes = BOOT) -> str:
    with pytest.raises(LotaBotsError) as caught:
        Table.open(path, 0, boot_id=boot_id)
    assert caught.value.code is Code.LIMITS_TABLE_DAMAGED
    return caught.value.detail


def change(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def adopt(path: Path, *, slots: int = 8, workers: int = 4, boot_id: bytes = BOOT, used: int = 0) -> bool:
    fill = [(1, 77, NOVEMBER, used)]
    return adopt_or_create(path, slots=slots, workers=workers, boot_id=boot_id, fill=fill)


def used(path: Path, boot_id: bytes = BOOT) -> int:
    table = Table.open(path, None, boot_id=boot_id)
    found = table.totals(1)
    table.close()
    assert isinstance(found, Totals)
    return found.used


def test_a_new_table_is_filled_protected_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "limits.table"
    assert not adopt(path, used=9)
    assert used(path) == 9
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert list(tmp_path.iterdir()) == [path]
    table = Table.open(path, 0, boot_id=BOOT)
    assert isinstance(table.reserve((KEY,), 1, 0, NOVEMBER), Ticket)
    assert not isinstance(table.reserve((KEY,), 1, 0, NOVEMBER), Ticket)
    table.close()


def test_a_valid_table_is_adopted_with_all_its_values(path: Path) -> None:
    table = Table.open(path, 0, boot_id=BOOT)
    ticket = table.reserve((KEY,), 6, 0, NOVEMBER)
    assert isinstance(ticket, Ticket)
    table.set_generation(12)
    before = path.read_bytes()
    assert adopt(path, used=3)
    assert path.read_bytes() == before
    assert not table.replaced()
    table.commit(ticket, 6)
    table.close()
    assert used(path) == 6


def test_a_table_larger_than_asked_for_is_adopted_and_a_smaller_one_rebuilt(path: Path) -> None:
    assert adopt(path, slots=7, workers=3)
    assert not adopt(path, slots=9, used=4)
    assert used(path) == 4
    assert not adopt(path, slots=9, workers=5, used=5)
    assert used(path) == 5


def test_a_table_in_use_is_adopted_without_waiting_for_its_lock(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    assert TableLock(descriptor).acquire()
    assert adopt(path)
    os.close(descriptor)


@pytest.mark.parametrize(
    ("at", "data", "what"),
    [
        (0, b"LBLIMITZ", "does not begin"),
        (8, b"\x02", "layout 2"),
        (12, b"\0", "0 workers"),
        (12, b"\xff", "255 workers"),
        (12, b"\x05", "checksum"),
        (16, b"\0", "0 slots"),
        (16, b"\xff\xff\xff\xff", "slots"),
        (24, b"\1", "checksum"),
        (36, b"\0\0\0\0", "checksum"),
        (40, b"\1", "checksum"),
        (63, b"\0", "checksum"),
    ],
)
def test_a_damaged_header_is_refused_and_rebuilt(path: Path, at: int, data: bytes, what: str) -> None:
    change(path, at, data)
    assert what in damaged(path)
    assert not adopt(path, used=2)
    assert used(path) == 2


@pytest.mark.parametrize("size", [0, 1, 63, 64, 4096, 20_000])
def test_a_short_table_is_refused_and_rebuilt(path: Path, size: int) -> None:
    os.truncate(path, size)
    assert f"{size} bytes" in damaged(path)
    assert not adopt(path)
    assert used(path) == 0


def test_a_table_with_bytes_too_many_is_refused(path: Path) -> None:
    os.truncate(path, path.stat().st_size + 1)
    assert "bytes instead of" in damaged(path)


def test_the_table_of_another_boot_is_refused_and_rebuilt(path: Path) -> None:
    other = bytes(16)
    assert "before the last restart" in damaged(path, other)
    assert not adopt(path, boot_id=other, used=8)
    assert used(path, other) == 8


def test_without_being_told_the_running_kernels_boot_counts(path: Path) -> None:
    assert len(current_boot_id()) == 16
    with pytest.raises(LotaBotsError) as caught:
        Table.open(path, 0)
    assert caught.value.code is Code.LIMITS_TABLE_DAMAGED
    assert not adopt(path, boot_id=current_boot_id())
    Table.open(path, 0).close()


def test_a_worker_beyond_the_table_is_refused(path: Path) -> None:
    Table.open(path, 3, boot_id=BOOT).close()
    for worker in (4, -1):
        with pytest.raises(LotaBotsError) as caught:
            Table.open(path, worker, boot_id=BOOT)
        assert caught.value.code is Code.LIMITS_TABLE_DAMAGED


def test_a_table_that_is_not_there_yet_is_no_damage(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(LotaBotsError) as caught:
            Table.open(path, 0, boot_id=BOOT)
        assert caught.value.code is Code.FILE_UNREADABLE


def test_a_table_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(LotaBotsError) as caught:
        adopt(tmp_path / "no" / "limits.table")
    assert caught.value.code is Code.FILE_UNWRITABLE
    with pytest.raises(ValueError):
        create_table(tmp_path / "t", slots=8, workers=1, boot_id=BOOT, fill=[(8, 1, NOVEMBER, 0)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("slots", "workers"), [(0, 1), (1 << 25, 1), (1, 0), (1, 255)])
def test_impossible_sizes_are_refused(tmp_path: Path, slots: int, workers: int) -> None:
    with pytest.raises(ValueError):
        create_table(tmp_path / "t", slots=slots, workers=workers, boot_id=BOOT, fill=[])
    with pytest.raises(ValueError):
        create_table(tmp_path / "t", slots=1, workers=1, boot_id=b"short", fill=[])


@pytest.mark.parametrize("damage", ["worker", "values", "too many", "none", "slot"])
def test_a_damaged_intent_is_refused_and_the_table_rebuilt_at_adoption(
    path: Path, open_table: Callable[..., Table], damage: str
) -> None:
    table = open_table(0)
    assert isinstance(table.reserve((KEY,), 6, 0, NOVEMBER), Ticket)
    intent = layout.HEADER_BYTES + layout.INTENT_AREA
    change(path, intent, b"\1")
    change(path, layout.DIRTY, b"\1")
    if damage == "worker":
        change(path, layout.DIRTY, b"\5")
    elif damage == "values":
        change(path, intent + layout.INTENT_ENTRIES + 20, b"\xff")
    elif damage == "slot":
        body = b"\x08" + bytes(layout.ENTRY_BYTES - 1)
        change(path, intent + layout.INTENT_ENTRIES, body)
        change(path, intent + 1, layout.INTENT_HEAD.pack(1, 0, zlib.crc32(body)))
    else:
        change(path, intent + 1, b"\x09" if damage == "too many" else b"\0")
    for _ in range(2):
        with pytest.raises(LotaBotsError) as caught:
            table.reserve((KEY,), 1, 0, NOVEMBER)
        assert caught.value.code is Code.LIMITS_TABLE_DAMAGED
    assert not adopt(path, used=6)
    assert table.replaced()
    assert used(path) == 6
