"""Bad input over a real socket: every kind is refused with a hint, and the gate serves on as before."""

from __future__ import annotations

import gzip
import time

import pytest
from gate_clients import (
    INFER,
    MODEL,
    MODEL_READY,
    PREDICT,
    Key,
    ask_on,
    assert_problem,
    few_numbers,
    tensor_body,
)
from whole_appliance import Appliance

pytestmark = pytest.mark.required

MAX_BODY_BYTES = 12 << 20  # as the fixture `shop` says

PNG_BOMB_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"


@pytest.mark.parametrize(
    ("path", "kind", "body", "code"),
    [
        (PREDICT, "image/png", b"", "image_invalid"),
        (PREDICT, "image/png", b"\x89PNG\r\n\x1a\n", "image_invalid"),
        (PREDICT, "image/png", b"GIF89a" + bytes(100), "image_invalid"),
        (PREDICT, "image/png", PNG_BOMB_HEAD + bytes(64), "image_invalid"),
        (PREDICT, "image/jpeg", b"\xff\xd8\xff\xe0" + bytes(100), "image_invalid"),
        (PREDICT, "application/json", b'{"image": "@@@"}', "image_invalid"),
        (PREDICT, "application/json", b'{"image": ""}', "image_invalid"),
        (PREDICT, "application/json", b'{"image": 5}', "json_invalid"),
        (PREDICT, "application/json", b'{"images": []}', "json_invalid"),
        (PREDICT, "application/json", b'{"image": "AA==", "top_k": 1}', "parameter_refused"),
        (INFER, "application/json", b"", "json_invalid"),
        (INFER, "application/json", b"\xff\xfe", "json_invalid"),
        (INFER, "application/json", b"[" * 100_000, "json_invalid"),
        (INFER, "application/json", b'{"inputs": [], "inputs": []}', "json_invalid"),
        (INFER, "application/json", b'{"inputs": []}', "tensor_invalid"),
        (INFER, "application/json", b'{"inputs": [{"name": "x"}]}', "tensor_invalid"),
    ],
)
def test_a_damaged_image_json_or_tensor_is_told_with_a_hint(
    shop: Appliance, key: Key, path: str, kind: str, body: bytes, code: str
) -> None:
    # Always with a length: an empty body is one too.
    answer = shop.ask("POST", path, key, body, Content_Type=kind, Content_Length=str(len(body)))
    assert_problem(answer, 400, code)


def test_a_tensor_with_too_few_numbers_is_found_by_triton_and_told_without_its_words(
    shop: Appliance, key: Key
) -> None:
    answer = shop.ask("POST", INFER, key, few_numbers(), Content_Type="application/json")
    assert_problem(answer, 400, "tensor_invalid")
    assert str(shop.folder).encode() not in answer.body


# -- the wire
@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/metrics",
        b"/v2/",
        b"/v2/models",
        b"/v2/models/",
        f"{INFER}/".encode(),
        f"/v2/models/{MODEL}/../{MODEL}/infer".encode(),
        f"/v2/models/../models/{MODEL}/infer".encode(),
        f"/v2//models/{MODEL}/infer".encode(),
        f"//v2/models/{MODEL}/infer".encode(),
        f"/v2/models/{MODEL}%2finfer".encode(),
        f"/v2/models/{MODEL}/%69nfer".encode(),
        f"/v2/models/%2e%2e/models/{MODEL}/infer".encode(),
        f"/v2/models/{MODEL};x=1/infer".encode(),
        f"/v2/models/{MODEL}/versions/../infer".encode(),
        f"/v2/models/{MODEL}/versions/1/../../infer".encode(),
        f"/v2/models/.{MODEL}/infer".encode(),
        b"/v2/models/" + b"a" * 129 + b"/infer",
        b"/v2/models/" + b"a" * 600 + b"/infer",
        b"/v2/models/\xc3\xa4/infer",
        b"/v2/repository/models/page_orientation/load",
        b"/v2/repository/models/page_orientation/unload",
        b"/v2/systemsharedmemory/status",
        b"/v2/cudasharedmemory/region/r/register",
        b"/v2/trace/setting",
        b"/v2/logging",
        b"/v2/models/page_orientation/trace/setting",
        b"/control/v1/status",
    ],
)
def test_path_tricks_and_unknown_routes_find_nothing(shop: Appliance, key: Key, target: bytes) -> None:
    body = few_numbers()
    answer = shop.raw(head(b"POST", target, key, b"Content-Length: %d" % len(body)) + body)
    if answer.status == 400:  # what the HTTP parser itself does not take
        assert answer.json["code"] == "request_malformed"
    else:
        assert_problem(answer, 404, "route_unknown")


