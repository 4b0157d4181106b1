"""`lotabots-verify receipt`: what its file may hold, exit codes, and output that no receipt can forge."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.attestation.keyset import Keyset
from lotabotsd.attestation.verify import main, receipt_in
from lotabotsd.foundation.identifiers import b64url

NONCE = "AAAAAAAAAAAAAAAAAAAAAA"
SALT = b64url(bytes(range(16)))
Sign = Callable[..., str]


@pytest.fixture
def command(
    tmp_path: Path, receipt: str, token: str, keyset: Keyset, bodies: tuple[bytes, bytes], now: int
) -> list[str]:
    """A command line that compares everything and says "valid"."""
    (tmp_path / "receipt").write_text(receipt + "\n")
    (tmp_path / "token").write_text(token + "\n")
    (tmp_path / "jwks.json").write_text(json.dumps(keyset.jwks(), indent=2))
    files = [
        str(tmp_path / "receipt"),
        "--jwks",
        str(tmp_path / "jwks.json"),
        "--token",
        str(tmp_path / "token"),
    ]
    for name, body in zip(("request", "response"), bodies, strict=True):
        (tmp_path / name).write_bytes(body)
        files += [f"--{name}", str(tmp_path / name)]
    issuer = f"urn:dev:ueid:{keyset.ueid}"
    return ["receipt", *files, "--nonce", NONCE, "--issuer", issuer, "--at", str(now)]


def usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 3
    return capsys.readouterr().err


def test_a_valid_receipt_is_shown_check_by_check_with_its_limits(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("parse         ok       size: ")
    assert "claims        ok       request bytes: 20 bytes" in lines
    assert "claims        ok       token" in lines
    assert "claims        not run  salt: nothing is salted" in lines
    assert (
        "does NOT establish: that this model computed this answer: The key holder states: these request "
        "bytes, this loaded model, these response bytes. Not a proof of computation." in lines
    )
    assert lines[-2].startswith("does NOT establish: ")
    assert lines[-1] == "valid"


def test_a_receipt_for_other_bytes_is_1(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "response").write_bytes(b"another")
    assert main(command) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "claims        FAILED   response bytes: 7 bytes, the receipt says 35" in lines
    assert lines[-2:] == ["does NOT establish: anything: the receipt is not valid", "invalid"]


def test_a_refusal_by_policy_is_2(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "policy.toml").write_text('[models]\nanother = "sha256:00"\n')
    assert main([*command, "--policy", str(tmp_path / "policy.toml")]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert f"policy        FAILED   model: page_orientation sha256:{'ab' * 32}" in lines
    assert lines[-1] == "valid, but refused by policy"


def test_a_salted_receipt_takes_its_salt(
    command: list[str], salted_claims: dict[str, Any], sign_receipt: Sign, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(command[1]).write_text(sign_receipt(salted_claims))
    assert main([*command, "--salt", SALT]) == 0
    assert "claims        ok       request bytes: 20 bytes, salted" in capsys.readouterr().out
    assert main(command) == 0
    assert "claims        not run  request bytes: only their number fits" in capsys.readouterr().out
    assert main([*command, "--salt", "A" * 22]) == 1


@pytest.mark.parametrize(
    "form",
    [
        "{0}",
        "\n  {0}\r\n",
        "Lotabots-Receipt: {0}",
        "lotabots-receipt:{0}\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nLotabots-Receipt: {0}\r\n"
        "lotabots-receipt-salt: AAECAwQFBgcICQoLDA0ODw\r\n\r\n",
        "lotabots-receipt: 1\nLOTABOTS-RECEIPT:   {0}  ",
        'data: {{"a":1}}\n\n: lotabots-receipt {0}\n\n',
        '{{"receipt": "{0}"}}',
        '{{"id": "1", "receipt": "{0}", "salted": [true, {{}}]}}\n',
    ],
)
def test_a_file_may_hold_the_receipt_alone_its_header_or_the_appliances_answer(
    command: list[str], receipt: str, form: str
) -> None:
    Path(command[1]).write_text(form.format(receipt))
    assert main(command) == 0


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe", b"nonsense", b"a.b.c", bytes(20_000), b"{", b"{}", b'{"receipt": 7}',
        b'{"receipt": null}',
        b'{"receipt": {"a": 1}}', b'{"receipt": "a.b.c"}', b'{"receipt":"a","receipt":"b"}', b"{" * 5_000,
        b'{"a":' * 100_000, b"Lotabots-Receipt:", b"Lotabots-Receipt: 1", b"Lotabots-Receipt-Id: a.b.c",
    ],
    ids=lambda content: content[:24].decode(errors="replace"),
)  # fmt: skip
def test_a_file_that_holds_no_receipt_is_invalid_not_a_crash(
    command: list[str], content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(command[1]).write_bytes(content)
    assert main(command) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "invalid"


def test_text_that_holds_no_receipt_comes_back_as_it_is() -> None:
    for text in ("", "x", "{", '{"a":1}', "Lotabots-Receipt-Id: 7", "a: lotabots-receipt x"):
        assert receipt_in(text) == text
    assert receipt_in("Lotabots-Receipt: old\nLotabots-Receipt: new") == "new"


@pytest.mark.parametrize(
    "arguments",
    [
        ["receipt"],
        ["receipt", "x"],
        ["receipt", "--jwks", "y"],
        ["receipt", "x", "--jwks", "y", "--audience", "z"],
    ],
)
def test_a_command_that_is_not_understood_is_3(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "usage: lotabots-verify" in usage_error(arguments, capsys)


@pytest.mark.parametrize("option", ["file", "--jwks", "--policy", "--request", "--response", "--token"])
def test_a_file_that_is_not_there_is_3_and_named(
    command: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command[1:2] = ["absent"] if option == "file" else [command[1], option, "absent"]
    if option in command[4:]:
        at = command.index(option, 4)
        del command[at : at + 2]
    assert "absent" in usage_error(command, capsys)


def test_a_receipt_cannot_write_lines_or_control_characters_of_its_own(
    command: list[str], receipt_claims: dict[str, Any], sign_receipt: Sign, capsys: pytest.CaptureFixture[str]
) -> None:
    receipt_claims["x-lotabots-receipt"]["model"]["name"] = "модель\u2028\u009b2K"
    Path(command[1]).write_text(sign_receipt(receipt_claims))
    assert main(command) == 0
    output = capsys.readouterr().out
    assert output.isascii()
    assert "\x1b" not in output
    assert output.count("\nclaims ") == 9
