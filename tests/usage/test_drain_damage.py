"""Damaged, torn, misplaced and missing segments: what is readable counts, and what is lost is said."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest

from lotabotsd.usage.segments import DAMAGED

SERVED = "served"
ABORTED = "aborted"


def segments(box: Any) -> list[str]:
    return sorted(path.name for path in (box.journal / "0").iterdir())


def test_a_half_written_last_record_is_no_damage(box: Any, image: Any) -> None:
    image.append(box.open_record())
    image.append(box.close_record(1))
    segment, start, _end = image.append(box.open_record())
    del image.segments[segment][start + 40 :]
    image.write()
    drained = box.drain()
    assert (drained.damaged, drained.segments_freed) == (0, 1)
    assert (box.requests(), box.kinds()) == ({SERVED: 1}, ["torn_tail"])
    assert box.ledger.verify().ok
    assert segments(box) == []


def test_damage_in_the_middle_loses_only_what_is_damaged(box: Any, image: Any) -> None:
    for number in range(1, 60, 2):
        image.append(box.open_record())
        image.append(box.close_record(number))
    assert len(image.segments) > 2
    image.segments[0][70] ^= 0xFF  # the first OPEN
    image.write()
    drained = box.drain()
    assert drained.damaged == 1
    assert box.requests() == {SERVED: 29}
    assert box.kinds() == ["damage", "missing_records", "orphan_close"]
    orphan = box.ledger.findings()[-1].finding
    assert (orphan.count, orphan.inferences) == (1, 1)
    assert box.ledger.in_flight() == 0


def test_a_damaged_segment_is_kept_for_a_person_under_another_name(box: Any, image: Any) -> None:
    image.append(box.open_record())
    image.append(box.close_record(1))
    image.segments[0][70] ^= 0xFF
    image.write()
    before = image.path(0).read_bytes()
    assert box.drain().segments_freed == 1
    kept = image.path(0).with_name(image.path(0).name + DAMAGED)
    assert kept.read_bytes() == before
    assert box.drain().records == 0


def test_damaged_segments_are_not_kept_without_end(box: Any, make_image: Any) -> None:
    for epoch in range(1, 25):
        image = make_image(box)
        image.epoch = epoch
        image.append(box.open_record())
        image.append(box.close_record(1))
        image.segments[0][70] ^= 0xFF
        image.write()
        box.drain()
    assert len(segments(box)) == 16


def test_a_damaged_tail_is_damage_when_the_worker_wrote_on_behind_it(box: Any, image: Any) -> None:
    image.append(box.open_record())
    image.append(box.close_record(1))
    image.begin_segment()
    image.append(box.open_record())
    image.append(box.close_record(3))
    image.segments[0] = image.segments[0][:-20]
    image.write()
    assert box.drain().damaged == 1
    assert box.requests() == {SERVED: 1, ABORTED: 1}
    assert box.kinds() == ["damage", "missing_records"]


def test_damage_under_a_living_worker_waits_until_the_segment_is_final(box: Any, image: Any) -> None:
    image.append(box.open_record())
    _segment, start, _end = image.append(box.close_record(1))
    image.append(box.open_record())
    image.append(box.close_record(3))
    image.segments[0][start + 30] ^= 1
    image.write()
    held = image.lock(0)
    box.drain()
    assert (box.requests(), box.kinds()) == ({}, [])
    os.close(held)
    box.drain()
    assert box.requests() == {SERVED: 1, ABORTED: 1}
    assert "damage" in box.kinds()


def test_a_damaged_header_loses_no_record(box: Any, image: Any) -> None:
    image.append(box.open_record())
    image.append(box.close_record(1))
    image.segments[0][20] ^= 1
    image.write()
    assert box.drain().damaged == 1
    assert (box.requests(), box.kinds()) == ({SERVED: 1}, ["header_damaged"])


@pytest.mark.parametrize("keep", [0, 10, 63, 64, 70])
def test_a_segment_cut_short_is_read_as_far_as_it_goes(box: Any, image: Any, keep: int) -> None:
    image.append(box.open_record())
    image.append(box.close_record(1))
    image.write()
    path = image.path(0)
    path.write_bytes(path.read_bytes()[:keep])
    drained = box.drain()
    assert drained.records == 0
    assert drained.segments_freed == 1
    assert box.requests() == {}


def test_a_segment_under_another_segments_name_is_not_counted(box: Any, image: Any) -> None:
    image.append(box.open_record())
    image.append(box.close_record(1))
    image.write()
    twin = image.path(0).with_name("00000000000000ff-00000000.seg")
    shutil.copy(image.path(0), twin)
    drained = box.drain()
    assert drained.damaged == 1
    assert (box.requests(), box.kinds()) == ({SERVED: 1}, ["misplaced"])
    assert segments(box) == [twin.name + DAMAGED]


def test_a_segment_with_the_records_of_the_one_before_is_not_counted_again(box: Any, image: Any) -> None:
    image.append(box.open_record())
    image.append(box.close_record(1))
    image.begin_segment()
    image.segments[1] += image.segments[0][64:]
    image.write()
    box.drain()
    assert (box.requests(), box.kinds()) == ({SERVED: 1}, ["repeated_records"])


def test_a_missing_segment_is_noticed_by_the_numbers(box: Any, image: Any) -> None:
    for number in range(1, 90, 2):
        image.append(box.open_record())
        image.append(box.close_record(number))
    image.write()
    image.path(1).unlink()
    box.drain()
    kinds = box.kinds()
    assert "missing_records" in kinds
    lost = sum(r.finding.count for r in box.ledger.findings() if r.finding.kind == "missing_records")
    header_of_third = int.from_bytes(bytes(image.segments[2][48:56]), "little")
    header_of_second = int.from_bytes(bytes(image.segments[1][48:56]), "little")
    assert lost == header_of_third - header_of_second
    assert box.ledger.in_flight() == 0


def test_a_journal_without_its_first_segment_is_read_from_the_next(box: Any, image: Any) -> None:
    for number in range(1, 60, 2):
        image.append(box.open_record())
        image.append(box.close_record(number))
    image.write()
    image.path(0).unlink()
    box.drain()
    assert box.kinds()[0] == "missing_records"
    assert box.requests()[SERVED] > 0


def test_an_epoch_whose_last_segment_vanished_is_ended(box: Any, image: Any) -> None:
    image.append(box.open_record())
    image.write()
    held = image.lock(0)
    box.drain()
    image.path(0).unlink()
    os.close(held)
    box.drain()
    assert (box.requests(), box.kinds()) == ({ABORTED: 1}, ["missing_segment"])
    assert box.drain().damaged == 0


def test_a_journal_directory_that_is_not_mounted_ends_nothing(box: Any, image: Any) -> None:
    image.append(box.open_record())
    image.write()
    held = image.lock(0)
    box.drain()
    away = box.journal.rename(box.path / "away")
    box.drain()
    assert (box.ledger.in_flight(), box.kinds()) == (1, [])
    away.rename(box.journal)
    os.close(held)


def test_what_comes_after_an_epoch_was_ended_is_still_counted(box: Any, image: Any) -> None:
    image.append(box.open_record())
    image.write()
    box.drain()
    image.append(box.open_record())
    image.append(box.close_record(2))
    image.write()
    box.drain()
    assert box.requests() == {SERVED: 1, ABORTED: 1}


def test_a_record_of_an_unknown_kind_is_reported_and_stepped_over(box: Any, image: Any) -> None:
    record = box.close_record(1)
    image.append(record[:6] + b"\x09" + record[7:])
    image.append(box.open_record())
    image.append(box.close_record(2))
    image.write()
    box.drain()
    assert (box.requests(), box.kinds()) == ({SERVED: 1}, ["unknown_record"])


def test_a_segment_that_cannot_be_read_stops_only_its_own_epoch(box: Any, image: Any) -> None:
    (box.journal / "0").mkdir()
    (box.journal / "0" / "0000000000000007-00000000.seg").mkdir()
    image.append(box.open_record())
    image.append(box.close_record(1))
    image.write()
    drained = box.drain()
    assert len(drained.problems) == 1
    assert (box.requests(), box.kinds()) == ({SERVED: 1}, ["unreadable"])
    box.drain()
    assert box.kinds() == ["unreadable"]


def test_a_journal_that_may_not_be_read_is_a_problem_and_ends_nothing(box: Any, image: Any) -> None:
    image.append(box.open_record())
    image.write()
    held = image.lock(0)
    box.drain()
    box.journal.chmod(0)
    os.seteuid(65_534 if os.geteuid() == 0 else os.geteuid())  # root may read everything
    try:
        assert len(box.drain().problems) == 1
    finally:
        os.seteuid(os.getuid())
        box.journal.chmod(0o770)
        os.close(held)
    assert (box.ledger.in_flight(), box.kinds()) == (1, [])


def test_a_header_that_nothing_follows_is_the_last_word_of_a_killed_worker(box: Any, image: Any) -> None:
    image.append(box.open_record())
    image.append(box.close_record(1))
    image.begin_segment()
    image.segments[1] = image.segments[1][:20]
    image.write()
    assert box.drain().damaged == 0
    assert (box.requests(), box.kinds()) == ({SERVED: 1}, ["torn_tail"])


def test_a_damaged_header_in_the_middle_is_reported_though_nothing_follows(box: Any, image: Any) -> None:
    image.begin_segment()
    image.segments[0][20] ^= 1
    image.begin_segment()
    image.write()
    assert box.drain().damaged == 1
    assert box.kinds() == ["header_damaged"]


def test_a_header_of_another_format_is_reported(box: Any, image: Any) -> None:
    image.append(box.open_record())
    image.segments[0][8:12] = (2).to_bytes(4, "little")
    image.write()
    box.drain()
    assert box.kinds() == ["header_damaged"]
    assert box.requests() == {ABORTED: 1}
