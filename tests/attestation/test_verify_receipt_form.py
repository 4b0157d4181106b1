"""The offline verifier on a receipt's form, keys and signature: not one character may differ."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.attestation import verify
from lotabotsd.attestation.keyset import Keyset
from lotabotsd.attestation.verify import Verdict
from lotabotsd.attestation.verify.jose import SMALL_ORDER_Y
from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.foundation.keys import jwk, raw_public, thumbprint

Judge = Callable[..., Verdict]
Sign = Callable[..., str]


def failed(verdict: Verdict) -> list[tuple[str, str]]:
    return [(check.level, check.name) for check in verdict.checks if check.passed is False]


def refused(verdict: Verdict, level: str, name: str) -> None:
    assert failed(verdict) == [(level, name)]
    assert verdict.exit_code == 1
    assert verdict.assurance == "none"
    assert verdict.not_established == ("anything: the receipt is not valid",)


def test_a_receipt_is_valid_at_every_level(judge_receipt: Judge, receipt: str) -> None:
    verdict = judge_receipt(receipt)
    assert verdict.exit_code == 0
    assert verdict.assurance == "software"
    assert {check.level for check in verdict.checks} == {"parse", "cryptography", "claims", "policy"}
    assert verdict.claims["jti"] == "019ab0c0-0000-7000-8000-000000000000"


def test_the_frozen_names_are_these() -> None:
    assert verify.RECEIPT_TYPE == "lotabots-receipt+jwt"
    assert verify.RECEIPT_PROFILE == "urn:lotabots:eat-profile:receipt:v1"
    assert verify.MAX_RECEIPT_CHARACTERS == 4096


@pytest.mark.parametrize("alg", ["EdDSA", "Ed25519"])
def test_both_spellings_of_the_algorithm_are_accepted(
    judge_receipt: Judge, sign_receipt: Sign, receipt_claims: dict[str, Any], keyset: Keyset, alg: str
) -> None:
    assert judge_receipt(sign_receipt(receipt_claims, alg=alg), jwks=keyset.jwks(alg)).exit_code == 0


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a.b", "a.b.c.d", "{}", "ä.ä.ä", "e30.e30.", "W10.W10.AA", "\0.\0.\0"]
)
def test_what_is_no_receipt_is_refused(judge_receipt: Judge, text: str) -> None:
    assert failed(judge_receipt(text))[0][0] == "parse"
    assert judge_receipt(text).exit_code == 1


def test_4096_characters_are_allowed_and_not_one_more(
    judge_receipt: Judge, sign_receipt: Sign, receipt_claims: dict[str, Any]
) -> None:
    def padded(size: int) -> str:
        return sign_receipt({**receipt_claims, "x": "y" * size})

    size = next(size for size in range(500, 3_000) if len(padded(size)) >= 4_095)
    assert len(padded(size)) in (4_095, 4_096)
    assert judge_receipt(padded(size)).valid
    refused(judge_receipt(padded(size + 2)), "parse", "size")


@pytest.mark.parametrize(
    "payload",
    [b'{"iat":1,"iat":2}', b'{"a":{"b":1,"\\u0062":2}}', b'{"iat":1.0}', b'{"iat":1e3}', b'{"a":[NaN]}', b"{",
     b"[" * 2_500, b"\xff", b"", b"[]", b"null", b'"a"', b"1"],
    ids=lambda payload: payload[:24].decode(errors="replace"),
)  # fmt: skip
def test_json_that_could_be_read_twice_or_not_at_all_is_refused(
    judge_receipt: Judge, sign_receipt: Sign, payload: bytes
) -> None:
    refused(judge_receipt(sign_receipt(payload)), "parse", "form")


@pytest.mark.parametrize(
    "extra",
    [{"jku": "https://attacker.example/"}, {"jwk": jwk(bytes(32))}, {"x5u": "https://attacker.example/"},
     {"x5c": ["MIIB"]}, {"crit": ["exp"]}, {"zip": "DEF"}, {"b64": False, "crit": ["b64"]}, {"cty": "JWT"},
     {"x": "y"}],
    ids=lambda extra: "+".join(extra),
)  # fmt: skip
def test_any_other_header_member_is_refused(
    judge_receipt: Judge, sign_receipt: Sign, receipt_claims: dict[str, Any], extra: dict[str, Any]
) -> None:
    refused(judge_receipt(sign_receipt(receipt_claims, **extra)), "parse", "header")


@pytest.mark.parametrize("missing", ["alg", "kid", "typ"])
def test_no_header_member_may_be_missing(
    judge_receipt: Judge, keyset: Keyset, receipt_claims: dict[str, Any], missing: str
) -> None:
    kid = thumbprint(raw_public(keyset.receipt))
    header = {"alg": "EdDSA", "kid": kid, "typ": "lotabots-receipt+jwt"}
    del header[missing]
    signed = f"{b64url(canonical_json(header))}.{b64url(canonical_json(receipt_claims))}"
    text = f"{signed}.{b64url(keyset.receipt.sign(signed.encode()))}"
    refused(judge_receipt(text), "parse", "header")


@pytest.mark.parametrize("typ", ["JWT", "", "eat+jwt", "LOTABOTS-RECEIPT+JWT", None, 1, []])
def test_another_type_is_refused(
    judge_receipt: Judge, sign_receipt: Sign, receipt_claims: dict[str, Any], typ: Any
) -> None:
    refused(judge_receipt(sign_receipt(receipt_claims, typ=typ)), "parse", "type")


@pytest.mark.parametrize("alg", ["none", "", "ES256", "HS256", "Ed448", "eddsa", None, ["EdDSA"]])
def test_another_algorithm_is_refused_even_with_a_good_signature(
    judge_receipt: Judge, sign_receipt: Sign, receipt_claims: dict[str, Any], alg: Any
) -> None:
    refused(judge_receipt(sign_receipt(receipt_claims, alg=alg)), "parse", "algorithm")


def test_the_public_key_as_an_hmac_secret_is_refused(
    judge_receipt: Judge, receipt: str, keyset: Keyset
) -> None:
    signed = receipt.rpartition(".")[0]
    mac = hmac.digest(raw_public(keyset.receipt), signed.encode(), hashlib.sha256)
    refused(judge_receipt(f"{signed}.{b64url(mac + mac)}"), "cryptography", "signature")


@pytest.mark.parametrize("kid", ["../../etc/passwd", "", "unknown", None, 0, ["a"], {"a": 1}])
def test_a_key_id_is_only_looked_up(
    judge_receipt: Judge, sign_receipt: Sign, receipt_claims: dict[str, Any], kid: Any
) -> None:
    refused(judge_receipt(sign_receipt(receipt_claims, kid=kid)), "cryptography", "trusted keys")


@pytest.mark.parametrize("role", ["attestation", "report"])
def test_a_key_of_another_role_cannot_sign_receipts(
    judge_receipt: Judge, sign_receipt: Sign, receipt_claims: dict[str, Any], keyset: Keyset, role: str
) -> None:
    refused(judge_receipt(sign_receipt(receipt_claims, keyset.key(role))), "cryptography", "trusted keys")


def test_the_receipt_key_cannot_sign_tokens_nor_is_a_receipt_a_token(
    judge: Judge, judge_receipt: Judge, sign_receipt: Sign, receipt: str, token: str, claims: dict[str, Any]
) -> None:
    assert failed(judge(receipt)) == [("parse", "type")]
    refused(judge_receipt(token[:4096]), "parse", "type" if len(token) <= 4096 else "form")
    assert failed(judge(sign_receipt(claims, typ="eat+jwt"))) == [("cryptography", "trusted keys")]


def test_a_key_without_a_role_is_trusted(judge_receipt: Judge, receipt: str, keyset: Keyset) -> None:
    assert judge_receipt(receipt, jwks={"keys": [jwk(raw_public(keyset.receipt))]}).exit_code == 0


def test_a_stranger_is_refused_with_or_without_a_trusted_key_id(
    judge_receipt: Judge, sign_receipt: Sign, receipt_claims: dict[str, Any], keyset: Keyset
) -> None:
    stranger = Ed25519PrivateKey.generate()
    refused(judge_receipt(sign_receipt(receipt_claims, stranger)), "cryptography", "trusted keys")
    forged = sign_receipt(receipt_claims, stranger, kid=thumbprint(raw_public(keyset.receipt)))
    refused(judge_receipt(forged), "cryptography", "signature")
    assert judge_receipt(forged).claims == {}


@pytest.mark.parametrize("y", [*SMALL_ORDER_Y, 2**255 - 19, 2**255 - 18], ids=lambda y: f"{y:x}"[:8])
@pytest.mark.parametrize("sign", [0, 1])
def test_a_small_order_key_in_the_set_is_refused(
    judge_receipt: Judge, receipt: str, keyset: Keyset, y: int, sign: int
) -> None:
    raw = (y | sign << 255).to_bytes(32, "little")
    weak = {**jwk(raw), "kid": thumbprint(raw)}
    header = {"alg": "EdDSA", "kid": weak["kid"], "typ": "lotabots-receipt+jwt"}
    forged = f"{b64url(canonical_json(header))}.{receipt.split('.')[1]}.{b64url(bytes([1]) + bytes(63))}"
    refused(judge_receipt(forged, jwks={"keys": [weak]}), "cryptography", "trusted keys")
    together = {"keys": [weak, *keyset.jwks()["keys"]]}
    refused(judge_receipt(receipt, jwks=together), "cryptography", "trusted keys")


@pytest.mark.parametrize("jwks", [{}, [], None, "x", 7, {"keys": {}}, {"keys": []}])
def test_a_key_set_that_is_none_is_refused(judge_receipt: Judge, receipt: str, jwks: Any) -> None:
    refused(judge_receipt(receipt, jwks=jwks), "cryptography", "trusted keys")


@pytest.mark.thorough
def test_every_changed_missing_or_doubled_character_is_seen(judge_receipt: Judge, receipt: str) -> None:
    for index, character in enumerate(receipt):
        before, after = receipt[:index], receipt[index + 1 :]
        # The lowest bit also meets the loose bits at the end of each part.
        for other in ("", character * 2, chr(ord(character) ^ 1), chr(ord(character) ^ 32)):
            changed = f"{before}{other}{after}"
            assert judge_receipt(changed).exit_code == 1, (index, other)


def test_header_and_claims_of_two_receipts_cannot_be_swapped(
    judge_receipt: Judge, sign_receipt: Sign, receipt_claims: dict[str, Any], receipt: str
) -> None:
    other = sign_receipt({**receipt_claims, "iat": receipt_claims["iat"] + 1})
    header, _, signature = receipt.split(".")
    swapped = f"{header}.{other.split('.')[1]}.{signature}"
    refused(judge_receipt(swapped), "cryptography", "signature")
