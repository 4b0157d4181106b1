"""The gate's view: one generation at a time, bounded memory, and errors that are told apart."""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.identity.limits_values import ScopeLimits
from lotabotsd.identity.records import KeyRecord
from lotabotsd.limits.scope import Scope
from lotabotsd.models.facts import ModelFacts
from lotabotsd.policy.compile import PolicySource
from lotabotsd.policy.grant import InstanceFacts
from lotabotsd.policy.publish import Publisher
from lotabotsd.policy.reader import UNKNOWN_CACHED, PolicyReader

MakeKey = Callable[..., KeyRecord]
MakeSource = Callable[..., PolicySource]
SECOND = 1_000_000_000
NOW = 1_772_366_400 * SECOND


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(LotaBotsError) as caught:
        call()
    return caught.value.code


# what was published is what is read


def test_a_grant_is_read_as_it_was_published(
    publisher: Publisher, reader: PolicyReader, source: MakeSource, key: MakeKey
) -> None:
    record = key(1, secrets=((b"n" * 32, None), (b"o" * 32, NOW + 5)), team_id="team_1")
    publisher.publish(source(record), NOW)
    reader.open()
    grant = reader.grant("key000000001")
    assert grant is not None
    assert (grant.key_id, grant.organisation_id, grant.team_id) == ("key000000001", "org_1", "team_1")
    assert grant.secrets == ((b"n" * 32, None), (b"o" * 32, NOW + 5))
    assert grant.permissions >= {"infer", "predict", "attest"}
    assert grant.models == ("*",)
    assert grant.expires_at_ns == record.expires_at_ns
    assert grant.priority_band == 2
    places = publisher.places()
    assert [scope.kind for scope in grant.scopes] == ["licence", "organisation", "team", "key"]
    assert [(scope.slot, scope.tag) for scope in grant.scopes] == [
        (places[name].slot, places[name].tag)
        for name in (
            ("licence", "appliance"),
            ("organisation", "org_1"),
            ("team", "team_1"),
            ("key", "key000000001"),
        )
    ]
    licence, _, _, mine = grant.scopes
    assert licence == Scope("licence", 0, licence.tag, 60_000, 10_000, 0, 5_000_000, False)
    assert mine == Scope("key", mine.slot, mine.tag, 60, 10, 2, 1_000, True)


def test_the_hashes_are_not_printed(
    publisher: Publisher, reader: PolicyReader, source: MakeSource, key: MakeKey
) -> None:
    publisher.publish(source(key(1, secrets=((b"n" * 32, None),))), NOW)
    reader.open()
    assert "nnnn" not in repr(reader.grant("key000000001"))


def test_the_facts_are_read_as_they_were_published(
    publisher: Publisher, reader: PolicyReader, source: MakeSource, model: Callable[..., ModelFacts]
) -> None:
    models = (model("b"), model("a", ready=False))
    publisher.publish(source(models=models, model_limits={"b": ScopeLimits(concurrency=4)}), NOW)
    reader.open()
    assert reader.models() == (models[1], models[0])
    assert reader.model("a") == models[1]
    assert reader.model("c") is None
    limited = reader.model_scope("b")
    assert limited is not None
    assert (limited.kind, limited.concurrency) == ("model", 4)
    assert reader.model_scope("a") is None
    assert reader.jwks() == b'{"keys":[{"kid":"k1","kty":"OKP"}]}'
    assert reader.token_hash() == "ff00"
    assert reader.instance().appliance_id == "apl_1"
    assert reader.instance().caps == {"in_flight": 16}
    assert (reader.instance().image, reader.instance().gpus) == ("", ())
    standing = reader.standing()
    assert (standing.state, standing.tier, standing.customer) == ("valid", "pro", "Acme")
    assert standing.features == {"oidc", "audit_export"}
    assert standing.lease_until_ns == NOW + 3_600 * SECOND


