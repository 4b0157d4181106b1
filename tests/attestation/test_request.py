"""The lines on the attest socket: exact bytes, and every kind of bad line."""

from __future__ import annotations

import json

import pytest

from lotabotsd.attestation.request import (
    AttestRequest,
    Issued,
    error_line,
    parse_answer,
    parse_request,
)
from lotabotsd.foundation.errors import Code, LotaBotsError

NONCE = "AAAAAAAAAAAAAAAAAAAAAA"


def test_a_request_has_exactly_these_bytes() -> None:
    line = b'{"audience":"an-app","key_id":"abcdef123456","nonce":"%s"}\n' % NONCE.encode()
    assert AttestRequest(NONCE, "an-app", "abcdef123456").to_line() == line
    assert parse_request(line) == AttestRequest(NONCE, "an-app", "abcdef123456")


def test_everything_may_be_left_out() -> None:
    assert parse_request(b"{}\n") == AttestRequest(None, "lotabots:any", "")
    assert parse_request(b'{"nonce":null,"audience":null,"key_id":""}\n') == parse_request(b"{}\n")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", Code.JSON_INVALID),
        (b"\n", Code.JSON_INVALID),
        (b"\xff\n", Code.JSON_INVALID),
        (b"[]\n", Code.JSON_INVALID),
        (b"null\n", Code.JSON_INVALID),
        (b'{"nonce":null,"nonce":null}\n', Code.JSON_INVALID),
        (b'{"verb":"attest"}\n', Code.JSON_INVALID),
        (b'{"nonce":[[[[[]]]]]}\n', Code.JSON_INVALID),
        (b'{"nonce":""}\n', Code.NONCE_INVALID),
        (b'{"nonce":7}\n', Code.NONCE_INVALID),
        (b'{"nonce":["AAAAAAAAAAAAAAAAAAAAAA"]}\n', Code.NONCE_INVALID),
        (b'{"audience":""}\n', Code.VALUE_INVALID),
        (b'{"audience":["a","b"]}\n', Code.VALUE_INVALID),
        (b'{"key_id":"a b"}\n', Code.VALUE_INVALID),
        (b'{"key_id":null}\n', Code.VALUE_INVALID),
        (b'{"key_id":false}\n', Code.VALUE_INVALID),
        (b'{"key_id":"%s"}\n' % (b"a" * 33), Code.VALUE_INVALID),
    ],
)
def test_each_kind_of_bad_request_has_its_code(line: bytes, code: Code) -> None:
    with pytest.raises(LotaBotsError) as failure:
        parse_request(line)
    assert failure.value.code is code


def test_an_answer_is_read_back() -> None:
    issued = Issued("a.b.c", {"models": "e30"})
    assert issued.to_line() == b'{"detached":{"models":"e30"},"token":"a.b.c"}\n'
    assert parse_answer(issued.to_line()) == issued
    assert parse_answer(b'{"token":"a.b.c"}\n') == Issued("a.b.c")


@pytest.mark.parametrize("code", list(Code))
def test_every_failure_is_told_and_understood_with_its_next_step(code: Code) -> None:
    told = LotaBotsError(code, "the detail", hint="the next step")
    with pytest.raises(LotaBotsError) as failure:
        parse_answer(error_line(told))
    assert (failure.value.code, failure.value.detail, failure.value.hint) == (
        code,
        "the detail",
        "the next step",
    )
    with pytest.raises(LotaBotsError) as failure:
        parse_answer(error_line(LotaBotsError(code)))
    assert str(failure.value) == str(LotaBotsError(code))


@pytest.mark.parametrize("error", [{"code": "never_heard_of"}, {"code": ["x"]}, {"code": 7, "detail": 7}, {}])
def test_a_failure_that_is_not_known_is_an_internal_one(error: dict[str, object]) -> None:
    with pytest.raises(LotaBotsError) as failure:
        parse_answer(json.dumps({"error": error}).encode())
    assert failure.value.code is Code.INTERNAL


@pytest.mark.parametrize(
    "line",
    [b"{}\n", b'{"token":null}\n', b'{"token":"a","detached":[]}\n', b'{"token":"a","detached":{"m":1}}\n'],
)
def test_an_answer_without_a_token_is_an_internal_failure(line: bytes) -> None:
    with pytest.raises(LotaBotsError) as failure:
        parse_answer(line)
    assert failure.value.code is Code.INTERNAL
