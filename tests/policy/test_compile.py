"""Compiling is pure: who gets a grant, which scopes it has, and that slots stay where they are."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.identity.limits_values import ScopeLimits
from lotabotsd.identity.records import KeyRecord
from lotabotsd.identity.roles import permissions_of
from lotabotsd.limits.assign import tag_of
from lotabotsd.models.facts import ModelFacts
from lotabotsd.policy.compile import TABLES, CompiledPolicy, PolicySource, compile_policy

MakeKey = Callable[..., KeyRecord]
MakeSource = Callable[..., PolicySource]


def scope(policy: CompiledPolicy, kind: str, identifier: str) -> dict[str, Any]:
    names = ("kind", "id", "slot", "tag", "rate", "burst", "concurrency", "quota", "hard")
    rows = [dict(zip(names, row, strict=True)) for row in policy.tables["scopes"]]
    (found,) = [row for row in rows if (row["kind"], row["id"]) == (kind, identifier)]
    return found


def test_a_grants_row_is_frozen(source: MakeSource, key: MakeKey) -> None:
    policy = compile_policy(source(key(1, role="auditor", models=("a", "b"))), {}, 64)
    assert policy.tables["grants"] == (
        (
            "key000000001",
            "org_1",
            "Acme",
            None,
            "mem_1",
            "auditor",
            "live",
            '["attest","audit_read","keys_read","licence_read","members_read","models_read",'
            '"organisation_read","receipts_read","reports_read","runtime_read","usage_read"]',
            '["a","b"]',
            1_774_958_400_000_000_000,
            2,
        ),
    )
    assert policy.tables["grant_secrets"] == (("key000000001", 0, (1).to_bytes(32, "big"), None),)


def test_every_table_is_filled_and_no_other(source: MakeSource) -> None:
    assert set(compile_policy(source(), {}, 64).tables) == set(TABLES)


def test_the_licence_has_slot_0_and_its_own_limits(source: MakeSource) -> None:
    found = scope(compile_policy(source(), {}, 64), "licence", "appliance")
    assert (found["slot"], found["rate"], found["burst"]) == (0, 60_000, 10_000)
    assert (found["quota"], found["hard"]) == (5_000_000, 0)


@pytest.mark.parametrize(
    ("rate", "given_burst", "burst"), [(0, 0, 0), (0, 7, 0), (1, 0, 5), (30, 0, 5), (36, 0, 6), (600, 0, 100)]
)
def test_the_licences_burst_is_ten_seconds_and_at_least_five(
    source: MakeSource, rate: int, given_burst: int, burst: int
) -> None:
    standing = {**source().standing, "requests_per_minute": rate, "burst": given_burst}
    policy = compile_policy(source(standing=standing), {}, 64)
    assert scope(policy, "licence", "appliance")["burst"] == burst


def test_limits_of_organisation_team_and_key_are_hard(source: MakeSource, key: MakeKey) -> None:
    record = key(1, team_id="team_1", team_limits=ScopeLimits(concurrency=3))
    policy = compile_policy(source(record), {}, 64)
    organisation = scope(policy, "organisation", "org_1")
    assert (organisation["rate"], organisation["burst"], organisation["hard"]) == (6, 5, 1)
    assert scope(policy, "team", "team_1")["concurrency"] == 3
    mine = scope(policy, "key", "key000000001")
    assert (mine["rate"], mine["burst"], mine["concurrency"], mine["quota"]) == (60, 10, 2, 1_000)


def test_two_keys_of_an_organisation_share_its_scope(source: MakeSource, key: MakeKey) -> None:
    policy = compile_policy(source(key(1), key(2)), {}, 64)
    assert [row[:2] for row in policy.tables["scopes"]] == [
        ("key", "key000000001"),
        ("key", "key000000002"),
        ("licence", "appliance"),
        ("organisation", "org_1"),
    ]


def test_a_key_without_limits_has_a_scope_that_counts(source: MakeSource, key: MakeKey) -> None:
    policy = compile_policy(source(key(1, limits=ScopeLimits())), {}, 64)
    mine = scope(policy, "key", "key000000001")
    assert (mine["rate"], mine["burst"], mine["concurrency"], mine["quota"]) == (0, 0, 0, 0)


def test_only_a_live_model_with_limits_has_a_scope(
    source: MakeSource, model: Callable[..., ModelFacts]
) -> None:
    policy = compile_policy(
        source(
            models=(model("a"), model("b"), model("c")),
            model_limits={
                "a": ScopeLimits(concurrency=4),
                "b": ScopeLimits(),
                "gone": ScopeLimits(concurrency=1),
            },
        ),
        {},
        64,
    )
    assert [row[1] for row in policy.tables["scopes"] if row[0] == "model"] == ["a"]


def test_a_revoked_key_is_left_out_and_an_expired_one_stays(source: MakeSource, key: MakeKey) -> None:
    policy = compile_policy(source(key(1, revoked=True), key(2, expires_at_ns=1), key(3, secrets=())), {}, 64)
    assert [row[0] for row in policy.tables["grants"]] == ["key000000002"]
    assert [row[0] for row in policy.tables["grant_secrets"]] == ["key000000002"]
    assert [row[1] for row in policy.tables["scopes"] if row[0] == "key"] == ["key000000002"]


def test_organisation_and_team_keep_their_scopes_until_they_are_removed(
    source: MakeSource, key: MakeKey
) -> None:
    revoked = {"revoked": True, "secrets": (), "team_id": "team_1", "team_limits": ScopeLimits(7)}

    def scopes(**changes: bool) -> list[object]:
        policy = compile_policy(source(key(1, **revoked, **changes)), {}, 64)
        return [row[0] for row in policy.tables["scopes"]]

    assert scopes() == ["licence", "organisation", "team"]
    assert scopes(team_removed=True) == ["licence", "organisation"]
    assert scopes(team_removed=True, organisation_removed=True) == ["licence"]


@pytest.mark.parametrize("role", ["owner", "developer", "auditor", "", "root"])
def test_permissions_come_from_the_table_of_roles(source: MakeSource, key: MakeKey, role: str) -> None:
    (row,) = compile_policy(source(key(1, role=role)), {}, 64).tables["grants"]
    assert set(json.loads(str(row[7]))) == permissions_of(role)


def test_a_tag_names_the_owner_of_the_slot(source: MakeSource) -> None:
    found = scope(compile_policy(source(), {}, 64), "key", "key000000001")
    assert int.from_bytes(found["tag"], "big") == tag_of("key:key000000001")


def test_more_scopes_than_slots_are_refused_with_the_way_out(source: MakeSource, key: MakeKey) -> None:
    compile_policy(source(key(1), key(2)), {}, 4)
    with pytest.raises(LotaBotsError) as caught:
        compile_policy(source(key(1), key(2)), {}, 3)
    assert caught.value.code is Code.CONFLICT
    assert "limits.slots" in caught.value.hint


def test_a_standing_of_another_shape_is_refused(source: MakeSource) -> None:
    with pytest.raises(KeyError):
        compile_policy(source(standing={"state": "valid"}), {}, 64)


def test_the_order_of_the_keys_does_not_matter(source: MakeSource, key: MakeKey) -> None:
    assignment = {"key:key000000001": 5, "key:key000000002": 6, "organisation:org_1": 7}
    forth = compile_policy(source(key(1), key(2)), assignment, 64)
    back = compile_policy(source(key(2), key(1)), assignment, 64)
    assert forth == back
    assert forth.content_hash == back.content_hash


@pytest.mark.parametrize(
    "change",
    [
        {"jwks": {"keys": []}},
        {"models": ()},
        {"model_limits": {"resnet": ScopeLimits(concurrency=1)}},
        {"keys": ()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_difference_changes_the_content_hash(source: MakeSource, change: dict[str, Any]) -> None:
    changed = dataclasses.replace(source(), **change)
    here, there = compile_policy(source(), {}, 64), compile_policy(changed, {}, 64)
    assert here.content_hash != there.content_hash


@given(st.lists(st.sets(st.integers(1, 20), max_size=12), min_size=1, max_size=6))
def test_a_scope_keeps_its_slot_for_as_long_as_it_is_there(
    source: MakeSource, key: MakeKey, rounds: list[set[int]]
) -> None:
    known: dict[str, int] = {}
    for numbers in rounds:
        policy = compile_policy(source(keys=tuple(key(number) for number in sorted(numbers))), known, 64)
        now = {f"{row[0]}:{row[1]}": int(str(row[2])) for row in policy.tables["scopes"]}
        assert len(set(now.values())) == len(now)
        assert all(now[name] == slot for name, slot in known.items() if name in now)
        known = now
