"""The lock: who is excluded, for how long it is tried, and who frees it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lotabotsd.limits.lock import BOUND_NS, TableLock


class Stopwatch:
    """Time that passes while somebody waits."""

    def __init__(self) -> None:
        self.now = 0
        self.attempts: list[int] = []

    def now_ns(self) -> int:
        return self.now

    def pause(self, attempt: int) -> None:
        self.attempts.append(attempt)
        self.now += 100_000


@pytest.fixture
def descriptors(tmp_path: Path) -> Iterator[tuple[int, int]]:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    pair = (os.open(path, os.O_RDWR), os.open(path, os.O_RDWR))
    yield pair
    for descriptor in pair:
        os.close(descriptor)


def test_a_held_lock_is_tried_for_two_milliseconds(descriptors: tuple[int, int]) -> None:
    watch = Stopwatch()
    holder = TableLock(descriptors[0])
    other = TableLock(descriptors[1], now_ns=watch.now_ns, pause=watch.pause)
    assert holder.acquire()
    assert not other.acquire()
    assert watch.now == BOUND_NS == 2_000_000
    assert watch.attempts == list(range(20))
    holder.release()
    assert other.acquire()
    assert watch.now == BOUND_NS


def test_a_lock_released_while_waiting_is_taken(descriptors: tuple[int, int]) -> None:
    watch = Stopwatch()
    holder = TableLock(descriptors[0])

    def release(attempt: int) -> None:
        watch.pause(attempt)
        if attempt == 2:
            holder.release()

    other = TableLock(descriptors[1], now_ns=watch.now_ns, pause=release)
    assert holder.acquire()
    assert other.acquire()
    assert watch.attempts == [0, 1, 2]
    assert not TableLock(descriptors[0], now_ns=watch.now_ns, pause=watch.pause).acquire()


def test_closing_another_descriptor_of_the_file_frees_nothing(
    descriptors: tuple[int, int], tmp_path: Path
) -> None:
    watch = Stopwatch()
    assert TableLock(descriptors[0]).acquire()
    os.close(os.open(tmp_path / "file", os.O_RDWR))  # a POSIX lock would be gone now
    assert not TableLock(descriptors[1], now_ns=watch.now_ns, pause=watch.pause).acquire()


def test_the_holders_end_frees_the_lock(descriptors: tuple[int, int], tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "file", os.O_RDWR)
    assert TableLock(descriptor).acquire()
    os.close(descriptor)
    assert TableLock(descriptors[1]).acquire()
