"""What the next keyring may say, and how few signatures are enough, in any house of roots."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import combinations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from lotabots_vendor.keyring_change import (
    Change,
    fewest_signatures,
    fewest_signers,
    following,
    still_to_sign,
    support,
)

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.keys import raw_public, thumbprint
from lotabotsd.licence.keyring import MAX_KEYS, IssuingKey, Keyring, Use

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@lru_cache
def public(number: int) -> bytes:
    return raw_public(Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big")))


def keyid(number: int) -> str:
    return thumbprint(public(number))


def key(number: int) -> IssuingKey:
    return IssuingKey(keyid(number), public(number), frozenset(Use), NOW, NOW + timedelta(days=1))


def ring(roots: range, threshold: int, *keys: int, revoked: tuple[int, ...] = ()) -> Keyring:
    named = {keyid(number): public(number) for number in roots}
    gone = frozenset(keyid(number) for number in revoked)
    return Keyring(7, NOW, named, threshold, tuple(key(number) for number in keys), gone)


def refusal(current: Keyring, change: Change) -> Code:
    with pytest.raises(LotaBotsError) as caught:
        following(current, change, NOW)
    assert caught.value.hint
    return caught.value.code


@given(
    before=st.integers(1, 4),
    shared=st.integers(0, 4),
    fresh=st.integers(0, 3),
    thresholds=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    signing=st.sets(st.integers(1, 8)),
)
def test_as_few_signatures_as_any_choice_could_do_with(
    before: int, shared: int, fresh: int, thresholds: tuple[int, int], signing: set[int]
) -> None:
    """Compared with trying every subset of those who signed."""
    current = ring(range(1, before + 1), min(thresholds[0], before))
    stay = min(shared, before)
    named = [*range(before - stay + 1, before + 1), *range(before + 1, before + 1 + fresh)]
    if not named:
        named = [before + 1]
    roots = {keyid(number): public(number) for number in named}
    made = replace(current, roots=roots, threshold=min(thresholds[1], len(roots)))
    signers = [keyid(number) for number in sorted(signing)]
    now = support(current, made, signers)
    wanted = still_to_sign(current, made, signers)
    assert not set(wanted) & set(signers)
    if not now.met:
        assert wanted
        return
    assert wanted == []
    chosen = fewest_signers(current, made, signers)
    assert set(chosen) <= set(signers)
    assert support(current, made, chosen).met
    useful = [s for s in signers if s in current.roots or s in made.roots]
    smallest = next(
        size
        for size in range(len(useful) + 1)
        if any(support(current, made, subset).met for subset in combinations(useful, size))
    )
    assert len(chosen) == smallest >= fewest_signatures(current, made)


def test_a_key_revoked_before_is_named_no_more_and_stays_revoked() -> None:
    current = ring(range(1, 2), 1, 10, 11)
    once = following(current, Change(revoke=frozenset({keyid(10)})), NOW)
    assert [k.keyid for k in once.keys] == [keyid(10), keyid(11)]
    twice = following(once, Change(add_keys=(key(12),)), NOW)
    assert [k.keyid for k in twice.keys] == [keyid(11), keyid(12)]
    assert twice.revoked == {keyid(10)}


def test_a_full_keyring_takes_no_more_keys_until_some_are_revoked() -> None:
    full = ring(range(1, 2), 1, *range(10, 10 + MAX_KEYS))
    assert refusal(full, Change(add_keys=(key(200),))) is Code.VALUE_INVALID
    revoked = following(full, Change(revoke=frozenset({keyid(10)})), NOW)
    assert len(following(revoked, Change(add_keys=(key(200),)), NOW).keys) == MAX_KEYS


def test_a_house_has_room_for_sixteen_roots() -> None:
    current = ring(range(1, 3), 1)
    room = tuple(public(number) for number in range(20, 34))
    assert len(following(current, Change(add_roots=room), NOW).roots) == 16
    assert refusal(current, Change(add_roots=(*room, public(34)))) is Code.VALUE_INVALID


def test_a_change_that_changes_nothing_is_refused() -> None:
    current = ring(range(1, 3), 2, 10, 11, revoked=(10,))
    for change in (Change(), Change(threshold=2), Change(revoke=frozenset({keyid(10)}))):
        assert refusal(current, change) is Code.CONFLICT
    assert following(current, Change(threshold=1), NOW).threshold == 1


def test_a_root_is_added_once_and_is_no_issuing_key() -> None:
    current = ring(range(1, 3), 2, 10)
    assert refusal(current, Change(add_roots=(public(5), public(5)))) is Code.VALUE_INVALID
    assert refusal(current, Change(add_roots=(public(10),))) is Code.VALUE_INVALID
    assert refusal(current, Change(add_roots=(public(11),), add_keys=(key(11),))) is Code.VALUE_INVALID
    assert refusal(current, Change(add_roots=(public(2),))) is Code.ALREADY_EXISTS
    assert refusal(current, Change(remove_roots=frozenset({keyid(3)}))) is Code.NOT_FOUND
    everyone = frozenset(current.roots)
    assert refusal(current, Change(remove_roots=everyone)) is Code.VALUE_INVALID
    assert refusal(current, Change(remove_roots=everyone, threshold=1)) is Code.VALUE_INVALID
