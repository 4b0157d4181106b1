"""Every failure of the control API has the one shape."""

from __future__ import annotations

import logging

import pytest

FIELDS = {"type", "title", "status", "code", "detail", "hint"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nowhere", None, 404, "route_unknown"),
        ("PATCH", "/organisations", None, 405, "method_not_allowed"),
        ("GET", "/organisations/org_none", None, 404, "not_found"),
        ("GET", "/models/none", None, 404, "model_unknown"),
        ("POST", "/organisations", b"{", 400, "json_invalid"),
        ("POST", "/organisations", b'{"name": ""}', 422, "value_invalid"),
        ("POST", "/organisations", b'{"name": "a", "nme": "b"}', 422, "value_invalid"),
        ("POST", "/organisations", b'{"name": "a", "limits": {"concurrency": -1}}', 422, "value_invalid"),
        ("POST", "/organisations", b'{"name": "a", "limits": {"concurrency": "1"}}', 422, "value_invalid"),
        ("POST", "/organisations", b"[]", 422, "value_invalid"),
        ("POST", "/attest", b'{"nonce": "short"}', 400, "nonce_invalid"),
        ("GET", "/keys?limit=0", None, 422, "value_invalid"),
        ("GET", "/keys?cursor=x", None, 422, "value_invalid"),
        ("GET", "/usage?since=yesterday", None, 422, "value_invalid"),
        ("GET", "/usage?by=colour", None, 422, "value_invalid"),
        ("PUT", "/licence", b"garbage", 400, "envelope_malformed"),
    ],
)
def test_a_failure_is_a_problem_with_its_code_and_next_step(ask, method, path, body, status, code) -> None:
    answer = ask(method, path, content=body, headers={"content-type": "application/json"} if body else {})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) >= FIELDS
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["hint"]


def test_the_offending_field_is_named_and_its_content_is_not_repeated(ask) -> None:
    answer = ask("POST", "/organisations", json={"name": "a", "limits": {"quota_per_month": "s3cret"}})
    assert "limits.quota_per_month" in answer.json()["detail"]
    assert "s3cret" not in answer.text


def test_a_bug_is_a_problem_without_its_text(ask, caplog) -> None:
    caplog.set_level(logging.ERROR)
    answer = ask("GET", "/gpus")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text


def test_the_allowed_methods_are_named(ask) -> None:
    assert "GET" in ask("PATCH", "/status").headers["allow"]
