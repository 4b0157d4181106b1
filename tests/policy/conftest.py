"""Policies made of plain values, a publisher and a reader on one fresh file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.identity.limits_values import ScopeLimits
from lotabotsd.identity.records import KeyRecord
from lotabotsd.models.facts import ModelFacts, TensorFact
from lotabotsd.policy.compile import PolicySource
from lotabotsd.policy.grant import InstanceFacts
from lotabotsd.policy.publish import Publisher
from lotabotsd.policy.reader import PolicyReader

SECOND = 1_000_000_000
NOW = 1_772_366_400 * SECOND  # 2026-03-01T12:00:00Z
STANDING: dict[str, Any] = {
    "state": "valid",
    "code": "licence_valid",
    "effect": "everything that the licence allows",
    "detail": "",
    "tier": "pro",
    "kind": "paid",
    "licence_id": "lic_1",
    "sequence": 3,
    "customer": "Acme",
    "development": False,
    "clock_suspect": False,
    "expires_at_ns": NOW + 90 * 86_400 * SECOND,
    "changes_at_ns": 0,
    "reminder_days": 0,
    "requests_per_minute": 60_000,
    "burst": 10_000,
    "inferences_per_month": 5_000_000,
    "quota_hard": False,
    "inferences_included": 5_000_000,
    "gpus": 4,
    "models_live": 20,
    "organisations": 5,
    "members": 100,
    "features": ["oidc", "audit_export"],
    "priority_band": 2,
}


def make_key(number: int, **changes: Any) -> KeyRecord:
    """The key `key000000001` of `org_1`, for number 1."""
    record = KeyRecord(
        key_id=f"key{number:09}",
        organisation_id="org_1",
        organisation_name="Acme",
        member_id="mem_1",
        role="developer",
        name=f"app {number}",
        models=("*",),
        environment="live",
        created_at_ns=NOW,
        expires_at_ns=NOW + 30 * 86_400 * SECOND,
        secrets=((number.to_bytes(32, "big"), None),),
        limits=ScopeLimits(60, 2, 1_000),
        organisation_limits=ScopeLimits(rate_per_minute=6),
    )
    return dataclasses.replace(record, **changes)


def make_model(name: str, **changes: Any) -> ModelFacts:
    """A small live model."""
    tensor = TensorFact("INPUT", "FP32", (3, 224, 224))
    model = ModelFacts(name, ("1",), "ab" * 32, 8, (tensor,), (tensor,), ("cat", "dog"), None, True)
    return dataclasses.replace(model, **changes)


@pytest.fixture(scope="session")
def key() -> Callable[..., KeyRecord]:
    return make_key


@pytest.fixture(scope="session")
def model() -> Callable[..., ModelFacts]:
    return make_model


@pytest.fixture(scope="session")
def source() -> Callable[..., PolicySource]:
    def make(*keys: KeyRecord, **changes: Any) -> PolicySource:
        plain = PolicySource(
            keys=keys or (make_key(1),),
            standing=STANDING,
            models=(make_model("resnet"),),
            jwks={"keys": [{"kty": "OKP", "kid": "k1"}]},
            instance=InstanceFacts("apl_1", "0.1.0", "", {"in_flight": 16}),
            token_hash="ff00",
        )
        return dataclasses.replace(plain, **changes)

    return make


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.db"


@pytest.fixture
def publisher(path: Path) -> Iterator[Publisher]:
    made = Publisher(path, slots=64, lease_seconds=3_600)
    yield made
    made.close()


@pytest.fixture
def reader(path: Path) -> Iterator[PolicyReader]:
    """Not opened yet."""
    made = PolicyReader(path, grants_cached=8)
    yield made
    made.close()