def test_a_known_path_with_another_method_names_the_right_one(shop: Appliance, key: Key) -> None:
    answer = shop.raw(head(b"DELETE", INFER.encode(), key))
    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


def head(method: bytes, target: bytes, key: Key | None, *lines: bytes) -> bytes:
    """The head of a request, byte by byte."""
    named = [b"Authorization: Bearer " + key.text.encode()] if key else []
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", b"Host: gate", *named, *lines, b"", b""])


def test_a_body_announced_too_large_is_refused_before_it_is_sent(shop: Appliance, key: Key) -> None:
    begun = time.monotonic()
    answer = shop.raw(head(b"POST", INFER.encode(), key, b"Content-Length: %d" % (MAX_BODY_BYTES + 1)))
    assert_problem(answer, 413, "body_too_large")
    assert time.monotonic() - begun < 5


def test_a_chunked_body_is_cut_off_at_the_bound(shop: Appliance, key: Key) -> None:
    chunk = b"%x\r\n" % (1 << 20) + bytes(1 << 20) + b"\r\n"
    request = head(b"POST", INFER.encode(), key, b"Transfer-Encoding: chunked")
    assert_problem(shop.raw(request, *[chunk] * 13, b"0\r\n\r\n"), 413, "body_too_large")


def test_a_small_body_that_inflates_without_end_is_refused(shop: Appliance, key: Key) -> None:
    bomb = gzip.compress(bytes(MAX_BODY_BYTES + 1))
    assert len(bomb) < MAX_BODY_BYTES // 100
    answer = shop.ask("POST", INFER, key, bomb, Content_Encoding="gzip")
    assert_problem(answer, 413, "body_too_large")
    torn = gzip.compress(few_numbers())[:-9]
    assert_problem(shop.ask("POST", INFER, key, torn, Content_Encoding="gzip"), 400, "request_malformed")
    assert_problem(shop.ask("POST", INFER, key, b"x", Content_Encoding="br"), 415, "encoding_unsupported")


def test_headers_beyond_the_bound_are_refused(shop: Appliance, key: Key) -> None:
    lines = [b"X-%d: %s" % (number, b"x" * 100) for number in range(100)]
    assert_problem(shop.raw(head(b"GET", MODEL_READY.encode(), key, *lines)), 431, "headers_too_large")


def test_a_request_that_does_not_go_on_is_ended(shop: Appliance, key: Key) -> None:
    assert_problem(shop.raw(b"POST " + INFER.encode() + b" HTTP/1.1\r\nHos"), 408, "request_timeout")
    half = head(b"POST", INFER.encode(), key, b"Content-Length: 100") + b"{"
    assert_problem(shop.raw(half), 408, "request_timeout")


@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Length: 5", b"Content-Length: 6"),
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"Content-Length: -1",),
        (b"Content-Length: 5x",),
        (b"Transfer-Encoding: chunked, identity",),
        (b"Authorization: Bearer other",),
        (b"Inference-Header-Content-Length: 1", b"Inference-Header-Content-Length: 2", b"Content-Length: 2"),
        (b"A : b",),
        (b"A\0B: c",),
    ],
)
def test_a_head_with_two_meanings_is_refused(shop: Appliance, key: Key, lines: tuple[bytes, ...]) -> None:
    answer = shop.raw(head(b"POST", INFER.encode(), key, *lines) + b"{}\r\n\r\n")
    assert_problem(answer, 400, "request_malformed")


def test_what_is_no_http_is_refused(shop: Appliance) -> None:
    for words in (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(64), b"HELLO\r\n\r\n", bytes(64)):
        assert_problem(shop.raw(words), 400, "request_malformed")


def test_after_all_that_the_gate_serves_as_before_and_nothing_was_charged_for_it(shop: Appliance) -> None:
    witness = shop.key("witness")
    body, headers = tensor_body()
    for sent in (few_numbers(), b"{", b""):
        shop.ask("POST", INFER, witness, sent, Content_Type="application/json", Content_Length=str(len(sent)))
    connection = shop.connection()
    for _ in range(3):  # on one kept connection
        assert ask_on(connection, "POST", INFER, witness, body, **headers).status == 200
    connection.close()
    shop.drained()
    assert shop.outcomes(witness) == {"served": 3, "model_error": 1}
