"""A million rows are verified and reported in constant memory, told as they go by."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.usage import tables
from lotabotsd.usage.ledger import Ledger, open_ledger
from lotabotsd.usage.report import MAX_ROWS, freeze
from lotabotsd.usage.windows import HOUR, Counted, Meters, Span, rows_of_span

MEBIBYTE = 1 << 20


def fill(ledger: Ledger, windows: int, rows_a_window: int) -> int:
    """Seal that many hours with that many rows each, as `seal` writes them; returns the end of the last."""
    counted = [
        Counted(f"org_{n:04}", "kkkkkkkkkkkk", "page_orientation", "served", 1, 0, Meters(n, n, n, n, n))
        for n in range(rows_a_window - 1)
    ]
    start = ledger.sealed_until
    with ledger.transaction() as connection:
        head = tables.read_head_row(connection)
        for number in range(windows):
            span = Span(start + number * HOUR, start + (number + 1) * HOUR)
            head = tables.append_rows(
                connection, rows_of_span(span, counted, head.sequence + 1, suspect=False), head
            )
        end = start + windows * HOUR
        connection.execute("UPDATE state SET sealed_until = ?", (end,))
    return end


def peak_of_a_walk(ledger: Ledger) -> tuple[int, list[tuple[int, int]]]:
    """Bytes that a verification needed at most, and what it told."""
    told: list[tuple[int, int]] = []
    tracemalloc.start()
    try:
        assert ledger.verify(lambda row, last: told.append((row, last))).ok
        return tracemalloc.get_traced_memory()[1], told
    finally:
        tracemalloc.stop()


@pytest.fixture
def ledger(tmp_path: Path, box: Any) -> Iterator[Ledger]:
    made = open_ledger(tmp_path / "large.db", box.clock)
    yield made
    made.close()


def test_a_walk_tells_its_progress_and_what_is_raised_ends_it(ledger: Ledger) -> None:
    fill(ledger, 50, 60)
    _, told = peak_of_a_walk(ledger)
    assert told == [(1_000, 3_000), (2_000, 3_000), (3_000, 3_000)]

    class GivenUpError(Exception):
        pass

    def give_up(row: int, last: int) -> None:
        raise GivenUpError

    with pytest.raises(GivenUpError):
        ledger.verify(give_up)
    assert ledger.verify().ok


def test_memory_does_not_grow_with_the_ledger(ledger: Ledger) -> None:
    fill(ledger, 20, 100)
    small, _ = peak_of_a_walk(ledger)
    fill(ledger, 40, 100)
    large, _ = peak_of_a_walk(ledger)
    assert large < 1.5 * small
    assert large < 16 * MEBIBYTE


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_a_million_rows_are_verified_and_reported_in_bounded_memory(ledger: Ledger, box: Any) -> None:
    until = fill(ledger, 2_000, 500)
    assert ledger.head().sequence == 1_000_000
    before, sizes = resident(), list[int]()
    assert ledger.verify(lambda row, last: sizes.append(resident())).ok
    assert len(sizes) == 1_000
    assert max(sizes) - before < 32 * MEBIBYTE
    assert freeze(ledger, until, box.about(), until).last == MAX_ROWS
    one_report = resident()
    for number in range(2, 5):
        assert freeze(ledger, until, box.about(), until).last == number * MAX_ROWS
    assert resident() - one_report < 64 * MEBIBYTE
