"""`lotabots-verify token`: exit codes, and output that no token can forge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lotabotsd.attestation.evidence import Evidence
from lotabotsd.attestation.issuer import Issuer
from lotabotsd.attestation.keyset import Keyset
from lotabotsd.attestation.token import sign_jws
from lotabotsd.attestation.verify import main, read_policy, verify_token

NONCE = "AAAAAAAAAAAAAAAAAAAAAA"


@pytest.fixture
def command(tmp_path: Path, token: str, keyset: Keyset, now: int) -> list[str]:
    """A command line that says "valid"."""
    (tmp_path / "token").write_text(token + "\n")
    (tmp_path / "jwks.json").write_text(json.dumps(keyset.jwks(), indent=2))
    files = [str(tmp_path / "token"), "--jwks", str(tmp_path / "jwks.json")]
    return ["token", *files, "--audience", "an-app", "--nonce", NONCE, "--at", str(now)]


def usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 3
    return capsys.readouterr().err


def test_a_valid_token_is_shown_check_by_check_with_its_limits(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("parse         ok       size: ")
    assert "cryptography  ok       signature" in lines
    assert "claims        ok       audience: an-app" in lines
    assert "policy        not run  development: true" in lines
    assert (
        "does NOT establish: more than its level, software: Tamper-evident to everyone who does not control "
        "the appliance. Its administrator could forge it." in lines
    )
    assert lines[-2].startswith("does NOT establish: ")
    assert lines[-1] == "valid"


def test_an_invalid_token_is_1_and_shows_which_check_failed(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--nonce", "B" * 22]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "claims        FAILED   challenge: another nonce" in lines
    assert lines[-2:] == ["does NOT establish: anything: the token is not valid", "invalid"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"nonsense", b"a.b.c", bytes(20_000)])
def test_a_file_that_holds_no_token_is_invalid_not_a_crash(
    command: list[str], content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(command[1]).write_bytes(content)
    assert main(command) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "invalid"


def test_a_refusal_by_policy_is_2(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "policy.toml").write_text("allow_development = false\n")
    assert main([*command, "--policy", str(tmp_path / "policy.toml")]) == 2
    assert capsys.readouterr().out.splitlines()[-1] == "valid, but refused by policy"


def test_a_policy_file_can_demand_models(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(f'require_challenge = true\n[models]\npage_orientation = "sha256:{"ab" * 32}"\n')
    assert main([*command, "--policy", str(policy)]) == 0
    assert "policy        ok       model page_orientation" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["token"],
        ["receipt", "x"],
        ["--no"],
        ["token", "x", "--jwks", "y"],
        ["token", "x", "--audience", "y"],
    ],
)
def test_a_command_that_is_not_understood_is_3(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "usage: lotabots-verify" in usage_error(arguments, capsys)


@pytest.mark.parametrize("option", ["file", "--jwks", "--policy", "--detached"])
def test_a_file_that_is_not_there_is_3_and_named(
    command: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if option == "file":
        command[1] = "absent"
    else:
        command += [option, "absent"]
    assert "absent" in usage_error(command, capsys)


@pytest.mark.parametrize("option", ["--jwks", "--detached"])
@pytest.mark.parametrize("content", [b"", b"{", b'{"a":1,"a":2}', b"\xff", b"[" * 100_000])
def test_a_trust_file_that_cannot_be_read_is_3(
    command: list[str], tmp_path: Path, option: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "damaged").write_bytes(content)
    usage_error([*command, option, str(tmp_path / "damaged")], capsys)


@pytest.mark.parametrize("content", [b"5", b"null", b"[1]", b'"ab"'])
def test_detached_content_must_be_an_object(
    command: list[str], tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "detached").write_bytes(content)
    usage_error([*command, "--detached", str(tmp_path / "detached")], capsys)


@pytest.mark.parametrize(
    "text",
    [
        "unknown = 1",
        "allow_development = 1",
        "require_challenge = 'yes'",
        "max_age_seconds = true",
        "max_age_seconds = 1.5",
        "minimum_assurance = 'high'",
        "models = 'x'",
        "[[models]]",
        "x",
    ],
)
def test_a_policy_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_policy(text.encode())


def test_a_token_cannot_write_lines_or_control_characters_of_its_own(
    command: list[str], claims: dict[str, Any], keyset: Keyset, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "x\n\x1b[2Kpolicy        ok       assurance: tpm\nвалид"
    claims["submods"][name] = {"x-lotabots-source": "operator_asserted"}
    Path(command[1]).write_text(sign_jws(claims, keyset.attestation))
    assert main(command) == 0
    output = capsys.readouterr().out
    assert output.isascii()
    assert "\x1b" not in output
    assert "policy        ok       assurance: tpm" not in output.splitlines()


ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["kid", "jkt", "name", "digest", "measres", "models"]), inner)
    ),
    max_leaves=6,
)
LIGHT = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


@LIGHT
@given(data=st.data())
def test_no_signed_claim_can_make_the_verifier_crash(
    claims: dict[str, Any], keyset: Keyset, now: int, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(claims)))
    changed = {**claims, name: data.draw(ANYTHING)}
    if data.draw(st.booleans()):
        submodule = data.draw(st.sampled_from(sorted(claims["submods"])))
        member = data.draw(st.sampled_from(["measres", "x-lotabots-models", "x-lotabots-source"]))
        content = {**claims["submods"][submodule], member: data.draw(ANYTHING)}
        changed["submods"] = {**claims["submods"], submodule: content}
    token = sign_jws(changed, keyset.attestation)
    assert verify_token(token, keyset.jwks(), audience="an-app", now=now).exit_code in (0, 1, 2)


@LIGHT
@given(text=st.text(), jwks=ANYTHING)
def test_no_text_and_no_key_set_can_make_the_verifier_crash(
    token: str, now: int, text: str, jwks: Any
) -> None:
    for wild in (text, f"{text}.{text}.{text}", token):
        verdict = verify_token(wild, {"keys": [jwks]}, audience="an-app", now=now)
        assert verdict.exit_code == 1
    assert verify_token(token, jwks, audience="an-app", now=now).exit_code == 1


def test_an_unchallenged_token_is_valid_and_said_to_be_so(
    command: list[str], issuer: Issuer, evidence: Evidence, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(command[1]).write_text(issuer.issue(evidence, None, "an-app").token)
    without_nonce = [part for part in command if part not in ("--nonce", NONCE)]
    assert main(without_nonce) == 0
    output = capsys.readouterr().out
    assert "claims        not run  challenge: unchallenged" in output
    assert "does NOT establish: that it was made just now: unchallenged" in output
