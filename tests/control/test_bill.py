"""The bill beforehand through the API: its value, and the lines alone as files."""

from __future__ import annotations

import json

import pytest


def test_a_months_bill_says_how_far_it_was_counted_and_what_it_comes_to(ask) -> None:
    found = ask("GET", "/bill?month=2026-03").json()
    assert (found["total"], found["list_total"], found["currency"]) == ("95.00", "100.00", "EUR")
    assert (found["tier"], found["complete"], found["development"]) == ("pro", False, True)
    assert [line["step"] for line in found["lines"]] == ["free", "1"]
    assert found["names"] == {"org_a": "Research"}


@pytest.mark.parametrize(
    ("form", "kind", "begins"),
    [
        ("lines", "application/x-ndjson", b'{"amount":"0.00"'),
        ("csv", "text/csv; charset=utf-8", b"appliance,month,"),
        ("focus", "text/csv; charset=utf-8", b"BilledCost,"),
    ],
)
def test_the_lines_alone_are_a_file(ask, form: str, kind: str, begins: bytes) -> None:
    answer = ask("GET", f"/bill/{form}?month=2026-03")
    assert answer.headers["content-type"] == kind
    assert answer.content.startswith(begins)


def test_json_lines_are_the_lines_of_the_value(ask) -> None:
    lines = [json.loads(line) for line in ask("GET", "/bill/lines?month=2026-03").text.splitlines()]
    assert lines == ask("GET", "/bill?month=2026-03").json()["lines"]


def test_without_a_rate_card_the_answer_says_what_to_do(ask) -> None:
    answer = ask("GET", "/bill")
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith("no rate card")
    assert answer.json()["hint"]


def test_a_form_that_there_is_not_is_refused(ask) -> None:
    assert ask("GET", "/bill/pdf?month=2026-03").status_code in (400, 404, 422)