def test_another_image_is_another_generation_and_a_daemon_of_before_named_none(
    publisher: Publisher, reader: PolicyReader, source: MakeSource
) -> None:
    before = publisher.publish(source(), NOW).generation
    facts = InstanceFacts("apl_1", "0.1.0", "", {}, f"sha256:{'ab' * 32}", ("GPU-1", "GPU-2"))
    assert publisher.publish(source(instance=facts), NOW).generation == before + 1
    reader.open()
    assert reader.instance() == facts
    old = {"appliance_id": "apl_1", "release": "0.1.0", "ueid": "", "caps": {}}
    assert InstanceFacts.from_dict(old) == InstanceFacts("apl_1", "0.1.0")


def test_an_unknown_key_has_no_grant(publisher: Publisher, reader: PolicyReader, source: MakeSource) -> None:
    publisher.publish(source(), NOW)
    reader.open()
    for key_id in ("key000000002", "", "KEY000000001", "' OR 1=1 --", "x" * 100_000):
        assert reader.grant(key_id) is None


# generations


def test_a_revoked_key_is_gone_after_the_next_look(
    publisher: Publisher, reader: PolicyReader, source: MakeSource, key: MakeKey
) -> None:
    publisher.publish(source(key(1), key(2)), NOW)
    reader.open()
    assert reader.grant("key000000001") is not None
    published = publisher.publish(source(key(1, revoked=True), key(2)), NOW)
    assert reader.refresh() is True
    assert reader.generation() == published.generation
    assert reader.grant("key000000001") is None
    assert reader.grant("key000000002") is not None


def test_a_new_key_that_was_unknown_before_is_found(
    publisher: Publisher, reader: PolicyReader, source: MakeSource, key: MakeKey
) -> None:
    publisher.publish(source(key(1)), NOW)
    reader.open()
    assert reader.grant("key000000002") is None
    publisher.publish(source(key(1), key(2)), NOW)
    reader.refresh()
    assert reader.grant("key000000002") is not None


def test_a_first_look_at_a_key_takes_over_the_whole_new_generation(
    publisher: Publisher, reader: PolicyReader, source: MakeSource, key: MakeKey
) -> None:
    publisher.publish(source(key(1, role="owner")), NOW)
    reader.open()
    reader.grant("key000000001")
    published = publisher.publish(source(key(1, role="auditor"), key(2)), NOW)
    assert reader.grant("key000000002") is not None
    assert reader.generation() == published.generation
    first = reader.grant("key000000001")
    assert first is not None
    assert first.role == "auditor"


def test_an_open_transaction_of_the_writer_is_not_seen(
    publisher: Publisher, reader: PolicyReader, source: MakeSource
) -> None:
    publisher.publish(source(), NOW)
    reader.open()
    writer = publisher._db.conn
    writer.execute("BEGIN IMMEDIATE")
    for table in ("grant_secrets", "grants", "scopes", "facts"):
        writer.execute(f"DELETE FROM {table}")  # noqa: S608 - our own list
    writer.execute("UPDATE meta SET generation = generation + 1")
    assert reader.refresh() is False
    assert reader.grant("key000000001") is not None
    writer.execute("ROLLBACK")
    assert reader.refresh() is False


def test_while_the_writer_publishes_every_answer_is_of_one_generation(
    path: Path, publisher: Publisher, source: MakeSource, key: MakeKey
) -> None:
    def named(number: int) -> PolicySource:
        keys = [key(n, organisation_name=f"{number}") for n in (1, 2)]
        made = source(*keys)
        return dataclasses.replace(made, standing={**made.standing, "customer": f"{number}"})

    first = publisher.publish(named(0), NOW).generation
    rounds = 40
    writer = threading.Thread(target=lambda: [publisher.publish(named(n), NOW) for n in range(1, rounds)])
    reader = PolicyReader(path)
    reader.open()
    writer.start()
    compared = 0
    while reader.generation() < first + rounds - 1:
        reader.refresh()
        before, customer = reader.generation(), reader.standing().customer
        one, two = reader.grant("key000000001"), reader.grant("key000000002")
        assert one is not None
        assert two is not None
        if reader.generation() == before:
            compared += 1
            assert one.organisation_name == two.organisation_name == customer == f"{before - first}"
    writer.join()
    reader.close()
    assert compared


