"""lotabotsctl against a real control socket: what is printed, in which shape, and with which exit code."""

from __future__ import annotations

import json
import os

import pytest

from lotabotsd.cli.commands.status import exit_of, findings_text
from lotabotsd.cli.ctl import lotabotsctl
from lotabotsd.cli.failures import run
from lotabotsd.foundation.errors import Exit

READING = [
    ("status",),
    ("doctor",),
    ("organisation", "list"),
    ("member", "list"),
    ("team", "list"),
    ("key", "list"),
    ("licence", "show"),
    ("usage", "show"),
    ("usage", "reports"),
    ("ledger", "verify"),
    ("model", "list"),
    ("gpu", "list"),
    ("audit", "list"),
    ("audit", "verify"),
]


@pytest.fixture
def people(ctl) -> None:
    ctl("organisation", "create", "Ours")
    ctl("member", "create", "app", "--kind", "service")


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_every_reading_command_prints_text_and_with_json_the_same_as_json(shared_ctl, command) -> None:
    text = shared_ctl(*command)
    as_json = shared_ctl(*command, "--json")
    assert text.code == as_json.code
    assert text.code in (Exit.OK, Exit.CHECK_FAILED)
    assert text.out.strip()
    assert text.err == ""
    json.loads(as_json.out)
    assert "\x1b" not in text.out  # no terminal, no colour


def test_metrics_are_printed_or_written_whole(shared_ctl, tmp_path) -> None:
    printed = shared_ctl("metrics")
    assert printed.code == Exit.OK
    assert printed.out.startswith("# HELP lotabots_build_info ")
    file = tmp_path / "lotabots.prom"
    file.write_text("what was there")
    assert shared_ctl("metrics", "--output", str(file)).out == ""
    assert file.read_text().splitlines()[:3] == printed.out.splitlines()[:3]
    assert file.stat().st_mode & 0o777 == 0o644
    nowhere = shared_ctl("metrics", "--output", str(tmp_path / "nowhere" / "lotabots.prom"))
    assert nowhere.code != Exit.OK
    assert "nowhere" in nowhere.err


def test_a_keys_text_is_printed_once_and_the_key_is_listed_without_it(ctl, people) -> None:
    made = ctl("key", "create", "demo", "--expires-in-days", "10")
    assert made.code == Exit.OK
    text = next(word for word in made.out.split() if word.startswith("lb_live_"))
    assert "shown only once" in made.out
    listed = ctl("key", "list").out
    assert "demo" in listed
    assert text not in listed
    assert text.split("_")[2] in listed


def test_a_key_is_rotated_and_revoked(ctl, people) -> None:
    made = json.loads(ctl("key", "create", "demo", "--json").out)
    rotated = json.loads(ctl("key", "rotate", made["key_id"], "--grace-seconds", "0", "--json").out)
    assert rotated["text"] != made["text"]
    assert ctl("key", "revoke", made["key_id"]).out == f"key {made['key_id']} (demo) revoked\n"
    assert "revoked" in ctl("key", "list").out
    assert ctl("key", "rotate", made["key_id"]).code == Exit.CHECK_FAILED


def test_names_and_ids_both_name_an_organisation_and_a_member(ctl, people) -> None:
    organisation = json.loads(ctl("organisation", "list", "--json").out)[0]["organisation_id"]
    member = json.loads(ctl("member", "list", "--json").out)[0]["member_id"]
    for names in (("Ours", "app"), (organisation, member)):
        made = ctl("key", "create", "k", "--organisation", names[0], "--member", names[1])
        assert made.code == Exit.OK


def test_without_an_organisation_the_next_step_is_named(ctl) -> None:
    said = ctl("key", "create", "demo")
    assert said.code == Exit.CHECK_FAILED
    assert said.err.splitlines()[1] == " hint: make one: lotabotsctl organisation create NAME"


def test_when_several_members_could_be_meant_they_are_named(ctl, people) -> None:
    ctl("member", "create", "second")
    said = ctl("key", "create", "demo")
    assert said.code == Exit.USAGE
    assert {"app", "second"} <= set(said.err.replace(",", " ").split())


def test_the_licences_bound_ends_in_a_failed_check(ctl, people) -> None:
    said = ctl("organisation", "create", "Second")
    assert said.code == Exit.CHECK_FAILED
    assert said.err.startswith("error: the licence does not allow that many")


