"""The allow-list of routes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.foundation.codes import Code
from lotabotsd.gate.routes import NoRoute, Route, Verb, match, upstream_path


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("GET", "/healthz", Route(Verb.HEALTH)),
        ("GET", "/readyz", Route(Verb.READINESS)),
        ("GET", "/v2", Route(Verb.SERVER_METADATA)),
        ("GET", "/v2/health/live", Route(Verb.SERVER_LIVE)),
        ("GET", "/v2/health/ready", Route(Verb.SERVER_READY)),
        ("POST", "/v2/repository/index", Route(Verb.INDEX)),
        ("GET", "/v2/models/stats", Route(Verb.MODEL_STATISTICS)),
        ("GET", "/v2/models/m.1_x-Y", Route(Verb.MODEL_METADATA, "m.1_x-Y")),
        ("GET", "/v2/models/m/versions/3", Route(Verb.MODEL_METADATA, "m", "3")),
        ("GET", "/v2/models/m/ready", Route(Verb.MODEL_READY, "m")),
        ("GET", "/v2/models/m/config", Route(Verb.MODEL_CONFIG, "m")),
        ("GET", "/v2/models/m/versions/1/stats", Route(Verb.MODEL_STATISTICS, "m", "1")),
        ("POST", "/v2/models/m/infer", Route(Verb.INFER, "m")),
        ("POST", "/v2/models/m/versions/12/infer", Route(Verb.INFER, "m", "12")),
        ("POST", "/v2/models/m/generate", Route(Verb.GENERATE, "m")),
        ("POST", "/v2/models/m/generate_stream", Route(Verb.GENERATE_STREAM, "m")),
        ("POST", "/v1/models/m/predict", Route(Verb.PREDICT, "m")),
        ("POST", "/v1/attest", Route(Verb.ATTEST)),
        ("GET", "/.well-known/jwks.json", Route(Verb.JWKS)),
        (
            "GET",
            "/v1/receipts/0192b0c4-0000-7000-8000-00000000000a",
            Route(Verb.RECEIPT, receipt="0192b0c4-0000-7000-8000-00000000000a"),
        ),
    ],
)
def test_allowed_routes_are_found(method: str, path: str, route: Route) -> None:
    assert match(method, path.encode()) == route


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/v2/",
        "/v3",
        "/metrics",
        "/v2/repository/models/m/load",
        "/v2/repository/models/m/unload",
        "/v2/systemsharedmemory/status",
        "/v2/cudasharedmemory/region/r/register",
        "/v2/trace/setting",
        "/v2/models/m/trace/setting",
        "/v2/logging",
        "/v2/models/.hidden",
        "/v2/models//infer",
        "/v2/models/m/../x/infer",
        "/v2/models/..",
        "/v2/models/m%2finfer",
        "/v2/models/m/%69nfer",
        "/v2/models/m;v=1/infer",
        "/v2/models/m/infer/",
        "/v2/models/m/infer/x",
        "/v2/models/m/versions",
        "/v2/models/m/versions/",
        "/v2/models/m/versions/x/infer",
        "/v2/models/m/versions/1/versions/1/infer",
        "/v2/models/m/versions/1/",
        "/v2/models/" + "a" * 129 + "/infer",
        "/v1/models/m/predict/x",
        "/v1/models/.m/predict",
        "/v2/models/m\u00e9/infer",
        "/v2/models/m/infer\x00",
        "/invocations",
        "/ping",
        "/v2//models/m/infer",
        "//v2/models/m/infer",
        "*",
        "http://x/v2",
    ],
)
def test_everything_else_is_unknown(path: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "CONNECT"):
        answer = match(method, path.encode())
        assert isinstance(answer, NoRoute)
        assert answer.code is Code.ROUTE_UNKNOWN


def test_a_wrong_method_names_the_right_one() -> None:
    assert match("GET", b"/v2/models/m/infer") == NoRoute(Code.METHOD_NOT_ALLOWED, "POST")
    assert match("HEAD", b"/v2") == NoRoute(Code.METHOD_NOT_ALLOWED, "GET")


def test_stats_is_no_model_of_the_plain_list() -> None:
    assert match("GET", b"/v2/models/stats/ready") == Route(Verb.MODEL_READY, "stats")


@given(st.binary(max_size=600), st.sampled_from(["GET", "POST", "", "get", "X" * 300]))
def test_no_bytes_make_it_raise(path: bytes, method: str) -> None:
    answer = match(method, path)
    if isinstance(answer, Route):
        assert b"%" not in path
        assert b".." not in path


@given(st.from_regex(r"\A[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}\Z"), st.sampled_from(["", "7"]))
def test_what_is_let_through_has_the_same_path_upstream(model: str, version: str) -> None:
    if ".." in model or model == "stats":
        return
    middle = f"/versions/{version}" if version else ""
    for method, suffix in (("POST", "/infer"), ("GET", "/config"), ("GET", "")):
        path = f"/v2/models/{model}{middle}{suffix}"
        route = match(method, path.encode())
        assert isinstance(route, Route)
        assert upstream_path(route) == path
