"""Receipts at the gate: what they bind, with whom they go, and that they never change an answer."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from lotabotsd.attestation.receipt import key_hash
from lotabotsd.attestation.verify import verify_receipt
from lotabotsd.foundation.clock import SystemClock
from lotabotsd.foundation.keys import jwk, load_key, raw_public, thumbprint
from lotabotsd.identity.limits_values import ScopeLimits
from lotabotsd.models.facts import ModelFacts, TensorFact
from lotabotsd.usage.drain import Drainer
from lotabotsd.usage.records import Receipt

INFER = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}).encode()
NONCE = "bm9uY2Utb2YtdHdlbnR5LTI0"
ASKED = {"lotabots-receipt": "1"}


def opened(rig: Any, receipt: str) -> dict[str, Any]:
    """The claims of a receipt whose signature is that of the gate's receipt key."""
    protected, payload, signature = receipt.split(".")
    key = load_key(rig.config.paths.receipt_key, shared=True).public_key()
    key.verify(unpadded(signature), f"{protected}.{payload}".encode())
    assert json.loads(unpadded(protected))["typ"] == "lotabots-receipt+jwt"
    claims: dict[str, Any] = json.loads(unpadded(payload))
    return claims


def unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def kept(rig: Any) -> dict[str, Receipt]:
    """The receipts that a drain finds in the journals, by their text."""
    found: list[Receipt] = []
    Drainer(rig.config.paths.journal, rig.ledger, SystemClock(), keep_receipts=found.extend).drain_once()
    return {receipt.text: receipt for receipt in found}


def play(rig: Any, story: Callable[[], Awaitable[None]]) -> None:
    async def with_gate(rig: Any) -> None:
        await rig.ready()
        await story()

    rig.publish()
    rig.run(with_gate)


def test_an_answer_takes_its_receipt_along(rig: Any) -> None:
    receipts: list[str] = []

    async def story() -> None:
        rig.publisher.set_token_hash("T" * 43)
        answer = await rig.infer(headers={**ASKED, "lotabots-nonce": NONCE})
        assert answer.status == 200
        receipts.append(answer.headers["lotabots-receipt"])
        claims = opened(rig, receipts[0])
        content = claims["x-lotabots-receipt"]
        assert claims["jti"] == answer.headers["lotabots-request-id"]
        assert (claims["iss"], claims["eat_nonce"]) == ("urn:dev:ueid:AQ" + "a" * 42, NONCE)
        assert content["request"] == {
            "bytes": len(INFER),
            "commitment": sha256(INFER),
            "method": "POST",
            "path": "/v2/models/m/infer",
        }
        assert content["response"] == {
            "bytes": len(answer.body),
            "commitment": sha256(answer.body),
            "outcome": "served",
            "status": 200,
        }
        assert content["model"] == {"name": "m", "version": "1", "digest": "sha256:" + "ab" * 32}
        assert content["licence"] == {"tier": "free"}
        assert content["key"] == key_hash("K" * 12)
        assert content["att"] == "T" * 43
        assert content["development"] is True
        assert content["timing"]["gate_us"] >= content["timing"]["upstream_us"] > 0

    play(rig, story)
    found = kept(rig)[receipts[0]]
    claims = opened(rig, found.text)
    assert claims["x-lotabots-receipt"]["record"]["number"] == found.close_number
    assert claims["jti"].replace("-", "") == found.request_id.hex()
    assert (found.key_id, found.organisation_id) == ("K" * 12, "org_a")
    assert rig.outcomes() == {"served": 1}


def test_it_names_the_image_and_the_candidate_gpus_in_force(rig: Any) -> None:
    image, gpus = f"sha256:{'ef' * 32}", ("GPU-1", "GPU-2")

    async def story() -> None:
        content = opened(rig, (await rig.infer(headers=ASKED)).headers["lotabots-receipt"])
        assert not {"image", "gpus"} & set(content["x-lotabots-receipt"])
        rig.instance = replace(rig.instance, image=image, gpus=gpus)
        rig.publish()
        receipt = (await rig.infer(headers=ASKED)).headers["lotabots-receipt"]
        content = opened(rig, receipt)["x-lotabots-receipt"]
        assert (content["image"], tuple(content["gpus"])) == (image, gpus)
        raw = raw_public(load_key(rig.config.paths.receipt_key, shared=True))
        named = {**jwk(raw), "kid": thumbprint(raw), "use": "sig", "x-lotabots-role": "receipt"}
        verdict = verify_receipt(receipt, {"keys": [named]}, now=int(time.time()), request=INFER)
        assert verdict.valid, [check for check in verdict.checks if check.passed is False]
        assert "which GPU ran it: those named are candidates" in verdict.not_established

    play(rig, story)


