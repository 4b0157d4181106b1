"""The attestation token: RFC 9711 claims in a compact JWS. Pure.

The token is Evidence in the words of RFC 9334: a statement of the appliance about itself, not the result
of somebody's appraisal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.foundation.keys import raw_public, thumbprint

from .evidence import Evidence, Submodule, overall, software, submodules

PROFILE = "urn:lotabots:eat-profile:appliance:v1"
TOKEN_TYPE = "eat+jwt"  # noqa: S105 - the media type of RFC 9782, no password
ALGORITHMS = ("EdDSA", "Ed25519")  # RFC 8037, RFC 9864
MAX_TOKEN_BYTES = 16 * 1024
MAX_PAYLOAD_BYTES = 12_000  # 16 000 in base64url; the rest is for the header and the signature
CHALLENGED_SECONDS = 600
UNCHALLENGED_SECONDS = 86_400
ASSURANCE = "software"  # no TPM and no GPU evidence is appraised yet, so nothing higher is proven


@dataclass(frozen=True, slots=True)
class Frame:
    """What belongs to the token itself. Times are whole seconds since 1970."""

    ueid: str
    keyset: Mapping[str, Any]  # public keys by role
    receipt_key: str  # thumbprint
    audience: str
    nonce: str | None
    issued_at: int
    lifetime_seconds: int
    token_id: str  # UUIDv7
    previous: str | None  # base64url SHA-256 of the token issued before this one


def claims(frame: Frame, evidence: Evidence) -> tuple[dict[str, Any], dict[str, str]]:
    """The claims, and the submodules that did not fit (name → base64url of their JSON).

    Such a submodule stays in the claims as its digest (RFC 9711, section 4.2.18). Raises ValueError for
    a lifetime that the profile does not allow.
    """
    longest = UNCHALLENGED_SECONDS if frame.nonce is None else CHALLENGED_SECONDS
    if not 0 < frame.lifetime_seconds <= longest:
        raise ValueError(f"a token of this kind lives 1 to {longest} seconds")
    subject = f"urn:dev:ueid:{frame.ueid}"
    found: dict[str, Any] = {
        "iss": subject,
        "sub": subject,
        "aud": frame.audience,
        "iat": frame.issued_at,
        "nbf": frame.issued_at,
        "exp": frame.issued_at + frame.lifetime_seconds,
        "jti": frame.token_id,
        "eat_profile": PROFILE,
        "ueid": frame.ueid,
        **software("lotabotsd", evidence.version),
        # The owner of the host can debug every process on it: RFC 9711 then says "enabled".
        "dbgstat": "enabled",
        "uptime": evidence.uptime_seconds,
        "bootseed": b64url(evidence.boot_seed),
        "measres": [["lotabots", [["models", overall(evidence.models).value]]]],
        "cnf": {"jkt": frame.receipt_key},
        "submods": submodules(evidence),
        "x-lotabots-keyset": frame.keyset,
        "x-lotabots-assurance": ASSURANCE,
        "x-lotabots-development": evidence.development,
    }
    if frame.nonce is not None:
        found["eat_nonce"] = frame.nonce
    if frame.previous is not None:
        found["x-lotabots-prev"] = frame.previous
    return found, _detach(found)


def _detach(claims: dict[str, Any]) -> dict[str, str]:
    """Replace the largest submodules by their digests until the payload fits; returns what was taken out."""
    detached: dict[str, str] = {}
    inline: dict[str, Submodule] = dict(claims["submods"])
    while inline and len(canonical_json(claims)) > MAX_PAYLOAD_BYTES:
        name = max(inline, key=lambda name: len(canonical_json(inline[name])))
        data = canonical_json(inline.pop(name))
        claims["submods"][name] = ["DIGEST", ["SHA-256", b64url(hashlib.sha256(data).digest())]]
        detached[name] = b64url(data)
    return detached


def sign_jws(
    claims: Mapping[str, Any], key: Ed25519PrivateKey, alg: str = "EdDSA", typ: str = TOKEN_TYPE
) -> str:
    """A compact JWS (RFC 7515) whose key id is the key's thumbprint. Raises ValueError, also for floats."""
    if alg not in ALGORITHMS:
        raise ValueError(f"{alg} is not one of {', '.join(ALGORITHMS)}")
    header = {"alg": alg, "kid": thumbprint(raw_public(key)), "typ": typ}
    signed = f"{b64url(canonical_json(header))}.{b64url(canonical_json(dict(claims)))}"
    token = f"{signed}.{b64url(key.sign(signed.encode()))}"
    if len(token) > MAX_TOKEN_BYTES:
        raise ValueError(f"the token has {len(token)} bytes, {MAX_TOKEN_BYTES} are allowed")
    return token


def token_hash(token: str) -> str:
    """How the next token, and receipts, name this one: base64url SHA-256 of its bytes."""
    return b64url(hashlib.sha256(token.encode()).digest())
