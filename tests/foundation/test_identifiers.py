"""Ids: their shape, their order, and the strictness of base64url."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.foundation.identifiers import ALPHABET, b64url, base62, new_id, random_base62, unb64url, uuid7


def test_the_alphabet_has_62_different_characters_in_ascii_order() -> None:
    assert len(set(ALPHABET)) == 62
    assert sorted(ALPHABET) == list(ALPHABET)


@pytest.mark.parametrize(
    ("number", "width", "text"),
    [(0, 1, "0"), (0, 3, "000"), (61, 1, "z"), (62, 2, "10"), (0xFFFFFFFF, 6, "4gfFC3")],
)
def test_base62_fills_up_to_its_width(number: int, width: int, text: str) -> None:
    assert base62(number, width) == text


@given(st.integers(min_value=0, max_value=62**6 - 1))
def test_base62_can_be_counted_back(number: int) -> None:
    value = 0
    for character in base62(number, 6):
        value = value * 62 + ALPHABET.index(character)
    assert value == number


@pytest.mark.parametrize(("number", "width"), [(62, 1), (62**6, 6), (-1, 3)])
def test_a_number_that_does_not_fit_is_refused_and_never_cut(number: int, width: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        base62(number, width)


def test_new_ids_carry_their_kind_and_differ() -> None:
    ids = {new_id("org") for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(text.startswith("org_") and len(text) == 20 and text[4:].isalnum() for text in ids)
    assert random_base62(0) == ""


@given(st.integers(min_value=0, max_value=2**47 * 1_000_000))
def test_a_uuid7_has_its_version_its_variant_and_its_time(wall_ns: int) -> None:
    value = uuid7(wall_ns)
    assert (value.version, value.variant) == (7, uuid.RFC_4122)
    assert value.int >> 80 == wall_ns // 1_000_000


def test_uuid7s_sort_by_time_and_differ_within_a_millisecond() -> None:
    assert uuid7(1_000_000) < uuid7(2_000_000) < uuid7(1_700_000_000_000_000_000)
    assert len({uuid7(5_000_000) for _ in range(1_000)}) == 1_000


@given(st.binary())
def test_base64url_is_read_back(data: bytes) -> None:
    text = b64url(data)
    assert "=" not in text
    assert unb64url(text) == data


@pytest.mark.parametrize("text", ["A", "AA==", "AB", "A+/A", "AA A", "AA\n", "ÄÄÄÄ", "AAAAA", "٣٣٣٣"])
def test_any_other_spelling_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        unb64url(text)
