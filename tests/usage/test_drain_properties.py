"""Properties of the drain: any interleaving, any kill, any damage."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# One request: inferences, or None for one that never closes; how many later requests open before it closes.
REQUESTS = st.lists(st.tuples(st.none() | st.integers(0, 9), st.integers(0, 3)), max_size=25)


def order(requests: list[tuple[int | None, int]]) -> list[tuple[str, int]]:
    """OPENs in order, each CLOSE `overlap` requests later: ("open" | "close", index of the request)."""
    events: list[tuple[str, int]] = []
    for index in range(len(requests)):
        events.append(("open", index))
        events.extend(
            ("close", earlier)
            for earlier in range(index + 1)
            if requests[earlier][0] is not None and earlier + requests[earlier][1] == index
        )
    events.extend(
        ("close", index)
        for index, (inferences, overlap) in enumerate(requests)
        if inferences is not None and index + overlap >= len(requests)
    )
    return events


def fill(
    box: Any, image: Any, requests: list[tuple[int | None, int]]
) -> list[tuple[str, int, int, int, int]]:
    """Append the events; returns (kind, request, segment, start, end) of every record."""
    numbers: dict[int, int] = {}
    placed = []
    for kind, index in order(requests):
        if kind == "open":
            numbers[index] = image.next_number
            where = image.append(box.open_record())
        else:
            where = image.append(box.close_record(numbers[index], inferences=requests[index][0]))
        placed.append((kind, index, *where))
    return placed


@SETTINGS
@given(data=st.data(), requests=REQUESTS, batch_records=st.integers(1, 6))
def test_every_open_has_one_outcome_wherever_the_worker_is_killed(
    make_box: Any, make_image: Any, data: Any, requests: list[tuple[int | None, int]], batch_records: int
) -> None:
    """Live drains at random moments, a kill at any byte of the last record, drains again."""
    box = make_box()
    image = make_image(box)
    image.size = 512
    placed = fill(box, image, requests)
    whole = [bytes(content) for content in image.segments]
    kept = data.draw(st.integers(0, len(placed)), label="whole records before the kill")
    looks = sorted(data.draw(st.lists(st.integers(0, kept), max_size=3), label="live drains after"))
    for count in looks:
        if count:
            show(image, whole, placed, count, torn=0)
            last = placed[count - 1][2]
            held = image.lock(last)
            box.drain(batch_records)
            os.close(held)
    torn = 0
    if kept < len(placed):
        _kind, _index, segment, start, end = placed[kept]
        visible = len(whole[segment][start:end].rstrip(b"\0"))  # with all of these, zeros complete it
        torn = data.draw(st.integers(0, visible - 1), label="bytes of the next record")
    if kept:
        show(image, whole, placed, kept, torn)
    for _ in range(data.draw(st.integers(1, 3), label="drains")):
        box.drain(batch_records)
    survived = placed[:kept]
    opened = {index for kind, index, *_ in survived if kind == "open"}
    closed = {index for kind, index, *_ in survived if kind == "close"}
    expected = {"served": len(closed), "aborted": len(opened - closed)}
    assert box.requests() == {outcome: n for outcome, n in expected.items() if n}
    assert box.ledger.in_flight() == 0
    served = sum(requests[index][0] or 0 for index in closed)
    assert sum(row.meters.inferences for row in box.ledger.usage()) == served
    assert box.ledger.month_usage(202611).get(("licence", ""), 0) == served
    assert set(box.kinds()) <= {"torn_tail"}
    box.ledger.close()


def show(
    image: Any, whole: list[bytes], placed: list[tuple[str, int, int, int, int]], count: int, torn: int
) -> None:
    """Put on disk what was written up to record `count` and `torn` bytes of the next, but nothing freed."""
    last, end = placed[count - 1][2], placed[count - 1][4]
    if count < len(placed) and placed[count][2] == last:
        end += torn
    for number in range(last + 1):
        if number < image.shown and not image.path(number).exists():
            continue
        image.segments[number] = bytearray(whole[number] if number < last else whole[number][:end])
        image.write(only=number)
    image.shown = last + 1


@SETTINGS
@given(data=st.data(), requests=REQUESTS.filter(bool), flips=st.integers(1, 4))
def test_a_damaged_byte_costs_at_most_its_record(
    make_box: Any, make_image: Any, data: Any, requests: list[tuple[int | None, int]], flips: int
) -> None:
    box = make_box()
    image = make_image(box)
    image.size = 512
    fill(box, image, requests)
    for _ in range(flips):
        segment = image.segments[data.draw(st.integers(0, len(image.segments) - 1), label="segment")]
        position = data.draw(st.integers(0, len(segment) - 1), label="byte")
        segment[position] ^= data.draw(st.integers(1, 255), label="change")
    image.write()
    box.drain(batch_records=3)
    box.drain(batch_records=3)
    requests_counted = box.requests()
    closes = sum(inferences is not None for inferences, _ in requests)
    assert len(requests) - flips <= sum(requests_counted.values()) <= len(requests)
    assert closes - flips <= requests_counted.get("served", 0) <= closes
    assert box.ledger.in_flight() == 0
    if sum(requests_counted.values()) < len(requests):
        assert not box.ledger.verify().completeness.ok or box.kinds() == ["torn_tail"]
    box.ledger.close()


@SETTINGS
@given(junk=st.lists(st.binary(max_size=300), min_size=1, max_size=4), named=st.booleans())
def test_any_bytes_in_a_segment_are_survived(
    make_box: Any, make_image: Any, junk: list[bytes], named: bool
) -> None:
    box = make_box()
    image = make_image(box)
    for part in junk:
        image.begin_segment()
        if not named:
            image.segments[-1].clear()
        image.segments[-1] += part
    image.write()
    box.drain()
    assert box.requests() == {}
    assert box.ledger.in_flight() == 0
    box.ledger.close()


@SETTINGS
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["serve", "drain", "seal", "cut", "wait"])), max_size=30
    )
)
def test_totals_are_the_sum_however_drains_and_seals_interleave(
    make_box: Any, steps: list[tuple[int, str]]
) -> None:
    """Three workers, hours passing, windows closed early and late: nothing is lost or counted twice."""
    box = make_box()
    journals = {n: box.worker(worker=n, segment_bytes=2_400) for n in {worker for worker, _ in steps}}
    served = 0
    for worker, step in steps:
        if step == "serve":
            box.serve(journals[worker], inferences=3)
            served += 1
        elif step == "drain":
            box.drain(batch_records=2)
        elif step == "wait":
            box.clock.advance(1_700)
        else:
            box.seal(cut=step == "cut")
    for journal in journals.values():
        journal.close()
    box.clock.advance(7_200)
    box.seal(cut=True)
    rows = [stored.row for stored in box.ledger.rows() if stored.row.kind == "usage"]
    assert sum(row.meters.requests for row in rows) == served
    assert sum(row.meters.inferences for row in rows) == 3 * served
    assert box.ledger.month_usage(202611).get(("licence", ""), 0) == 3 * served
    assert box.requests() == ({"served": served} if served else {})
    assert box.ledger.verify().ok
    box.ledger.close()
