"""The books when they cannot be written, are locked or damaged, and what stands in them already."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from lotabots_vendor.book_failures import for_vendors, of_database

from lotabotsd.foundation.errors import Code, Exit, LotaBotsError

Vendor = Callable[..., Any]


@pytest.fixture
def order(directory: Path, passphrase_file: Path) -> tuple[object, ...]:
    keys = ("--dir", directory, "--passphrase-file", passphrase_file)
    return ("licence", "issue", *keys, "--tier", "pro", "--customer", "Example")


def issued(vendor: Vendor, order: tuple[object, ...]) -> Any:
    said = vendor("--json", *order)
    assert said.code == Exit.OK, said.err
    return said.json


# --- a licence once more


def test_a_licence_whose_file_could_not_be_written_is_in_the_books_and_is_had_again(
    vendor: Vendor, directory: Path, order: tuple[object, ...], tmp_path: Path
) -> None:
    # A name that is just short enough, so that the longer one of the file beside it is not.
    refused = vendor(*order, "--output", tmp_path / ("x" * 250))
    assert refused.code == Exit.CHECK_FAILED
    (entry,) = vendor("--json", "licence", "list", "--dir", directory).json
    again = f"licence show --dir DIR {entry['licence_id']} --output FILE"
    assert again in refused.err
    file = tmp_path / "licence"
    said = vendor("licence", "show", "--dir", directory, entry["licence_id"], "--output", file)
    assert said.code == Exit.OK, said.err
    shown = vendor("--json", "licence", "show", "--dir", directory, file)
    assert shown.json["licence"]["licence_id"] == entry["licence_id"]


@pytest.mark.parametrize("form", ["armour", "json", "line"])
def test_a_licence_is_printed_again_as_it_was_issued(
    vendor: Vendor, directory: Path, order: tuple[object, ...], form: str
) -> None:
    first = vendor("--json", *order, "--format", form).json
    again = ("licence", "show", "--dir", directory, first["licence"]["licence_id"], "--format", form)
    assert vendor(*again).out.rstrip("\n") == first["text"].rstrip("\n")
    assert vendor("--json", *again).json == first


def test_printing_again_needs_a_known_licence_and_a_new_file(
    vendor: Vendor, directory: Path, order: tuple[object, ...], tmp_path: Path
) -> None:
    licence = issued(vendor, order)["licence"]["licence_id"]
    shown = ("--json", "licence", "show", "--dir", directory)
    unknown = vendor(*shown, "lic_" + "0" * 16)
    assert (unknown.code, unknown.problem["code"]) == (Exit.CHECK_FAILED, "not_found")
    (tmp_path / "there").write_text("kept")
    assert vendor(*shown, licence, "--output", tmp_path / "there").problem["code"] == "already_exists"
    assert (tmp_path / "there").read_text() == "kept"
    assert vendor(*shown, tmp_path / "there", "--format", "json").problem["code"] == "usage"
    nowhere = vendor("--json", "licence", "show", "--dir", tmp_path / "nowhere", licence)
    assert "root init" in nowhere.problem["hint"]


def test_a_licence_that_no_appliance_takes_any_longer_is_printed_with_a_warning(
    vendor: Vendor, directory: Path, order: tuple[object, ...], passphrase_file: Path
) -> None:
    licence = issued(vendor, order)["licence"]["licence_id"]
    keys = ("--dir", directory, "--passphrase-file", passphrase_file)
    again = ("licence", "show", "--dir", directory, licence)
    assert "warning" not in vendor(*again).err
    vendor("licence", "revoke", *keys, "--reason", "not paid", licence)
    assert "warning: it was revoked on 2026-03-01, for: not paid" in vendor(*again).err
    key = vendor("--json", "keyring", "show", "--dir", directory).json["keys"][0]["keyid"]
    vendor("keyring", "rotate", *keys, "--revoke", key)
    assert "the signing key was revoked" in vendor(*again).err


# --- development


@pytest.mark.parametrize("command", [["licence", "issue", "--tier", "pro", "--customer", "X"], ["rate-card"]])
def test_development_keys_do_not_write_into_the_books_of_real_ones(
    vendor: Vendor, directory: Path, command: list[str]
) -> None:
    card = Path(__file__).resolve().parents[1] / "golden" / "rate-card" / "standard.json"
    arguments = ["rate-card", "sign", card] if command == ["rate-card"] else command
    refused = vendor("--json", *arguments, "--development", "--dir", directory)
    assert (refused.code, refused.problem["code"]) == (Exit.CHECK_FAILED, "conflict")
    assert "--development" in refused.problem["hint"]
    assert not (directory / "vendor.db").exists()


def test_development_books_in_a_directory_of_their_own_go_on(vendor: Vendor, tmp_path: Path) -> None:
    order = ("--json", "licence", "issue", "--development", "--dir", tmp_path, "--tier", "pro")
    numbers = [vendor(*order, "--customer", "X").json["licence"]["sequence"] for _ in range(2)]
    assert numbers[1] == numbers[0] + 1


# --- books that fail


@pytest.mark.thorough
def test_a_lock_is_told_as_a_lock(vendor: Vendor, directory: Path, order: tuple[object, ...]) -> None:
    issued(vendor, order)
    with closing(sqlite3.connect(directory / "vendor.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        refused = vendor("--json", *order)
    assert (refused.code, refused.problem["code"]) == (Exit.CHECK_FAILED, "conflict")
    assert "another command is writing" in refused.problem["detail"]
    assert "try again" in refused.problem["hint"]
    assert "lotabotsd" not in json.dumps(refused.problem)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (sqlite3.SQLITE_BUSY, Code.CONFLICT),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Code.CONFLICT),
        (sqlite3.SQLITE_LOCKED, Code.CONFLICT),
        (sqlite3.SQLITE_FULL, Code.DISK_FULL),
        (sqlite3.SQLITE_READONLY, Code.FILE_UNWRITABLE),
        (sqlite3.SQLITE_IOERR_WRITE, Code.FILE_UNWRITABLE),
        (sqlite3.SQLITE_CORRUPT, Code.DATABASE_DAMAGED),
        (sqlite3.SQLITE_NOTADB, Code.DATABASE_DAMAGED),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, Code.INTERNAL),
    ],
)
def test_only_damage_is_called_damage(number: int, code: Code) -> None:
    error = sqlite3.DatabaseError("said by SQLite")
    error.sqlite_errorcode = number
    told = of_database(error)
    assert told.code is code
    assert "lotabotsd" not in told.hint


@pytest.mark.parametrize("code", [Code.DATABASE_DAMAGED, Code.ALREADY_RUNNING, Code.DISK_FULL])
def test_the_hint_of_an_appliance_is_replaced_and_a_hint_of_its_own_kept(code: Code) -> None:
    told = for_vendors(LotaBotsError(code, "vendor.db"))
    assert "lotabotsd" not in f"{told} {told.hint}"
    assert "nothing that was counted" not in told.hint
    own = LotaBotsError(Code.DATABASE_DAMAGED, "x", hint="install the newer release again")
    assert for_vendors(own) is own


def test_a_damaged_book_is_named_with_what_a_vendor_can_do(vendor: Vendor, directory: Path) -> None:
    (directory / "vendor.db").write_bytes(b"not a database, and longer than a header would be " * 100)
    problem = vendor("--json", "licence", "list", "--dir", directory).problem
    assert "vendor.db" in problem["detail"]
    assert "backup" in problem["hint"]
    assert "lotabotsd" not in problem["hint"]


# --- customers whose licences were taken back


def test_a_revoked_licence_is_marked_and_a_customer_with_no_other_is_not_up_to_date(
    vendor: Vendor, directory: Path, order: tuple[object, ...], passphrase_file: Path
) -> None:
    first, second = (issued(vendor, order)["licence"]["licence_id"] for _ in range(2))
    keys = ("--dir", directory, "--passphrase-file", passphrase_file)

    def standing() -> Mapping[str, Any]:
        (found,) = vendor("--json", "customer", "list", "--dir", directory).json
        return dict(found)

    for licence, number, state in ((first, 1, "up to date"), (second, 2, "revoked")):
        assert vendor("licence", "revoke", *keys, "--reason", "not paid", licence).code == Exit.OK
        assert (standing()["licences"], standing()["revoked"], standing()["state"]) == (2, number, state)
        shown = vendor("--json", "customer", "show", "--dir", directory, "Example").json
        assert [one["revoked"] for one in shown["licences"]] == [True, number == 2]
    assert vendor("customer", "show", "--dir", directory, "Example").out.count(", revoked\n") == 2
