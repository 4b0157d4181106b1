"""An appliance with known keys, evidence and time."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.attestation.evidence import (
    Evidence,
    LicenceEvidence,
    Measurement,
    ModelEvidence,
    RuntimeEvidence,
)
from lotabotsd.attestation.issuer import Issuer
from lotabotsd.attestation.keyset import ROLES, Keyset
from lotabotsd.attestation.verify import Verdict, verify_receipt, verify_token
from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.identifiers import b64url, unb64url
from lotabotsd.foundation.keys import raw_public, thumbprint

NONCE = "AAAAAAAAAAAAAAAAAAAAAA"


@pytest.fixture
def evidence() -> Evidence:
    return Evidence(
        version="0.1.0",
        uptime_seconds=3_600,
        boot_seed=bytes(range(32)),
        runtime=RuntimeEvidence(kind="embedded", running=True, version="2.51.0"),
        models=(ModelEvidence("page_orientation", ("1",), "ab" * 32, Measurement.SUCCESS, backend="python"),),
        licence=LicenceEvidence(state="none", tier="free"),
        gpu_probe="the NVIDIA driver is not installed",
        development=True,
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the keys lie. They come from known seeds, so that every run sees the same thumbprints."""
    made = tmp_path / "keys"
    made.mkdir(mode=0o700)
    for number, role in enumerate(ROLES, start=1):
        key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (made / f"{role}.key").write_bytes(pem)
        (made / f"{role}.key").chmod(0o600)
    (made / "ueid").write_text("AQEB" * 11 + "\n")
    return made


@pytest.fixture
def keyset(directory: Path) -> Keyset:
    return Keyset.load_or_create(directory, directory / "receipt.key")


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 11, 23, 4, 5, 6, tzinfo=UTC))


@pytest.fixture
def now(clock: FixedClock) -> int:
    return clock.wall_ns() // 1_000_000_000


@pytest.fixture
def issuer(keyset: Keyset, clock: FixedClock, directory: Path) -> Issuer:
    return Issuer(keyset, clock, directory)


@pytest.fixture
def token(issuer: Issuer, evidence: Evidence) -> str:
    return issuer.issue(evidence, NONCE, "an-app").token


@pytest.fixture
def claims(token: str) -> dict[str, Any]:
    return dict(json.loads(unb64url(token.split(".")[1])))


@pytest.fixture
def judge(keyset: Keyset, now: int) -> Callable[..., Verdict]:
    """Verify with the keys, audience and nonce that fit, unless told otherwise."""

    def verdict(text: str, **options: Any) -> Verdict:
        settings = {
            "audience": "an-app",
            "nonce": "AAAAAAAAAAAAAAAAAAAAAA",
            "now": now,
            "jwks": keyset.jwks(),
            **options,
        }
        return verify_token(text, settings.pop("jwks"), **settings)

    return verdict


@pytest.fixture
def bodies() -> tuple[bytes, bytes]:
    """What was sent and what came back."""
    return b'{"image":"aGVsbG8="}', b'{"labels":["180"],"scores":[0.98]}\n'


@pytest.fixture
def receipt_claims(bodies: tuple[bytes, bytes], keyset: Keyset, token: str, now: int) -> dict[str, Any]:
    """A receipt with every member of the format, its commitments not salted."""
    request, response = ({"bytes": len(body), "commitment": committed(body)} for body in bodies)
    return {
        "iss": f"urn:dev:ueid:{keyset.ueid}",
        "iat": now,
        "jti": "019ab0c0-0000-7000-8000-000000000000",
        "eat_profile": "urn:lotabots:eat-profile:receipt:v1",
        "eat_nonce": NONCE,
        "x-lotabots-receipt": {
            "att": b64url(hashlib.sha256(token.encode()).digest()),
            "development": True,
            "record": {"epoch": "00000000000000a1", "number": 7, "worker": 0},
            "request": {**request, "method": "POST", "path": "/v1/models/page_orientation/predict"},
            "response": {**response, "outcome": "served", "status": 200},
            "model": {"name": "page_orientation", "version": "1", "digest": f"sha256:{'ab' * 32}"},
            "licence": {"id": "lic_1", "tier": "pro"},
            "key": b64url(hashlib.sha256(b"lotabots key v1\0key_1").digest()),
            "timing": {"gate_us": 840, "upstream_us": 9_400},
            "image": f"sha256:{'cd' * 32}",
            "gpus": ["GPU-1", "GPU-2"],
        },
    }


def committed(body: bytes, salt: bytes | None = None) -> str:
    """How a receipt names a body."""
    if salt is None:
        return f"sha256:{hashlib.sha256(body).hexdigest()}"
    return f"hmac-sha256:{hmac.new(salt, body, hashlib.sha256).hexdigest()}"


@pytest.fixture
def salted_claims(receipt_claims: dict[str, Any], bodies: tuple[bytes, bytes]) -> dict[str, Any]:
    """The same with commitments under SALT."""
    for name, body in zip(("request", "response"), bodies, strict=True):
        receipt_claims["x-lotabots-receipt"][name]["commitment"] = committed(body, bytes(range(16)))
    return receipt_claims


@pytest.fixture
def sign_receipt(keyset: Keyset) -> Callable[..., str]:
    """Sign claims as the gate does, or with another key, or under a changed header."""

    def sign(claims: Any, key: Ed25519PrivateKey = keyset.receipt, **changes: Any) -> str:
        kid = thumbprint(raw_public(key))
        header = {"alg": "EdDSA", "kid": kid, "typ": "lotabots-receipt+jwt", **changes}
        body = claims if isinstance(claims, bytes) else canonical_json(claims)
        signed = f"{b64url(canonical_json(header))}.{b64url(body)}"
        return f"{signed}.{b64url(key.sign(signed.encode()))}"

    return sign


@pytest.fixture
def receipt(sign_receipt: Callable[..., str], receipt_claims: dict[str, Any]) -> str:
    return sign_receipt(receipt_claims)


@pytest.fixture
def judge_receipt(keyset: Keyset, now: int) -> Callable[..., Verdict]:
    """Verify with the keys and the nonce that fit, unless told otherwise."""

    def verdict(text: str, **options: Any) -> Verdict:
        settings = {"nonce": NONCE, "now": now, "jwks": keyset.jwks(), **options}
        return verify_receipt(text, settings.pop("jwks"), **settings)

    return verdict
