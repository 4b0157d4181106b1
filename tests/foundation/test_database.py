"""Databases: migrations, transactions, and files that are not ours or not sound."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from lotabotsd.foundation.database import open_database, open_read_only, transaction
from lotabotsd.foundation.errors import Code, LotaBotsError

APPLICATION = 0x4C425354
FIRST = "CREATE TABLE things (name TEXT PRIMARY KEY, size INTEGER NOT NULL) STRICT;"
SECOND = "ALTER TABLE things ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey'; CREATE INDEX s ON things (size);"


def make(path: Path, *migrations: str) -> None:
    open_database(path, application_id=APPLICATION, migrations=list(migrations)).conn.close()


def test_a_new_database_has_the_newest_schema_and_our_settings(tmp_path: Path) -> None:
    db = open_database(tmp_path / "a.db", application_id=APPLICATION, migrations=[FIRST, SECOND])
    setting = {
        name: db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("application_id", "user_version", "journal_mode", "synchronous", "foreign_keys")
    }
    assert setting == {
        "application_id": APPLICATION,
        "user_version": 2,
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
    }
    assert [column.name for column in db["things"].columns] == ["name", "size", "colour"]


def test_a_new_database_is_its_owners_alone(tmp_path: Path) -> None:
    open_database(tmp_path / "a.db", application_id=APPLICATION, migrations=[FIRST])
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_an_older_database_is_brought_up_and_keeps_its_rows(tmp_path: Path) -> None:
    make(tmp_path / "a.db", FIRST)
    before = open_database(tmp_path / "a.db", application_id=APPLICATION, migrations=[FIRST])
    before.execute("INSERT INTO things VALUES ('one', 1)")
    before.conn.close()
    after = open_database(tmp_path / "a.db", application_id=APPLICATION, migrations=[FIRST, SECOND])
    assert after.execute("SELECT * FROM things").fetchall() == [("one", 1, "grey")]


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path / "a.db", FIRST, SECOND)
    make(tmp_path / "a.db", FIRST, SECOND)


def test_a_migration_that_fails_is_undone_as_a_whole(tmp_path: Path) -> None:
    make(tmp_path / "a.db", FIRST)
    with pytest.raises(LotaBotsError) as failure:
        make(tmp_path / "a.db", FIRST, SECOND + "CREATE TABLE things (x);")
    assert failure.value.code is Code.DATABASE_DAMAGED
    db = open_database(tmp_path / "a.db", application_id=APPLICATION, migrations=[FIRST])
    assert db.execute("PRAGMA user_version").fetchone()[0] == 1
    assert [column.name for column in db["things"].columns] == ["name", "size"]


def test_a_newer_schema_is_refused_with_the_way_back(tmp_path: Path) -> None:
    make(tmp_path / "a.db", FIRST, SECOND)
    with pytest.raises(LotaBotsError) as failure:
        make(tmp_path / "a.db", FIRST)
    assert failure.value.code is Code.DATABASE_DAMAGED
    assert "schema 2, this release knows 1" in failure.value.detail
    assert "newer release" in failure.value.hint


@pytest.mark.parametrize("identity", [0, 1, 0x4C424C47])
def test_another_applications_database_is_refused_and_not_touched(tmp_path: Path, identity: int) -> None:
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as foreign:
        foreign.executescript(f"CREATE TABLE theirs (x); PRAGMA application_id = {identity};")
    foreign.close()
    before = path.read_bytes()
    with pytest.raises(LotaBotsError, match="another application"):
        make(path, FIRST)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.db"]


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + bytes(84)])
def test_a_file_that_is_no_database_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.db").write_bytes(content)
    with pytest.raises(LotaBotsError) as failure:
        make(tmp_path / "a.db", FIRST)
    assert failure.value.code is Code.DATABASE_DAMAGED
    assert "a.db" in failure.value.detail


def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"")
    make(tmp_path / "a.db", FIRST)


def test_a_truncated_database_is_damaged_on_opening_or_on_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    db = open_database(path, application_id=APPLICATION, migrations=[FIRST])
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)"
        " INSERT INTO things SELECT hex(randomblob(500)), i FROM n"
    )
    db.conn.close()
    path.write_bytes(path.read_bytes()[:8_192])
    with pytest.raises((LotaBotsError, sqlite3.DatabaseError)):
        open_database(path, application_id=APPLICATION, migrations=[FIRST]).execute(
            "SELECT sum(length(name)) FROM things"
        ).fetchone()


@pytest.mark.parametrize("where", ["absent/a.db", "."])
def test_a_place_without_a_file_is_unwritable_not_damaged(tmp_path: Path, where: str) -> None:
    with pytest.raises(LotaBotsError) as failure:
        make(tmp_path / where, FIRST)
    assert failure.value.code is Code.FILE_UNWRITABLE


def test_a_transaction_commits_at_its_end(tmp_path: Path) -> None:
    db = open_database(tmp_path / "a.db", application_id=APPLICATION, migrations=[FIRST])
    with transaction(db) as connection:
        connection.execute("INSERT INTO things VALUES ('one', 1)")
    assert not db.conn.in_transaction
    assert db["things"].count == 1


def test_a_transaction_that_fails_leaves_nothing_and_the_connection_usable(tmp_path: Path) -> None:
    db = open_database(tmp_path / "a.db", application_id=APPLICATION, migrations=[FIRST])

    def insert_twice_and_stop(second: str, error: BaseException) -> None:
        with transaction(db) as connection:
            connection.execute("INSERT INTO things VALUES ('one', 1)")
            connection.execute("INSERT INTO things VALUES (?, 2)", [second])
            raise error

    with pytest.raises(sqlite3.IntegrityError):
        insert_twice_and_stop("one", RuntimeError())
    with pytest.raises(KeyboardInterrupt):
        insert_twice_and_stop("two", KeyboardInterrupt())
    assert db["things"].count == 0
    with transaction(db) as connection:
        connection.execute("INSERT INTO things VALUES ('three', 3)")
    assert db["things"].count == 1


def test_the_first_failure_is_seen_even_where_sqlite_rolled_back_itself(tmp_path: Path) -> None:
    db = open_database(tmp_path / "a.db", application_id=APPLICATION, migrations=[FIRST])
    db.execute("PRAGMA max_page_count = 8")
    with pytest.raises(sqlite3.OperationalError, match="full"), transaction(db) as connection:
        connection.execute("INSERT OR ROLLBACK INTO things VALUES (hex(zeroblob(100000)), 1)")
    with transaction(db) as connection:
        connection.execute("INSERT INTO things VALUES ('small', 1)")
    assert db["things"].count == 1


def test_a_reader_sees_what_was_committed_and_cannot_write(tmp_path: Path) -> None:
    db = open_database(tmp_path / "a.db", application_id=APPLICATION, migrations=[FIRST])
    reader = open_read_only(tmp_path / "a.db")
    with transaction(db) as connection:
        connection.execute("INSERT INTO things VALUES ('one', 1)")
        assert reader.execute("SELECT count(*) FROM things").fetchone() == (0,)
    assert reader.execute("SELECT count(*) FROM things").fetchone() == (1,)
    with pytest.raises(sqlite3.OperationalError, match=r"readonly|read-only"):
        reader.execute("DELETE FROM things")


@pytest.mark.parametrize("name", ["a.db", "odd ?#%20 name.db"])
def test_a_reader_finds_a_file_of_any_name(tmp_path: Path, name: str) -> None:
    db = open_database(tmp_path / name, application_id=APPLICATION, migrations=[FIRST])
    assert open_read_only(tmp_path / name).execute("SELECT count(*) FROM things").fetchone() == (0,)
    db.conn.close()


def test_a_missing_or_damaged_file_is_unreadable_to_a_reader_and_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "damaged.db").write_bytes(b"no database" * 50)
    for name in ("absent.db", "damaged.db"):
        with pytest.raises(LotaBotsError) as failure:
            open_read_only(tmp_path / name)
        assert failure.value.code is Code.FILE_UNREADABLE
    assert [file.name for file in tmp_path.iterdir()] == ["damaged.db"]