def test_two_readers_see_the_same(path: Path, publisher: Publisher, source: MakeSource, key: MakeKey) -> None:
    publisher.publish(source(), NOW)
    readers = [PolicyReader(path), PolicyReader(path)]
    for reader in readers:
        reader.open()
    published = publisher.publish(source(key(2)), NOW)
    for reader in readers:
        reader.refresh()
        assert reader.generation() == published.generation
        assert reader.grant("key000000001") is None
        reader.close()


# memory


def test_the_cache_of_grants_is_bounded_and_keeps_what_is_used(
    publisher: Publisher, reader: PolicyReader, source: MakeSource, key: MakeKey
) -> None:
    publisher.publish(source(*(key(number) for number in range(30))), NOW)
    reader.open()
    used = reader.grant("key000000000")
    for number in range(1, 30):
        assert reader.grant(f"key{number:09}") is not None
        assert reader.grant("key000000000") is used
    assert len(reader._grants) == 8


def test_guessed_key_ids_neither_fill_memory_nor_push_grants_out(
    publisher: Publisher, reader: PolicyReader, source: MakeSource
) -> None:
    publisher.publish(source(), NOW)
    reader.open()
    known = reader.grant("key000000001")
    for number in range(UNKNOWN_CACHED + 50):
        assert reader.grant(f"guess{number:07}") is None
    assert len(reader._unknown) == UNKNOWN_CACHED
    assert reader.grant("key000000001") is known


def test_a_known_key_is_answered_without_the_file(
    publisher: Publisher, reader: PolicyReader, source: MakeSource
) -> None:
    publisher.publish(source(), NOW)
    reader.open()
    known = reader.grant("key000000001")
    reader.close()
    assert reader.grant("key000000001") is known


# files that cannot be read


def test_before_it_is_open_it_answers_nothing(reader: PolicyReader) -> None:
    assert reader.generation() == 0
    assert reader.models() == ()
    for call in (reader.standing, reader.instance, reader.refresh, lambda: reader.grant("key000000001")):
        assert code_of(call) is Code.FILE_UNREADABLE


def test_a_missing_file_is_not_there_yet(reader: PolicyReader) -> None:
    assert code_of(reader.open) is Code.FILE_UNREADABLE


def test_a_file_that_is_being_made_is_not_there_yet(reader: PolicyReader, path: Path) -> None:
    path.touch()
    assert code_of(reader.open) is Code.FILE_UNREADABLE


def test_a_file_without_a_publication_is_not_there_yet(publisher: Publisher, reader: PolicyReader) -> None:
    assert code_of(reader.open) is Code.FILE_UNREADABLE


def test_the_first_publication_opens_it(
    publisher: Publisher, reader: PolicyReader, source: MakeSource
) -> None:
    assert code_of(reader.open) is Code.FILE_UNREADABLE
    published = publisher.publish(source(), NOW)
    reader.open()
    assert reader.generation() == published.generation


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM meta",
        "DROP TABLE grants",
        "DELETE FROM facts WHERE name = 'standing'",
        "UPDATE facts SET value = '{' WHERE name = 'standing'",
        "UPDATE facts SET value = '[]' WHERE name = 'instance'",
        "UPDATE facts SET value = '{}' WHERE name = 'standing'",
        "UPDATE models SET content = '{}'",
        "UPDATE models SET content = 'null'",
        "PRAGMA user_version = 2",
        "PRAGMA application_id = 7",
        "UPDATE grants SET permissions = '{'",
        "UPDATE grants SET models = 'null'",
        "DELETE FROM scopes WHERE kind = 'licence'",
        "DELETE FROM scopes WHERE kind = 'organisation'",
        "DELETE FROM scopes WHERE kind = 'key'",
        "UPDATE scopes SET tag = zeroblob(8)",
        "UPDATE scopes SET quota = -1",
    ],
)
def test_damage_is_told_and_never_read_as_a_grant_without_limits(
    path: Path, reader: PolicyReader, source: MakeSource, statement: str
) -> None:
    publisher = Publisher(path, slots=64, lease_seconds=60)
    publisher.publish(source(), NOW)
    publisher.close()
    editor = sqlite3.connect(path)
    editor.executescript(statement)
    editor.close()

    def look() -> None:
        reader.open()
        reader.grant("key000000001")

    assert code_of(look) is Code.DATABASE_DAMAGED


@pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\0" + b"\xff" * 4_096])
def test_a_file_that_is_no_database_cannot_be_opened(
    path: Path, reader: PolicyReader, content: bytes
) -> None:
    path.write_bytes(content)
    assert code_of(reader.open) in {Code.FILE_UNREADABLE, Code.DATABASE_DAMAGED}


def test_a_truncated_file_is_told(path: Path, reader: PolicyReader, source: MakeSource, key: MakeKey) -> None:
    publisher = Publisher(path, slots=4_096, lease_seconds=60)
    publisher.publish(source(*(key(number) for number in range(200))), NOW)
    publisher.close()
    path.write_bytes(path.read_bytes()[: 2 * 4_096])

    def look() -> None:
        reader.open()
        for number in range(200):
            reader.grant(f"key{number:09}")

    assert code_of(look) in {Code.FILE_UNREADABLE, Code.DATABASE_DAMAGED}


def test_a_damaged_new_generation_leaves_the_old_one_standing_until_its_lease_ends(
    path: Path, publisher: Publisher, reader: PolicyReader, source: MakeSource
) -> None:
    generation = publisher.publish(source(), NOW).generation
    reader.open()
    grant = reader.grant("key000000001")
    publisher._db.conn.executescript(
        "UPDATE models SET content = '{'; UPDATE meta SET generation = generation + 1;"
    )
    assert code_of(reader.refresh) is Code.DATABASE_DAMAGED
    assert reader.generation() == generation
    assert reader.grant("key000000001") is grant
    assert reader.standing().lease_until_ns == NOW + 3_600 * SECOND
    assert code_of(reader.refresh) is Code.DATABASE_DAMAGED


def test_a_file_made_anew_is_taken_over(path: Path, source: MakeSource, key: MakeKey) -> None:
    publisher = Publisher(path, slots=64, lease_seconds=60)
    publisher.publish(source(key(1)), NOW)
    reader = PolicyReader(path)
    reader.open()
    assert reader.grant("key000000001") is not None
    publisher.close()
    path.unlink()
    for companion in ("policy.db-wal", "policy.db-shm"):
        path.with_name(companion).unlink(missing_ok=True)
    assert reader.refresh() is False  # gone for a moment: what was read stays
    publisher = Publisher(path, slots=64, lease_seconds=60)
    assert code_of(reader.refresh) is Code.FILE_UNREADABLE  # there, and nothing published
    publisher.publish(source(key(2)), NOW)
    reader.refresh()
    assert reader.grant("key000000001") is None
    assert reader.grant("key000000002") is not None
    reader.close()
    publisher.close()


def test_another_token_is_seen_without_a_new_generation(
    publisher: Publisher, reader: PolicyReader, source: MakeSource
) -> None:
    publisher.set_token_hash("too early")  # nothing was published: it is not lost, but told by the next one
    before = publisher.publish(source(), NOW)
    reader.open()
    grant = reader.grant("key000000001")
    publisher.set_token_hash("aa11")
    assert reader.refresh() is False
    assert (reader.token_hash(), reader.generation()) == ("aa11", before.generation)
    assert reader.grant("key000000001") is grant  # nothing else was dropped
    again = publisher.publish(source(token_hash="bb22"), NOW)
    assert again.changed is False
