"""Organisations, members and keys: scoped, capped, rotated, revoked, and never stored in clear."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlite_utils

from lotabotsd.foundation.clock import NANOSECONDS, FixedClock
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.identity.api_key import hash_secret, parse_api_key
from lotabotsd.identity.limits_values import ScopeLimits
from lotabotsd.identity.records import IdentityCaps, KeyRecord, NewKey
from lotabotsd.identity.store import IdentityStore

PEPPER = bytes(range(32))
NONE = IdentityCaps()
DAY = 86_400


class Side:
    organisation_id: str
    member_id: str


def refused(code: Code, call: Callable[[], object]) -> LotaBotsError:
    with pytest.raises(LotaBotsError) as caught:
        call()
    assert caught.value.code is code
    return caught.value


def works(key: KeyRecord, text: str, now_ns: int) -> bool:
    """As the gate judges: one of the hashes, in its time, and the key's own end."""
    parsed = parse_api_key(text)
    assert parsed is not None
    digest = hash_secret(PEPPER, parsed.key_id, parsed.secret)
    alive = {known for known, end in key.secrets if end is None or now_ns < end}
    return not key.revoked and digest in alive and now_ns < key.expires_at_ns


# organisations and members


def test_an_organisation_is_listed_with_its_limits(store: IdentityStore) -> None:
    made = store.create_organisation("Acme", limits=ScopeLimits(60, 2, 1_000), caps=NONE)
    assert made.organisation_id.startswith("org_")
    assert store.list_organisations() == [made]
    assert store.get_organisation(made.organisation_id).limits == ScopeLimits(60, 2, 1_000)


@pytest.mark.parametrize("twin", ["Acme", "ACME", "ａｃｍｅ"])
def test_two_organisations_cannot_look_alike(store: IdentityStore, twin: str) -> None:
    store.create_organisation("Acme", caps=NONE)
    refused(Code.ALREADY_EXISTS, lambda: store.create_organisation(twin, caps=NONE))


def test_the_tier_caps_organisations(store: IdentityStore) -> None:
    first = store.create_organisation("a", caps=IdentityCaps(organisations=1))
    refused(Code.LICENCE_LIMIT, lambda: store.create_organisation("b", caps=IdentityCaps(organisations=1)))
    store.remove_organisation(first.organisation_id)
    store.create_organisation("a", caps=IdentityCaps(organisations=1))


def test_the_tier_caps_members_over_all_organisations(store: IdentityStore, ours: Side, theirs: Side) -> None:
    caps = IdentityCaps(members=3)
    last = store.create_member(ours.organisation_id, "third", caps=caps)
    refused(Code.LICENCE_LIMIT, lambda: store.create_member(theirs.organisation_id, "fourth", caps=caps))
    store.remove_member(last.member_id)
    store.create_member(theirs.organisation_id, "fourth", caps=caps)


def test_limits_of_an_organisation_can_change_and_reach_its_keys(
    store: IdentityStore, ours: Side, new_key: Callable[[Side], NewKey]
) -> None:
    new_key(ours)
    store.set_organisation_limits(ours.organisation_id, ScopeLimits(rate_per_minute=7))
    assert store.grants()[0].organisation_limits == ScopeLimits(rate_per_minute=7)


def test_an_organisation_with_open_keys_is_not_removed(
    store: IdentityStore, ours: Side, new_key: Callable[[Side], NewKey]
) -> None:
    key = new_key(ours).record
    refused(Code.CONFLICT, lambda: store.remove_organisation(ours.organisation_id))
    store.revoke_key(key.key_id)
    store.remove_organisation(ours.organisation_id)
    assert store.list_organisations() == []
    assert store.list_members() == []
    refused(Code.NOT_FOUND, lambda: store.get_organisation(ours.organisation_id))


def test_a_removed_organisation_takes_no_members(store: IdentityStore, ours: Side) -> None:
    store.remove_organisation(ours.organisation_id)
    refused(Code.NOT_FOUND, lambda: store.create_member(ours.organisation_id, "late", caps=NONE))


