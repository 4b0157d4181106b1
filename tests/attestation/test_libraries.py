"""Other people's JWT libraries verify the same token with the same key set."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import joserfc.jwt
import jwt
import pytest
from joserfc.errors import BadSignatureError, SecurityWarning
from joserfc.jwk import KeySet

from lotabotsd.attestation.evidence import Evidence
from lotabotsd.attestation.issuer import Issuer
from lotabotsd.attestation.keyset import Keyset
from lotabotsd.attestation.token import sign_jws

NONCE = "AAAAAAAAAAAAAAAAAAAAAA"


@pytest.fixture
def token(issuer: Issuer, evidence: Evidence) -> str:
    return issuer.issue(evidence, NONCE, "an-app").token


def with_pyjwt(token: str, jwks: dict[str, Any], now: int, audience: str = "an-app") -> dict[str, Any]:
    key = jwt.PyJWKSet.from_dict(jwks)[jwt.get_unverified_header(token)["kid"]]
    found = jwt.decode(
        token,
        key,
        algorithms=["EdDSA"],
        audience=audience,
        options={"verify_exp": False, "verify_iat": False, "verify_nbf": False, "require": ["exp", "iat"]},
    )
    assert found["iat"] <= now < found["exp"]
    return dict(found)


def with_joserfc(token: str, jwks: dict[str, Any], typ: str = "eat+jwt") -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # it would rather see "Ed25519" than "EdDSA"
        decoded = joserfc.jwt.decode(token, KeySet.import_key_set(jwks), algorithms=["EdDSA", "Ed25519"])
    assert decoded.header["typ"] == typ
    return dict(decoded.claims)


def test_both_libraries_read_the_same_claims(token: str, keyset: Keyset, now: int) -> None:
    one, other = with_pyjwt(token, keyset.jwks(), now), with_joserfc(token, keyset.jwks())
    assert one == other
    assert one["eat_nonce"] == NONCE


def test_both_libraries_refuse_a_changed_token(token: str, keyset: Keyset, now: int) -> None:
    header, payload, signature = token.split(".")
    changed = f"{header}.{payload[:-2]}{'A' if payload[-2] != 'A' else 'B'}{payload[-1]}.{signature}"
    with pytest.raises(jwt.InvalidSignatureError):
        with_pyjwt(changed, keyset.jwks(), now)
    with pytest.raises(BadSignatureError):
        with_joserfc(changed, keyset.jwks())


def test_pyjwt_refuses_another_audience(token: str, keyset: Keyset, now: int) -> None:
    with pytest.raises(jwt.InvalidAudienceError):
        with_pyjwt(token, keyset.jwks(), now, audience="another-app")


def test_joserfc_reads_the_new_name_of_the_algorithm(token: str, keyset: Keyset, now: int) -> None:
    claims = with_pyjwt(token, keyset.jwks(), now)
    renamed = sign_jws(claims, keyset.attestation, "Ed25519")
    assert with_joserfc(renamed, keyset.jwks("Ed25519")) == claims


def receipt_with_pyjwt(receipt: str, jwks: dict[str, Any]) -> dict[str, Any]:
    key = jwt.PyJWKSet.from_dict(jwks)[jwt.get_unverified_header(receipt)["kid"]]
    options = {"verify_iat": False, "require": ["iat", "iss", "jti"]}
    return dict(jwt.decode(receipt, key, algorithms=["EdDSA"], options=options))


def test_both_libraries_read_the_same_receipt(
    receipt: str, receipt_claims: dict[str, Any], keyset: Keyset
) -> None:
    jwks = keyset.jwks()
    assert receipt_with_pyjwt(receipt, jwks) == receipt_claims
    assert with_joserfc(receipt, jwks, "lotabots-receipt+jwt") == receipt_claims


def test_both_libraries_refuse_a_changed_receipt(
    receipt: str, receipt_claims: dict[str, Any], sign_receipt: Callable[..., str], keyset: Keyset
) -> None:
    other = sign_receipt({**receipt_claims, "iat": receipt_claims["iat"] + 1})
    changed = f"{receipt.rpartition('.')[0]}.{other.rpartition('.')[2]}"
    with pytest.raises(jwt.InvalidSignatureError):
        receipt_with_pyjwt(changed, keyset.jwks())
    with pytest.raises(BadSignatureError):
        with_joserfc(changed, keyset.jwks(), "lotabots-receipt+jwt")
