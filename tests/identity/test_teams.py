"""Teams: their own roles and limits, their own keys, and what ends with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import sqlite_utils

from lotabotsd.foundation.database import transaction
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.identity.limits_values import ScopeLimits
from lotabotsd.identity.records import IdentityCaps, NewKey
from lotabotsd.identity.store import IdentityStore
from lotabotsd.identity.values import MAX_TEAMS

NONE = IdentityCaps()


class Side:
    organisation_id: str
    member_id: str


class Crew:
    organisation_id: str
    member_id: str
    team_id: str


def refused(code: Code, call: Callable[[], object]) -> LotaBotsError:
    with pytest.raises(LotaBotsError) as caught:
        call()
    assert caught.value.code is code
    return caught.value


def roles(store: IdentityStore) -> list[str]:
    return [key.role for key in store.grants()]


# what a team is


def test_a_team_is_listed_with_its_limits(store: IdentityStore, ours: Side) -> None:
    made = store.teams.create(ours.organisation_id, "scan", limits=ScopeLimits(60, 2, 1_000))
    assert made.team_id.startswith("team_")
    assert store.teams.all_of(ours.organisation_id) == [made]
    assert store.teams.get(made.team_id).limits == ScopeLimits(60, 2, 1_000)
    assert store.teams.members(made.team_id) == []


@pytest.mark.parametrize("twin", ["Scan", "SCAN", "ｓｃａｎ"])
def test_two_teams_of_an_organisation_cannot_look_alike(store: IdentityStore, ours: Side, twin: str) -> None:
    store.teams.create(ours.organisation_id, "Scan")
    refused(Code.ALREADY_EXISTS, lambda: store.teams.create(ours.organisation_id, twin))


def test_a_name_is_free_for_the_neighbour_and_after_the_team_was_removed(
    store: IdentityStore, ours: Side, theirs: Side
) -> None:
    first = store.teams.create(ours.organisation_id, "scan")
    store.teams.create(theirs.organisation_id, "scan")
    store.teams.remove(first.team_id)
    again = store.teams.create(ours.organisation_id, "scan")
    assert store.teams.all_of(ours.organisation_id) == [again]


@pytest.mark.parametrize(
    ("name", "limits"), [("", ScopeLimits()), ("x" * 65, ScopeLimits()), ("t", ScopeLimits(concurrency=-1))]
)
def test_a_team_with_a_bad_value_is_not_made(
    store: IdentityStore, ours: Side, name: str, limits: ScopeLimits
) -> None:
    refused(Code.VALUE_INVALID, lambda: store.teams.create(ours.organisation_id, name, limits=limits))
    assert store.teams.all_of() == []


def test_there_are_not_more_teams_than_the_bound(
    store: IdentityStore, db: sqlite_utils.Database, ours: Side
) -> None:
    with transaction(db) as connection:
        connection.executemany(
            "INSERT INTO teams VALUES (?, ?, ?, ?, 0, 0, 0, 1, NULL)",
            [(f"team_{n}", ours.organisation_id, f"t{n}", f"t{n}") for n in range(MAX_TEAMS)],
        )
    refused(Code.CONFLICT, lambda: store.teams.create(ours.organisation_id, "one too many"))
    store.teams.remove("team_0")
    store.teams.create(ours.organisation_id, "the last")


def test_a_removed_organisation_has_no_teams(store: IdentityStore, crew: Crew) -> None:
    store.remove_organisation(crew.organisation_id)
    assert store.teams.all_of() == []
    refused(Code.NOT_FOUND, lambda: store.teams.get(crew.team_id))
    refused(Code.NOT_FOUND, lambda: store.teams.create(crew.organisation_id, "late"))


# the role and the limits of its keys


def test_a_key_of_a_team_has_the_role_at_the_team_and_no_other(
    store: IdentityStore, crew: Crew, team_key: Callable[..., NewKey]
) -> None:
    record = team_key(crew).record
    assert (record.team_id, record.team_name, record.role) == (crew.team_id, "print room", "developer")
    store.set_role(crew.member_id, "billing")
    assert roles(store) == ["developer"]
    store.teams.join(crew.team_id, crew.member_id, "auditor")
    assert roles(store) == ["auditor"]
    assert store.get_member(crew.member_id).role == "billing"


def test_a_key_without_a_team_has_the_role_in_the_organisation(
    store: IdentityStore, ours: Side, crew: Crew, new_key: Callable[[Side], NewKey]
) -> None:
    new_key(ours)
    store.teams.join(crew.team_id, crew.member_id, "billing")
    assert roles(store) == ["developer"]
    store.set_role(crew.member_id, "auditor")
    assert roles(store) == ["auditor"]


def test_a_member_has_another_role_in_each_team(
    store: IdentityStore, crew: Crew, team_key: Callable[..., NewKey]
) -> None:
    other = replace(crew, team_id=store.teams.create(crew.organisation_id, "scan").team_id)
    store.teams.join(other.team_id, crew.member_id, "auditor")
    keys = {team_key(crew).record.role, team_key(other).record.role}
    assert keys == {"developer", "auditor"}


def test_limits_of_a_team_reach_its_keys_and_no_others(
    store: IdentityStore, ours: Side, crew: Crew, new_key: Callable[[Side], NewKey], team_key
) -> None:
    of_the_team, without = team_key(crew).record, new_key(ours).record
    changed = store.teams.set_limits(crew.team_id, ScopeLimits(rate_per_minute=7))
    assert changed.limits == ScopeLimits(rate_per_minute=7)
    assert store.get_key(of_the_team.key_id).team_limits == ScopeLimits(rate_per_minute=7)
    assert store.get_key(without.key_id).team_limits == ScopeLimits()


def test_a_key_of_a_team_is_only_for_who_is_in_it(
    store: IdentityStore, crew: Crew, team_key: Callable[..., NewKey]
) -> None:
    colleague = store.create_member(crew.organisation_id, "colleague", role="owner", caps=NONE).member_id
    error = refused(Code.CONFLICT, lambda: team_key(crew, colleague))
    assert "team join" in error.hint
    store.teams.join(crew.team_id, colleague, "auditor")
    assert team_key(crew, colleague).record.role == "auditor"


def test_a_rotated_key_stays_in_its_team(
    store: IdentityStore, crew: Crew, team_key: Callable[..., NewKey]
) -> None:
    key = team_key(crew).record
    assert store.rotate_key(key.key_id, 0, caps=NONE).record.team_id == crew.team_id


@pytest.mark.parametrize("role", ["", "root", "Developer"])
def test_a_role_outside_the_table_is_refused(store: IdentityStore, crew: Crew, role: str) -> None:
    refused(Code.VALUE_INVALID, lambda: store.teams.join(crew.team_id, crew.member_id, role))
    assert [member.role for member in store.teams.members(crew.team_id)] == ["developer"]


# what ends


def test_removing_a_team_revokes_its_keys_and_no_others(
    store: IdentityStore, ours: Side, crew: Crew, new_key: Callable[[Side], NewKey], team_key
) -> None:
    before, mine, other = team_key(crew).record, team_key(crew).record, new_key(ours).record
    store.revoke_key(before.key_id)
    assert store.teams.remove(crew.team_id) == [mine.key_id]
    assert {key.key_id: key.revoked for key in store.list_keys()} == {
        before.key_id: True,
        mine.key_id: True,
        other.key_id: False,
    }
    assert store.get_key(mine.key_id).secrets == ()
    assert store.get_member(crew.member_id).role == "developer"


def test_a_removed_team_takes_no_keys_members_or_limits(
    store: IdentityStore, crew: Crew, team_key: Callable[..., NewKey]
) -> None:
    store.teams.remove(crew.team_id)
    for call in (
        lambda: team_key(crew),
        lambda: store.teams.join(crew.team_id, crew.member_id),
        lambda: store.teams.leave(crew.team_id, crew.member_id),
        lambda: store.teams.members(crew.team_id),
        lambda: store.teams.set_limits(crew.team_id, ScopeLimits(1)),
        lambda: store.teams.remove(crew.team_id),
    ):
        refused(Code.NOT_FOUND, call)


def test_who_leaves_a_team_loses_the_keys_of_it_for_ever(
    store: IdentityStore, ours: Side, crew: Crew, new_key: Callable[[Side], NewKey], team_key
) -> None:
    colleague = store.create_member(crew.organisation_id, "colleague", caps=NONE).member_id
    store.teams.join(crew.team_id, colleague)
    mine, theirs, without = team_key(crew).record, team_key(crew, colleague).record, new_key(ours).record
    assert store.teams.leave(crew.team_id, crew.member_id) == [mine.key_id]
    assert [member.member_id for member in store.teams.members(crew.team_id)] == [colleague]
    assert store.get_key(mine.key_id).role == ""
    store.teams.join(crew.team_id, crew.member_id)
    assert {key.key_id: key.revoked for key in store.list_keys()} == {
        mine.key_id: True,
        theirs.key_id: False,
        without.key_id: False,
    }


def test_who_is_not_in_a_team_cannot_leave_it(store: IdentityStore, crew: Crew) -> None:
    colleague = store.create_member(crew.organisation_id, "colleague", caps=NONE).member_id
    refused(Code.NOT_FOUND, lambda: store.teams.leave(crew.team_id, colleague))


def test_a_removed_member_is_in_no_team_and_its_team_keys_are_revoked(
    store: IdentityStore, ours: Side, crew: Crew, new_key: Callable[[Side], NewKey], team_key
) -> None:
    keys = {team_key(crew).record.key_id, new_key(ours).record.key_id}
    assert set(store.remove_member(crew.member_id)) == keys
    assert store.teams.members(crew.team_id) == []
    refused(Code.NOT_FOUND, lambda: store.teams.join(crew.team_id, crew.member_id))