def test_removing_a_member_revokes_its_keys_and_no_others(
    store: IdentityStore, ours: Side, new_key: Callable[[Side], NewKey]
) -> None:
    colleague = store.create_member(ours.organisation_id, "colleague", caps=NONE)
    mine = new_key(ours).record
    other = store.create_key(
        ours.organisation_id, colleague.member_id, name="c", expires_in_days=1, caps=NONE
    ).record
    assert store.remove_member(ours.member_id) == [mine.key_id]
    assert {key.key_id: key.revoked for key in store.list_keys()} == {mine.key_id: True, other.key_id: False}
    refused(Code.NOT_FOUND, lambda: new_key(ours))


def test_a_members_role_reaches_its_keys(
    store: IdentityStore, ours: Side, new_key: Callable[[Side], NewKey]
) -> None:
    new_key(ours)
    store.set_role(ours.member_id, "auditor")
    assert store.grants()[0].role == "auditor"


@pytest.mark.parametrize(("kind", "role"), [("robot", "developer"), ("user", "root"), ("user", "")])
def test_kinds_and_roles_outside_their_tables_are_refused(
    store: IdentityStore, ours: Side, kind: str, role: str
) -> None:
    refused(Code.VALUE_INVALID, lambda: store.create_member(ours.organisation_id, "x", kind, role, caps=NONE))


# the neighbour's objects


def test_the_neighbours_objects_are_not_found_and_not_changed(
    store: IdentityStore, ours: Side, theirs: Side, new_key: Callable[[Side], NewKey]
) -> None:
    key = new_key(theirs).record
    us = ours.organisation_id
    for call in (
        lambda: store.get_member(theirs.member_id, organisation_id=us),
        lambda: store.set_role(theirs.member_id, "owner", organisation_id=us),
        lambda: store.remove_member(theirs.member_id, organisation_id=us),
        lambda: store.create_key(us, theirs.member_id, name="k", expires_in_days=1, caps=NONE),
        lambda: store.get_key(key.key_id, organisation_id=us),
        lambda: store.rotate_key(key.key_id, 0, organisation_id=us, caps=NONE),
        lambda: store.revoke_key(key.key_id, organisation_id=us),
    ):
        refused(Code.NOT_FOUND, call)
    assert store.get_key(key.key_id) == key
    assert store.get_member(theirs.member_id).role == "developer"


def test_lists_show_one_organisation_or_all(
    store: IdentityStore, ours: Side, theirs: Side, new_key: Callable[[Side], NewKey]
) -> None:
    mine, other = new_key(ours).record, new_key(theirs).record
    assert store.list_keys(ours.organisation_id) == [mine]
    assert {key.key_id for key in store.list_keys()} == {mine.key_id, other.key_id}
    assert [m.member_id for m in store.list_members(theirs.organisation_id)] == [theirs.member_id]
    assert store.list_keys("org_nobody") == store.list_members("org_nobody") == []


def test_the_neighbours_object_and_none_at_all_look_the_same(
    store: IdentityStore, ours: Side, theirs: Side, new_key: Callable[[Side], NewKey]
) -> None:
    key = new_key(theirs).record
    errors = [
        refused(Code.NOT_FOUND, lambda k=key_id: store.get_key(k, organisation_id=ours.organisation_id))
        for key_id in (key.key_id, "000000000000")
    ]
    assert str(errors[0]) == str(errors[1])


def test_the_database_itself_refuses_a_key_across_organisations(
    store: IdentityStore, db: sqlite_utils.Database, ours: Side, theirs: Side
) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        db.conn.execute(
            "INSERT INTO api_keys VALUES ('k', ?, NULL, ?, 'n', 'live', '[]', 0, 0, 0, 1, 0, 1, NULL)",
            (ours.organisation_id, theirs.member_id),
        )


# keys


