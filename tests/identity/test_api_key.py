"""The text of API keys: every defect is refused, and what is stored is never what is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.foundation.identifiers import ALPHABET
from lotabotsd.identity.api_key import KEY_LENGTH, format_api_key, hash_secret, parse_api_key

KEY_ID = "4fTnQ0aZ91bC"
SECRET = "0123456789ABCDEFGHIJKLMNOPQRSTUV"
KEY = format_api_key("live", KEY_ID, SECRET)

base62_text = st.text(alphabet=ALPHABET)


def test_the_format_is_frozen() -> None:
    assert KEY == "lb_live_4fTnQ0aZ91bC_0123456789ABCDEFGHIJKLMNOPQRSTUV_3A5f4J"


def test_a_stored_hash_is_frozen() -> None:
    assert hash_secret(bytes(32), KEY_ID, SECRET).hex() == (
        "ade677fc19c5ce3071b083929342260f27df09ed982886a4b811992cf25a0751"
    )


@given(
    st.sampled_from(["live", "test"]),
    st.text(alphabet=ALPHABET, min_size=12, max_size=12),
    st.text(alphabet=ALPHABET, min_size=32, max_size=32),
)
def test_every_key_made_is_read_back(environment: str, key_id: str, secret: str) -> None:
    parsed = parse_api_key(format_api_key(environment, key_id, secret))
    assert parsed is not None
    assert (parsed.environment, parsed.key_id, parsed.secret) == (environment, key_id, secret)


@given(st.integers(0, KEY_LENGTH - 1), st.sampled_from(ALPHABET + "_"))
def test_one_mistyped_character_anywhere_is_refused(position: int, character: str) -> None:
    mistyped = KEY[:position] + character + KEY[position + 1 :]
    assert (parse_api_key(mistyped) is None) == (mistyped != KEY)


@given(st.integers(0, KEY_LENGTH - 2))
def test_two_neighbouring_characters_swapped_are_refused(position: int) -> None:
    swapped = KEY[:position] + KEY[position + 1] + KEY[position] + KEY[position + 2 :]
    assert (parse_api_key(swapped) is None) == (swapped != KEY)


@pytest.mark.parametrize("length", range(KEY_LENGTH))
def test_a_truncated_key_is_refused(length: int) -> None:
    assert parse_api_key(KEY[:length]) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        KEY + "0",
        KEY + "\n",
        " " + KEY,
        KEY[:-1] + "\n",
        KEY.replace("lb_", "LB_", 1),
        KEY.replace("live", "prod", 1),
        KEY.replace("_", "-"),
        KEY[:8] + "é" + KEY[9:],
        KEY[:8] + "\uff14" + KEY[9:],  # a full-width four: a digit to str.isdigit, not to us
        KEY[:8] + "\u0661" + KEY[9:],
        KEY[:8] + "\ud800" + KEY[9:],
        KEY[:8] + "\0" + KEY[9:],
        "_" * KEY_LENGTH,
        "lb_live_" + "0" * 1_000_000,
        KEY * 10_000,
    ],
    ids=range(16),
)
def test_what_is_not_exactly_a_key_is_refused(text: str) -> None:
    assert parse_api_key(text) is None


@given(st.text(max_size=80))
def test_reading_never_raises(text: str) -> None:
    parse_api_key(text)


def test_another_keys_checksum_is_refused() -> None:
    other = format_api_key("live", KEY_ID, SECRET[::-1])
    assert parse_api_key(KEY[:-6] + other[-6:]) is None


def test_a_key_with_parts_of_another_form_is_not_made() -> None:
    for environment, key_id, secret in [
        ("prod", KEY_ID, SECRET),
        ("live", "x", SECRET),
        ("live", KEY_ID, "-" * 32),
    ]:
        with pytest.raises(ValueError):
            format_api_key(environment, key_id, secret)


def test_a_parsed_key_does_not_print_its_secret() -> None:
    assert SECRET not in repr(parse_api_key(KEY))


@given(st.binary(min_size=32, max_size=32), base62_text, base62_text)
def test_a_hash_is_never_the_secret(pepper: bytes, key_id: str, secret: str) -> None:
    digest = hash_secret(pepper, key_id, secret)
    assert len(digest) == 32
    assert digest != secret.encode()


def test_the_same_secret_under_another_id_or_pepper_has_another_hash() -> None:
    here = hash_secret(bytes(32), KEY_ID, SECRET)
    assert hash_secret(bytes(32), KEY_ID[::-1], SECRET) != here
    assert hash_secret(bytes([1]) * 32, KEY_ID, SECRET) != here
