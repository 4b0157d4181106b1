"""A licence for one machine on the command line: the request out, the vendor's files in, in any order."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.foundation.envelope import PayloadType, sign
from lotabotsd.foundation.errors import Exit

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "vendor"))

from lotabots_vendor.authority import development_authority
from lotabots_vendor.cli import run as vendor
from lotabots_vendor.statements import keyring_body


def _vendor(clock: Any, *arguments: object) -> int:
    return int(vendor([str(argument) for argument in arguments], clock))


def test_a_request_goes_out_and_its_licence_comes_back(
    ctl: Any, clock: Any, tmp_path: Path, capsys: Any
) -> None:
    request, licence = tmp_path / "request.txt", tmp_path / "licence.txt"
    made = ctl("licence", "request", "--note", "order 4711", "--output", str(request))
    assert made.code == Exit.OK, made.err
    assert "order 4711" in made.out
    assert "machine-id" in made.out
    assert ctl("licence", "request", "--output", str(request)).code == Exit.CHECK_FAILED
    capsys.readouterr()
    assert _vendor(clock, "request", "show", request) == Exit.OK
    code = next(line.split()[1] for line in made.out.splitlines() if line.startswith("code"))
    assert code in capsys.readouterr().out
    order = ("--development", "--tier", "pro", "--customer", "Example GmbH")
    assert _vendor(clock, "licence", "issue", *order, "--request", request, "--output", licence) == Exit.OK
    installed = ctl("licence", "install", str(licence))
    assert (installed.code, "licence installed" in installed.out) == (Exit.OK, True)
    shown = ctl("licence", "show").out
    assert shown.startswith("state                 valid")
    assert "keyring  1, of " in shown


def test_the_request_is_printed_for_a_pipe_and_told_beside_it(ctl: Any) -> None:
    made = ctl("licence", "request")
    assert made.out.startswith("-----BEGIN LOTABOTS ACTIVATION REQUEST-----\n")
    assert made.out.endswith("-----END LOTABOTS ACTIVATION REQUEST-----\n")
    assert "code" in made.err
    found = json.loads(ctl("licence", "request", "--json").out)
    assert found["licence_id"] == ""
    assert len(found["short_code"]) == 19


def test_a_note_of_two_lines_is_refused_in_words(ctl: Any) -> None:
    refused = ctl("licence", "request", "--note", "a\nb")
    assert (refused.code, "note" in refused.err) == (Exit.USAGE, True)


@pytest.mark.parametrize("words", [("usage", "acknowledge"), ("licence", "install")])
def test_a_document_in_the_wrong_place_is_named(ctl: Any, tmp_path: Path, words: tuple[str, str]) -> None:
    request = tmp_path / "request.txt"
    ctl("licence", "request", "--output", str(request))
    refused = ctl(*words, str(request))
    assert (refused.code, "activation request" in refused.err) == (Exit.SIGNATURE, True)


def test_an_acknowledgement_is_sent_where_it_belongs(ctl: Any, clock: Any, tmp_path: Path) -> None:
    clock.advance(3_600)
    ctl("usage", "export", "--output", str(tmp_path))
    (report,) = tmp_path.glob("*.zip")
    answer = tmp_path / "answer.txt"
    _vendor(clock, "ack", "issue", "--development", report, "--output", answer)
    refused = ctl("licence", "install", str(answer))
    assert (refused.code, "usage acknowledge" in refused.err) == (Exit.SIGNATURE, True)


def test_several_files_are_not_checked_at_once(ctl: Any, clock: Any, tmp_path: Path) -> None:
    order = ("--development", "--tier", "pro", "--customer", "Example GmbH")
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        _vendor(clock, "licence", "issue", *order, "--output", file)
        clock.advance(1)
    refused = ctl("licence", "install", "--check", *(str(file) for file in files))
    assert (refused.code, "one file" in refused.err) == (Exit.USAGE, True)


def test_the_table_of_states_is_shown_with_every_effect(ctl: Any, clock: Any, tmp_path: Path) -> None:
    shown = ctl("licence", "show", "--states").out
    for code in ("licence_none", "licence_grace", "licence_revoked", "licence_terminated"):
        assert code in shown
    licence = tmp_path / "licence.txt"
    order = ("--development", "--tier", "pro", "--customer", "Example GmbH", "--output", licence)
    _vendor(clock, "licence", "issue", *order)
    checked = ctl("licence", "install", "--check", str(licence)).out
    assert "everything that the licence allows" in checked


def _keyring(file: Path, version: int, clock: Any) -> Path:
    """The development keyring again, one or more versions up."""
    pem = (resources.files("lotabots_vendor") / "development" / "root.pem").read_bytes()
    root = serialization.load_pem_private_key(pem, password=None)
    assert isinstance(root, Ed25519PrivateKey)
    issued_at = datetime.fromtimestamp(clock.wall_ns() // 1_000_000_000, UTC)
    following = replace(development_authority().keyring, version=version, issued_at=issued_at)
    file.write_bytes(sign(PayloadType.KEYRING, keyring_body(following), [root]).to_json())
    return file


def test_an_older_keyring_among_several_files_keeps_nothing_behind_it_from_its_place(
    ctl: Any, clock: Any, tmp_path: Path
) -> None:
    second, third = (str(_keyring(tmp_path / f"keyring-{n}", n, clock)) for n in (2, 3))
    assert ctl("licence", "install", third, second).code == Exit.OK
    # By itself an older one is refused, as ever.
    alone = ctl("licence", "install", second)
    assert (alone.code, "does not follow" in alone.err) == (Exit.CHECK_FAILED, True)
    licence = tmp_path / "licence"
    order = ("--development", "--tier", "pro", "--customer", "Example GmbH")
    assert _vendor(clock, "licence", "issue", *order, "--output", licence) == Exit.OK
    said = ctl("licence", "install", str(licence), third, second)
    assert said.code == Exit.OK, said.err
    assert said.out.startswith(
        "keyring 2 skipped: keyring 3 is trusted already\nkeyring 3 skipped: keyring 3 is trusted already\n"
    )
    assert "licence installed" in said.out


def test_a_keyring_whose_number_cannot_be_read_is_left_to_the_daemon(
    ctl: Any, clock: Any, tmp_path: Path
) -> None:
    zeroth = _keyring(tmp_path / "keyring", 0, clock)
    licence = tmp_path / "licence"
    _vendor(
        clock, "licence", "issue", "--development", "--tier", "pro", "--customer", "X", "--output", licence
    )
    said = ctl("licence", "install", str(zeroth), str(licence))
    assert (said.code == Exit.OK, "skipped" in said.out) == (False, False)
