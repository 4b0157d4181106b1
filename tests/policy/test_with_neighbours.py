"""Real neighbours together: keys of identity, the standing of the licence, policy.db, and the gate's view."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.database import open_database
from lotabotsd.identity.api_key import hash_secret, parse_api_key
from lotabotsd.identity.limits_values import ScopeLimits
from lotabotsd.identity.records import IdentityCaps
from lotabotsd.identity.roles import permissions_of
from lotabotsd.identity.schema import APPLICATION_ID, MIGRATIONS
from lotabotsd.identity.store import IdentityStore
from lotabotsd.licence.standing import judge
from lotabotsd.policy.compile import PolicySource
from lotabotsd.policy.grant import Grant
from lotabotsd.policy.publish import Publisher
from lotabotsd.policy.reader import PolicyReader

PEPPER = bytes(range(32))


def test_a_key_made_rotated_and_revoked_is_what_the_gate_sees(
    tmp_path: Path, publisher: Publisher, reader: PolicyReader, source: Callable[..., PolicySource]
) -> None:
    clock = FixedClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
    db = open_database(tmp_path / "state.db", application_id=APPLICATION_ID, migrations=MIGRATIONS)
    store = IdentityStore(db, clock, PEPPER)
    free = judge(None, clock.wall_ns(), 0, development=True).to_dict()

    def publish() -> None:
        publisher.publish(source(keys=tuple(store.grants()), standing=free), clock.wall_ns())

    def accepted(text: str) -> bool:
        reader.refresh()
        parsed = parse_api_key(text)
        assert parsed is not None
        grant = reader.grant(parsed.key_id)
        offered = hash_secret(PEPPER, parsed.key_id, parsed.secret)
        return grant is not None and offered in [known for known, _ in grant.secrets]

    caps = IdentityCaps()
    organisation = store.create_organisation("Acme", caps=caps)
    member = store.create_member(organisation.organisation_id, "app", "service", caps=caps)
    first = store.create_key(
        organisation.organisation_id, member.member_id, name="k", expires_in_days=30, caps=caps
    )
    publish()
    reader.open()
    assert accepted(first.text)
    assert (reader.standing().state, reader.standing().tier) == ("none", "free")

    second = store.rotate_key(first.record.key_id, 60, caps=caps)
    publish()
    assert accepted(first.text)
    assert accepted(second.text)
    grant = reader.grant(first.record.key_id)
    assert grant is not None
    assert [end for _, end in grant.secrets] == [None, clock.wall_ns() + 60 * 1_000_000_000]
    licence = grant.scopes[0]
    assert (licence.rate_per_minute, licence.burst, licence.quota, licence.quota_hard) == (
        600,
        100,
        100_000,
        True,
    )

    store.revoke_key(first.record.key_id)
    publish()
    assert not accepted(first.text)
    assert not accepted(second.text)


def test_a_teams_place_in_the_limits_outlives_its_last_key(
    tmp_path: Path, publisher: Publisher, source: Callable[..., PolicySource]
) -> None:
    clock = FixedClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
    db = open_database(tmp_path / "state.db", application_id=APPLICATION_ID, migrations=MIGRATIONS)
    store = IdentityStore(db, clock, PEPPER)
    free = judge(None, clock.wall_ns(), 0, development=True).to_dict()
    caps = IdentityCaps()
    owner = store.create_organisation("Acme", caps=caps).organisation_id
    member = store.create_member(owner, "app", caps=caps).member_id
    team = store.teams.create(owner, "scan").team_id
    store.teams.join(team, member)

    def new_key(team_id: str | None) -> str:
        new = store.create_key(owner, member, name="k", team_id=team_id, expires_in_days=1, caps=caps)
        return new.record.key_id

    def place() -> object:
        publisher.publish(source(keys=tuple(store.grants()), standing=free), clock.wall_ns())
        return publisher.places().get(("team", team))

    leaked = new_key(team)
    before = place()
    assert before is not None
    store.revoke_key(leaked)
    assert place() == before
    new_key(None)  # would take the place if it were free
    assert place() == before
    new_key(team)
    assert place() == before
    store.teams.remove(team)
    assert place() is None


def test_a_teams_role_and_limits_are_what_the_gate_sees_until_the_team_is_removed(
    tmp_path: Path, publisher: Publisher, reader: PolicyReader, source: Callable[..., PolicySource]
) -> None:
    clock = FixedClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
    db = open_database(tmp_path / "state.db", application_id=APPLICATION_ID, migrations=MIGRATIONS)
    store = IdentityStore(db, clock, PEPPER)
    free = judge(None, clock.wall_ns(), 0, development=True).to_dict()
    caps = IdentityCaps()
    owner = store.create_organisation("Acme", caps=caps).organisation_id
    member = store.create_member(owner, "app", role="owner", caps=caps).member_id
    team = store.teams.create(owner, "scan", limits=ScopeLimits(quota_per_month=50)).team_id
    store.teams.join(team, member, "auditor")
    keys = [
        store.create_key(owner, member, name="k", team_id=team, expires_in_days=1, caps=caps).record.key_id
        for _ in range(2)
    ]

    def granted() -> list[Grant | None]:
        publisher.publish(source(keys=tuple(store.grants()), standing=free), clock.wall_ns())
        reader.refresh()
        return [reader.grant(key) for key in keys]

    publisher.publish(source(keys=tuple(store.grants()), standing=free), clock.wall_ns())
    reader.open()
    one, two = granted()
    assert one is not None
    assert two is not None
    assert (one.team_id, one.role, one.permissions) == (team, "auditor", permissions_of("auditor"))
    assert [scope.kind for scope in one.scopes] == ["licence", "organisation", "team", "key"]
    assert one.scopes[:3] == two.scopes[:3]  # one slot for both
    assert (one.scopes[2].quota, one.scopes[2].quota_hard) == (50, True)
    store.set_role(member, "billing")
    assert [grant and grant.role for grant in granted()] == ["auditor", "auditor"]
    store.teams.join(team, member, "developer")
    assert [grant and grant.role for grant in granted()] == ["developer", "developer"]
    store.teams.remove(team)
    assert granted() == [None, None]
    assert ("team", team) not in publisher.places()