def test_without_a_terminal_nothing_is_asked_and_nothing_is_removed(ctl, people) -> None:
    said = ctl("organisation", "remove", "Ours")
    assert said.code == Exit.USAGE
    assert "--yes" in said.err
    assert ctl("organisation", "remove", "Ours", "--yes").code == Exit.OK
    assert json.loads(ctl("organisation", "list", "--json").out) == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("key", "revoke", "nosuchkey"), Exit.CHECK_FAILED),
        (("model", "show", "none"), Exit.CHECK_FAILED),
        (("licence", "rollback"), Exit.CHECK_FAILED),
        (("usage", "show", "--since", "yesterday"), Exit.USAGE),
        (("usage", "export", "--cut", "--until", "today"), Exit.USAGE),
        (("usage", "export", "--output", "/proc/none"), Exit.USAGE),
        (("attest", "--nonce", "short"), Exit.CHECK_FAILED),
        (("organisation", "create", "x" * 65), Exit.USAGE),
        (("nonsense",), Exit.USAGE),
        (("logs",), Exit.CHECK_FAILED),  # no helper runs here
        (("verify", "token"), 3),
        (("verify", "receipt"), 3),
    ],
)
def test_what_is_refused_says_so_in_two_lines_with_its_exit_code(shared_ctl, words, code) -> None:
    said = shared_ctl(*words)
    assert said.code == code
    assert said.out == ""
    first, second = said.err.splitlines()
    assert first.startswith("error: ")
    assert second.startswith(" hint: ")


def test_a_damaged_licence_file_ends_with_the_signatures_exit_code(ctl, tmp_path) -> None:
    damaged = tmp_path / "damaged.licence"
    damaged.write_text("-----BEGIN LOTABOTS LICENCE-----\nAAAA\n-----END LOTABOTS LICENCE-----\n")
    assert ctl("licence", "install", str(damaged)).code == Exit.SIGNATURE
    assert ctl("licence", "install", "--check", str(damaged)).code == Exit.SIGNATURE
    assert ctl("licence", "install", str(tmp_path / "none")).code == Exit.CHECK_FAILED


def test_usage_is_exported_copied_and_listed(ctl, clock, tmp_path) -> None:
    clock.advance(3_600)
    made = json.loads(ctl("usage", "export", "--output", str(tmp_path), "--json").out)
    assert (tmp_path / made[0]["name"]).read_bytes().startswith(b"PK")
    assert made[0]["name"] in ctl("usage", "reports").out
    again = ctl("usage", "export")
    assert again.code == Exit.CHECK_FAILED
    clock.advance(5)
    assert ctl("usage", "export", "--cut").code == Exit.OK
    verified = ctl("ledger", "verify").out
    assert verified.startswith("integrity     good\ncompleteness  good\n")
    assert "triton        its counters were not compared yet\n" in verified


def test_a_token_is_asked_for_and_verified_offline(ctl, socket_path, clock, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("time.time", lambda: clock.wall_ns() / 1e9)
    nonce = "n" * 32
    token, jwks = tmp_path / "token", tmp_path / "jwks.json"
    token.write_text(ctl("attest", "--nonce", nonce, "--audience", "me").out)
    from lotabotsd.cli.control_client import ControlClient

    jwks.write_text(json.dumps(ControlClient(socket_path).get("jwks")))
    verify = ("verify", "token", str(token), "--jwks", str(jwks))
    good = ctl(*verify, "--audience", "me", "--nonce", nonce)
    assert good.code == 0, good.out
    assert "does NOT establish" in good.out
    assert ctl(*verify, "--audience", "you", "--nonce", nonce).code == 1
    assert ctl(*verify, "--audience", "me", "--nonce", "m" * 32).code == 1
    assert ctl(*verify, "--audience", "me", "--nonce", nonce, "--refuse-development").code == 2
    assert json.loads(ctl(*verify, "--audience", "me", "--nonce", nonce, "--json").out)["valid"] is True
    jwks.write_text("no json")
    assert ctl(*verify).code == 3


def test_doctor_names_an_absent_daemon_and_its_fix(tmp_path, capsys) -> None:
    words = ["--socket", str(tmp_path / "none.sock"), "doctor"]
    assert run(lotabotsctl, "lotabotsctl", words) == Exit.CHECK_FAILED
    said = capsys.readouterr().out
    assert "lotabotsd does not answer" in said
    assert "fix: start it" in said


def test_status_without_a_daemon_is_a_failure_with_its_next_step(tmp_path, capsys) -> None:
    words = ["--socket", str(tmp_path / "none.sock"), "status"]
    assert run(lotabotsctl, "lotabotsctl", words) == Exit.CHECK_FAILED
    assert "hint: start it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("severities", "code"),
    [
        ([], Exit.OK),
        (["note"], Exit.OK),
        (["note", "warning"], Exit.WARNINGS),
        (["warning", "error", "note"], Exit.CHECK_FAILED),
    ],
)
def test_the_doctors_exit_code_is_that_of_the_worst_finding(severities, code) -> None:
    assert exit_of([{"severity": severity} for severity in severities]) == code


def test_a_finding_cannot_steer_the_terminal(monkeypatch) -> None:
    monkeypatch.setitem(os.environ, "NO_COLOR", "1")
    finding = {"severity": "error", "message": "bad \x1b[2J name", "hint": "\x1b]0;x\x07"}
    assert "\x1b" not in findings_text([finding])
