"""Teams are never a neighbour's, and every change and refused attempt is in the audit trail."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace

import pytest
import sqlite_utils

from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.identity.limits_values import ScopeLimits
from lotabotsd.identity.records import Actor, NewKey
from lotabotsd.identity.store import IdentityStore

ANNA = Actor("uid:1000 (anna)", "control.sock")


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


# the neighbour's objects


def test_the_neighbours_teams_are_not_found_and_not_changed(
    store: IdentityStore, crew: Crew, theirs: Side, team_key: Callable[..., NewKey]
) -> None:
    key = team_key(crew).record
    them = theirs.organisation_id
    for call in (
        lambda: store.teams.get(crew.team_id, organisation_id=them),
        lambda: store.teams.members(crew.team_id, organisation_id=them),
        lambda: store.teams.set_limits(crew.team_id, ScopeLimits(1), organisation_id=them),
        lambda: store.teams.remove(crew.team_id, organisation_id=them),
        lambda: store.teams.join(crew.team_id, theirs.member_id, organisation_id=them),
        lambda: store.teams.join(crew.team_id, theirs.member_id, organisation_id=crew.organisation_id),
        lambda: store.teams.join(crew.team_id, theirs.member_id),
        lambda: store.teams.leave(crew.team_id, crew.member_id, organisation_id=them),
        lambda: team_key(replace(crew, organisation_id=them, member_id=theirs.member_id)),
    ):
        refused(Code.NOT_FOUND, call)
    assert store.get_key(key.key_id) == key
    assert [member.member_id for member in store.teams.members(crew.team_id)] == [crew.member_id]
    assert store.teams.all_of(them) == []


def test_the_neighbours_team_and_none_at_all_look_the_same(
    store: IdentityStore, crew: Crew, theirs: Side
) -> None:
    errors = [
        refused(Code.NOT_FOUND, lambda t=team: store.teams.get(t, organisation_id=theirs.organisation_id))
        for team in (crew.team_id, "team_none", "\ud800")
    ]
    assert len({str(error) for error in errors}) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO role_bindings VALUES (:them, :member, :team, 'owner')",
        "INSERT INTO api_keys VALUES ('k', :them, :team, :member, 'n', 'live', '[]', 0, 0, 0, 1, 0, 1, NULL)",
    ],
    ids=["binding", "key"],
)
def test_the_database_itself_refuses_a_team_across_organisations(
    db: sqlite_utils.Database, crew: Crew, theirs: Side, statement: str
) -> None:
    values = {"them": theirs.organisation_id, "member": theirs.member_id, "team": crew.team_id}
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        db.conn.execute(statement, values)


# the audit trail


def test_every_change_of_a_team_leaves_its_row_with_who_before_and_after(
    store: IdentityStore, ours: Side
) -> None:
    team = store.teams.create(ours.organisation_id, "scan", who=ANNA).team_id
    store.teams.set_limits(team, ScopeLimits(7), who=ANNA)
    store.teams.join(team, ours.member_id, "developer", who=ANNA)
    store.teams.join(team, ours.member_id, "auditor", who=ANNA)
    store.teams.leave(team, ours.member_id, who=ANNA)
    store.teams.remove(team, who=ANNA)
    rows = [row for row in store.audit.rows() if row.action.startswith("team.")]
    both = f"{team}/{ours.member_id}"
    assert [(row.action, row.target, row.outcome) for row in rows] == [
        ("team.create", team, "done"),
        ("team.limits", team, "done"),
        ("team.join", both, "done"),
        ("team.join", both, "done"),
        ("team.leave", both, "done"),
        ("team.remove", team, "done"),
    ]
    assert {(row.who, row.organisation_id) for row in rows} == {(ANNA.who, ours.organisation_id)}
    told = [(json.loads(row.before or "{}"), json.loads(row.after or "{}")) for row in rows]
    assert [told[1][0]["limits"]["rate_per_minute"], told[1][1]["limits"]["rate_per_minute"]] == [0, 7]
    assert told[2][0] == {}
    assert [told[3][0]["role"], told[3][1]["role"]] == ["developer", "auditor"]
    assert told[5][0]["name"] == "scan"
    assert told[5][1] == {"revoked_keys": []}
    assert store.audit.verify().intact


def test_what_is_refused_leaves_a_row_and_changes_nothing(
    store: IdentityStore, crew: Crew, theirs: Side, team_key: Callable[..., NewKey]
) -> None:
    them = theirs.organisation_id
    before = store.audit.head()[0]
    attempts = (
        ("team.create", "PRINT ROOM", lambda: store.teams.create(crew.organisation_id, "PRINT ROOM")),
        ("team.remove", crew.team_id, lambda: store.teams.remove(crew.team_id, organisation_id=them)),
        (
            "team.join",
            f"{crew.team_id}/{theirs.member_id}",
            lambda: store.teams.join(crew.team_id, theirs.member_id),
        ),
        ("team.leave", f"{crew.team_id}/nobody", lambda: store.teams.leave(crew.team_id, "nobody")),
        (
            "team.limits",
            crew.team_id,
            lambda: store.teams.set_limits(crew.team_id, ScopeLimits(concurrency=-1)),
        ),
        ("key.create", "k", lambda: team_key(crew, theirs.member_id)),
    )
    for _, _, attempt in attempts:
        with pytest.raises(LotaBotsError):
            attempt()
    rows = store.audit.rows(after=before)
    assert [(row.action, row.target, row.outcome) for row in rows] == [
        (action, target, "refused") for action, target, _ in attempts
    ]
    assert [team.limits for team in store.teams.all_of()] == [ScopeLimits()]
    assert store.list_keys() == []


def test_a_team_that_cannot_be_audited_is_not_removed(
    store: IdentityStore, db: sqlite_utils.Database, crew: Crew, team_key: Callable[..., NewKey]
) -> None:
    key = team_key(crew).record
    db.conn.execute(
        "CREATE TRIGGER no_more BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no audit today'); END"
    )
    with pytest.raises(sqlite3.IntegrityError):
        store.teams.remove(crew.team_id)
    assert store.teams.get(crew.team_id).name == "print room"
    assert not store.get_key(key.key_id).revoked


def test_teams_are_there_after_a_restart(
    store: IdentityStore,
    db: sqlite_utils.Database,
    clock: FixedClock,
    crew: Crew,
    team_key: Callable[..., NewKey],
) -> None:
    record = team_key(crew).record
    again = IdentityStore(db, clock, bytes(range(32)))
    assert again.grants() == [record]
    assert again.teams.all_of() == store.teams.all_of()
    assert again.teams.members(crew.team_id) == store.teams.members(crew.team_id)