def test_nobody_who_did_not_ask_gets_one(rig: Any) -> None:
    async def story() -> None:
        for headers in ({}, {"lotabots-receipt": "0"}):
            answer = await rig.infer(headers=headers)
            assert not {name for name in answer.headers if "receipt" in name}

    play(rig, story)
    assert kept(rig) == {}


def test_a_hiding_receipt_is_bound_by_a_salt_that_the_caller_alone_gets(rig: Any) -> None:
    async def story() -> None:
        answer = await rig.infer(headers={"lotabots-receipt": "hiding"})
        salt = unpadded(answer.headers["lotabots-receipt-salt"])
        assert len(salt) == 16
        content = opened(rig, answer.headers["lotabots-receipt"])["x-lotabots-receipt"]
        for part, body in (("request", INFER), ("response", answer.body)):
            digest = hmac.new(salt, body, "sha256").hexdigest()
            assert content[part]["commitment"] == f"hmac-sha256:{digest}"
        other = await rig.infer(headers={"lotabots-receipt": "hiding"})
        assert other.headers["lotabots-receipt-salt"] != answer.headers["lotabots-receipt-salt"]

    play(rig, story)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"lotabots-receipt": "yes"}, "request_malformed"),
        ({"lotabots-receipt": ""}, "request_malformed"),
        ({"lotabots-receipt": "1", "lotabots-nonce": "short"}, "nonce_invalid"),
        ({"lotabots-receipt": "1", "lotabots-nonce": "\xe9" * 30}, "nonce_invalid"),
    ],
)
def test_a_wish_that_cannot_be_understood_is_refused(rig: Any, headers: dict[str, str], code: str) -> None:
    async def story() -> None:
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")
        answer = await rig.send(
            b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            b"authorization: Bearer %b\r\ncontent-length: %d\r\n%b\r\n%b"
            % (rig.api_key.encode(), len(INFER), head, INFER)
        )
        assert (answer.status, answer.json()["code"]) == (400, code)

    play(rig, story)


def test_a_refusal_gets_one_too_and_says_what_it_was(rig: Any) -> None:
    receipts: list[str] = []

    async def story() -> None:
        rig.limit(key=ScopeLimits(quota_per_month=1))
        assert (await rig.infer()).status == 200
        answer = await rig.infer(headers=ASKED)
        assert answer.status == 429
        receipts.append(answer.headers["lotabots-receipt"])
        content = opened(rig, receipts[-1])["x-lotabots-receipt"]
        assert content["request"]["commitment"] == sha256(INFER)
        assert content["response"] == {
            "bytes": len(answer.body),
            "commitment": sha256(answer.body),
            "outcome": "refused_quota",
            "status": 429,
        }
        rig.key(models=("other",))
        answer = await rig.infer(headers=ASKED)
        assert answer.status == 403
        receipts.append(answer.headers["lotabots-receipt"])
        content = opened(rig, receipts[-1])["x-lotabots-receipt"]
        assert content["model"] == {"name": "m"}
        assert content["request"]["commitment"] == sha256(INFER)

    play(rig, story)
    assert set(receipts) == set(kept(rig))


def test_an_unknown_key_gets_none(rig: Any) -> None:
    async def story() -> None:
        answer = await rig.infer(headers=ASKED, key=None)
        assert answer.status == 401
        assert "lotabots-receipt" not in answer.headers

    play(rig, story)
    assert kept(rig) == {}


