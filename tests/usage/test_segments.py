"""Reading segments: over defects, up to torn tails, and never past what a living worker has finished."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.usage.records import MAX_RECORD_BYTES, Outcome, encode_close, encode_open, number_record
from lotabotsd.usage.segments import End, Found, Lost, SegmentFile, list_segments, open_segment, scan

CHUNK = 64 * 1024


def close(number: int) -> bytes:
    return number_record(
        encode_close(
            open_number=1, wall_ns=1, outcome=Outcome.SERVED, status=200, inferences=1, input_bytes=1,
            output_bytes=1, gate_us=1,
        ),
        number,
    )  # fmt: skip


def opened(number: int, length: int) -> bytes:
    record = encode_open(
        request_id=bytes(16), wall_ns=1, key_id="k" * 255, organisation_id="o" * 255, model="m" * 255,
        version="v" * (length - 52 - 3 * 255), window_id=1, reserved=1,
    )  # fmt: skip
    return number_record(record, number)


def read_of(data: bytes):
    return lambda offset, length: data[offset : offset + length]


def whole(data: bytes, *, final: bool = True, offset: int = 0) -> tuple[list[bytes], list[Lost], End]:
    items = list(scan(read_of(data), offset, final=final))
    assert isinstance(items[-1], End)
    return (
        [item.record for item in items if isinstance(item, Found)],
        [item for item in items if isinstance(item, Lost)],
        items[-1],
    )


def test_an_empty_segment_has_only_an_end() -> None:
    assert whole(b"") == ([], [], End(0, torn=False))
    assert whole(bytes(4_096)) == ([], [], End(0, torn=False))


def test_records_are_found_up_to_the_zeros() -> None:
    records = [close(n) for n in range(1, 4)]
    assert whole(b"".join(records) + bytes(512)) == (records, [], End(192, torn=False))


def test_reading_begins_at_the_cursor() -> None:
    records = [close(n) for n in range(1, 4)]
    assert whole(b"".join(records) + bytes(64), offset=128) == (records[2:], [], End(192, torn=False))


def test_a_segment_that_is_full_to_the_last_byte_is_read_whole() -> None:
    records = [close(n) for n in range(1, 4)]
    assert whole(b"".join(records)) == (records, [], End(192, torn=False))


@pytest.mark.parametrize("keep", [1, 8, 16, 17, 56])
def test_half_a_record_at_the_end_is_a_torn_tail(keep: int) -> None:
    data = close(1) + close(2)[:keep] + bytes(256)
    assert whole(data) == ([close(1)], [], End(64, torn=True))
    assert whole(data, final=False) == ([close(1)], [], End(64, torn=False))


def test_a_defect_between_records_is_stepped_over_in_a_final_segment() -> None:
    data = bytearray(close(1) + close(2) + close(3) + bytes(128))
    data[70] ^= 1
    assert whole(bytes(data)) == ([close(1), close(3)], [Lost(64, 128)], End(192, torn=False))


def test_a_defect_stops_the_reading_while_the_worker_writes() -> None:
    data = bytearray(close(1) + close(2) + close(3) + bytes(128))
    data[70] ^= 1
    assert whole(bytes(data), final=False) == ([close(1)], [], End(64, torn=False))


def test_a_hole_of_zeros_between_records_is_a_defect() -> None:
    data = close(1) + bytes(4_096) + close(9) + bytes(64)
    assert whole(data) == ([close(1), close(9)], [Lost(64, 64 + 4_096)], End(64 + 4_096 + 64, torn=False))


def test_a_length_that_lies_does_not_hide_the_next_record() -> None:
    data = bytearray(close(1) + close(2) + close(3))
    data[4:6] = (1_024).to_bytes(2, "little")
    assert whole(bytes(data)) == ([close(2), close(3)], [Lost(0, 64)], End(192, torn=False))


@pytest.mark.parametrize("shift", [0, 8, 56, 64, 1_000, 1_064])
def test_records_across_the_edges_of_chunks_are_found(shift: int) -> None:
    records = [opened(n, 1_072 if n % 3 else 824) for n in range(1, 200)]
    records.insert(0, opened(1, 824 + shift // 8 * 8 % 240))
    data = b"".join(records)
    assert len(data) > 2 * CHUNK
    assert whole(data + bytes(100)) == (records, [], End(len(data), torn=False))


@pytest.mark.parametrize("gap", [8, CHUNK - 8, CHUNK, CHUNK + 8, 2 * CHUNK + MAX_RECORD_BYTES])
def test_a_record_behind_a_long_defect_is_found(gap: int) -> None:
    garbage = b"\xa5" * gap
    data = close(1) + garbage + close(2) + bytes(64)
    assert whole(data) == ([close(1), close(2)], [Lost(64, 64 + gap)], End(128 + gap, torn=False))


def test_a_record_at_another_alignment_is_none() -> None:
    assert whole(close(1) + b"\1" * 4 + close(2)) == ([close(1)], [], End(64, torn=True))


@given(st.binary(max_size=2_000), st.booleans())
def test_any_bytes_can_be_scanned(data: bytes, final: bool) -> None:
    items = list(scan(read_of(data), 0, final=final))
    assert isinstance(items[-1], End)
    assert not any(isinstance(item, End) for item in items[:-1])


def test_only_segments_are_listed_in_the_order_of_writing(tmp_path: Path) -> None:
    for name in (
        "1/0000000000000001-00000000.seg", "0/000000000000000a-00000010.seg",
        "0/000000000000000a-00000002.seg",
        "0/0000000000000009-00000000.seg", "0/000000000000000a-00000003.seg.damaged", "0/readme",
        "0/abc-1.new", "x/0000000000000001-00000000.seg", "00/0000000000000001-00000000.seg", "reserve",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "7").symlink_to(tmp_path / "1")
    found = [(f.worker, f.epoch, f.segment) for f in list_segments(tmp_path)[0]]
    assert found == [(0, 9, 0), (0, 10, 2), (0, 10, 10), (1, 1, 0)]


@pytest.mark.parametrize(
    "name", ["0/8000000000000000-00000000.seg", "4294967296/0000000000000001-00000000.seg", "٣/x"]
)
def test_numbers_that_no_ledger_can_hold_are_ignored(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_bytes(b"")
    assert list_segments(tmp_path) == ([], [])


def test_a_journal_that_is_not_there_has_no_segments(tmp_path: Path) -> None:
    assert list_segments(tmp_path / "missing") == ([], [])


def test_segments_sort_by_epoch_and_number() -> None:
    path = Path("x")
    assert SegmentFile(0, 1, 2, path) < SegmentFile(0, 1, 10, path) < SegmentFile(0, 2, 0, path)


def test_a_symbolic_link_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="link"):
        open_segment(tmp_path / "link")


def test_a_segment_that_somebody_reads_is_not_taken_for_a_living_workers(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    path.write_bytes(b"")
    with path.open("rb"):
        descriptor, released = open_segment(path)
    os.close(descriptor)
    assert released
