"""The audit trail: no change without its row, no edit of a row without being found."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable

import pytest
import sqlite_utils

from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.identity.audit import PAGE, Audit, AuditFault
from lotabotsd.identity.records import Actor, IdentityCaps, NewKey
from lotabotsd.identity.store import IdentityStore

ADMIN = Actor("uid:0", "control.sock")
NONE = IdentityCaps()


def tamper(db: sqlite_utils.Database, *statements: str) -> None:
    """Edit the trail as somebody with the file can: the triggers first."""
    db.conn.executescript(
        "DROP TRIGGER audit_no_update; DROP TRIGGER audit_no_delete;" + ";".join(statements)
    )


def test_an_empty_trail_is_intact(store: IdentityStore) -> None:
    verdict = store.audit.verify()
    assert (verdict.intact, verdict.rows, verdict.head) == (True, 0, bytes(32))


def test_a_change_is_told_with_who_from_where_before_and_after(store: IdentityStore) -> None:
    made = store.create_organisation("Acme", caps=NONE, who=ADMIN)
    store.remove_organisation(made.organisation_id, who=ADMIN)
    first, second = store.audit.rows()
    assert (first.who, first.source, first.action, first.outcome) == (
        "uid:0",
        "control.sock",
        "organisation.create",
        "done",
    )
    assert first.target == first.organisation_id == made.organisation_id
    assert first.before is None
    assert json.loads(str(first.after)) == made.to_dict()
    assert json.loads(str(second.before)) == made.to_dict()


def test_a_refused_attempt_is_told_and_changes_nothing(store: IdentityStore) -> None:
    store.create_organisation("Acme", caps=NONE)
    with pytest.raises(LotaBotsError):
        store.create_organisation("ACME", caps=NONE, who=ADMIN)
    row = store.audit.rows()[-1]
    assert (row.outcome, row.who, row.target) == ("refused", "uid:0", "ACME")
    assert json.loads(str(row.after))["code"] == "already_exists"
    assert len(store.list_organisations()) == 1
    assert store.audit.verify().intact


def test_a_refusal_about_strange_text_is_told_within_bounds(store: IdentityStore) -> None:
    for text in ("x" * 1_000_000, "\ud800" * 300, "a\0b"):
        with pytest.raises(LotaBotsError):
            store.revoke_key(text)
    assert all(len(row.target) <= 200 for row in store.audit.rows())
    assert store.audit.verify().intact


def test_other_rooms_tell_their_changes(store: IdentityStore) -> None:
    store.audit.record(ADMIN, "licence.install", "lic_1", {"tier": "free"}, {"tier": "pro"})
    row = store.audit.rows()[0]
    assert (row.action, row.before, row.after) == ("licence.install", '{"tier":"free"}', '{"tier":"pro"}')


def test_rows_come_in_pages_and_for_one_organisation(
    store: IdentityStore, ours: object, theirs: object
) -> None:
    everything = store.audit.rows()
    assert [row.number for row in everything] == [1, 2, 3, 4]
    assert store.audit.rows(limit=1, after=2) == everything[2:3]
    organisation_id = str(everything[0].organisation_id)
    assert store.audit.rows(organisation_id=organisation_id) == everything[:2]


def test_a_long_trail_is_intact(store: IdentityStore) -> None:
    for number in range(PAGE + 1):
        store.audit.record(ADMIN, "test.row", str(number))
    verdict = store.audit.verify()
    assert (verdict.intact, verdict.rows) == (True, PAGE + 1)
    assert (verdict.rows, verdict.head) == store.audit.head()


@pytest.mark.parametrize("statement", ["UPDATE audit SET who = 'nobody'", "DELETE FROM audit"])
def test_the_database_refuses_to_edit_the_trail(
    store: IdentityStore, db: sqlite_utils.Database, ours: object, statement: str
) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        db.conn.execute(statement)


@pytest.mark.parametrize(
    "edit",
    [
        "at_ns = at_ns + 1",
        "who = 'somebody'",
        "source = ''",
        "organisation_id = NULL",
        "action = 'x'",
        "target = ''",
        "before = 'null'",
        "after = NULL",
        "outcome = 'refused'",
        "hash = zeroblob(32)",
    ],
)
def test_an_edit_of_any_column_is_found(
    store: IdentityStore, db: sqlite_utils.Database, ours: object, theirs: object, edit: str
) -> None:
    tamper(db, f"UPDATE audit SET {edit} WHERE number = 3")  # noqa: S608 - our own list
    verdict = store.audit.verify()
    assert (verdict.fault, verdict.at, verdict.rows) == (AuditFault.ROW_HASH_MISMATCH, 3, 2)


@pytest.mark.parametrize("missing", ["1", "2", "3"])
def test_a_row_cut_out_is_found(
    store: IdentityStore, db: sqlite_utils.Database, ours: object, theirs: object, missing: str
) -> None:
    tamper(db, f"DELETE FROM audit WHERE number = {missing}")  # noqa: S608 - our own list
    verdict = store.audit.verify()
    assert (verdict.fault, verdict.at) == (AuditFault.GAP, int(missing))


def test_a_tail_cut_off_is_found(
    store: IdentityStore, db: sqlite_utils.Database, ours: object, theirs: object
) -> None:
    tamper(db, "DELETE FROM audit WHERE number > 2")
    verdict = store.audit.verify()
    assert (verdict.fault, verdict.at) == (AuditFault.TAIL_TRUNCATED, 3)


def test_a_row_put_in_behind_is_found(store: IdentityStore, db: sqlite_utils.Database, ours: object) -> None:
    tamper(
        db,
        "INSERT INTO audit SELECT 3, at_ns, who, source, organisation_id, action, target, before, after,"
        " outcome, hash FROM audit WHERE number = 2",
    )
    assert store.audit.verify().fault is AuditFault.ROW_HASH_MISMATCH


def test_a_head_set_back_is_found(store: IdentityStore, db: sqlite_utils.Database, ours: object) -> None:
    tamper(db, "UPDATE audit_head SET number = 1, hash = (SELECT hash FROM audit WHERE number = 1)")
    assert store.audit.verify().fault is AuditFault.HEAD_MISMATCH


def test_two_rows_swapped_are_found(store: IdentityStore, db: sqlite_utils.Database, ours: object) -> None:
    tamper(
        db,
        "UPDATE audit SET number = 99 WHERE number = 1",
        "UPDATE audit SET number = 1 WHERE number = 2",
        "UPDATE audit SET number = 2 WHERE number = 99",
    )
    assert store.audit.verify().fault is AuditFault.ROW_HASH_MISMATCH


def test_without_its_row_a_change_does_not_happen(
    store: IdentityStore, db: sqlite_utils.Database, ours: object
) -> None:
    db.conn.execute(
        "CREATE TRIGGER no_more BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no audit today'); END"
    )
    with pytest.raises(sqlite3.IntegrityError):
        store.create_organisation("Acme", caps=NONE)
    assert [o.name for o in store.list_organisations()] == ["Ours"]


def test_on_a_full_disk_nothing_changes_and_later_it_works_again(
    store: IdentityStore, db: sqlite_utils.Database, ours: object
) -> None:
    pages = db.conn.execute("PRAGMA page_count").fetchone()[0]
    db.conn.execute(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        for number in range(100):
            store.create_organisation(f"{number}" + "x" * 60, caps=NONE)

    with pytest.raises(LotaBotsError) as caught:
        fill()
    assert caught.value.code is Code.DISK_FULL
    before = store.list_organisations()
    db.conn.execute("PRAGMA max_page_count = 100000")
    made = store.create_organisation("Later", caps=NONE)
    assert set(store.list_organisations()) == {*before, made}
    assert store.audit.verify().intact
    assert store.audit.head()[0] == 1 + 1 + len(before)


def test_a_trail_goes_on_after_a_restart(
    db: sqlite_utils.Database, store: IdentityStore, clock: FixedClock, ours: object
) -> None:
    Audit(db, clock).record(ADMIN, "test.row", "x")
    verdict = Audit(db, clock).verify()
    assert (verdict.intact, verdict.rows) == (True, 3)


def test_keys_are_audited_under_their_organisation(
    store: IdentityStore, ours: object, new_key: Callable[[object], NewKey]
) -> None:
    key = new_key(ours).record
    store.rotate_key(key.key_id, 0, caps=NONE, who=ADMIN)
    store.revoke_key(key.key_id, who=ADMIN)
    rows = store.audit.rows()[-3:]
    assert [row.action for row in rows] == ["key.create", "key.rotate", "key.revoke"]
    assert {row.organisation_id for row in rows} == {key.organisation_id}
    assert {row.target for row in rows} == {key.key_id}


def test_threads_that_change_things_at_once_make_one_chain(store: IdentityStore) -> None:
    def work(name: str) -> None:
        for number in range(10):
            store.create_organisation(f"{name} {number}", caps=NONE)
            store.list_organisations()

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verdict = store.audit.verify()
    assert (verdict.intact, verdict.rows) == (True, 40)
    assert len(store.list_organisations()) == 40
