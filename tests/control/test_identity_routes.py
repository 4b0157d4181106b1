"""Organisations, members and keys through the API: made once, spread at once, and never a neighbour's."""

from __future__ import annotations

import pytest

from lotabotsd.control.rooms import Spread


def _organisation(ask, name="Ours"):
    return ask("POST", "/organisations", json={"name": name}).json()["organisation_id"]


def _member(ask, organisation, name="app"):
    return ask("POST", f"/organisations/{organisation}/members", json={"name": name}).json()["member_id"]


def _key(ask, organisation, member, **more):
    body = {"name": "k", "member_id": member, **more}
    return ask("POST", f"/organisations/{organisation}/keys", json=body)


def test_an_organisation_is_made_listed_and_removed(ask) -> None:
    made = ask("POST", "/organisations", json={"name": "Ours", "limits": {"rate_per_minute": 60}})
    assert made.status_code == 201
    assert made.json()["limits"]["rate_per_minute"] == 60
    listed = ask("GET", "/organisations").json()
    assert [item["name"] for item in listed["items"]] == ["Ours"]
    assert listed["next"] is None
    identity = made.json()["organisation_id"]
    assert ask("DELETE", f"/organisations/{identity}").status_code == 200
    assert ask("GET", f"/organisations/{identity}").status_code == 404


def test_the_licence_bounds_how_many_there_may_be(ask) -> None:
    for name in ("one", "two"):
        assert ask("POST", "/organisations", json={"name": name}).status_code == 201
    third = ask("POST", "/organisations", json={"name": "three"})
    assert (third.status_code, third.json()["code"]) == (409, "licence_limit")


@pytest.mark.parametrize("change", ["organisation", "limits", "role", "key", "rotate", "revoke", "remove"])
def test_every_change_is_spread_to_the_gate_and_says_how_far_it_got(ask, daemon, change) -> None:
    organisation = _organisation(ask)
    member = _member(ask, organisation)
    key = _key(ask, organisation, member).json()["key_id"]
    daemon.published, daemon.spread = 0, Spread(generation=9, workers=3, applied=2)
    answer = {
        "organisation": lambda: ask("POST", "/organisations", json={"name": "More"}),
        "limits": lambda: ask("PUT", f"/organisations/{organisation}/limits", json={"concurrency": 1}),
        "role": lambda: ask(
            "PUT", f"/organisations/{organisation}/members/{member}/role", json={"role": "auditor"}
        ),
        "key": lambda: _key(ask, organisation, member),
        "rotate": lambda: ask("POST", f"/keys/{key}/rotate", json={"grace_seconds": 0}),
        "revoke": lambda: ask("POST", f"/keys/{key}/revoke"),
        "remove": lambda: ask("DELETE", f"/organisations/{organisation}/members/{member}"),
    }[change]()
    assert answer.status_code in (200, 201)
    assert daemon.published == 1
    assert answer.json()["spread"] == {"generation": 9, "workers": 3, "applied": 2, "complete": False}


def test_a_keys_text_is_in_the_answer_that_makes_it_and_nowhere_else(ask, rooms) -> None:
    organisation = _organisation(ask)
    made = _key(ask, organisation, _member(ask, organisation), models=["alpha"]).json()
    text = made["text"]
    assert text.startswith("lb_live_")
    for path in ("/keys", f"/keys/{made['key_id']}", f"/organisations/{organisation}/keys", "/audit"):
        assert text not in ask("GET", path).text
        assert text.split("_")[3] not in ask("GET", path).text


def test_a_revoked_key_stays_listed_as_revoked_and_cannot_be_rotated(ask) -> None:
    organisation = _organisation(ask)
    key = _key(ask, organisation, _member(ask, organisation)).json()["key_id"]
    assert ask("POST", f"/keys/{key}/revoke").json()["revoked"] is True
    assert ask("GET", f"/keys/{key}").json()["revoked"] is True
    assert ask("POST", f"/keys/{key}/rotate", json={}).json()["code"] == "conflict"


def test_the_same_idempotency_key_makes_one_thing_with_one_secret(ask) -> None:
    organisation = _organisation(ask)
    body = {"name": "k", "member_id": _member(ask, organisation)}
    path, headers = f"/organisations/{organisation}/keys", {"Idempotency-Key": "a-key-of-mine"}
    first = ask("POST", path, json=body, headers=headers).json()
    second = ask("POST", path, json=body, headers=headers).json()
    assert first["text"] == second["text"]
    assert len(ask("GET", "/keys").json()["items"]) == 1
    other = ask("POST", path, json={**body, "name": "other"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "conflict")


def test_the_neighbours_objects_are_not_there(ask) -> None:
    ours, theirs = _organisation(ask, "Ours"), _organisation(ask, "Theirs")
    member = _member(ask, theirs)
    _key(ask, theirs, member)
    assert ask("GET", f"/organisations/{ours}/members/{member}").status_code == 404
    assert ask("DELETE", f"/organisations/{ours}/members/{member}").status_code == 404
    role = ask("PUT", f"/organisations/{ours}/members/{member}/role", json={"role": "owner"})
    assert role.status_code == 404
    assert _key(ask, ours, member).status_code == 404
    assert ask("GET", f"/organisations/{ours}/keys").json()["items"] == []
    assert ask("GET", f"/organisations/{ours}/members").json()["items"] == []


def test_a_list_of_an_unknown_organisation_is_not_an_empty_list(ask) -> None:
    assert ask("GET", "/organisations/org_none/keys").status_code == 404
    assert ask("GET", "/organisations/org_none/members").status_code == 404


def test_lists_come_in_pages(ask, clock) -> None:
    organisation = _organisation(ask)
    member = _member(ask, organisation)
    for _ in range(5):
        clock.advance(1)
        _key(ask, organisation, member)
    first = ask("GET", "/keys?limit=3").json()
    second = ask("GET", f"/keys?limit=3&cursor={first['next']}").json()
    found = [item["key_id"] for item in first["items"] + second["items"]]
    assert len(found) == len(set(found)) == 5
    assert second["next"] is None


def test_changes_and_refusals_are_in_the_audit_trail_with_who_asked(ask) -> None:
    _organisation(ask, "Ours")
    ask("POST", "/organisations", json={"name": "ours"})
    rows = ask("GET", "/audit").json()["items"]
    assert [(row["action"], row["outcome"]) for row in rows] == [
        ("organisation.create", "done"),
        ("organisation.create", "refused"),
    ]
    assert rows[0]["who"].startswith("uid:0")
    assert rows[0]["source"] == "control.sock"
    assert ask("GET", "/audit?newest=1").json()["items"] == rows[1:]
    assert ask("GET", "/audit?after=1").json()["items"] == rows[1:]
    assert ask("GET", "/audit/verdict").json()["intact"] is True


def test_the_newest_rows_of_one_organisation_are_found_among_others(ask) -> None:
    ours, theirs = _organisation(ask, "Ours"), _organisation(ask, "Theirs")
    for number in range(3):
        ask("PUT", f"/organisations/{ours}/limits", json={"concurrency": number})
    ask("PUT", f"/organisations/{theirs}/limits", json={"concurrency": 9})
    found = ask("GET", f"/audit?newest=2&organisation={ours}").json()["items"]
    assert [row["after"]["limits"]["concurrency"] for row in found] == [1, 2]
