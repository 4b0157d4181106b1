"""The receipt: a signed statement about one request and its answer. Pure.

It says which bytes came in and which went out, by whom they were answered, and where the usage record
stands. It is no proof of computation. Format: ARCHITECTURE.md, "Receipt".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.foundation.keys import raw_public, thumbprint

from .token import ALGORITHMS

RECEIPT_PROFILE = "urn:lotabots:eat-profile:receipt:v1"
RECEIPT_TYPE = "lotabots-receipt+jwt"
MAX_RECEIPT_BYTES = 3_072  # of the whole JWS: it travels in a header and in a usage record
MAX_PATH_SHOWN = 512
_KEY_DOMAIN = b"lotabots key v1\0"


@dataclass(frozen=True, slots=True)
class Body:
    """One body as it was sent: how long it is, and what binds it.

    `commitment` is `sha256:` or, where the caller alone shall be able to check it, `hmac-sha256:` with hex.
    """

    byte_count: int
    commitment: str


@dataclass(frozen=True, slots=True)
class Stated:
    """What a receipt says. Empty texts are left out; times are whole seconds, durations microseconds."""

    issuer: str  # the appliance's ueid
    receipt_id: str  # UUIDv7, the request's own
    issued_at: int
    nonce: str | None
    token_hash: str
    development: bool
    worker: int
    epoch: int
    record: int  # the number of the request's CLOSE in its worker's journal
    method: str
    path: str
    request: Body
    status: int
    outcome: str
    response: Body
    model: str
    version: str
    digest: str  # SHA-256 of the model's files, hex
    licence_id: str
    tier: str
    key_id: str
    gate_us: int
    upstream_us: int | None
    image: str = ""  # of the runtime, `sha256:…`
    gpus: tuple[str, ...] = ()  # those that may have run it: Triton does not say which one did


def receipt_claims(stated: Stated) -> dict[str, Any]:
    """The claims of a receipt."""
    claims: dict[str, Any] = {
        "iss": f"urn:dev:ueid:{stated.issuer}",
        "iat": stated.issued_at,
        "jti": stated.receipt_id,
        "eat_profile": RECEIPT_PROFILE,
        "x-lotabots-receipt": _content(stated),
    }
    if stated.nonce is not None:
        claims["eat_nonce"] = stated.nonce
    return claims


def _content(stated: Stated) -> dict[str, Any]:
    content: dict[str, Any] = {
        "development": stated.development,
        "record": {"epoch": f"{stated.epoch:016x}", "number": stated.record, "worker": stated.worker},
        "request": {
            "bytes": stated.request.byte_count,
            "commitment": stated.request.commitment,
            "method": stated.method,
            "path": stated.path[:MAX_PATH_SHOWN],
        },
        "response": {
            "bytes": stated.response.byte_count,
            "commitment": stated.response.commitment,
            "outcome": stated.outcome,
            "status": stated.status,
        },
        "model": _present(
            name=stated.model, version=stated.version, digest=stated.digest and f"sha256:{stated.digest}"
        ),
        "licence": _present(id=stated.licence_id, tier=stated.tier),
        "key": key_hash(stated.key_id),
        "timing": {"gate_us": stated.gate_us},
        **_present(att=stated.token_hash, image=stated.image),
    }
    if stated.upstream_us is not None:
        content["timing"]["upstream_us"] = stated.upstream_us
    if stated.gpus:
        content["gpus"] = list(stated.gpus)
    return content


def _present(**texts: str) -> dict[str, str]:
    return {name: text for name, text in texts.items() if text}


def key_hash(key_id: str) -> str:
    """How a receipt names an API key: its owner recognises it, nobody else learns it."""
    return b64url(hashlib.sha256(_KEY_DOMAIN + key_id.encode()).digest())


class ReceiptSigner:
    """Signs receipts with the receipt key, which signs nothing else."""

    def __init__(self, key: Ed25519PrivateKey, algorithm: str = "EdDSA") -> None:
        if algorithm not in ALGORITHMS:
            raise ValueError(f"{algorithm} is not one of {', '.join(ALGORITHMS)}")
        header = {"alg": algorithm, "kid": thumbprint(raw_public(key)), "typ": RECEIPT_TYPE}
        self._key = key
        self._head = f"{b64url(canonical_json(header))}."

    def sign(self, stated: Stated) -> str:
        """A compact JWS (RFC 7515). Raises ValueError when it would be too long to travel."""
        signed = self._head + b64url(canonical_json(receipt_claims(stated)))
        receipt = f"{signed}.{b64url(self._key.sign(signed.encode()))}"
        if len(receipt) > MAX_RECEIPT_BYTES:
            raise ValueError(f"the receipt has {len(receipt)} bytes, {MAX_RECEIPT_BYTES} are allowed")
        return receipt