def test_a_new_key_works_until_it_ends(
    store: IdentityStore, clock: FixedClock, ours: Side, new_key: Callable[[Side], NewKey]
) -> None:
    key = new_key(ours)
    record = store.grants()[0]
    assert record == key.record
    assert record.expires_at_ns == clock.wall_ns() + 30 * DAY * NANOSECONDS
    assert works(record, key.text, record.expires_at_ns - 1)
    assert not works(record, key.text, record.expires_at_ns)


def test_a_key_carries_what_it_was_given(store: IdentityStore, ours: Side) -> None:
    made = store.create_key(
        ours.organisation_id,
        ours.member_id,
        name="camera 3",
        environment="test",
        models=("b", "a", "a"),
        expires_in_days=1,
        limits=ScopeLimits(60, 1, 10),
        caps=NONE,
    )
    assert made.text.startswith(f"lb_test_{made.record.key_id}_")
    assert made.record.models == ("a", "b")
    assert made.record.limits == ScopeLimits(60, 1, 10)
    assert made.record.organisation_name == "Ours"


@pytest.mark.parametrize(
    "values",
    [
        {"expires_in_days": 0},
        {"environment": "prod"},
        {"models": ()},
        {"name": ""},
        {"limits": ScopeLimits(rate_per_minute=-1)},
    ],
    ids=lambda values: next(iter(values)),
)
def test_a_key_with_a_bad_value_is_not_made(
    store: IdentityStore, ours: Side, values: dict[str, object]
) -> None:
    given: dict[str, object] = {"name": "k", "expires_in_days": 1, "caps": NONE, **values}
    refused(
        Code.VALUE_INVALID,
        lambda: store.create_key(ours.organisation_id, ours.member_id, **given),  # type: ignore[arg-type]  # bad on purpose
    )
    assert store.list_keys() == []


def test_neither_secret_nor_text_is_anywhere_in_the_files(
    store: IdentityStore, path: Path, ours: Side, new_key: Callable[[Side], NewKey]
) -> None:
    texts = [new_key(ours).text]
    texts.append(store.rotate_key(store.list_keys()[0].key_id, 60, caps=NONE).text)
    stored = b"".join(file.read_bytes() for file in path.parent.iterdir())
    for text in texts:
        parsed = parse_api_key(text)
        assert parsed is not None
        assert parsed.key_id.encode() in stored
        assert parsed.secret.encode() not in stored


def test_neither_the_text_nor_a_hash_is_printed_or_audited(
    store: IdentityStore, ours: Side, new_key: Callable[[Side], NewKey]
) -> None:
    key = new_key(ours)
    digest = key.record.secrets[0][0]
    shown = repr(key) + str(key.record.to_dict())
    shown += "".join(f"{row.target}{row.before}{row.after}" for row in store.audit.rows())
    assert key.text not in shown
    assert repr(digest) not in shown
    assert digest.hex() not in shown


def test_the_old_secret_works_until_its_grace_ends(
    store: IdentityStore, clock: FixedClock, ours: Side, new_key: Callable[[Side], NewKey]
) -> None:
    old = new_key(ours)
    new = store.rotate_key(old.record.key_id, 3_600, caps=NONE)
    grace_end = clock.wall_ns() + 3_600 * NANOSECONDS
    record = store.get_key(old.record.key_id)
    assert new.record.key_id == old.record.key_id
    assert works(record, old.text, grace_end - 1)
    assert not works(record, old.text, grace_end)
    assert works(record, new.text, grace_end)
    assert record.to_dict()["grace_until_ns"] == grace_end


def test_without_grace_the_old_secret_stops_at_once(
    store: IdentityStore, clock: FixedClock, ours: Side, new_key: Callable[[Side], NewKey]
) -> None:
    old = new_key(ours)
    new = store.rotate_key(old.record.key_id, 0, caps=NONE)
    assert len(new.record.secrets) == 1
    assert not works(new.record, old.text, clock.wall_ns())
    assert works(new.record, new.text, clock.wall_ns())


