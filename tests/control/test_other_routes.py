"""Licence, usage, ledger, models and attestation through the API; and the API's own description."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lotabotsd.control import routes

UNMOUNTED = ("route_unknown", "method_not_allowed")


def test_the_free_tier_holds_without_a_licence(ask) -> None:
    found = ask("GET", "/licence").json()
    assert found["licence"] is None
    assert (found["standing"]["state"], found["standing"]["tier"]) == ("none", "free")


def test_a_refused_licence_changes_nothing_and_is_in_the_audit_trail(ask, daemon) -> None:
    answer = ask("PUT", "/licence", content=b"-----BEGIN NOTHING-----")
    assert answer.status_code == 400
    assert daemon.published == 0
    rows = ask("GET", "/audit").json()["items"]
    assert [(row["action"], row["outcome"]) for row in rows] == [("licence.install", "refused")]


def test_checking_a_licence_leaves_no_trace(ask) -> None:
    assert ask("PUT", "/licence?check=true", content=b"nothing").status_code == 400
    assert ask("GET", "/audit").json()["items"] == []


def test_there_is_nothing_to_roll_back_to_at_first(ask) -> None:
    assert ask("POST", "/licence/rollback").json()["code"] == "not_found"


def test_models_are_listed_by_name(ask) -> None:
    assert [item["name"] for item in ask("GET", "/models").json()["items"]] == ["alpha", "beta"]
    assert ask("GET", "/models/beta").json()["name"] == "beta"


def test_the_runtimes_last_lines_can_be_read(ask) -> None:
    assert ask("GET", "/runtime/lines").json()["items"][0] == "I0317 ready"


def test_usage_covers_this_month_by_default(ask) -> None:
    found = ask("GET", "/usage").json()
    assert found["since"] == 1_772_323_200  # 2026-03-01
    assert found["rows"] == []


def test_an_empty_ledger_is_a_good_one(ask) -> None:
    verdict = ask("GET", "/ledger/verdict").json()
    assert verdict["ok"] is True
    assert verdict["rows"] == 0


def test_an_export_is_audited_and_its_report_can_be_fetched(ask) -> None:
    made = ask("POST", "/usage/reports", json={"until": "now"})
    assert made.status_code == 201
    name = made.json()["items"][0]["name"]
    assert [row["target"] for row in ask("GET", "/audit").json()["items"]] == [name]
    fetched = ask("GET", f"/usage/reports/{name}")
    assert fetched.content == f"zip {name}".encode()
    assert fetched.headers["content-type"] == "application/zip"


def test_metrics_are_text_of_prometheus_format(ask) -> None:
    answer = ask("GET", "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.text == "# TYPE up gauge\nup 1\n"


def test_a_token_is_made_for_the_audience_that_was_asked_for(ask) -> None:
    answer = ask("POST", "/attest", json={"nonce": "n" * 22, "audience": "me"})
    assert answer.json() == {"token": f"token for {'n' * 22} me", "detached": {}}


def test_the_published_keys_hold_no_private_part(ask) -> None:
    keys = ask("GET", "/jwks").json()["keys"]
    assert {key["x-lotabots-role"] for key in keys} == {"attestation", "receipt"}
    assert all("d" not in key for key in keys)


def test_a_receipt_is_found_by_its_id(ask) -> None:
    assert ask("GET", "/receipts/known").json()["receipt"] == "a.b.c"
    assert ask("GET", "/receipts/other").json()["code"] == "not_found"


def test_the_description_lists_exactly_the_mounted_routes(ask) -> None:
    described = [
        (method, path)
        for path, methods in ask("GET", "/openapi.json").json()["paths"].items()
        for method in methods
    ]
    sources = (path.read_text() for path in Path(routes.__file__).parent.glob("*.py"))
    written = sum(len(re.findall(r"@router\.(?:get|post|put|delete)\(", source)) for source in sources)
    assert len(described) == written
    for method, path in described:
        if path.endswith("/gpus"):
            continue  # the bug of another test
        answer = ask(method.upper(), f"http://localhost{path}")
        assert answer.status_code == 200 or answer.json()["code"] not in (
            "route_unknown",
            "method_not_allowed",
        )


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_no_page_that_loads_scripts_from_elsewhere(ask, path) -> None:
    assert ask("GET", path).status_code == 404


def test_every_route_says_what_it_does(ask) -> None:
    for path, methods in ask("GET", "/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), f"{method} {path}"
