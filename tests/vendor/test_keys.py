"""Roots and keyrings of a vendor: made whole, protected, and followed by the appliance's own rules."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from lotabots_vendor.authority import alone, newest_keyring
from lotabots_vendor.ceremony import Wanted, open_roots, plan, rotate_at_once

from lotabotsd.foundation.envelope import parse_envelope
from lotabotsd.foundation.errors import Code, Exit, LotaBotsError
from lotabotsd.licence.keyring import Use, parse_anchors, rotate

Vendor = Callable[..., Any]


def anchors(directory: Path) -> Any:
    return parse_anchors((directory / "anchors" / "production.json").read_bytes())


def test_init_makes_anchors_that_a_release_accepts(directory: Path) -> None:
    found = anchors(directory)
    assert not found.development
    assert found.threshold == 1
    assert len(found.keyring.trusted_keys(Use.LICENCE)) == 1
    assert len(found.keyring.trusted_keys(Use.ACKNOWLEDGEMENT)) == 1


def test_private_keys_are_encrypted_and_protected(directory: Path) -> None:
    issuing = anchors(directory).keyring.keys[0].keyid
    names = [directory / "offline" / "root-1.pem", directory / "issuing" / f"issuing-1-{issuing[:8]}.pem"]
    for key in names:
        assert key.stat().st_mode & 0o777 == 0o600
        assert b"ENCRYPTED" in key.read_bytes()
        with pytest.raises(TypeError):
            serialization.load_pem_private_key(key.read_bytes(), password=None)
    assert directory.stat().st_mode & 0o777 == 0o700


def test_init_twice_is_refused_and_leaves_the_first_alone(
    vendor: Vendor, directory: Path, passphrase_file: Path
) -> None:
    before = (directory / "anchors" / "production.json").read_bytes()
    answer = vendor("root", "init", "--dir", directory, "--passphrase-file", passphrase_file)
    assert answer.code == Exit.CHECK_FAILED
    assert "hint: choose another directory" in answer.err
    assert (directory / "anchors" / "production.json").read_bytes() == before


def test_init_goes_into_an_empty_directory(vendor: Vendor, tmp_path: Path, passphrase_file: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert vendor("root", "init", "--dir", empty, "--passphrase-file", passphrase_file).code == 0
    assert anchors(empty)


def test_init_in_the_directory_where_one_stands_leaves_one_there(
    vendor: Vendor, tmp_path: Path, passphrase_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir(mode=0o755)
    monkeypatch.chdir(here)
    answer = vendor("root", "init", "--dir", ".", "--passphrase-file", passphrase_file)
    assert answer.code == 0, answer.err
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["anchors", "issuing", "keyrings", "offline"]
    assert here.stat().st_mode & 0o777 == 0o700
    assert vendor("keyring", "show", "--dir", ".").code == 0


def test_every_moment_is_written_as_documents_write_it(
    vendor: Vendor, tmp_path: Path, passphrase_file: Path
) -> None:
    made = vendor(
        "--json", "root", "init", "--dir", tmp_path / "v", "--passphrase-file", passphrase_file
    ).json
    assert made["issuing_key_ends"] == "2029-02-28T12:00:00Z"


def test_the_hint_for_a_passphrase_names_an_option_that_the_command_has(
    vendor: Vendor, directory: Path, tmp_path: Path
) -> None:
    draft = ("keyring", "draft", "--dir", directory, "--use", "all", "--output", tmp_path / "draft")
    for command, option in (
        (("root", "init", "--dir", tmp_path / "v"), "--passphrase-file"),
        (("root", "key", tmp_path / "root.pem"), "--passphrase-file"),
        (draft, "--new-passphrase-file"),
        (("keyring", "rotate", "--dir", directory), "--new-passphrase-file"),
    ):
        assert vendor("--json", *command).problem["hint"] == f"give {option} FILE"


def test_a_draft_that_has_no_place_makes_no_key(
    vendor: Vendor, directory: Path, passphrase_file: Path, tmp_path: Path
) -> None:
    draft = ("keyring", "draft", "--dir", directory, "--new-passphrase-file", passphrase_file, "--use", "all")
    refused = vendor(*draft, "--new-roots", 1, "--output", tmp_path / "missing" / "draft")
    assert (refused.code, "there is no directory" in refused.err) == (Exit.CHECK_FAILED, True)
    assert len(list((directory / "issuing").iterdir())) == len(list((directory / "offline").iterdir())) == 1


def test_the_second_of_two_rotations_at_once_changes_nothing(directory: Path) -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    passphrase = [b"correct horse battery staple"]
    wanted = Wanted(uses=frozenset(Use))
    plans = [plan(directory, wanted, now, lambda names: passphrase) for _ in range(2)]
    signers = [open_roots(directory, planned, [], lambda name: passphrase) for planned in plans]
    rotate_at_once(directory, plans[0], signers[0])
    with pytest.raises(LotaBotsError) as caught:
        rotate_at_once(directory, plans[1], signers[1])
    assert caught.value.code is Code.CONFLICT
    assert len(list((directory / "issuing").iterdir())) == 2
    assert anchors(directory).keyring == newest_keyring(directory) == plans[0].following


def test_whoever_puts_a_keyring_is_alone_in_the_directory_until_the_end(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with alone(directory), pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def test_what_an_interrupted_init_left_is_named(
    vendor: Vendor, tmp_path: Path, passphrase_file: Path
) -> None:
    left = tmp_path / ".v.new"
    left.mkdir()
    answer = vendor("root", "init", "--dir", tmp_path / "v", "--passphrase-file", passphrase_file)
    assert answer.code == Exit.CHECK_FAILED
    assert str(left) in answer.err
    assert not (tmp_path / "v").exists()


@pytest.mark.parametrize("text", ["", "\n", "short\n", "\nsecond line is not it\n"])
def test_a_weak_passphrase_is_refused(
    vendor: Vendor, tmp_path: Path, passphrase_file: Path, text: str
) -> None:
    passphrase_file.write_text(text)
    answer = vendor("root", "init", "--dir", tmp_path / "v", "--passphrase-file", passphrase_file)
    assert answer.code == Exit.USAGE
    assert not (tmp_path / "v").exists()


def test_a_passphrase_that_others_can_read_is_refused(
    vendor: Vendor, tmp_path: Path, passphrase_file: Path
) -> None:
    passphrase_file.chmod(0o644)
    answer = vendor("root", "init", "--dir", tmp_path / "v", "--passphrase-file", passphrase_file)
    assert answer.code == Exit.CHECK_FAILED
    assert f"chmod 600 {passphrase_file}" in answer.err


def test_without_a_terminal_the_passphrase_needs_a_file(vendor: Vendor, tmp_path: Path) -> None:
    answer = vendor("root", "init", "--dir", tmp_path / "v")
    assert answer.code == Exit.USAGE
    assert "--passphrase-file" in answer.err


def test_there_is_no_option_that_takes_the_passphrase_itself(vendor: Vendor, tmp_path: Path) -> None:
    assert vendor("root", "init", "--dir", tmp_path / "v", "--passphrase", "secret").code == Exit.USAGE


def test_rotation_gives_a_keyring_that_an_appliance_follows(
    vendor: Vendor, directory: Path, passphrase_file: Path
) -> None:
    old = anchors(directory).keyring
    answer = vendor(
        "--json", "keyring", "rotate", "--dir", directory, "--passphrase-file", passphrase_file,
        "--revoke", old.keys[0].keyid,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    following = rotate(old, parse_envelope(Path(answer.json["keyring"]).read_bytes()))
    assert following.version == answer.json["version"] == 2
    assert set(following.trusted_keys(Use.LICENCE)) == {answer.json["issuing_key"]}
    assert following.revoked == {old.keys[0].keyid}


def test_rotation_twice_makes_versions_two_and_three(
    vendor: Vendor, directory: Path, passphrase_file: Path
) -> None:
    for version in (2, 3):
        answer = vendor(
            "--json", "keyring", "rotate", "--dir", directory, "--passphrase-file", passphrase_file
        )
        assert answer.json["version"] == version
        assert answer.json["revoked"] == []
    issued = vendor(
        "--json", "licence", "issue", "--dir", directory, "--passphrase-file", passphrase_file,
        "--tier", "pro", "--customer", "X",
    )  # fmt: skip
    assert issued.code == 0, issued.err


def test_a_key_that_no_keyring_names_cannot_be_revoked(
    vendor: Vendor, directory: Path, passphrase_file: Path
) -> None:
    answer = vendor(
        "keyring", "rotate", "--dir", directory, "--passphrase-file", passphrase_file, "--revoke", "abc"
    )
    assert answer.code == Exit.CHECK_FAILED
    assert not (directory / "keyrings" / "keyring-2.dsse.json").exists()


def test_rotation_without_the_offline_root_says_what_is_missing_and_makes_nothing(
    vendor: Vendor, directory: Path, passphrase_file: Path
) -> None:
    (directory / "offline" / "root-1.pem").rename(directory.with_name("usb-stick"))
    answer = vendor("keyring", "rotate", "--dir", directory, "--passphrase-file", passphrase_file)
    assert answer.code == Exit.CHECK_FAILED
    assert "0 of 1 by the present roots" in answer.err
    assert "--root-key URI" in answer.err
    assert next(iter(anchors(directory).roots)) in answer.err
    assert len(list((directory / "issuing").iterdir())) == 1
    assert not (directory / "keyrings" / "keyring-2.dsse.json").exists()


def test_changed_anchors_or_keyrings_are_refused(
    vendor: Vendor, directory: Path, passphrase_file: Path
) -> None:
    path = directory / "anchors" / "production.json"
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps({**document, "threshold": 2}))
    answer = vendor("keyring", "rotate", "--dir", directory, "--passphrase-file", passphrase_file)
    assert answer.code == Exit.SIGNATURE


def test_every_line_of_a_list_of_commands_is_whole_in_a_terminal_of_80_columns(
    vendor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import click
    from lotabots_vendor.cli import vendor as program

    monkeypatch.setenv("COLUMNS", "80")
    groups = [
        (),
        *((name,) for name, command in program.commands.items() if isinstance(command, click.Group)),
    ]
    for words in groups:
        _, _, rest = vendor(*words, "--help").out.partition("\n")
        assert "..." not in rest, words
        assert all(len(line) <= 80 for line in rest.splitlines()), words
