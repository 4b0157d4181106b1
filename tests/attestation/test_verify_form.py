"""The offline verifier on the form of a token: what is no JWS of this kind never reaches the keys."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.attestation import token as made
from lotabotsd.attestation import verify
from lotabotsd.attestation.keyset import Keyset
from lotabotsd.attestation.verify import Verdict
from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.foundation.keys import jwk, raw_public, thumbprint

NONCE = "AAAAAAAAAAAAAAAAAAAAAA"
OTHER_NONCE = "BBBBBBBBBBBBBBBBBBBBBB"
Judge = Callable[..., Verdict]


def sign(header: dict[str, Any], payload: bytes, key: Ed25519PrivateKey) -> str:
    signed = f"{b64url(canonical_json(header))}.{b64url(payload)}"
    return f"{signed}.{b64url(key.sign(signed.encode()))}"


def header_of(keyset: Keyset, **changes: Any) -> dict[str, Any]:
    return {"alg": "EdDSA", "kid": thumbprint(raw_public(keyset.attestation)), "typ": "eat+jwt", **changes}


def failed(verdict: Verdict) -> list[tuple[str, str]]:
    return [(check.level, check.name) for check in verdict.checks if check.passed is False]


def refused(verdict: Verdict, level: str, name: str) -> None:
    assert failed(verdict) == [(level, name)]
    assert not verdict.valid
    assert verdict.exit_code == 1
    assert verdict.assurance == "none"
    assert verdict.not_established == ("anything: the token is not valid",)


def test_a_fresh_token_is_valid_at_every_level(judge: Judge, token: str) -> None:
    verdict = judge(token)
    assert verdict.valid
    assert verdict.exit_code == 0
    assert failed(verdict) == []
    assert {check.level for check in verdict.checks} == {"parse", "cryptography", "claims", "policy"}
    assert verdict.claims["eat_nonce"] == NONCE


def test_both_spellings_of_the_algorithm_are_accepted(
    judge: Judge, keyset: Keyset, claims: dict[str, Any]
) -> None:
    token = made.sign_jws(claims, keyset.attestation, "Ed25519")
    assert judge(token).valid
    assert judge(token, jwks=keyset.jwks("Ed25519")).valid


def test_unknown_claims_are_ignored(judge: Judge, keyset: Keyset, claims: dict[str, Any]) -> None:
    assert judge(made.sign_jws({**claims, "x-lotabots-later": {"a": [1]}}, keyset.attestation)).valid


def test_the_verifier_and_the_signer_agree_on_the_profile() -> None:
    assert verify.PROFILE == made.PROFILE
    assert verify.ALGORITHMS == made.ALGORITHMS
    assert verify.TOKEN_TYPE == made.TOKEN_TYPE
    assert verify.MAX_TOKEN_BYTES == made.MAX_TOKEN_BYTES
    assert verify.LONGEST_SECONDS == {
        "challenged": made.CHALLENGED_SECONDS,
        "unchallenged": made.UNCHALLENGED_SECONDS,
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c.d",
        "....",
        "{}",
        "ä.ä.ä",
        "e30.e30.",
        "e30.e30.=",
        "W10.W10.AA",
        "\0.\0.\0",
    ],
)
def test_what_is_no_token_is_refused(judge: Judge, text: str) -> None:
    assert failed(judge(text))[0][0] == "parse"
    assert judge(text).exit_code == 1


@pytest.mark.parametrize("padding", ["=", "==", " ", "\n"])
def test_padding_and_white_space_are_refused(judge: Judge, token: str, padding: str) -> None:
    refused(judge(token + padding), "parse", "form")
    refused(judge(padding + token), "parse", "form")


def test_16_kib_are_allowed_and_not_a_byte_more(judge: Judge, keyset: Keyset, claims: dict[str, Any]) -> None:
    def padded(size: int) -> str:
        return sign(header_of(keyset), canonical_json({**claims, "x": "y" * size}), keyset.attestation)

    size = next(size for size in range(9_000, 13_000) if len(padded(size)) > 16_384 - 4)
    assert 16_380 < len(padded(size)) <= 16_384
    assert judge(padded(size)).valid
    refused(judge(padded(size + 4)), "parse", "size")
    refused(judge(padded(12_800)), "parse", "size")  # 17 KiB


@pytest.mark.parametrize(
    "payload",
    [
        b'{"aud":"an-app","aud":"another"}',
        b'{"submods":{"a":{"b":1,"\\u0062":2}}}',
        b'{"iat":1.0}',
        b'{"iat":1e3}',
        b'{"x":{"y":[0.5]}}',
        b'{"iat":NaN}',
        b'{"iat":-Infinity}',
        b'{"iat":' + b"9" * 5_000 + b"}",
        b"[" * 8_000,
        b'{"a":' * 2_000,
        b"\xff",
        b"",
        b"nothing",
    ],
    ids=lambda payload: payload[:24].decode(errors="replace"),
)
def test_json_that_could_be_read_twice_or_not_at_all_is_refused(
    judge: Judge, keyset: Keyset, payload: bytes
) -> None:
    refused(judge(sign(header_of(keyset), payload, keyset.attestation)), "parse", "form")


def test_duplicate_keys_in_the_header_are_refused(judge: Judge, token: str, keyset: Keyset) -> None:
    header = b'{"alg":"none",' + canonical_json(header_of(keyset))[1:]
    signed = f"{b64url(header)}.{token.split('.')[1]}"
    signature = b64url(keyset.attestation.sign(signed.encode()))
    refused(judge(f"{signed}.{signature}"), "parse", "form")


@pytest.mark.parametrize("payload", [b"[]", b'"a"', b"1", b"null", b"true"])
def test_a_payload_that_is_no_object_is_refused(judge: Judge, keyset: Keyset, payload: bytes) -> None:
    refused(judge(sign(header_of(keyset), payload, keyset.attestation)), "parse", "form")


@pytest.mark.parametrize(
    "extra",
    [
        {"jku": "https://attacker.example/jwks.json"},
        {"jwk": jwk(raw_public(Ed25519PrivateKey.from_private_bytes(bytes(32))))},
        {"x5u": "https://attacker.example/cert.pem"},
        {"x5c": ["MIIB"]},
        {"x5t": "AA"},
        {"crit": ["exp"]},
        {"crit": []},
        {"zip": "DEF"},
        {"b64": False, "crit": ["b64"]},
        {"cty": "JWT"},
        {"enc": "A256GCM"},
        {"x": "y"},
    ],
    ids=lambda extra: "+".join(extra),
)
def test_any_other_header_member_is_refused(
    judge: Judge, keyset: Keyset, claims: dict[str, Any], extra: dict[str, Any]
) -> None:
    token = sign(header_of(keyset, **extra), canonical_json(claims), keyset.attestation)
    refused(judge(token), "parse", "header")


@pytest.mark.parametrize("missing", ["alg", "kid", "typ"])
def test_no_header_member_may_be_missing(
    judge: Judge, keyset: Keyset, claims: dict[str, Any], missing: str
) -> None:
    header = header_of(keyset)
    del header[missing]
    refused(judge(sign(header, canonical_json(claims), keyset.attestation)), "parse", "header")


@pytest.mark.parametrize(
    "typ", ["JWT", "", "EAT+JWT", "application/eat+jwt", "lotabots-receipt+jwt", None, 1, []]
)
def test_another_type_is_refused(judge: Judge, keyset: Keyset, claims: dict[str, Any], typ: Any) -> None:
    token = sign(header_of(keyset, typ=typ), canonical_json(claims), keyset.attestation)
    refused(judge(token), "parse", "type")


@pytest.mark.parametrize(
    "alg", ["none", "None", "", "ES256", "RS256", "Ed448", "eddsa", "ED25519", None, ["EdDSA"]]
)
def test_another_algorithm_is_refused_even_with_a_good_signature(
    judge: Judge, keyset: Keyset, claims: dict[str, Any], alg: Any
) -> None:
    token = sign(header_of(keyset, alg=alg), canonical_json(claims), keyset.attestation)
    refused(judge(token), "parse", "algorithm")


def test_no_algorithm_and_no_signature_is_refused(
    judge: Judge, keyset: Keyset, claims: dict[str, Any]
) -> None:
    signed = f"{b64url(canonical_json(header_of(keyset, alg='none')))}.{b64url(canonical_json(claims))}."
    refused(judge(signed), "parse", "algorithm")


@pytest.mark.parametrize("alg", ["HS256", "EdDSA"])
def test_the_public_key_as_an_hmac_secret_is_refused(
    judge: Judge, keyset: Keyset, claims: dict[str, Any], alg: str
) -> None:
    public = keyset.attestation.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = f"{b64url(canonical_json(header_of(keyset, alg=alg)))}.{b64url(canonical_json(claims))}"
    for secret in (raw_public(public), pem):
        mac = hmac.digest(secret, signed.encode(), hashlib.sha256)
        for signature in (mac, mac + mac):
            assert judge(f"{signed}.{b64url(signature)}").exit_code == 1


def test_es256_is_refused_also_under_a_trusted_kid(
    judge: Judge, keyset: Keyset, claims: dict[str, Any]
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    header = header_of(keyset, alg="ES256")
    signed = f"{b64url(canonical_json(header))}.{b64url(canonical_json(claims))}"
    signature = key.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
    foreign = {
        "kty": "EC",
        "crv": "P-256",
        "kid": header["kid"],
        "x": b64url(numbers.x.to_bytes(32, "big")),
        "y": b64url(numbers.y.to_bytes(32, "big")),
    }
    jwks = {"keys": [foreign, *keyset.jwks()["keys"]]}
    refused(judge(f"{signed}.{b64url(signature)}", jwks=jwks), "parse", "algorithm")
