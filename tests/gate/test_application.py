"""The straight line of a request, with everything real but Triton."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import struct
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from lotabotsd.foundation.clock import NANOSECONDS, SystemClock
from lotabotsd.identity.api_key import format_api_key, hash_secret
from lotabotsd.identity.limits_values import ScopeLimits

PEPPER = bytes(range(32))
KEY_ID = "K" * 12
INFER = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}).encode()


def test_an_inference_passes_untouched_and_is_counted(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        answer = await rig.infer()
        assert answer.status == 200
        assert answer.json()["outputs"][0]["data"] == [1, 2]
        path, head, body = rig.seen[-1]
        assert (path, body) == (b"/v2/models/m/infer", INFER)
        assert b"authorization" not in head.lower()
        assert b"chunked" not in head.lower()
        assert answer.headers["ratelimit"].startswith('"licence-rate";r=')
        assert answer.headers["lotabots-request-id"]

    rig.publish()
    rig.run(story)
    assert rig.outcomes() == {"served": 1}


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "key_missing"),
        ("", "key_missing"),
        ("Basic abc", "key_missing"),
        ("Bearer " + "x" * 300, "key_missing"),
        ("Bearer lb_live_typo", "key_invalid"),
        ("Bearer " + format_api_key("live", "U" * 12, "S" * 32), "key_invalid"),
        ("Bearer " + format_api_key("live", KEY_ID, "T" * 32), "key_invalid"),
        ("Bearer " + format_api_key("test", KEY_ID, "S" * 32), "key_invalid"),
        ("Bearer é", "key_invalid"),
    ],
)
def test_a_request_without_a_good_key_is_401_and_never_reaches_triton(
    rig: Any, header: Any, code: str
) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        headers = {} if header is None else {"authorization": header}
        answer = await rig.infer(key=None, headers=headers)
        assert (answer.status, answer.json()["code"]) == (401, code)
        assert answer.json()["hint"]
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert rig.seen == []

    rig.publish()
    rig.run(story)
    assert rig.outcomes() == {}


def test_an_expired_key_says_when(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        answer = await rig.infer()
        assert (answer.status, answer.json()["code"]) == (401, "key_expired")

    rig.key(expires_at_ns=SystemClock().wall_ns() - 1)
    rig.run(story)


def test_a_rotated_secret_works_until_its_grace_ends(rig: Any) -> None:
    now = SystemClock().wall_ns()
    fresh = (hash_secret(PEPPER, KEY_ID, "N" * 32), None)

    async def story(rig: Any) -> None:
        await rig.ready()
        old = hash_secret(PEPPER, KEY_ID, "S" * 32)
        rig.key(secrets=(fresh, (old, now + 60 * NANOSECONDS)))
        assert (await rig.infer()).status == 200
        assert (await rig.infer(key=format_api_key("live", KEY_ID, "N" * 32))).status == 200
        rig.key(secrets=(fresh, (old, now)))
        assert (await rig.infer()).status == 401

    rig.publish()
    rig.run(story)


def test_a_revoked_key_is_refused_by_the_next_request(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        assert (await rig.infer()).status == 200
        rig.key(revoked=True)
        assert (await rig.infer()).json()["code"] == "key_invalid"

    rig.publish()
    rig.run(story)


def test_scopes_and_roles_are_403_and_on_record(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        rig.key(models=("pages",))
        assert (await rig.infer()).json()["code"] == "model_not_in_scope"
        assert (await rig.ask("POST", "/v2/models/ghost/infer", INFER)).json()["code"] == "model_not_in_scope"
        rig.key(models=("*",), role="billing")
        assert (await rig.infer()).json()["code"] == "permission_denied"
        assert rig.seen == []

    rig.publish()
    rig.run(story)
    assert rig.outcomes() == {"refused_policy": 3}


def test_models_that_are_unknown_or_not_ready_say_so(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        assert (await rig.ask("POST", "/v2/models/ghost/infer", INFER)).status == 404
        rig.models = tuple(replace(m, ready=False) for m in rig.models)
        rig.publish()
        answer = await rig.infer()
        assert (answer.status, answer.json()["code"], answer.headers["retry-after"]) == (
            503,
            "model_not_ready",
            "1",
        )

    rig.publish()
    rig.run(story)


def test_the_rate_limit_is_met_with_a_true_retry_after(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        statuses = [(await rig.infer()).status for _ in range(5)]
        assert statuses == [200] * 5  # the burst is at least five
        refused = await rig.infer()
        assert (refused.status, refused.json()["code"], refused.json()["scope"]) == (
            429,
            "rate_limited",
            "key",
        )
        wait = refused.json()["retry_after_ms"] / 1000
        assert 0 < wait <= int(refused.headers["retry-after"]) <= 2

    rig.limit(key=ScopeLimits(rate_per_minute=30))
    rig.run(story)
    assert rig.outcomes() == {"served": 5, "refused_rate": 1}


def test_a_hard_quota_stops_exactly_and_failures_do_not_spend_it(rig: Any) -> None:
    async def broken(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 x\r\nContent-Length: 2\r\n\r\n{}")

    async def story(rig: Any) -> None:
        await rig.ready()
        good, rig.handler = rig.handler, broken
        assert (await rig.infer()).json()["code"] == "model_failed"
        rig.handler = good
        assert [(await rig.infer()).status for _ in range(4)] == [200, 200, 200, 429]
        assert (await rig.infer()).json()["code"] == "quota_spent"

    rig.limit(organisation=ScopeLimits(quota_per_month=3))
    rig.run(story)
    assert rig.outcomes() == {"served": 3, "refused_quota": 2, "model_error": 1}


def test_concurrency_is_limited_and_given_back(rig: Any) -> None:
    release = asyncio.Event()

    async def slow(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async def story(rig: Any) -> None:
        await rig.ready()
        rig.handler = slow
        first = asyncio.create_task(rig.infer())
        while not rig.seen:
            await asyncio.sleep(0.005)
        assert (await rig.infer()).json()["code"] == "concurrency_limited"
        release.set()
        assert (await first).status == 200
        assert (await rig.infer()).status == 200

    rig.limit(key=ScopeLimits(concurrency=1))
    rig.run(story)


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "code"),
    [
        ("/v2/models/m/infer", b"{", {}, 400, "json_invalid"),
        ("/v2/models/m/infer", b"{}", {}, 400, "tensor_invalid"),
        ("/v2/models/m/infer", INFER, {"content-encoding": "br"}, 415, "encoding_unsupported"),
        ("/v2/models/m/infer", INFER, {"inference-header-content-length": "9999"}, 400, "request_malformed"),
        ("/v2/models/m/infer", b" " * (1 << 20) + b"x", {}, 413, "body_too_large"),
        ("/v2/models/m/predict", b"", {}, 404, "route_unknown"),
        ("/v1/models/m/predict", b"{}", {}, 404, "predict_unsupported"),
        ("/v1/models/pages/predict", b"junk", {"content-type": "image/png"}, 400, "image_invalid"),
        ("/v1/models/pages/predict", b"{}", {"content-type": "text/html"}, 415, "encoding_unsupported"),
        ("/v2/repository/models/m/load", b"", {}, 404, "route_unknown"),
        ("/v2/models/m%2finfer", b"", {}, 404, "route_unknown"),
        ("/v2/models/m/config", b"", {}, 405, "method_not_allowed"),
    ],
)
def test_bad_requests_get_the_one_problem_shape(
    rig: Any, path: str, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        answer = await rig.ask("POST", path, body, headers)
        shape = answer.json()
        assert (answer.status, shape["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "detail", "hint", "instance", "error"} <= set(shape)
        assert rig.seen == []

    rig.publish()
    rig.run(story)


def test_a_header_twice_is_refused(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        answer = await rig.send(
            b"GET /v2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            b"authorization: a\r\nauthorization: b\r\n\r\n"
        )
        assert answer.json()["code"] == "request_malformed"

    rig.publish()
    rig.run(story)


def test_gzip_is_inflated_for_triton(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        packed = gzip.compress(INFER)
        answer = await rig.ask("POST", "/v2/models/m/infer", packed, {"content-encoding": "gzip"})
        assert answer.status == 200
        assert rig.seen[-1][2] == INFER

    rig.publish()
    rig.run(story)


def test_predict_turns_an_image_into_labels(rig: Any) -> None:
    async def score(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        length = next(
            int(h.split(b":")[1]) for h in head.lower().split(b"\r\n") if h.startswith(b"inference-header")
        )
        rows = json.loads(body[:length])["inputs"][0]["shape"][0]
        assert len(body) - length == rows * 3 * 4 * 4 * 4
        values = struct.pack("<2f", 0.0, 2.0) * rows
        shown = json.dumps(
            {
                "outputs": [
                    {
                        "name": "y",
                        "datatype": "FP32",
                        "shape": [rows, 2],
                        "parameters": {"binary_data_size": len(values)},
                    }
                ]
            }
        ).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n"
            % (len(shown), len(shown) + len(values))
            + shown
            + values
        )

    async def story(rig: Any) -> None:
        await rig.ready()
        rig.handler = score
        file = io.BytesIO()
        Image.new("RGB", (8, 8), "white").save(file, "PNG")
        image = file.getvalue()
        raw = await rig.ask("POST", "/v1/models/pages/predict", image, {"content-type": "image/png"})
        coded = await rig.ask(
            "POST",
            "/v1/models/pages/predict",
            json.dumps({"images": [base64.b64encode(image).decode()] * 3}).encode(),
        )
        assert raw.json()["predictions"][0]["label"] == "right"
        assert len(coded.json()["predictions"]) == 3

    rig.publish()
    rig.run(story)
    assert rig.outcomes() == {"served": 2}


def test_metadata_is_shown_without_the_host(rig: Any) -> None:
    async def tell(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        shown = json.dumps(
            {"name": "m", "parameters": {"SECRET": "/x"}, "model_stats": [{"name": "m"}, {"name": "pages"}]}
        ).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(shown) + shown)

    async def story(rig: Any) -> None:
        await rig.ready()
        rig.handler = tell
        rig.key(models=("m",))
        config = await rig.ask("GET", "/v2/models/m/config")
        assert "parameters" not in config.json()
        assert (await rig.ask("GET", "/v2/models/stats")).json()["model_stats"] == [{"name": "m"}]
        assert (await rig.ask("GET", "/v2/models/pages/config")).status == 403
        index = (await rig.ask("POST", "/v2/repository/index")).json()
        assert index == [{"name": "m", "version": "1", "state": "READY"}]
        assert (await rig.ask("GET", "/v2")).json()["name"] == "lotabots"
        assert (await rig.ask("GET", "/v2/models/m/ready")).status == 200
        assert (await rig.ask("GET", "/v2", key=None)).status == 401
        assert (await rig.ask("GET", "/.well-known/jwks.json", key=None)).json() == {"keys": []}

    rig.publish()
    rig.run(story)


def test_an_answer_in_pieces_arrives_whole(rig: Any) -> None:
    async def pieces(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for n in range(3):
            writer.write(b"8\r\ndata: %d\n\r\n" % n)
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.write(b"0\r\n\r\n")

    async def story(rig: Any) -> None:
        await rig.ready()
        rig.handler = pieces
        answer = await rig.ask("POST", "/v2/models/m/generate_stream", b'{"text": "x"}')
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.body.count(b"data: ") == 3

    rig.publish()
    rig.run(story)
    assert rig.outcomes() == {"served": 1}


def test_attestation_and_metadata_count_against_the_rate(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        for _ in range(5):
            assert (await rig.ask("POST", "/v2/repository/index")).status == 200
        assert (await rig.ask("POST", "/v1/attest")).json()["code"] == "rate_limited"

    rig.limit(key=ScopeLimits(rate_per_minute=30))
    rig.run(story)
    assert rig.outcomes() == {}