def test_a_failure_of_the_model_is_on_its_receipt(rig: Any) -> None:
    async def failing(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        words = b'{"error":"at /srv"}'
        writer.write(b"HTTP/1.1 500 Bad\r\ncontent-length: %d\r\n\r\n%b" % (len(words), words))

    async def story() -> None:
        rig.handler = failing
        answer = await rig.infer(headers=ASKED)
        assert answer.status == 502
        content = opened(rig, answer.headers["lotabots-receipt"])["x-lotabots-receipt"]
        assert (content["response"]["outcome"], content["response"]["status"]) == ("model_error", 502)
        assert content["response"]["commitment"] == sha256(answer.body)

    play(rig, story)


def test_a_small_answer_in_pieces_still_takes_its_receipt_along(rig: Any) -> None:
    async def pieces(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n0123456789")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"0123456789")

    async def story() -> None:
        rig.handler = pieces
        answer = await rig.infer(headers=ASKED)
        assert answer.body == b"01234567890123456789"
        content = opened(rig, answer.headers["lotabots-receipt"])["x-lotabots-receipt"]
        assert content["response"]["commitment"] == sha256(answer.body)

    play(rig, story)


def test_of_a_large_answer_the_id_comes_first_and_the_receipt_is_kept(rig: Any) -> None:
    body = bytes(range(256)) * 2_000
    ids: list[str] = []

    async def much(path: bytes, head: bytes, sent: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    async def story() -> None:
        rig.handler = much
        answer = await rig.infer(headers={"lotabots-receipt": "hiding"})
        assert answer.body == body
        assert "lotabots-receipt" not in answer.headers
        assert len(answer.headers["lotabots-receipt-salt"]) == 22
        ids.append(answer.headers["lotabots-receipt-id"])
        ids.append(answer.headers["lotabots-receipt-salt"])
        assert ids[0] == answer.headers["lotabots-request-id"]

    play(rig, story)
    (text,) = kept(rig)
    claims = opened(rig, text)
    assert claims["jti"] == ids[0]
    response = claims["x-lotabots-receipt"]["response"]
    expected = hmac.new(unpadded(ids[1]), body, "sha256").hexdigest()
    assert (response["bytes"], response["commitment"]) == (len(body), f"hmac-sha256:{expected}")


def test_a_stream_ends_with_its_receipt_which_binds_everything_before(rig: Any) -> None:
    async def stream(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for number in range(3):
            writer.write(b'10\r\ndata: {"n": %d}\n\n\r\n' % number)
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async def story() -> None:
        rig.handler = stream
        answer = await rig.ask("POST", "/v2/models/m/generate_stream", b'{"x": 1}', ASKED)
        data = b"".join(line for line in dechunked(answer.body))
        before, _, last = data.partition(b": lotabots-receipt ")
        claims = opened(rig, last.decode().strip())
        assert claims["x-lotabots-receipt"]["response"]["commitment"] == sha256(before)
        assert before == b"".join(b'data: {"n": %d}\n\n' % number for number in range(3))
        assert claims["jti"] == answer.headers["lotabots-receipt-id"]

    play(rig, story)


def dechunked(body: bytes) -> list[bytes]:
    parts: list[bytes] = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        parts.append(rest[: int(size, 16)])
        body = rest[int(size, 16) + 2 :]
    return parts


@pytest.mark.parametrize("at_once", [True, False], ids=["whole", "in parts"])
def test_a_body_is_bound_as_it_was_sent_compressed_where_it_was(rig: Any, at_once: bool) -> None:
    tensor = os.urandom(200_000)
    wide = TensorFact("x", "UINT8", (-1,))
    rig.models = (*rig.models, ModelFacts("wide", ("1", "2"), "ef" * 32, 0, (wide,), (wide,), ready=True))
    announced = {"name": "x", "datatype": "UINT8", "shape": [200_000]}
    part = json.dumps({"inputs": [{**announced, "parameters": {"binary_data_size": 200_000}}]}).encode()
    packed = gzip.compress(part + tensor)

    async def story() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(
            b"POST /v2/models/wide/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer "
            b"%b\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\nlotabots-receipt: 1\r\n"
            b"inference-header-content-length: %d\r\n\r\n" % (rig.api_key.encode(), len(packed), len(part))
        )
        if not at_once:
            await writer.drain()
            writer.write(packed[:100_000])
            await writer.drain()
            while not rig.worker._parts.uploads.running:
                await asyncio.sleep(0.01)
        writer.write(packed if at_once else packed[100_000:])
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        (line,) = [line for line in answer.split(b"\r\n") if line.startswith(b"lotabots-receipt: ")]
        content = opened(rig, line.decode().partition(": ")[2])["x-lotabots-receipt"]
        assert content["request"]["commitment"] == sha256(packed)
        assert content["request"]["bytes"] == len(packed)
        assert "version" not in content["model"]  # Triton chose one of two and did not say which

    play(rig, story)


def test_a_header_twice_is_refused(rig: Any) -> None:
    async def story() -> None:
        answer = await rig.send(
            b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            b"authorization: Bearer %b\r\ncontent-length: %d\r\n"
            b"lotabots-receipt: 1\r\nlotabots-receipt: hiding\r\n\r\n%b"
            % (rig.api_key.encode(), len(INFER), INFER)
        )
        assert (answer.status, answer.json()["code"]) == (400, "request_malformed")

    play(rig, story)


def test_without_the_daemon_a_receipt_cannot_be_asked_for_and_that_is_said(rig: Any) -> None:
    async def story() -> None:
        answer = await rig.ask("GET", "/v1/receipts/0192b0c4-0000-7000-8000-000000000000")
        assert (answer.status, answer.json()["code"]) == (503, "daemon_unavailable")
        assert "sock" not in answer.body.decode()
        assert (await rig.ask("GET", "/v1/receipts/none")).status == 404
        rig.key(role="billing")
        answer = await rig.ask("GET", "/v1/receipts/0192b0c4-0000-7000-8000-000000000000")
        assert (answer.status, answer.json()["code"]) == (403, "permission_denied")

    play(rig, story)
