"""Publishing: all or nothing, a generation that only grows, slots that stay, and a lease of its own."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.identity.limits_values import ScopeLimits
from lotabotsd.identity.records import KeyRecord
from lotabotsd.limits.assign import tag_of
from lotabotsd.policy.compile import TABLES, PolicySource
from lotabotsd.policy.publish import Place, Publisher
from lotabotsd.policy.reader import PolicyReader
from lotabotsd.policy.schema import APPLICATION_ID, FORMAT, SCHEMA

MakeKey = Callable[..., KeyRecord]
MakeSource = Callable[..., PolicySource]
SECOND = 1_000_000_000
NOW = 1_772_366_400 * SECOND
GOLDEN = Path(__file__).parent.parent / "golden" / "policy-schema.sql"


def test_the_schema_is_frozen(publisher: Publisher, path: Path) -> None:
    assert GOLDEN.read_text(encoding="utf-8") == SCHEMA
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID == 0x4C42504F
    assert connection.execute("PRAGMA user_version").fetchone()[0] == FORMAT == 1
    made = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert made == {"meta", *TABLES}


def test_only_owner_and_group_may_read_the_file_and_its_companions(
    publisher: Publisher, path: Path, source: MakeSource
) -> None:
    publisher.publish(source(), NOW)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"policy.db": 0o640, "policy.db-wal": 0o640, "policy.db-shm": 0o640}


def test_every_change_is_a_larger_generation(publisher: Publisher, source: MakeSource, key: MakeKey) -> None:
    first = publisher.publish(source(key(1)), NOW)
    second = publisher.publish(source(key(1), key(2)), NOW)
    third = publisher.publish(source(key(1)), NOW)
    assert [p.changed for p in (first, second, third)] == [True] * 3
    assert first.generation < second.generation < third.generation == publisher.generation()


def test_publishing_the_same_twice_only_renews_the_lease(
    publisher: Publisher, reader: PolicyReader, source: MakeSource
) -> None:
    first = publisher.publish(source(), NOW)
    again = publisher.publish(source(), NOW + SECOND)
    assert (again.generation, again.changed) == (first.generation, False)
    reader.open()
    assert reader.standing().lease_until_ns == NOW + 3_601 * SECOND


def test_the_generation_goes_on_after_a_restart(path: Path, source: MakeSource, key: MakeKey) -> None:
    publisher = Publisher(path, slots=64, lease_seconds=60)
    first = publisher.publish(source(), NOW)
    publisher.close()
    publisher = Publisher(path, slots=64, lease_seconds=60)
    assert publisher.generation() == first.generation
    assert publisher.publish(source(key(2)), NOW).generation == first.generation + 1
    publisher.close()


def test_a_new_file_never_repeats_an_earlier_files_generations(
    tmp_path: Path, source: MakeSource, key: MakeKey
) -> None:
    old = Publisher(tmp_path / "old.db", slots=64, lease_seconds=60)
    new = Publisher(tmp_path / "new.db", slots=64, lease_seconds=60)
    old.publish(source(), NOW)
    before = old.publish(source(key(2)), NOW).generation
    assert new.publish(source(), NOW + 2 * SECOND).generation > before
    old.close()
    new.close()


def test_slots_stay_over_publications_and_restarts(path: Path, source: MakeSource, key: MakeKey) -> None:
    publisher = Publisher(path, slots=64, lease_seconds=60)
    publisher.publish(source(key(1), key(2)), NOW)
    before = publisher.places()
    publisher.close()
    publisher = Publisher(path, slots=64, lease_seconds=60)
    publisher.publish(source(key(2), key(3), key(0)), NOW)
    after = publisher.places()
    publisher.close()
    assert after["licence", "appliance"] == Place(0, tag_of("licence:appliance"))
    assert after["key", "key000000002"] == before["key", "key000000002"]
    assert ("key", "key000000001") not in after
    assert len({place.slot for place in after.values()}) == len(after)


def test_too_many_scopes_change_nothing(path: Path, source: MakeSource, key: MakeKey) -> None:
    publisher = Publisher(path, slots=3, lease_seconds=60)
    publisher.publish(source(key(1)), NOW)
    before = (publisher.generation(), publisher.places())
    with pytest.raises(LotaBotsError) as caught:
        publisher.publish(source(key(1), key(2)), NOW)
    assert caught.value.code is Code.CONFLICT
    assert (publisher.generation(), publisher.places()) == before
    publisher.close()


@pytest.mark.parametrize("table", TABLES)
def test_a_crash_at_any_table_leaves_the_policy_before(
    path: Path, source: MakeSource, key: MakeKey, table: str
) -> None:
    publisher = Publisher(path, slots=64, lease_seconds=60)
    before = publisher.publish(source(key(1)), NOW)
    publisher.close()
    child = os.fork()
    if child == 0:  # dies in the middle of the transaction, as on kill -9
        crashing = Publisher(path, slots=64, lease_seconds=60)
        connection = crashing._db.conn
        connection.create_function("die", 0, lambda: os._exit(9))
        connection.execute(f"CREATE TEMP TRIGGER t AFTER INSERT ON {table} BEGIN SELECT die(); END")
        crashing.publish(source(key(2), limits_of_a_model()), NOW)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    publisher = Publisher(path, slots=64, lease_seconds=60)
    reader = PolicyReader(path)
    reader.open()
    assert reader.generation() == before.generation
    assert reader.grant("key000000001") is not None
    assert reader.grant("key000000002") is None
    reader.close()
    assert publisher.publish(source(key(2)), NOW).generation == before.generation + 1
    publisher.close()


def limits_of_a_model() -> KeyRecord:
    """A second key, so that every table gets more than one row."""
    return KeyRecord(
        "k", "org_2", "Two", "mem_2", "owner", "n", ("*",), "live", 0, 1, secrets=((bytes(32), 5),)
    )


def test_the_lease_is_renewed_without_a_new_generation(
    publisher: Publisher, reader: PolicyReader, source: MakeSource
) -> None:
    generation = publisher.publish(source(), NOW).generation
    reader.open()
    grant = reader.grant("key000000001")
    publisher.renew_lease(NOW + 60 * SECOND)
    assert reader.refresh() is False
    assert reader.standing().lease_until_ns == NOW + 3_660 * SECOND
    assert reader.generation() == generation == publisher.generation()
    assert reader.grant("key000000001") is grant


@pytest.mark.parametrize("content", [b"no database", b"\0" * 8_192, b"SQLite format 3\0" + b"\xff" * 4_096])
def test_a_damaged_file_is_put_aside_and_made_anew(path: Path, source: MakeSource, content: bytes) -> None:
    path.write_bytes(content)
    publisher = Publisher(path, slots=64, lease_seconds=60)
    assert publisher.rebuilt
    assert path.with_name("policy.db.damaged").read_bytes() == content
    publisher.publish(source(), NOW)
    publisher.close()


def test_damage_inside_the_file_is_found_when_it_is_opened(
    path: Path, source: MakeSource, key: MakeKey
) -> None:
    publisher = Publisher(path, slots=4_096, lease_seconds=60)
    publisher.publish(source(*(key(number) for number in range(500))), NOW)
    publisher.close()
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4_096] = b"\xa5" * 4_096
    path.write_bytes(data)
    publisher = Publisher(path, slots=4_096, lease_seconds=60)
    assert publisher.rebuilt
    assert publisher.generation() == 0
    publisher.close()


def test_a_file_of_another_application_is_put_aside_unharmed(path: Path) -> None:
    other = sqlite3.connect(path)
    other.executescript("CREATE TABLE precious (x); INSERT INTO precious VALUES (1);")
    other.close()
    publisher = Publisher(path, slots=64, lease_seconds=60)
    assert publisher.rebuilt
    publisher.close()
    aside = sqlite3.connect(path.with_name("policy.db.damaged"))
    assert aside.execute("SELECT x FROM precious").fetchall() == [(1,)]
    aside.close()


def test_a_sound_file_is_not_made_anew(path: Path, source: MakeSource) -> None:
    for _ in range(2):
        publisher = Publisher(path, slots=64, lease_seconds=60)
        assert not publisher.rebuilt
        publisher.publish(source(), NOW)
        publisher.close()


def test_a_directory_that_is_not_there_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(LotaBotsError) as caught:
        Publisher(tmp_path / "none" / "policy.db", slots=64, lease_seconds=60)
    assert caught.value.code is Code.FILE_UNWRITABLE
    assert "none" in caught.value.detail


def test_on_a_full_disk_the_policy_before_stays(
    publisher: Publisher, reader: PolicyReader, source: MakeSource, key: MakeKey
) -> None:
    before = publisher.publish(source(key(1)), NOW)
    connection = publisher._db.conn
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    many = [key(number, models=tuple(f"{n:0100}" for n in range(60))) for number in range(1, 50)]
    with pytest.raises(LotaBotsError) as caught:
        publisher.publish(source(*many), NOW)
    assert caught.value.code is Code.DISK_FULL
    reader.open()
    assert reader.generation() == before.generation
    connection.execute("PRAGMA max_page_count = 100000")
    assert publisher.publish(source(*many), NOW).generation == before.generation + 1


def test_nothing_secret_is_in_the_files(publisher: Publisher, path: Path, source: MakeSource) -> None:
    publisher.publish(source(model_limits={"resnet": ScopeLimits(concurrency=1)}), NOW)
    stored = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"key000000001" in stored
    assert b"PRIVATE" not in stored
    assert b"lb_live_" not in stored
