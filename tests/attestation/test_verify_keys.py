"""The offline verifier on keys and signatures: whom it trusts, and that not one bit may differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from lotabotsd.attestation import token as made
from lotabotsd.attestation.evidence import Evidence
from lotabotsd.attestation.issuer import Issuer
from lotabotsd.attestation.keyset import Keyset
from lotabotsd.attestation.verify import Verdict
from lotabotsd.attestation.verify.jose import SMALL_ORDER_Y
from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.identifiers import b64url, unb64url
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


def test_keys_of_other_kinds_in_the_set_do_not_disturb(judge: Judge, token: str, keyset: Keyset) -> None:
    others = [{"kty": "RSA", "n": "AQ", "e": "AQAB"}, {"kty": "OKP", "crv": "X25519", "x": "AA"}, 7, None, {}]
    assert judge(token, jwks={"keys": [*others, *keyset.jwks()["keys"]]}).valid


@pytest.mark.parametrize(
    "kid", ["../../etc/passwd", "/dev/null", "' OR 1=1 --", "", "unknown", None, 0, ["a"], {"a": 1}]
)
def test_a_key_id_is_only_looked_up(judge: Judge, keyset: Keyset, claims: dict[str, Any], kid: Any) -> None:
    token = sign(header_of(keyset, kid=kid), canonical_json(claims), keyset.attestation)
    refused(judge(token), "cryptography", "trusted keys")


def test_a_key_that_is_not_trusted_is_refused(judge: Judge, claims: dict[str, Any]) -> None:
    stranger = Ed25519PrivateKey.generate()
    refused(judge(made.sign_jws(claims, stranger)), "cryptography", "trusted keys")


def test_a_stranger_cannot_use_a_trusted_key_id(judge: Judge, keyset: Keyset, claims: dict[str, Any]) -> None:
    token = sign(header_of(keyset), canonical_json(claims), Ed25519PrivateKey.generate())
    refused(judge(token), "cryptography", "signature")


@pytest.mark.parametrize("role", ["receipt", "report"])
def test_a_key_of_another_role_cannot_sign_tokens(
    judge: Judge, keyset: Keyset, claims: dict[str, Any], role: str
) -> None:
    refused(judge(made.sign_jws(claims, keyset.key(role))), "cryptography", "trusted keys")


def test_a_key_without_a_role_is_trusted_but_must_be_in_the_keyset(
    judge: Judge, keyset: Keyset, token: str, claims: dict[str, Any]
) -> None:
    bare = {"keys": [jwk(raw_public(keyset.attestation)), jwk(raw_public(keyset.receipt))]}
    assert judge(token, jwks=bare).valid
    refused(judge(made.sign_jws(claims, keyset.receipt), jwks=bare), "claims", "keyset")


@pytest.mark.parametrize(
    "change",
    [{"use": "enc"}, {"alg": "ES256"}, {"x-lotabots-role": "receipt"}, {"kty": "EC"}, {"crv": "Ed448"}],
    ids=lambda change: next(iter(change.items())),
)
def test_a_key_that_says_it_is_for_something_else_is_not_used(
    judge: Judge, token: str, keyset: Keyset, change: dict[str, str]
) -> None:
    key = {**keyset.jwks()["keys"][0], **change}
    refused(judge(token, jwks={"keys": [key]}), "cryptography", "trusted keys")


@pytest.mark.parametrize(
    "change",
    [{"kid": "mine"}, {"d": "AA"}, {"x": "AA"}, {"x": None}, {"x": "not base64!"}, {"x": b64url(bytes(32))}],
    ids=lambda change: str(next(iter(change.items()))),
)
def test_a_damaged_or_private_key_spoils_the_whole_set(
    judge: Judge, token: str, keyset: Keyset, change: dict[str, Any]
) -> None:
    keys = [*keyset.jwks()["keys"], {**jwk(raw_public(keyset.report)), **change}]
    refused(judge(token, jwks={"keys": keys}), "cryptography", "trusted keys")


@pytest.mark.parametrize("jwks", [{}, [], None, "x", 7, {"keys": {}}, {"keys": None}, {"keys": []}])
def test_a_set_that_is_none_is_refused(judge: Judge, token: str, jwks: Any) -> None:
    refused(judge(token, jwks=jwks), "cryptography", "trusted keys")


P = 2**255 - 19
SMALL_ORDER = [
    (y | sign << 255).to_bytes(32, "little") for y in (*SMALL_ORDER_Y, P, P + 1) for sign in (0, 1)
]


def test_under_the_identity_as_key_one_signature_fits_every_message() -> None:
    identity = Ed25519PublicKey.from_public_bytes(bytes([1]) + bytes(31))
    for message in (b"one", b"other"):
        identity.verify(bytes([1]) + bytes(63), message)  # why weak keys must be refused by us


@pytest.mark.parametrize("raw", SMALL_ORDER, ids=lambda raw: raw.hex()[:6] + raw.hex()[-4:])
def test_a_small_order_key_in_the_set_is_refused(
    judge: Judge, token: str, keyset: Keyset, claims: dict[str, Any], raw: bytes
) -> None:
    weak = {**jwk(raw), "kid": thumbprint(raw)}
    signed = f"{b64url(canonical_json(header_of(keyset, kid=weak['kid'])))}.{b64url(canonical_json(claims))}"
    forged = f"{signed}.{b64url(bytes([1]) + bytes(63))}"
    refused(judge(forged, jwks={"keys": [weak]}), "cryptography", "trusted keys")
    refused(judge(token, jwks={"keys": [weak, *keyset.jwks()["keys"]]}), "cryptography", "trusted keys")


def test_every_flipped_bit_of_the_signature_is_seen(judge: Judge, token: str) -> None:
    signed, signature = token.rsplit(".", 1)
    raw = unb64url(signature)
    for index in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[index] ^= 1 << bit
            refused(judge(f"{signed}.{b64url(bytes(changed))}"), "cryptography", "signature")


def test_every_changed_character_of_the_signature_is_seen(judge: Judge, token: str) -> None:
    signed, signature = token.rsplit(".", 1)
    for index, character in enumerate(signature):
        for bit in range(8):
            other = chr(ord(character) ^ 1 << bit)
            changed = f"{signed}.{signature[:index]}{other}{signature[index + 1 :]}"
            assert judge(changed).exit_code == 1, (index, other)


def test_every_other_last_character_is_seen(judge: Judge, token: str) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    valid = [last for last in alphabet if judge(token[:-1] + last).valid]
    assert valid == [token[-1]], "the loose bits of base64 are not free"


@pytest.mark.parametrize("length", [0, 1, 32, 63, 65, 96, 128])
def test_a_signature_of_another_length_is_refused(judge: Judge, token: str, length: int) -> None:
    signed, signature = token.rsplit(".", 1)
    raw = (unb64url(signature) * 2)[:length]
    refused(judge(f"{signed}.{b64url(raw)}"), "cryptography", "signature")


def test_adding_the_group_order_to_the_signature_is_refused(judge: Judge, token: str) -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    signed, signature = token.rsplit(".", 1)
    raw = unb64url(signature)
    scalar = int.from_bytes(raw[32:], "little") + order
    refused(
        judge(f"{signed}.{b64url(raw[:32] + scalar.to_bytes(32, 'little'))}"), "cryptography", "signature"
    )


def test_header_and_claims_of_two_tokens_cannot_be_swapped(
    judge: Judge, issuer: Issuer, evidence: Evidence, token: str
) -> None:
    other = issuer.issue(evidence, OTHER_NONCE, "an-app").token
    header, _, signature = token.split(".")
    refused(judge(f"{header}.{other.split('.')[1]}.{signature}"), "cryptography", "signature")


def test_the_claims_of_a_bad_signature_are_not_shown(judge: Judge, token: str) -> None:
    assert judge(token[:-4] + "AAAA").claims == {}
