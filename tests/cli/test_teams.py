"""lotabotsctl team against a real control socket: from a team and its key to their end."""

from __future__ import annotations

import json

import pytest

from lotabotsd.foundation.errors import Exit


@pytest.fixture
def people(ctl) -> None:
    ctl("organisation", "create", "Ours")
    ctl("member", "create", "app", "--kind", "service")
    ctl("team", "create", "scan", "--quota-per-month", "5000")


def made(said):
    assert said.code == Exit.OK, said.err
    return json.loads(said.out)


def test_a_team_is_made_listed_and_shown(ctl, people) -> None:
    assert ctl("team", "create", "print").out.endswith("(print) made\n")
    listed = ctl("team", "list").out
    assert listed.splitlines()[0].split()[:3] == ["TEAM", "NAME", "ORGANISATION"]
    assert "5 000" in listed
    assert {item["name"] for item in made(ctl("team", "list", "--organisation", "Ours", "--json"))} == {
        "scan",
        "print",
    }
    shown = ctl("team", "show", "scan").out
    assert "per month   5 000" in shown
    assert "nobody is in it yet" in shown


def test_a_member_joins_has_a_key_of_the_team_and_leaves(ctl, people) -> None:
    assert ctl("team", "join", "scan", "app", "--role", "developer").out.endswith(
        "(app) is in team scan as developer\n"
    )
    key = made(ctl("key", "create", "k", "--team", "scan", "--json"))
    assert (key["team_name"], key["role"]) == ("scan", "developer")
    heading, row = ctl("key", "list").out.splitlines()
    assert "TEAM" in heading.split()
    assert "scan" in row.split()
    team = made(ctl("team", "show", "scan", "--json"))
    assert [(member["name"], member["role"]) for member in team["members"]] == [("app", "developer")]
    left = ctl("team", "leave", team["team_id"], key["member_id"], "--yes")
    assert left.out.endswith("(app) left team scan, 1 key revoked\n")
    assert "revoked" in ctl("key", "list").out


def test_a_key_without_a_team_shows_none(ctl, people) -> None:
    ctl("key", "create", "plain")
    assert made(ctl("key", "list", "--json"))[0]["team_name"] is None
    assert " - " in ctl("key", "list").out


def test_a_limit_that_is_not_given_stays(ctl, people) -> None:
    changed = made(ctl("team", "limits", "scan", "--concurrency", "4", "--json"))
    assert changed["limits"] == {"rate_per_minute": 0, "concurrency": 4, "quota_per_month": 5_000}
    again = made(ctl("team", "limits", "scan", "--quota-per-month", "0", "--json"))
    assert again["limits"] == {"rate_per_minute": 0, "concurrency": 4, "quota_per_month": 0}
    assert "at once     4" in ctl("team", "limits", "scan", "--rate-per-minute", "60").out


def test_a_removed_teams_keys_are_revoked(ctl, people) -> None:
    ctl("team", "join", "scan", "app")
    for name in ("a", "b"):
        ctl("key", "create", name, "--team", "scan")
    asked = ctl("team", "remove", "scan")
    assert asked.code == Exit.USAGE
    assert "--yes" in asked.err
    assert ctl("team", "remove", "scan", "--yes").out.endswith("(scan) removed, 2 keys revoked\n")
    assert all(key["revoked"] for key in made(ctl("key", "list", "--json")))
    assert made(ctl("team", "list", "--json")) == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("team", "create", "SCAN"), Exit.CHECK_FAILED, "SCAN"),
        (("team", "show", "none"), Exit.CHECK_FAILED, "team none"),
        (("team", "join", "scan", "nobody"), Exit.CHECK_FAILED, "member nobody"),
        (("team", "leave", "scan", "app", "--yes"), Exit.CHECK_FAILED, "no such member in this team"),
        (("team", "limits", "scan"), Exit.USAGE, "--concurrency"),
        (("key", "create", "k", "--team", "scan"), Exit.CHECK_FAILED, "team join"),
        (("key", "create", "k", "--team", "none"), Exit.CHECK_FAILED, "team list"),
    ],
)
def test_what_is_refused_says_so_in_two_lines_with_its_exit_code(ctl, people, words, code, says) -> None:
    said = ctl(*words)
    assert said.code == code
    first, second = said.err.splitlines()
    assert first.startswith("error: ")
    assert second.startswith(" hint: ")
    assert says in said.err
