"""Which windows are closed when, and what is in their rows."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.foundation.chain import GENESIS
from lotabotsd.usage.windows import (
    HOUR,
    MAX_ZERO_WINDOWS,
    Counted,
    Kind,
    Meters,
    Row,
    Span,
    row_hash,
    rows_of_span,
    spans_to_seal,
    tiling_defects,
)

T = 1_795_406_400  # a full hour
ROW = Row(7, Kind.USAGE, T, T + HOUR, "org", "key", "model", "served", 1, 0, Meters(1, 2, 3, 4, 5), 0)


def counted(model: str = "m", requests: int = 1, outcome: str = "served", late_for: int = 0) -> Counted:
    return Counted(
        "org", "key", model, outcome, int(outcome == "served"), late_for, Meters(requests, requests)
    )


def test_no_hour_is_closed_before_its_end() -> None:
    assert spans_to_seal(T, T + HOUR - 1, cut=False) == []


def test_an_hour_is_closed_at_its_end() -> None:
    assert spans_to_seal(T, T + HOUR, cut=False) == [Span(T, T + HOUR)]


def test_every_hour_of_an_absence_gets_its_window() -> None:
    spans = spans_to_seal(T, T + 5 * HOUR + 1, cut=False)
    assert spans == [Span(T + n * HOUR, T + (n + 1) * HOUR) for n in range(5)]


def test_a_cut_closes_the_current_hour_up_to_the_end_of_this_second() -> None:
    assert spans_to_seal(T, T + 1_800, cut=True) == [Span(T, T + 1_801)]


def test_after_a_cut_the_rest_of_the_hour_is_its_own_window() -> None:
    assert spans_to_seal(T + 1_801, T + HOUR, cut=False) == [Span(T + 1_801, T + HOUR)]


def test_a_cut_twice_in_one_second_makes_one_window() -> None:
    assert spans_to_seal(T + 1_801, T + 1_800, cut=True) == []


def test_a_clock_that_is_a_little_behind_makes_no_window() -> None:
    assert spans_to_seal(T + 1_801, T + 1_600, cut=True) == []


def test_a_cut_with_a_clock_far_behind_makes_a_window_that_says_so() -> None:
    expected = [Span(T, T + 1, clock_suspect=True)]
    assert spans_to_seal(T, T - 10 * HOUR, cut=True) == expected


def test_a_clock_far_behind_makes_nothing_by_itself() -> None:
    assert spans_to_seal(T, T - 10 * HOUR, cut=False) == []


def test_the_longest_absence_without_a_gap_is_four_hundred_days() -> None:
    spans = spans_to_seal(T, T + (MAX_ZERO_WINDOWS + 1) * HOUR, cut=False)
    assert len(spans) == MAX_ZERO_WINDOWS + 1
    assert not any(span.gap for span in spans)


def test_a_longer_absence_is_one_gap_and_four_hundred_days_of_windows() -> None:
    spans = spans_to_seal(T, T + (MAX_ZERO_WINDOWS + 11) * HOUR, cut=False)
    assert spans[0] == Span(T, T + HOUR)
    assert spans[1] == Span(T + HOUR, T + 11 * HOUR, gap=True)
    assert len(spans) == MAX_ZERO_WINDOWS + 2


@given(
    started=st.integers(0, 3 * HOUR),
    steps=st.lists(st.tuples(st.integers(0, 4 * HOUR), st.booleans()), max_size=12),
)
def test_windows_tile_time_whatever_is_cut_when(started: int, steps: list[tuple[int, bool]]) -> None:
    sealed_until = T + started - started % HOUR
    now = T + started
    for seconds, cut in steps:
        now += seconds
        for span in spans_to_seal(sealed_until, now, cut=cut):
            assert span.start == sealed_until < span.end
            assert (span.end - 1) // HOUR == span.start // HOUR
            sealed_until = span.end
        assert sealed_until > (now if cut else now - HOUR)


def test_a_window_without_usage_has_one_zero_row() -> None:
    rows = rows_of_span(Span(T, T + HOUR), [], 5, suspect=False)
    assert rows == [Row(5, Kind.APPLIANCE, T, T + HOUR, "", "", "", "", 0, 0, Meters(), 0)]


def test_rows_come_in_a_fixed_order_and_end_with_their_sum() -> None:
    some = [counted("b"), counted("a", 2), counted("a", 4, "aborted")]
    rows = rows_of_span(Span(T, T + HOUR), some, 1, suspect=False)
    assert rows == rows_of_span(Span(T, T + HOUR), list(reversed(some)), 1, suspect=False)
    assert [(r.sequence, r.model, r.outcome) for r in rows] == [
        (1, "a", "aborted"), (2, "a", "served"), (3, "b", "served"), (4, "", ""),
    ]  # fmt: skip
    assert rows[-1].meters == Meters(7, 7)


def test_what_is_counted_twice_for_one_row_is_added() -> None:
    rows = rows_of_span(
        Span(T, T + HOUR), [counted(late_for=5), counted(late_for=5), counted()], 1, suspect=False
    )
    assert [(r.late_for, r.meters.requests) for r in rows] == [(0, 1), (5, 2), (0, 3)]


def test_a_gap_is_one_row() -> None:
    [row] = rows_of_span(Span(T, T + 9 * HOUR, gap=True), [], 3, suspect=False)
    assert (row.kind, row.start, row.end) == (Kind.GAP, T, T + 9 * HOUR)


def test_a_suspect_clock_marks_every_row() -> None:
    rows = rows_of_span(Span(T, T + HOUR), [counted()], 1, suspect=True)
    assert [row.clock_suspect for row in rows] == [1, 1]


def changed(row: Row, name: str) -> Row:
    if name == "kind":
        return replace(row, kind=Kind.GAP)
    value = getattr(row, name)
    return replace(row, **{name: value + ("x" if isinstance(value, str) else 1)})


@pytest.mark.parametrize("name", [f.name for f in fields(Row) if f.name != "meters"])
def test_every_field_is_hashed(name: str) -> None:
    assert row_hash(GENESIS, changed(ROW, name)) != row_hash(GENESIS, ROW)


@pytest.mark.parametrize("name", [f.name for f in fields(Meters)])
def test_every_meter_is_hashed(name: str) -> None:
    meters = replace(ROW.meters, **{name: getattr(ROW.meters, name) + 1})
    assert row_hash(GENESIS, replace(ROW, meters=meters)) != row_hash(GENESIS, ROW)


def test_the_hash_of_a_row_is_frozen() -> None:
    # Recomputed by hand from "link(previous, fields)" in ARCHITECTURE; a change breaks every ledger.
    assert row_hash(GENESIS, ROW).hex() == "00c828b689c5d9b1b8ff034d264f96d6cc9898647599b42a72ab467c4eb3bd70"


def window(start: int, *requests: int, sequence: int = 1) -> list[Row]:
    some = [counted(f"m{n}", r) for n, r in enumerate(requests)]
    return rows_of_span(Span(start, start + HOUR), some, sequence, suspect=False)


def test_whole_windows_have_no_defect() -> None:
    rows = [*window(T, 1, 2), *window(T + HOUR), *window(T + 2 * HOUR, 3)]
    assert list(tiling_defects(rows, T)) == []
    assert list(tiling_defects([], T)) == []


@pytest.mark.parametrize(
    ("rows", "detail"),
    [
        ([*window(T + HOUR, 1)], "starts at"),
        ([*window(T, 1), *window(T + 2 * HOUR, 1)], "starts at"),
        ([*window(T, 1), *window(T, 1)], "starts at"),
        ([replace(ROW, end=T)], "starts at"),
        ([replace(ROW, end=T + 5), *window(T)], "starts at"),
        ([window(T, 1)[0]], "last window"),
        ([window(T, 1)[1]], "not the sum"),
        ([window(T, 1)[0], replace(window(T, 1)[1], meters=Meters(2, 1))], "not the sum"),
        ([window(T, 1)[0], replace(window(T)[0], kind=Kind.GAP)], "no sum"),
    ],
)
def test_windows_that_do_not_fit_are_found(rows: list[Row], detail: str) -> None:
    defects = list(tiling_defects(rows, T))
    assert defects
    assert detail in defects[0][1]
