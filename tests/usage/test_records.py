"""The bytes of records and segment headers: frozen, round-tripping, and refused when one bit is off."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.usage.records import (
    CHARGED,
    MAX_OPEN_BYTES,
    MAX_RECEIPT_TEXT_BYTES,
    MAX_RECORD_BYTES,
    MIN_RECORD_BYTES,
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    Close,
    Open,
    Outcome,
    Receipt,
    SegmentHeader,
    decode,
    decode_segment_header,
    encode_close,
    encode_open,
    encode_receipt,
    encode_segment_header,
    number_record,
    record_is_whole,
    record_length,
    record_number,
)

GOLDEN = Path(__file__).parent.parent / "golden"
OPEN = encode_open(
    request_id=bytes(range(16)),
    wall_ns=1_795_406_706_123_456_789,
    key_id="k1J2m3N4p5Q6",
    organisation_id="org_6gT1xYz09AbCdEfG",
    model="page_orientation",
    version="1",
    window_id=202611,
    reserved=8,
)
CLOSE = encode_close(
    open_number=41,
    wall_ns=1_795_406_706_223_456_789,
    outcome=Outcome.CLIENT_GONE,
    status=499,
    inferences=8,
    input_bytes=150_528,
    output_bytes=64,
    gate_us=12_345,
    delivered=False,
)
HEADER = encode_segment_header(SegmentHeader(bytes(range(16, 32)), 3, 1_795_406_700_000_000_000, 2, 101))
NAMES = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), max_size=60)


def golden(name: str) -> bytes:
    return bytes.fromhex((GOLDEN / name).read_text())


def test_an_open_record_has_its_frozen_bytes() -> None:
    assert number_record(OPEN, 41) == golden("usage-record-open.hex")


def test_a_close_record_has_its_frozen_bytes() -> None:
    assert number_record(CLOSE, 42) == golden("usage-record-close.hex")


def test_a_segment_header_has_its_frozen_bytes() -> None:
    assert golden("usage-segment-header.hex") == HEADER


def test_the_numbers_of_outcomes_are_frozen() -> None:
    text = "".join(f"{o.value:2} {'yes' if CHARGED[o] else 'no ':3} {o.label}\n" for o in Outcome)
    assert text == (GOLDEN / "usage-outcomes.txt").read_text()


def test_every_outcome_is_charged_or_not() -> None:
    assert set(CHARGED) == set(Outcome)
    assert {o.label for o, charged in CHARGED.items() if charged} == {"served", "client_gone", "undelivered"}


@given(
    request_id=st.binary(min_size=16, max_size=16),
    wall_ns=st.integers(0, 4_102_444_800 * 10**9 - 1),
    names=st.tuples(NAMES, NAMES, NAMES, NAMES),
    window_id=st.integers(0, 2**32 - 1),
    reserved=st.integers(0, 2**32 - 1),
    number=st.integers(1, 2**62 - 1),
)
def test_an_open_record_reads_back(request_id, wall_ns, names, window_id, reserved, number) -> None:
    record = number_record(
        encode_open(
            request_id=request_id, wall_ns=wall_ns, key_id=names[0], organisation_id=names[1], model=names[2],
            version=names[3], window_id=window_id, reserved=reserved,
        ),
        number,
    )  # fmt: skip
    assert len(record) % 8 == 0
    assert record_length(record[:RECORD_HEADER_BYTES]) == len(record)
    assert record_is_whole(record)
    assert record_number(record) == number
    assert decode(record) == Open(request_id, wall_ns, *names, window_id, reserved)


@given(
    open_number=st.integers(1, 2**62 - 1),
    outcome=st.sampled_from(Outcome),
    counts=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**40), st.integers(0, 2**40)),
    gate_us=st.integers(0, 2**40),
    delivered=st.booleans(),
)
def test_a_close_record_reads_back(open_number, outcome, counts, gate_us, delivered) -> None:
    record = number_record(
        encode_close(
            open_number=open_number, wall_ns=5, outcome=outcome, status=200, inferences=counts[0],
            input_bytes=counts[1], output_bytes=counts[2], gate_us=gate_us, delivered=delivered,
        ),
        7,
    )  # fmt: skip
    assert len(record) == 64
    expected = Close(open_number, 5, outcome, 200, *counts, min(gate_us, 2**32 - 1), delivered)
    assert decode(record) == expected


@pytest.mark.parametrize("record", [number_record(OPEN, 41), number_record(CLOSE, 42)])
def test_any_changed_bit_makes_a_record_unreadable(record: bytes) -> None:
    for position in range(len(record)):
        for bit in range(8):
            changed = bytearray(record)
            changed[position] ^= 1 << bit
            assert not record_is_whole(bytes(changed))


def test_any_changed_bit_makes_a_segment_header_unreadable() -> None:
    for position in range(SEGMENT_HEADER_BYTES):
        for bit in range(8):
            changed = bytearray(HEADER)
            changed[position] ^= 1 << bit
            with pytest.raises(ValueError, match="segment"):
                decode_segment_header(bytes(changed))


def test_a_segment_header_reads_back() -> None:
    expected = SegmentHeader(bytes(range(16, 32)), 3, 1_795_406_700_000_000_000, 2, 101)
    assert decode_segment_header(HEADER + b"more") == expected


def test_a_header_cut_short_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        decode_segment_header(HEADER[:-1])


def test_zeros_are_the_end_of_a_journal() -> None:
    assert record_length(bytes(RECORD_HEADER_BYTES)) == 0


@pytest.mark.parametrize("length", [8, MIN_RECORD_BYTES - 8, MIN_RECORD_BYTES + 1, MAX_RECORD_BYTES + 8])
def test_a_length_that_no_record_has_is_no_record(length: int) -> None:
    assert record_length(struct.pack("<IHBBQ", 1, length, 1, 1, 1)) == 0


def test_the_longest_names_fit() -> None:
    record = encode_open(
        request_id=bytes(16), wall_ns=1, key_id="k" * 255, organisation_id="o" * 255, model="m" * 255,
        version="v" * 255, window_id=1, reserved=1,
    )  # fmt: skip
    assert len(record) == MAX_OPEN_BYTES


def test_the_longest_receipt_fits_and_no_longer_one() -> None:
    def encoded(text: str) -> bytes:
        return encode_receipt(
            close_number=1, wall_ns=1, request_id=bytes(16), key_id="k" * 255, organisation_id="o" * 255,
            text=text,
        )  # fmt: skip

    longest = "r" * MAX_RECEIPT_TEXT_BYTES
    assert len(encoded(longest)) == MAX_RECORD_BYTES
    with pytest.raises(ValueError, match="bounded"):
        encoded(longest + "r")


RECEIPT = encode_receipt(
    close_number=42,
    wall_ns=1_795_406_706_223_456_789,
    request_id=bytes(range(16)),
    key_id="k1J2m3N4p5Q6",
    organisation_id="org_6gT1xYz09AbCdEfG",
    text="eyJhbGciOiJFZERTQSJ9.eyJqdGkiOiIwIn0.c2ln",
)


def test_the_receipt_record_is_frozen() -> None:
    assert number_record(RECEIPT, 43) == golden("usage-record-receipt.hex")


def test_a_receipt_comes_back_as_it_was_written_and_damaged_ones_are_refused() -> None:
    record = number_record(
        encode_receipt(
            close_number=7, wall_ns=1_700_000_000_000_000_000, request_id=bytes(range(16)), key_id="K" * 12,
            organisation_id="org_a", text="a.b.c",
        ),
        8,
    )  # fmt: skip
    assert decode(record) == Receipt(
        7, 1_700_000_000_000_000_000, bytes(range(16)), "K" * 12, "org_a", "a.b.c"
    )
    for at, value in ((48, 200), (50, 0xFF), (54, 0x07), (66, 0xC3)):
        spoiled = bytearray(record)
        spoiled[at] = value
        with pytest.raises(ValueError, match=r"record|codec"):
            decode(bytes(spoiled))


@pytest.mark.parametrize(
    "wrong",
    [
        {"request_id": bytes(15)},
        {"key_id": "k" * 256},
        {"model": "ü" * 128},
        {"window_id": 2**32},
        {"reserved": -1},
    ],
)
def test_what_does_not_fit_an_open_record_is_a_bug_of_the_caller(wrong: dict[str, object]) -> None:
    fields: dict[str, object] = {
        "request_id": bytes(16), "wall_ns": 1, "key_id": "k", "organisation_id": "o", "model": "m",
        "version": "", "window_id": 1, "reserved": 1,
    }  # fmt: skip
    with pytest.raises((ValueError, struct.error)):
        encode_open(**{**fields, **wrong})


def close_with(**changes: int) -> bytes:
    fields = {
        "open_number": 1, "wall_ns": 1, "outcome": Outcome.SERVED, "status": 200, "inferences": 1,
        "input_bytes": 1, "output_bytes": 1, "gate_us": 1,
    }  # fmt: skip
    return number_record(encode_close(**{**fields, **changes}), 1)


@pytest.mark.parametrize(
    "record",
    [
        close_with(outcome=12),
        close_with(outcome=0),
        close_with(input_bytes=2**40 + 1),
        close_with(output_bytes=2**64 - 1),
        close_with(open_number=2**62),
        close_with(wall_ns=-1),
        close_with(wall_ns=4_102_444_800 * 10**9),
        number_record(CLOSE[:6] + b"\x03" + CLOSE[7:], 1),  # kind 3
        number_record(CLOSE[:7] + b"\x02" + CLOSE[8:], 1),  # version 2
        number_record(OPEN[:6] + b"\x02" + OPEN[7:], 1),  # an OPEN called CLOSE
        number_record(OPEN[:50] + b"\xff" + OPEN[51:], 1),  # a name that reaches beyond the record
        number_record(OPEN.replace(b"page", b"pa\nge"[:4]), 1),  # a name with a line end
        number_record(OPEN.replace(b"page", b"pag\xff"), 1),  # a name that is no UTF-8
    ],
)
def test_a_whole_record_of_unknown_content_is_refused(record: bytes) -> None:
    assert record_is_whole(record)
    with pytest.raises(ValueError, match=r"."):
        decode(record)


def test_a_number_that_no_journal_reaches_is_not_whole() -> None:
    assert not record_is_whole(number_record(CLOSE, 2**62))
