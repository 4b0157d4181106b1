"""The hash chain: every row has its own bytes, and every change breaks all links after it."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.foundation.chain import GENESIS, Field, encode_fields, link

FIELDS: st.SearchStrategy[Field] = (
    st.none() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])) | st.binary()
)
ROWS = st.lists(FIELDS, max_size=6)


def decode(data: bytes) -> list[Field]:
    """Read a row back: that this is possible for every row proves that no two rows share their bytes."""
    fields: list[Field] = []
    while data:
        tag, length, rest = data[:1], int.from_bytes(data[1:5], "big"), data[5:]
        content, data = rest[:length], rest[length:]
        fields.append({b"n": None, b"b": content}.get(tag, content))
        if tag == b"i":
            fields[-1] = int(content)
        elif tag == b"s":
            fields[-1] = content.decode()
    return fields


@given(ROWS)
def test_a_row_can_be_read_back_from_its_bytes(row: list[Field]) -> None:
    assert decode(encode_fields(row)) == row


@given(ROWS, ROWS)
def test_two_different_rows_never_have_the_same_bytes(one: list[Field], other: list[Field]) -> None:
    typed_one = [(type(field), field) for field in one]
    typed_other = [(type(field), field) for field in other]
    assert (encode_fields(one) == encode_fields(other)) == (typed_one == typed_other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1], ["1"]),
        (["1"], [b"1"]),
        ([None], [""]),
        ([""], []),
        (["ab", "c"], ["a", "bc"]),
        (["a", None], ["a"]),
        ([0], [None]),
        ([-1], [1]),
    ],
)
def test_rows_that_look_alike_differ(one: list[Field], other: list[Field]) -> None:
    assert link(GENESIS, one) != link(GENESIS, other)


def test_a_flag_must_be_written_as_a_number() -> None:
    with pytest.raises(TypeError, match="0 or 1"):
        encode_fields([True])


def test_the_link_is_the_hash_of_the_previous_one_and_the_row() -> None:
    row = b"i\x00\x00\x00\x0242" + b"s\x00\x00\x00\x01a" + b"n\x00\x00\x00\x00" + b"b\x00\x00\x00\x01\xff"
    assert encode_fields([42, "a", None, b"\xff"]) == row
    assert link(GENESIS, [42, "a", None, b"\xff"]) == hashlib.sha256(bytes(32) + row).digest()


@pytest.mark.parametrize("previous", [b"", bytes(31), bytes(33)])
def test_a_previous_hash_of_another_length_is_refused(previous: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        link(previous, [1])


@given(st.lists(ROWS, min_size=2, max_size=5), st.data())
def test_changing_swapping_or_dropping_a_row_changes_the_head(
    rows: list[list[Field]], data: st.DataObject
) -> None:
    def head(of: list[list[Field]]) -> bytes:
        previous = GENESIS
        for row in of:
            previous = link(previous, row)
        return previous

    index = data.draw(st.integers(min_value=0, max_value=len(rows) - 1))
    assert head(rows[:index] + rows[index + 1 :]) != head(rows)
    assert head([*rows[:index], [*rows[index], None], *rows[index + 1 :]]) != head(rows)
    swapped = [rows[1], rows[0], *rows[2:]]
    same = encode_fields(rows[0]) == encode_fields(rows[1])
    assert (head(swapped) == head(rows)) == same
