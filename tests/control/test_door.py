"""Who may use the control socket, and how much they may carry."""

from __future__ import annotations

import pytest

from lotabotsd.control.door import MAX_BODY_BYTES
from lotabotsd.foundation.sockets import Peer

OWN_UID, GROUP = 4_242, 77


@pytest.mark.parametrize(
    "peer",
    [
        Peer(1, 0, frozenset()),
        Peer(1, OWN_UID, frozenset()),
        Peer(1, 1_000, frozenset({GROUP})),
        Peer(1, 1_000, frozenset({1_000, 4, GROUP})),
    ],
)
def test_root_the_daemons_user_and_the_admins_group_may_come_in(ask, peer) -> None:
    assert ask("GET", "/organisations", peer=peer).status_code == 200


@pytest.mark.parametrize("peer", [Peer(9, 1_000, frozenset()), Peer(9, 1, frozenset({0, 1})), None])
def test_everybody_else_is_refused_before_any_route(ask, peer) -> None:
    for path in ("/organisations", "/no/such/route", "/openapi.json"):
        answer = ask("GET", path, peer=peer)
        assert answer.status_code == 403
        assert answer.json()["code"] == "peer_refused"
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_refused_peer_is_told_to_the_daemon_with_what_it_asked(ask, daemon) -> None:
    stranger = Peer(9, 1_000, frozenset())
    ask("DELETE", "/organisations/org_x", peer=stranger)
    assert daemon.refused == [(stranger, "DELETE /control/v1/organisations/org_x")]


def test_without_an_admins_group_on_the_host_group_zero_means_nothing(rooms) -> None:
    from lotabotsd.control.peers import Admins

    assert not Admins(OWN_UID, None).includes(Peer(1, 1_000, frozenset({0})))


def test_a_body_of_the_largest_size_passes_the_door_and_one_more_byte_does_not(ask) -> None:
    largest = ask("PUT", "/licence", content=b"x" * MAX_BODY_BYTES)
    assert largest.json()["code"] == "envelope_malformed"
    larger = ask("PUT", "/licence", content=b"x" * (MAX_BODY_BYTES + 1))
    assert (larger.status_code, larger.json()["code"]) == (413, "body_too_large")
