"""The list of revoked licences when the key that signed it is revoked, and what is to be issued again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lotabots_vendor.authority import newest_keyring

from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.errors import Exit
from lotabotsd.licence.revocations import open_revocations, refuse_older

Vendor = Callable[..., Any]


@pytest.fixture
def keys(directory: Path, passphrase_file: Path) -> tuple[object, ...]:
    return ("--dir", directory, "--passphrase-file", passphrase_file)


@pytest.fixture
def issued(vendor: Vendor, keys: tuple[object, ...]) -> Callable[..., str]:
    """Issue a licence and give its id."""

    def issue(*more: object) -> str:
        said = vendor("--json", "licence", "issue", *keys, "--tier", "pro", "--customer", "Example", *more)
        assert said.code == Exit.OK, said.err
        return str(said.json["licence"]["licence_id"])

    return issue


def rotated(vendor: Vendor, directory: Path, keys: tuple[object, ...]) -> Any:
    """Another issuing key in the place of the one that is revoked."""
    said = vendor("--json", "keyring", "rotate", *keys, "--revoke", newest_keyring(directory).keys[-1].keyid)
    assert said.code == Exit.OK, said.err
    return said.json


def test_a_list_whose_key_was_revoked_is_written_anew_and_follows_the_one_before(
    vendor: Vendor, directory: Path, keys: tuple[object, ...], issued: Callable[..., str], tmp_path: Path
) -> None:
    licence = issued()
    files = [tmp_path / "first", tmp_path / "second"]
    vendor("licence", "revoke", *keys, "--reason", "not paid", "--output", files[0], licence)
    first = open_revocations(files[0].read_bytes(), newest_keyring(directory))
    assert rotated(vendor, directory, keys)["write_revocations_again"] is True
    said = vendor("--json", "licence", "revocations", *keys, "--output", files[1])
    assert (said.code, said.json["version"], said.json["revoked"]) == (Exit.OK, 2, 1)
    second = open_revocations(files[1].read_bytes(), newest_keyring(directory))
    refuse_older(first, second)
    assert second.revocations.licences == first.revocations.licences
    # From here on it is good again: the same bytes, and no passphrase is needed.
    again = vendor("licence", "revocations", "--dir", directory, "--output", tmp_path / "third")
    assert (again.code, (tmp_path / "third").read_bytes()) == (Exit.OK, files[1].read_bytes())
    assert rotated(vendor, directory, keys)["write_revocations_again"] is True


def test_a_list_that_is_to_be_signed_anew_needs_the_passphrase(
    vendor: Vendor, directory: Path, keys: tuple[object, ...], issued: Callable[..., str]
) -> None:
    vendor("licence", "revoke", *keys, "--reason", "not paid", issued())
    rotated(vendor, directory, keys)
    refused = vendor("licence", "revocations", "--dir", directory)
    assert (refused.code, "give --passphrase-file FILE" in refused.err) == (Exit.USAGE, True)
    assert refused.out == ""


def test_revoking_what_was_revoked_before_writes_a_refused_list_anew_too(
    vendor: Vendor, directory: Path, keys: tuple[object, ...], issued: Callable[..., str]
) -> None:
    licence = issued()
    revoke = ("--json", "licence", "revoke", *keys, "--reason")
    assert vendor(*revoke, "not paid", licence).json["revoked_before"] == {}
    assert vendor(*revoke, "not paid", licence).json["version"] == 1
    rotated(vendor, directory, keys)
    said = vendor(*revoke, "stolen", licence)
    assert (said.json["version"], said.json["revoked_before"]) == (2, {licence: "not paid"})
    assert f"{licence} was revoked before, on 2026-03-01, for: not paid" in said.err
    listed = open_revocations(said.json["text"].encode(), newest_keyring(directory)).revocations
    assert listed.licences[licence].reason == "not paid"


def test_after_a_key_is_revoked_the_unexpired_licences_that_it_signed_are_named(
    vendor: Vendor, directory: Path, keys: tuple[object, ...], issued: Callable[..., str], clock: FixedClock
) -> None:
    issued("--days", 1)  # ends at the very moment of the rotation
    lasts, revoked = issued("--days", 2), issued("--days", 2)
    vendor("licence", "revoke", *keys, "--reason", "x", revoked)
    clock.advance(86_400)
    old = newest_keyring(directory).keys[-1].keyid
    text = vendor("keyring", "rotate", *keys, "--revoke", old).out
    assert f"had signed 1 unexpired licence, to be issued again:\n  {lasts}  Example\n" in text
    assert f"lotabots-vendor licence revocations --dir {directory}" in text
    assert rotated(vendor, directory, keys)["issue_again"] == []
    quiet = vendor("keyring", "rotate", *keys)
    assert "unexpired" not in quiet.out


def test_a_finished_draft_says_the_same(
    vendor: Vendor, directory: Path, keys: tuple[object, ...], issued: Callable[..., str], tmp_path: Path,
    passphrase_file: Path,
) -> None:  # fmt: skip
    licence = issued()
    vendor("licence", "revoke", *keys, "--reason", "x", issued())
    draft = tmp_path / "draft.json"
    options = ("--use", "all", "--revoke", newest_keyring(directory).keys[0].keyid, "--output", draft)
    vendor("keyring", "draft", "--dir", directory, "--new-passphrase-file", passphrase_file, *options)
    unsigned = vendor("keyring", "finish", "--dir", directory, draft)
    assert ("keyring sign" in unsigned.err, "--root-key" in unsigned.err) == (True, False)
    root = directory / "offline" / "root-1.pem"
    vendor("keyring", "sign", "--key", root, "--passphrase-file", passphrase_file, draft)
    for _ in range(2):
        said = vendor("--json", "keyring", "finish", "--dir", directory, draft).json
        assert (said["issue_again"], said["write_revocations_again"]) == ([licence], True)


def test_a_rotation_where_no_books_are_makes_none(
    vendor: Vendor, directory: Path, keys: tuple[object, ...]
) -> None:
    found = rotated(vendor, directory, keys)
    assert (found["issue_again"], found["write_revocations_again"]) == ([], False)
    assert not (directory / "vendor.db").exists()
