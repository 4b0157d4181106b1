"""Slots stay with their scopes."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.limits.assign import LICENCE, assign_slots, scope_id, tag_of

names = st.lists(st.sampled_from([f"key:{n}" for n in range(12)]), max_size=9)


def test_the_licence_has_slot_0_and_new_scopes_follow_in_order() -> None:
    assert assign_slots({}, ["organisation:o", "key:k"], 4) == {LICENCE: 0, "organisation:o": 1, "key:k": 2}
    assert assign_slots({}, [], 1) == {LICENCE: 0}


def test_a_slot_just_given_up_is_the_last_to_be_given_away() -> None:
    existing = {LICENCE: 0, "key:a": 1, "key:b": 2}
    assert assign_slots(existing, ["key:b", "key:c"], 4) == {LICENCE: 0, "key:b": 2, "key:c": 3}
    assert assign_slots(existing, ["key:b", "key:c", "key:d"], 4)["key:d"] == 1


@given(before=names, after=names)
def test_assignments_are_stable_distinct_and_within_the_table(before: list[str], after: list[str]) -> None:
    first = assign_slots({}, before, 10)
    second = assign_slots(first, after, 10)
    assert set(second) == {LICENCE, *after}
    assert sorted(set(second.values())) == sorted(second.values())
    assert all(0 <= slot < 10 for slot in second.values())
    assert all(second[name] == first[name] for name in after if name in first)
    assert assign_slots(second, after, 10) == second


def test_unusable_old_slots_are_replaced() -> None:
    existing = {"key:a": 0, "key:b": 9, "key:c": 2, "key:d": 2, "key:e": -1}
    assert assign_slots(existing, ["key:a", "key:b", "key:c", "key:d", "key:e"], 6) == {
        LICENCE: 0,
        "key:a": 1,
        "key:b": 3,
        "key:c": 2,
        "key:d": 4,
        "key:e": 5,
    }


def test_one_scope_too_many_names_the_key_to_raise() -> None:
    assert len(assign_slots({}, ["key:a", "key:b"], 3)) == 3
    with pytest.raises(LotaBotsError) as caught:
        assign_slots({}, ["key:a", "key:b", "key:c"], 3)
    assert caught.value.code is Code.CONFLICT
    assert "limits.slots" in caught.value.hint


def test_a_tag_is_the_beginning_of_a_hash() -> None:
    assert scope_id("key", "a") == "key:a"
    assert tag_of("key:a") == int(hashlib.sha256(b"key:a").hexdigest()[:16], 16)
    assert 0 < tag_of(LICENCE) < 1 << 64
