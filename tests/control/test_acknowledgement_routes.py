"""Acknowledgements, the walk along the ledger and its purge through the API, each with its audit row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lotabotsd.control.rooms import Rooms, Walking
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.usage.verification import Check, Fault, Verdict
from lotabotsd.usage.windows import Head

LICENCE = Path(__file__).parents[1] / "golden" / "licence" / "pro.dsse.json"
PURGE = {"first": 1, "last": 48, "rows": 48, "reports": 1, "until": 1_700_000_000, "head": "00"}


def actions(ask: Any) -> list[tuple[str, str, str]]:
    """What the audit trail tells, the oldest first."""
    rows = ask("GET", "/audit").json()["items"]
    found = [(row["action"], row["target"], row["outcome"]) for row in rows]
    return found if rows[0]["number"] < rows[-1]["number"] else found[::-1]


def test_an_acknowledgement_is_taken_with_its_audit_row(ask: Any, daemon: Any) -> None:
    answer = ask("PUT", "/usage/acknowledgements", content=b"alone")
    assert answer.status_code == 200
    assert (answer.json()["verdict"], answer.json()["licence"]) == ("accepted", None)
    assert answer.json()["duty"] == {"state": "not_due"}
    assert daemon.taken == [b"alone"]
    assert daemon.published == 1
    assert actions(ask) == [("usage.acknowledge", "r.zip", "done")]


def test_checking_an_acknowledgement_leaves_no_trace(ask: Any, daemon: Any, rooms: Rooms) -> None:
    data = LICENCE.read_bytes()
    answer = ask("PUT", "/usage/acknowledgements?check=true", content=data).json()
    assert answer["licence"]["refused"] is None
    assert answer["licence"]["after"]["tier"] == "pro"
    assert rooms.licence.current() is None
    assert (daemon.taken, daemon.published) == ([], 0)
    assert ask("GET", "/audit").json()["items"] == []


def test_the_licence_in_it_is_installed_the_normal_way(ask: Any, rooms: Rooms) -> None:
    answer = ask("PUT", "/usage/acknowledgements", content=LICENCE.read_bytes()).json()
    assert (answer["licence"]["refused"], answer["licence"]["after"]["tier"]) == (None, "pro")
    assert answer["licence"]["spread"]["complete"] is True
    current = rooms.licence.current()
    assert current is not None
    found = actions(ask)
    assert [action for action, _, _ in found] == ["usage.acknowledge", "licence.install"]
    assert found[1][1] == current.licence_id


def test_a_refused_licence_does_not_lose_the_acknowledgement(ask: Any, daemon: Any) -> None:
    answer = ask("PUT", "/usage/acknowledgements", content=b"no licence")
    assert answer.status_code == 200
    assert answer.json()["licence"]["refused"]["code"] == "envelope_malformed"
    assert answer.json()["licence"]["refused"]["hint"]
    assert daemon.taken == [b"no licence"]
    assert [(action, outcome) for action, _, outcome in actions(ask)] == [
        ("usage.acknowledge", "done"),
        ("licence.install", "refused"),
    ]
    checked = ask("PUT", "/usage/acknowledgements?check=true", content=b"no licence").json()
    assert checked["licence"]["refused"]["code"] == "envelope_malformed"


def test_a_refused_acknowledgement_is_in_the_audit_trail(ask: Any, daemon: Any) -> None:
    answer = ask("PUT", "/usage/acknowledgements", content=b"wrong")
    assert (answer.status_code, answer.json()["code"]) == (409, "acknowledgement_unknown")
    assert (daemon.taken, daemon.published) == ([], 0)
    assert actions(ask) == [("usage.acknowledge", "", "refused")]


def test_the_duty_is_told(ask: Any) -> None:
    assert ask("GET", "/usage/duty").json() == {"state": "not_due"}


def test_a_walk_is_begun_and_its_progress_and_verdict_are_told(ask: Any, daemon: Any) -> None:
    begun = ask("POST", "/ledger/verification")
    assert (begun.status_code, begun.json()["running"]) == (200, True)
    bad = Verdict(Check(Fault.GAP, 3, "row 2 is missing"), Check(), 9, Head(9, bytes(32)), 5, 3_600)
    daemon.walks = [Walking(True, 1_000, 5_000), Walking(False, 9, 9, bad)]
    assert ask("GET", "/ledger/verification").json() == {
        "running": True,
        "row": 1_000,
        "last": 5_000,
        "verdict": None,
    }
    verdict = ask("GET", "/ledger/verification").json()["verdict"]
    assert (verdict["ok"], verdict["integrity"]["fault"], verdict["integrity"]["sequence"]) == (
        False,
        "GAP",
        3,
    )
    assert (verdict["rows"], verdict["proven_from"], verdict["proven_since"]) == (9, 5, 3_600)


def test_a_sound_ledger_of_which_triton_knows_more_is_not_good(ask: Any, daemon: Any) -> None:
    daemon.compared = {"requests": 2, "inferences": 9, "since_ns": 5, "until_ns": 6, "models": ["m"]}
    daemon.walks = [Walking(False, 9, 9, Verdict(Check(), Check(), 9, Head(9, bytes(32))))]
    for verdict in (
        ask("GET", "/ledger/verdict").json(),
        ask("GET", "/ledger/verification").json()["verdict"],
    ):
        assert (verdict["ok"], verdict["integrity"]["ok"], verdict["completeness"]["ok"]) == (
            False,
            True,
            True,
        )
        expected = {"ok": False, "requests": 2, "inferences": 9, "since_ns": 5, "until_ns": 6}
        assert verdict["triton"] == expected


def test_what_ended_a_walk_is_told(ask: Any, daemon: Any) -> None:
    daemon.walks = [Walking(failure=LotaBotsError(Code.DATABASE_DAMAGED, "ledger.db"))]
    answer = ask("GET", "/ledger/verification")
    assert (answer.status_code, answer.json()["code"]) == (500, "database_damaged")


def test_a_purge_is_shown_then_done_with_its_audit_row(ask: Any, daemon: Any) -> None:
    daemon.purgeable = PURGE
    assert ask("GET", "/ledger/purge").json() == {"purge": PURGE}
    assert ask("GET", "/audit").json()["items"] == []
    assert ask("POST", "/ledger/purge").json() == {"purge": PURGE}
    assert daemon.purged_for == ["uid:0 (root)"]
    assert actions(ask) == [("ledger.purge", "rows 1 to 48", "done")]


def test_without_anything_to_purge_nothing_is_written(ask: Any, daemon: Any) -> None:
    for method in ("GET", "POST"):
        assert ask(method, "/ledger/purge").json() == {"purge": None}
    assert daemon.purged_for == []
    assert ask("GET", "/audit").json()["items"] == []


def test_a_damaged_ledger_is_not_purged(ask: Any, daemon: Any) -> None:
    daemon.purgeable, daemon.damage = PURGE, True
    answer = ask("POST", "/ledger/purge")
    assert (answer.status_code, answer.json()["code"]) == (500, "ledger_damaged")
    assert actions(ask)[-1] == ("ledger.purge", "", "refused")
