"""The receipt: a signed statement about one request and its answer. Pure.

It says which bytes came in and which went out, by whom they were answered, and where the usage record
stands. It is no proof of computation. Format: ARCHITECTURE.md, "Receipt".
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
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


def receipt_json(stated: Stated) -> bytes:
    """The canonical JSON of `receipt_claims`, written out: a request waits for it, and this takes a tenth.

    Only texts from outside can hold what JSON escapes; a test compares it with the claims.
    """
    s = stated
    nonce = "" if s.nonce is None else f'"eat_nonce":{_text(s.nonce)},'
    att = f'"att":{_text(s.token_hash)},' if s.token_hash else ""
    gpus = f'"gpus":[{",".join(map(_text, s.gpus))}],' if s.gpus else ""
    image = f'"image":{_text(s.image)},' if s.image else ""
    licence = f'"id":{_text(s.licence_id)}' if s.licence_id else ""
    tier = f'"tier":{_text(s.tier)}' if s.tier else ""
    model = [f'"digest":"sha256:{s.digest}"'] if s.digest else []
    model += [f'"name":{_text(s.model)}'] if s.model else []
    model += [f'"version":{_text(s.version)}'] if s.version else []
    development = "true" if s.development else "false"
    licence_and_tier = ",".join(part for part in (licence, tier) if part)
    upstream = "" if s.upstream_us is None else f',"upstream_us":{s.upstream_us}'
    return (
        f'{{{nonce}"eat_profile":"{RECEIPT_PROFILE}","iat":{s.issued_at},"iss":"urn:dev:ueid:{s.issuer}",'
        f'"jti":"{s.receipt_id}","x-lotabots-receipt":{{{att}"development":{development},'
        f'{gpus}{image}"key":"{key_hash(s.key_id)}","licence":{{{licence_and_tier}}},'
        f'"model":{{{",".join(model)}}},'
        f'"record":{{"epoch":"{s.epoch:016x}","number":{s.record},"worker":{s.worker}}},'
        f'"request":{{"bytes":{s.request.byte_count},"commitment":"{s.request.commitment}",'
        f'"method":{_text(s.method)},"path":{_text(s.path[:MAX_PATH_SHOWN])}}},'
        f'"response":{{"bytes":{s.response.byte_count},"commitment":"{s.response.commitment}",'
        f'"outcome":"{s.outcome}","status":{s.status}}},'
        f'"timing":{{"gate_us":{s.gate_us}{upstream}}}}}}}'
    ).encode()


_text = json.JSONEncoder(ensure_ascii=False).encode


def _present(**texts: str) -> dict[str, str]:
    return {name: text for name, text in texts.items() if text}


@lru_cache(maxsize=4_096)
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
        signed = self._head + b64url(receipt_json(stated))
        receipt = f"{signed}.{b64url(self._key.sign(signed.encode()))}"
        if len(receipt) > MAX_RECEIPT_BYTES:
            raise ValueError(f"the receipt has {len(receipt)} bytes, {MAX_RECEIPT_BYTES} are allowed")
        return receipt
