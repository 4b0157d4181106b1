"""A killed virtual machine: real ext4, a disk that loses what it was not told to keep, and the whole gate.

qemu is ended with SIGKILL under load, the disk loses unflushed writes, and the next machine on that disk
recovers the file system, drains, and says what the ledger has. docs/durability.md says what this proves.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from guest_root import ROOT, kernel, make_root, require_machine
from power_cuts import PROGRAM, PowerCuts, what_is_wrong
from volatile_disk import HOW, SECTOR_BYTES, VolatileDisk

MakeCuts = Callable[..., PowerCuts]
FINE: dict[str, Any] = {
    "counted": [["m1-0", "K", "served", 1, 1], ["m1-1", "K", "served", 1, 2]],
    "findings": ["worker_started"],
    "problems": [],
    "found_again": 0,
    "integrity": "",
    "completeness": "",
}


@pytest.mark.parametrize("how", HOW)
def test_the_disk_keeps_what_a_flush_covered_and_loses_whole_sectors_of_the_rest(how: str) -> None:
    lost = 0
    for seed in range(100):
        chance = random.Random(seed)  # noqa: S311 - the same cuts every time
        disk = VolatileDisk(bytes(16 * SECTOR_BYTES))
        disk.write(0, b"a" * 16 * SECTOR_BYTES)
        covered = disk.begin_flush()
        disk.write(0, b"b" * 12 * SECTOR_BYTES)  # while it flushes: not covered
        assert disk.read(0, 1) == b"b"
        disk.end_flush(covered)
        disk.write(8 * SECTOR_BYTES, b"c" * 4 * SECTOR_BYTES)
        cut = disk.cut(chance, how)
        sectors = [disk.read(at * SECTOR_BYTES, SECTOR_BYTES) for at in range(16)]
        assert all(sector == sector[:1] * SECTOR_BYTES for sector in sectors)
        assert {sector[:1] for sector in sectors[:8]} <= {b"a", b"b"}
        assert {sector[:1] for sector in sectors[8:12]} <= {b"a", b"b", b"c"}
        assert {sector[:1] for sector in sectors[12:]} == {b"a"}
        assert (cut.cached, disk.cached) == (2, 0)
        lost += cut.lost + cut.torn
    assert (lost > 0) == (how != "all")


def test_a_disk_that_lies_keeps_nothing_for_a_flush() -> None:
    disk = VolatileDisk(bytes(SECTOR_BYTES), honest=False)
    disk.write(0, b"a" * SECTOR_BYTES)
    disk.end_flush(disk.begin_flush())
    disk.cut(random.Random(1), "none")  # noqa: S311 - it takes everything
    assert disk.read(0, SECTOR_BYTES) == bytes(SECTOR_BYTES)


def test_a_ledger_with_every_answer_once_is_right() -> None:
    assert what_is_wrong(FINE, {("m1-0", "K"): 1}, {("m1-1", "K"): ("served", 1, 2)}) == ""
    torn = {**FINE, "findings": ["torn_tail", "missing_records"], "completeness": "damage"}
    assert what_is_wrong(torn, {}, {}) == ""


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"unmountable": "bad superblock"}, "the file system is gone"),
        ({"counted": []}, "answered and not counted"),
        ({"counted": [["m1-0", "K", "served", 1, 8]]}, "answered and not counted"),
        ({"counted": [["m1-0", "K", "aborted", 1, 0]]}, "answered and not counted"),
        ({"counted": [["m1-0", "K", "served", 2, 2]]}, "counted twice"),
        ({"counted": [*FINE["counted"], ["m1-0", "K", "aborted", 1, 0]]}, "counted twice"),
        ({"counted": FINE["counted"][:1]}, "counted before and not now"),
        ({"integrity": "row_changed"}, "integrity"),
        ({"found_again": 1}, "again 1"),
        ({"problems": ["a segment"]}, "problems"),
        ({"findings": ["missing_segment"]}, "findings"),
        ({"completeness": "damage"}, "completeness"),
    ],
)
def test_what_a_ledger_must_not_say_is_seen(changes: dict[str, Any], wrong: str) -> None:
    assert wrong in what_is_wrong({**FINE, **changes}, {("m1-0", "K"): 1}, {("m1-1", "K"): ("served", 1, 2)})


@pytest.fixture(scope="module")
def make_cuts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeCuts]:
    """What makes lives with power cuts."""
    require_machine()
    unpacked = kernel()
    root = tmp_path_factory.mktemp("root") / "root.cpio"
    make_root(unpacked, ROOT / "tests" / "system" / PROGRAM, root)
    yield lambda **options: PowerCuts(unpacked, root, **options)
    root.unlink()


def shown(cuts: PowerCuts) -> str:
    """What a run did, for docs/durability.md."""
    lost, torn = sum(cut.lost for cut in cuts.cuts), sum(cut.torn for cut in cuts.cuts)
    return (
        f"{len(cuts.cuts)} power cuts, {len(cuts.answered)} answers, {cuts.refused} others, "
        f"{cuts.flushes} flushes; unflushed writes: {sum(cut.cached for cut in cuts.cuts)}, {lost} lost, "
        f"{torn} torn; {cuts.recoveries} recoveries by ext4; {cuts.machine}"
    )


def check(cuts: PowerCuts, enough: int) -> None:
    """There was something that could have broken the promise, before the cut number `enough`."""
    print(shown(cuts))
    assert len(cuts.cuts) >= enough
    assert len(cuts.answered) >= 20 * enough
    assert 10 * cuts.refused <= len(cuts.answered)  # a slow machine may say 503
    assert cuts.machine["cache"] == "write back"
    assert sum(cut.lost + cut.torn for cut in cuts.cuts[:enough]) > 0


@pytest.mark.required
def test_answers_are_counted_after_a_power_cut_and_missed_without_a_sync(
    make_cuts: MakeCuts,
) -> None:
    cuts = make_cuts(seed=1, how=("none", "torn", "none"), spoiled=("", "", "journal"), answers=120)
    wrong = cuts.look(6)
    print(wrong)
    check(cuts, 2)
    assert len(cuts.cuts) > 2, wrong
    assert "answered and not counted" in wrong


@pytest.mark.slow
def test_also_not_after_many_power_cuts_in_a_row(make_cuts: MakeCuts) -> None:
    cuts = make_cuts(seed=3)
    assert cuts.look(20) == ""
    check(cuts, 20)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"spoiled": ("answer",)}, {"mount_options": "barrier=0"}, {"honest_disk": False}],
    ids=["an answer that does not wait", "a file system without barriers", "a disk that lies"],
)
def test_what_does_not_keep_its_word_is_caught(make_cuts: MakeCuts, options: dict[str, Any]) -> None:
    cuts = make_cuts(seed=4, how=("none",), **options)
    wrong = cuts.look(12)
    print(shown(cuts), wrong)
    assert "answered and not counted" in wrong or "the file system is gone" in wrong
