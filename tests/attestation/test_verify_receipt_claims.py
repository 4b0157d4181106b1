"""The offline verifier on what a receipt says: types, time, challenge, bodies and the token in force."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lotabotsd.attestation.keyset import Keyset
from lotabotsd.attestation.verify import Verdict, verify_receipt
from lotabotsd.foundation.identifiers import b64url

NONCE = "AAAAAAAAAAAAAAAAAAAAAA"
SALT = b64url(bytes(range(16)))
MEMBER = "x-lotabots-receipt"
OPTIONAL = {
    ("eat_nonce",), (MEMBER, "att"), (MEMBER, "model", "version"), (MEMBER, "model", "digest"),
    (MEMBER, "licence", "id"), (MEMBER, "timing", "upstream_us"), (MEMBER, "image"), (MEMBER, "gpus"),
}  # fmt: skip
Judge = Callable[..., Verdict]
Sign = Callable[..., str]


def failed(verdict: Verdict) -> list[tuple[str, str]]:
    return [(check.level, check.name) for check in verdict.checks if check.passed is False]


def answer(verdict: Verdict, name: str) -> tuple[bool | None, str]:
    return next((c.passed, c.detail) for c in verdict.checks if c.level == "claims" and c.name == name)


def refused(verdict: Verdict, name: str) -> None:
    assert failed(verdict) == [("claims", name)]
    assert verdict.exit_code == 1
    assert verdict.not_established == ("anything: the receipt is not valid",)


def paths(value: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, inner in value.items():
        yield (*path, name)
        if isinstance(inner, dict):
            yield from paths(inner, (*path, name))


def changed(claims: dict[str, Any], path: tuple[str, ...], value: Any = ...) -> dict[str, Any]:
    """A copy with another value at this path, or without it."""
    new = copy.deepcopy(claims)
    inner = new
    for name in path[:-1]:
        inner = inner[name]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return new


def test_a_missing_member_is_named_unless_the_format_lets_it_be(
    judge_receipt: Judge, sign_receipt: Sign, receipt_claims: dict[str, Any]
) -> None:
    all_paths = list(paths(receipt_claims))
    assert set(all_paths) > OPTIONAL
    for path in all_paths:
        verdict = judge_receipt(sign_receipt(changed(receipt_claims, path)), nonce=None)
        if path in OPTIONAL:
            assert verdict.valid, path
        else:
            refused(verdict, "types")
            assert verdict.checks[-1].detail == f"missing or malformed: {'.'.join(path)}"


@pytest.mark.parametrize(
    "value", [None, True, -1, 1 << 64, "", "\n", "\ud800", [], {}, [1], [""], {"a": 1}, 7, "x"]
)
def test_a_member_of_another_type_is_named(
    judge_receipt: Judge, sign_receipt: Sign, receipt_claims: dict[str, Any], value: Any
) -> None:
    for path in paths(receipt_claims):
        if _may_be(path, value):
            continue
        # json.dumps writes half a pair of surrogates as an escape, which is JSON all the same.
        text = sign_receipt(json.dumps(changed(receipt_claims, path, value)).encode())
        verdict = judge_receipt(text, nonce=None)
        if path == ("eat_profile",) and value == "x":
            refused(verdict, "profile")
        else:
            refused(verdict, "types")
            assert verdict.checks[-1].detail.startswith(f"missing or malformed: {'.'.join(path)}")


def _may_be(path: tuple[str, ...], value: Any) -> bool:
    """Whether the format allows this value there."""
    counts = {"iat", "number", "worker", "bytes", "status", "gate_us", "upstream_us"}
    words = {"path", "outcome", "name", "version", "id", "tier"}
    name = path[-1]
    return (
        (name in counts and value == 7 and value is not True)
        or (name in words and value == "x")
        or (name == "development" and value is True)
        or (name == "gpus" and value == [])
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("iss",), "urn:dev:mac:0024befffe804ff1"), (("iss",), "urn:dev:ueid:"), (("iat",), 1 << 40),
        (("jti",), "019ab0c0-0000-4000-8000-000000000000"),
        (("jti",), "019AB0C0-0000-7000-8000-000000000000"),
        (("eat_nonce",), "A" * 21), (("eat_nonce",), "A" * 89), (("eat_nonce",), "A" * 21 + "+"),
        (("eat_nonce",), ["A" * 22]),
        (("att",), "A" * 42), (("att",), "A" * 44), (("record", "epoch"), "00000000000000A1"),
        (("record", "epoch"), "a1"), (("record", "number"), 0), (("record", "number"), 1 << 63),
        (("request", "method"), "GET"), (("request", "path"), "/a\nb"),
        (("request", "commitment"), "ab" * 32), (("request", "commitment"), "sha256:" + "AB" * 32),
        (("request", "commitment"), "sha512:" + "ab" * 32),
        (("response", "commitment"), "sha256:" + "ab" * 31),
        (("response", "commitment"), "hmac-sha256:" + "ab" * 33), (("model", "digest"), "ab" * 32),
        (("image",), "md5:" + "ab" * 16), (("key",), "key_1"), (("gpus",), ["GPU-1", 2]),
        (("gpus",), "GPU-1"),
    ],
)  # fmt: skip
def test_a_value_just_beside_the_format_is_refused(
    judge_receipt: Judge,
    sign_receipt: Sign,
    receipt_claims: dict[str, Any],
    path: tuple[str, ...],
    value: Any,
) -> None:
    whole = path if path[0] in receipt_claims else (MEMBER, *path)
    refused(judge_receipt(sign_receipt(changed(receipt_claims, whole, value)), nonce=None), "types")


def test_unknown_members_are_ignored_at_every_level(
    judge_receipt: Judge, sign_receipt: Sign, receipt_claims: dict[str, Any]
) -> None:
    for path in ((), (MEMBER,), (MEMBER, "record"), (MEMBER, "model")):
        text = sign_receipt(changed(receipt_claims, (*path, "later"), {"a": [1]}))
        assert judge_receipt(text).exit_code == 0, path


def test_another_profile_is_refused(
    judge_receipt: Judge, sign_receipt: Sign, receipt_claims: dict[str, Any]
) -> None:
    receipt_claims["eat_profile"] = "urn:lotabots:eat-profile:appliance:v1"
    refused(judge_receipt(sign_receipt(receipt_claims)), "profile")


def test_an_issuer_that_was_pinned_must_be_the_one(
    judge_receipt: Judge, receipt: str, keyset: Keyset
) -> None:
    own = f"urn:dev:ueid:{keyset.ueid}"
    assert answer(judge_receipt(receipt), "issuer") == (None, own)
    assert answer(judge_receipt(receipt, issuer=own), "issuer") == (True, own)
    refused(judge_receipt(receipt, issuer="urn:dev:ueid:another"), "issuer")


@pytest.mark.parametrize(("seconds", "valid"), [(-61, False), (-60, True), (0, True), (10**9, True)])
def test_a_receipt_does_not_expire_but_is_not_from_the_future(
    judge_receipt: Judge, receipt: str, now: int, seconds: int, valid: bool
) -> None:
    verdict = judge_receipt(receipt, now=now + seconds)
    assert verdict.valid is valid
    assert failed(verdict) == ([] if valid else [("claims", "begun")])


def test_the_challenge_is_judged_as_a_tokens_is(
    judge_receipt: Judge, sign_receipt: Sign, receipt_claims: dict[str, Any], receipt: str
) -> None:
    assert answer(judge_receipt(receipt), "challenge") == (True, "")
    refused(judge_receipt(receipt, nonce="B" * 22), "challenge")
    assert answer(judge_receipt(receipt, nonce=None), "challenge")[0] is None
    unchallenged = sign_receipt(changed(receipt_claims, ("eat_nonce",)))
    assert answer(judge_receipt(unchallenged, nonce=None), "challenge") == (None, "unchallenged")
    refused(judge_receipt(unchallenged), "challenge")


def test_bodies_that_fit_are_recognised_and_others_refused(
    judge_receipt: Judge, receipt: str, bodies: tuple[bytes, bytes]
) -> None:
    request, response = bodies
    verdict = judge_receipt(receipt, request=request, response=response)
    assert answer(verdict, "request bytes") == (True, f"{len(request)} bytes")
    assert answer(verdict, "response bytes") == (True, f"{len(response)} bytes")
    refused(judge_receipt(receipt, request=response, response=response), "request bytes")
    for body, name in ((request, "request"), (response, "response")):
        for other in (b"", body[:-1], body + b"\n", bytes([body[0] ^ 1]) + body[1:], body.upper()):
            refused(judge_receipt(receipt, **{name: other}), f"{name} bytes")


def test_what_was_not_given_is_not_called_compared(judge_receipt: Judge, receipt: str) -> None:
    verdict = judge_receipt(receipt)
    assert answer(verdict, "request bytes") == (None, "no file was given")
    assert answer(verdict, "response bytes") == (None, "no file was given")
    assert answer(verdict, "salt") == (None, "nothing is salted")
    assert answer(verdict, "token") == (None, "no token was given")


def test_an_empty_body_is_a_body(
    judge_receipt: Judge, sign_receipt: Sign, receipt_claims: dict[str, Any]
) -> None:
    empty = {
        "bytes": 0,
        "commitment": f"sha256:{'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'}",
    }
    receipt_claims[MEMBER]["response"] |= empty
    receipt = sign_receipt(receipt_claims)
    assert answer(judge_receipt(receipt, response=b""), "response bytes") == (True, "0 bytes")
    refused(judge_receipt(receipt, response=b"\0"), "response bytes")


def test_a_salted_receipt_is_compared_with_its_salt_only(
    judge_receipt: Judge, sign_receipt: Sign, salted_claims: dict[str, Any], bodies: tuple[bytes, bytes]
) -> None:
    receipt, (request, response) = sign_receipt(salted_claims), bodies
    good = judge_receipt(receipt, request=request, response=response, salt=SALT)
    assert [answer(good, name)[0] for name in ("salt", "request bytes", "response bytes")] == [True] * 3
    assert answer(good, "request bytes")[1] == f"{len(request)} bytes, salted"
    without = judge_receipt(receipt, request=request, response=response)
    assert without.exit_code == 0
    assert [answer(without, name)[0] for name in ("salt", "request bytes", "response bytes")] == [None] * 3
    assert any(line.startswith("that it is about your request") for line in without.not_established)
    other = judge_receipt(receipt, request=request, salt=b64url(bytes(16)))
    refused(other, "request bytes")
    refused(judge_receipt(receipt, response=bytes(len(response)), salt=SALT), "response bytes")


def test_a_body_of_another_length_is_not_the_one_whatever_the_salt(
    judge_receipt: Judge, sign_receipt: Sign, salted_claims: dict[str, Any], bodies: tuple[bytes, bytes]
) -> None:
    verdict = judge_receipt(sign_receipt(salted_claims), request=bodies[0] + b" ")
    refused(verdict, "request bytes")
    assert (
        answer(verdict, "request bytes")[1]
        == f"{len(bodies[0]) + 1} bytes, the receipt says {len(bodies[0])}"
    )


@pytest.mark.parametrize(
    "salt", ["", "A", "A" * 21, "A" * 23, "A" * 21 + "B", "A" * 22 + "==", "ä" * 22, "A" * 43]
)
def test_a_malformed_salt_is_refused(
    judge_receipt: Judge, sign_receipt: Sign, salted_claims: dict[str, Any], receipt: str, salt: str
) -> None:
    refused(judge_receipt(sign_receipt(salted_claims), salt=salt), "salt")
    refused(judge_receipt(receipt, salt=salt), "salt")


def test_a_salt_for_a_receipt_without_one_changes_nothing(
    judge_receipt: Judge, receipt: str, bodies: tuple[bytes, bytes]
) -> None:
    verdict = judge_receipt(receipt, request=bodies[0], salt=SALT)
    assert answer(verdict, "salt") == (None, "nothing is salted")
    assert answer(verdict, "request bytes")[0] is True


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\r\n\r\n"])
def test_the_receipts_own_line_at_a_streams_end_is_left_out(
    judge_receipt: Judge, receipt: str, bodies: tuple[bytes, bytes], end: bytes
) -> None:
    line = b": lotabots-receipt " + receipt.encode()
    verdict = judge_receipt(receipt, response=bodies[1] + line + end)
    assert answer(verdict, "response bytes") == (True, f"{len(bodies[1])} bytes")
    for other in (bodies[1] + line + b"\nx", bodies[1] + b"x" + line, bodies[1] + line[:-1] + end):
        refused(judge_receipt(receipt, response=other), "response bytes")
    refused(judge_receipt(receipt, request=bodies[0] + b"\n" + line + end), "request bytes")


def test_the_token_in_force_is_recognised_by_its_hash(
    judge_receipt: Judge, sign_receipt: Sign, receipt_claims: dict[str, Any], receipt: str, token: str
) -> None:
    assert answer(judge_receipt(receipt, token=token), "token") == (True, "")
    for other in (token[:-1], token + "\n", "", "\ud800"):
        refused(judge_receipt(receipt, token=other), "token")
    without = sign_receipt(changed(receipt_claims, (MEMBER, "att")))
    refused(judge_receipt(without, token=token), "token")
    assert answer(judge_receipt(without), "token") == (None, "the receipt names no token")


def test_all_wrong_answers_are_told_together(judge_receipt: Judge, receipt: str, now: int) -> None:
    verdict = judge_receipt(receipt, now=now - 100, nonce="B" * 22, issuer="x", request=b"", token="t")
    names = {name for _, name in failed(verdict)}
    assert names == {"begun", "challenge", "issuer", "request bytes", "token"}
    assert verdict.claims["iat"] == now


ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@given(data=st.data())
def test_no_signed_claim_can_make_the_verifier_crash(
    receipt_claims: dict[str, Any], keyset: Keyset, sign_receipt: Sign, now: int, data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(sorted(paths(receipt_claims))))
    text = sign_receipt(changed(receipt_claims, path, data.draw(ANYTHING)))
    verdict = verify_receipt(text, keyset.jwks(), now=now, request=b"", response=b"", token="", salt="")
    assert verdict.exit_code == 1