def test_the_grace_ends_no_later_than_the_old_key_would_have(
    store: IdentityStore, clock: FixedClock, ours: Side, new_key: Callable[[Side], NewKey]
) -> None:
    old = new_key(ours)
    clock.advance(30 * DAY - 10)
    record = store.rotate_key(old.record.key_id, 3_600, caps=NONE).record
    assert record.secrets[1][1] == old.record.expires_at_ns
    assert record.expires_at_ns == clock.wall_ns() + 30 * DAY * NANOSECONDS


def test_rotating_an_expired_key_does_not_bring_its_old_secret_back(
    store: IdentityStore, clock: FixedClock, ours: Side, new_key: Callable[[Side], NewKey]
) -> None:
    old = new_key(ours)
    clock.advance(30 * DAY)
    new = store.rotate_key(old.record.key_id, 3_600, caps=NONE)
    assert not works(new.record, old.text, clock.wall_ns())
    assert works(new.record, new.text, clock.wall_ns())


def test_a_grace_that_runs_is_not_cut_short_by_accident(
    store: IdentityStore, clock: FixedClock, ours: Side, new_key: Callable[[Side], NewKey]
) -> None:
    first = new_key(ours)
    key_id = first.record.key_id
    store.rotate_key(key_id, 3_600, caps=NONE)
    refused(Code.CONFLICT, lambda: store.rotate_key(key_id, 60, caps=NONE))
    assert works(store.get_key(key_id), first.text, clock.wall_ns())
    clock.advance(3_600)
    again = store.rotate_key(key_id, 60, caps=NONE)
    assert len(again.record.secrets) == 2


def test_a_rotation_without_grace_ends_a_running_grace(
    store: IdentityStore, ours: Side, new_key: Callable[[Side], NewKey]
) -> None:
    key_id = new_key(ours).record.key_id
    store.rotate_key(key_id, 3_600, caps=NONE)
    assert len(store.rotate_key(key_id, 0, caps=NONE).record.secrets) == 1


@pytest.mark.parametrize("grace", [-1, 31 * DAY])
def test_a_grace_out_of_range_is_refused(
    store: IdentityStore, ours: Side, new_key: Callable[[Side], NewKey], grace: int
) -> None:
    key_id = new_key(ours).record.key_id
    refused(Code.VALUE_INVALID, lambda: store.rotate_key(key_id, grace, caps=NONE))


def test_the_tier_caps_a_rotated_keys_life(
    store: IdentityStore, clock: FixedClock, ours: Side, new_key: Callable[[Side], NewKey]
) -> None:
    key_id, caps = new_key(ours).record.key_id, IdentityCaps(key_days=7)
    refused(Code.LICENCE_LIMIT, lambda: store.rotate_key(key_id, 0, expires_in_days=8, caps=caps))
    record = store.rotate_key(key_id, 0, caps=caps).record
    assert record.expires_at_ns == clock.wall_ns() + 7 * DAY * NANOSECONDS


def test_a_revoked_key_never_works_again(
    store: IdentityStore, clock: FixedClock, ours: Side, new_key: Callable[[Side], NewKey]
) -> None:
    old = new_key(ours)
    new = store.rotate_key(old.record.key_id, 3_600, caps=NONE)
    record = store.revoke_key(old.record.key_id)
    assert record.revoked
    assert record.secrets == ()
    assert not works(record, old.text, clock.wall_ns())
    assert not works(record, new.text, clock.wall_ns())
    refused(Code.CONFLICT, lambda: store.rotate_key(old.record.key_id, 0, caps=NONE))


def test_revoking_twice_changes_nothing(
    store: IdentityStore, ours: Side, new_key: Callable[[Side], NewKey]
) -> None:
    key_id = new_key(ours).record.key_id
    assert store.revoke_key(key_id) == store.revoke_key(key_id)


def test_what_was_stored_is_there_after_a_restart(
    store: IdentityStore,
    db: sqlite_utils.Database,
    clock: FixedClock,
    ours: Side,
    new_key: Callable[[Side], NewKey],
) -> None:
    record = new_key(ours).record
    assert IdentityStore(db, clock, PEPPER).grants() == [record]
