"""An appliance with known keys, evidence and time."""

from __future__ import annotations

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
from lotabotsd.attestation.verify import Verdict, verify_token
from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.identifiers import unb64url

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
