"""For each way in which a token or a receipt can be wrong, one that is, as the offline verifier judges it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lotabotsd.attestation.verify import verify_receipt, verify_token
from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.identifiers import b64url

from .documents import (
    NOW,
    RECEIPT_KEY,
    STATEMENTS,
    TOKEN_KEY,
    Problems,
    failed,
    golden,
    jwk_set,
    jws,
    key,
    key_id,
)
from .mutations import put

Maker = Callable[[Path], Problems | None]
TOKEN, RECEIPT = STATEMENTS["attestation-token"].value, STATEMENTS["receipt"].value
KINDS = {
    "attestation-token": ("eat+jwt", TOKEN_KEY, TOKEN),
    "receipt": ("lotabots-receipt+jwt", RECEIPT_KEY, RECEIPT),
}
WEAK = {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": b64url(bytes([1]) + bytes(31))}]}


def judge(name: str, text: str, keys: Any = None, **options: Any) -> Problems:
    private = KINDS[name][1]
    keys = jwk_set(private) if keys is None else keys
    if name == "receipt":
        return failed(verify_receipt(text, keys, now=NOW, **options))
    return failed(verify_token(text, keys, audience="golden", now=NOW, **options))


def signed(name: str, value: Any = None, **header: Any) -> str:
    """The golden claims, or others, under a header with some members changed."""
    kind, private, claims = KINDS[name]
    whole = {"alg": "EdDSA", "kid": key_id(private), "typ": kind, **header}
    text = f"{b64url(canonical_json(whole))}.{b64url(canonical_json(claims if value is None else value))}"
    return f"{text}.{b64url(private.sign(text.encode()))}"


def statement(name: str) -> dict[str, Maker]:
    """The ways that both kinds share."""
    kind, _, claims = KINDS[name]
    good = signed(name)
    head, _, last = good.split(".")
    other = b64url(canonical_json({**claims, "iat": claims["iat"] - 1}))
    stranger = key(9)
    return {
        "size": lambda _: judge(name, good + "A" * 16_384),
        "form": lambda _: judge(name, good.rpartition(".")[0]),
        "header": lambda _: judge(name, signed(name, jku="https://example.com/")),
        "other-type": lambda _: judge(name, signed(name, typ="JWT")),
        "algorithm": lambda _: judge(name, signed(name, alg="none")),
        "unknown-signer": lambda _: judge(name, jws(claims, stranger, kind)),
        "weak-key": lambda _: judge(name, good, WEAK),
        "changed": lambda _: judge(name, f"{head}.{other}.{last}"),
        "invalid": lambda _: judge(name, signed(name, put(claims, ("iat",), "now"))),
        "other-profile": lambda _: judge(name, signed(name, {**claims, "eat_profile": "urn:example"})),
    }


GPU = ("submods", "gpu")
DETACHED = ["DIGEST", ["SHA-256", "A" * 43]]
PLAIN = golden("receipt/plain.txt").decode().strip()
SALTED = golden("receipt/salted.txt").decode().strip()
REQUEST, RESPONSE = golden("receipt/request.json"), golden("receipt/response.json")
OTHER_REQUEST = bytes(len(REQUEST))
MAKERS: dict[str, dict[str, Maker]] = {
    "attestation-token": {
        **statement("attestation-token"),
        "unknown-source": lambda _: judge(
            "attestation-token",
            signed("attestation-token", put(TOKEN, (*GPU, "x-lotabots-source"), "rumour")),
        ),
        "other-detached": lambda _: judge(
            "attestation-token",
            signed("attestation-token", put(TOKEN, GPU, DETACHED)),
            detached={"gpu": base64.urlsafe_b64encode(b"{}").rstrip(b"=").decode()},
        ),
    },
    "receipt": {
        **statement("receipt"),
        "other-issuer": lambda _: judge("receipt", PLAIN, issuer="urn:dev:ueid:other"),
        "other-challenge": lambda _: judge("receipt", SALTED, nonce="another-nonce-of-22-ch"),
        "bad-salt": lambda _: judge("receipt", SALTED, salt="short"),
        "other-request": lambda _: judge("receipt", PLAIN, request=OTHER_REQUEST),
        "other-length": lambda _: judge("receipt", PLAIN, response=RESPONSE + b" "),
        "other-token": lambda _: judge("receipt", PLAIN, token="another"),
    },
}
