"""A store on a fresh state.db, with two organisations that are neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlite_utils

from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.database import open_database
from lotabotsd.identity.records import IdentityCaps, NewKey
from lotabotsd.identity.schema import APPLICATION_ID, MIGRATIONS
from lotabotsd.identity.store import IdentityStore

PEPPER = bytes(range(32))


@dataclass
class Side:
    """One organisation with a member."""

    organisation_id: str
    member_id: str


@dataclass(frozen=True)
class Crew:
    """A team of ours, its one member in it."""

    organisation_id: str
    member_id: str
    team_id: str


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 3, 1, 12, tzinfo=UTC))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def db(path: Path) -> sqlite_utils.Database:
    return open_database(path, application_id=APPLICATION_ID, migrations=MIGRATIONS)


@pytest.fixture
def store(db: sqlite_utils.Database, clock: FixedClock) -> IdentityStore:
    return IdentityStore(db, clock, PEPPER)


def _side(store: IdentityStore, name: str) -> Side:
    organisation = store.create_organisation(name, caps=IdentityCaps())
    member = store.create_member(organisation.organisation_id, "app", "service", caps=IdentityCaps())
    return Side(organisation.organisation_id, member.member_id)


@pytest.fixture
def ours(store: IdentityStore) -> Side:
    return _side(store, "Ours")


@pytest.fixture
def theirs(store: IdentityStore) -> Side:
    return _side(store, "Theirs")


@pytest.fixture
def new_key(store: IdentityStore) -> Callable[[Side], NewKey]:
    def make(side: Side) -> NewKey:
        return store.create_key(
            side.organisation_id, side.member_id, name="k", expires_in_days=30, caps=IdentityCaps()
        )

    return make


@pytest.fixture
def crew(store: IdentityStore, ours: Side) -> Crew:
    team = store.teams.create(ours.organisation_id, "print room").team_id
    store.teams.join(team, ours.member_id)
    return Crew(ours.organisation_id, ours.member_id, team)


@pytest.fixture
def team_key(store: IdentityStore) -> Callable[..., NewKey]:
    """`team_key(crew)`: of its member, or of another one with a second argument."""

    def make(crew: Crew, member_id: str = "") -> NewKey:
        return store.create_key(
            crew.organisation_id,
            member_id or crew.member_id,
            name="k",
            team_id=crew.team_id,
            expires_in_days=30,
            caps=IdentityCaps(),
        )

    return make
