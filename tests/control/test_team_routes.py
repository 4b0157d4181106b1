"""Teams through the API: made once, spread at once, in pages, and never a neighbour's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from lotabotsd.control.rooms import Spread


@dataclass(frozen=True)
class Place:
    """An organisation with a member, and a team that the member is in."""

    organisation: str
    member: str
    team: str

    @property
    def path(self) -> str:
        return f"/organisations/{self.organisation}/teams/{self.team}"


@pytest.fixture
def place(ask) -> Callable[[str], Place]:
    def make(name: str) -> Place:
        organisation = ask("POST", "/organisations", json={"name": name}).json()["organisation_id"]
        above = f"/organisations/{organisation}"
        member = ask("POST", f"{above}/members", json={"name": "app"}).json()["member_id"]
        team = ask("POST", f"{above}/teams", json={"name": "scan"}).json()["team_id"]
        made = Place(organisation, member, team)
        ask("PUT", f"{made.path}/members/{member}", json={"role": "developer"})
        return made

    return make


def _key(ask, place: Place, **changes: str):
    body = {"name": "k", "member_id": place.member, "team_id": place.team, **changes}
    return ask("POST", f"/organisations/{place.organisation}/keys", json=body)


def test_a_team_is_made_listed_limited_and_removed(ask, place) -> None:
    ours = place("Ours")
    above = f"/organisations/{ours.organisation}/teams"
    made = ask("POST", above, json={"name": "print", "limits": {"rate_per_minute": 60}})
    assert made.status_code == 201
    assert made.json()["limits"]["rate_per_minute"] == 60
    assert {item["name"] for item in ask("GET", above).json()["items"]} == {"scan", "print"}
    limited = ask("PUT", f"{ours.path}/limits", json={"concurrency": 3}).json()
    assert limited["limits"] == {"rate_per_minute": 0, "concurrency": 3, "quota_per_month": 0}
    assert ask("GET", ours.path).json()["limits"] == limited["limits"]
    assert ask("DELETE", ours.path).json()["revoked_keys"] == []
    assert ask("GET", ours.path).status_code == 404


def test_a_member_joins_with_a_role_gets_another_and_leaves(ask, place) -> None:
    ours = place("Ours")
    member = f"{ours.path}/members/{ours.member}"
    again = ask("PUT", member, json={"role": "auditor"}).json()
    assert (again["team_id"], again["member_id"], again["role"]) == (ours.team, ours.member, "auditor")
    assert [(m["name"], m["role"]) for m in ask("GET", f"{ours.path}/members").json()["items"]] == [
        ("app", "auditor")
    ]
    assert ask("DELETE", member).status_code == 200
    assert ask("DELETE", member).status_code == 404
    assert ask("GET", f"{ours.path}/members").json()["items"] == []
    assert ask("PUT", member, json={"role": "king"}).json()["code"] == "value_invalid"


def test_a_key_is_made_for_a_team_and_says_so(ask, place) -> None:
    ours = place("Ours")
    made = _key(ask, ours).json()
    assert (made["team_id"], made["team_name"], made["role"]) == (ours.team, "scan", "developer")
    assert ask("GET", f"/keys/{made['key_id']}").json()["team_name"] == "scan"
    assert ask("DELETE", ours.path).json()["revoked_keys"] == [made["key_id"]]
    assert ask("GET", f"/keys/{made['key_id']}").json()["revoked"] is True


def test_a_key_of_a_team_is_refused_to_who_is_not_in_it(ask, place) -> None:
    ours = place("Ours")
    ask("DELETE", f"{ours.path}/members/{ours.member}")
    refused = _key(ask, ours)
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert "team join" in refused.json()["hint"]


@pytest.mark.parametrize("change", ["create", "limits", "join", "leave", "key", "remove"])
def test_every_change_is_spread_to_the_gate_and_says_how_far_it_got(ask, daemon, place, change) -> None:
    ours = place("Ours")
    member = f"{ours.path}/members/{ours.member}"
    daemon.published, daemon.spread = 0, Spread(generation=9, workers=3, applied=2)
    answer = {
        "create": lambda: ask("POST", f"/organisations/{ours.organisation}/teams", json={"name": "more"}),
        "limits": lambda: ask("PUT", f"{ours.path}/limits", json={"concurrency": 1}),
        "join": lambda: ask("PUT", member, json={"role": "auditor"}),
        "leave": lambda: ask("DELETE", member),
        "key": lambda: _key(ask, ours),
        "remove": lambda: ask("DELETE", ours.path),
    }[change]()
    assert answer.status_code in (200, 201)
    assert daemon.published == 1
    assert answer.json()["spread"] == {"generation": 9, "workers": 3, "applied": 2, "complete": False}


def test_the_same_idempotency_key_makes_one_team(ask, place) -> None:
    ours = place("Ours")
    path, headers = f"/organisations/{ours.organisation}/teams", {"Idempotency-Key": "a-key-of-mine"}
    first = ask("POST", path, json={"name": "print"}, headers=headers).json()
    second = ask("POST", path, json={"name": "print"}, headers=headers).json()
    assert first["team_id"] == second["team_id"]
    assert len(ask("GET", path).json()["items"]) == 2
    other = ask("POST", path, json={"name": "other"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "conflict")


NEIGHBOURLY = {
    "get": ("GET", "{path}", None),
    "limits": ("PUT", "{path}/limits", {"concurrency": 1}),
    "remove": ("DELETE", "{path}", None),
    "members": ("GET", "{path}/members", None),
    "join": ("PUT", "{path}/members/{member}", {"role": "owner"}),
    "leave": ("DELETE", "{path}/members/{member}", None),
}


@pytest.mark.parametrize("route", NEIGHBOURLY)
def test_the_neighbours_teams_are_not_there(ask, daemon, place, route) -> None:
    ours, theirs = place("Ours"), place("Theirs")
    key = _key(ask, theirs).json()["key_id"]
    method, path, body = NEIGHBOURLY[route]
    crossed = f"/organisations/{ours.organisation}/teams/{theirs.team}"
    daemon.published = 0
    for member in (theirs.member, ours.member):
        answer = ask(method, path.format(path=crossed, member=member), json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert daemon.published == 0
    assert ask("GET", theirs.path).json()["limits"]["concurrency"] == 0
    assert [m["role"] for m in ask("GET", f"{theirs.path}/members").json()["items"]] == ["developer"]
    assert ask("GET", f"/keys/{key}").json()["revoked"] is False


def test_the_neighbours_members_and_teams_do_not_meet_ours(ask, place) -> None:
    ours, theirs = place("Ours"), place("Theirs")
    assert ask("PUT", f"{ours.path}/members/{theirs.member}", json={"role": "owner"}).status_code == 404
    assert ask("DELETE", f"{ours.path}/members/{theirs.member}").status_code == 404
    assert _key(ask, ours, team_id=theirs.team).status_code == 404
    assert _key(ask, ours, member_id=theirs.member).status_code == 404
    listed = ask("GET", f"/organisations/{ours.organisation}/teams").json()["items"]
    assert [item["team_id"] for item in listed] == [ours.team]


def test_lists_of_what_is_unknown_are_not_empty_lists(ask, place) -> None:
    ours = place("Ours")
    assert ask("GET", "/organisations/org_none/teams").status_code == 404
    assert ask("GET", f"/organisations/{ours.organisation}/teams/team_none/members").status_code == 404


def test_teams_and_their_members_come_in_pages(ask, clock, daemon, place) -> None:
    daemon.caps = type(daemon.caps)()
    ours = place("Ours")
    above = f"/organisations/{ours.organisation}"
    for number in range(4):
        clock.advance(1)
        ask("POST", f"{above}/teams", json={"name": f"t{number}"})
        member = ask("POST", f"{above}/members", json={"name": f"m{number}"}).json()["member_id"]
        ask("PUT", f"{ours.path}/members/{member}", json={"role": "developer"})
    for path, identity in ((f"{above}/teams", "team_id"), (f"{ours.path}/members", "member_id")):
        first = ask("GET", f"{path}?limit=3").json()
        second = ask("GET", f"{path}?limit=3&cursor={first['next']}").json()
        found = [item[identity] for item in first["items"] + second["items"]]
        assert len(first["items"]) == 3
        assert len(found) == len(set(found)) == 5
        assert second["next"] is None


def test_changes_and_refusals_are_in_the_audit_trail_of_the_organisation(ask, place) -> None:
    ours = place("Ours")
    ask("POST", f"/organisations/{ours.organisation}/teams", json={"name": "SCAN"})
    ask("DELETE", ours.path)
    rows = ask("GET", f"/audit?organisation={ours.organisation}").json()["items"]
    told = [(row["action"], row["outcome"]) for row in rows if row["action"].startswith("team.")]
    assert told == [
        ("team.create", "done"),
        ("team.join", "done"),
        ("team.create", "refused"),
        ("team.remove", "done"),
    ]
    assert all(row["who"].startswith("uid:0") for row in rows)
