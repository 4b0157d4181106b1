"""A vendor of these tests: a root, two issuing keys, and licences with any claim changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.envelope import Envelope, PayloadType, sign
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.foundation.keys import raw_public, thumbprint
from lotabotsd.licence.keyring import Anchors, parse_anchors
from lotabotsd.licence.store import LicenceStore

START = datetime(2026, 1, 1, tzinfo=UTC)


def key(seed: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


def keyid(private: Ed25519PrivateKey) -> str:
    return thumbprint(raw_public(private))


def public(private: Ed25519PrivateKey) -> dict[str, str]:
    return {"keyid": keyid(private), "public": b64url(raw_public(private))}


@dataclass
class Vendor:
    """Whoever signs; every part may be changed by a test."""

    root: Ed25519PrivateKey = field(default_factory=lambda: key(1))
    issuing: Ed25519PrivateKey = field(default_factory=lambda: key(2))
    second: Ed25519PrivateKey = field(default_factory=lambda: key(3))
    base: dict[str, Any] = field(default_factory=dict)

    def statement(self, **changes: Any) -> dict[str, Any]:
        """A keyring statement, version 1, with the first issuing key."""
        return {
            "version": 1,
            "issued_at": "2025-06-01T00:00:00Z",
            "roots": [public(self.root)],
            "threshold": 1,
            "keys": [self.entry(self.issuing)],
            "revoked": [],
            **changes,
        }

    def entry(self, private: Ed25519PrivateKey, **changes: Any) -> dict[str, Any]:
        """One issuing key of a keyring."""
        return {
            **public(private),
            "uses": ["licence"],
            "not_before": "2025-06-01T00:00:00Z",
            "not_after": "2028-06-01T00:00:00Z",
            **changes,
        }

    def keyring(self, *signers: Ed25519PrivateKey, **changes: Any) -> Envelope:
        """A signed keyring statement."""
        body = canonical_json(self.statement(**changes))
        return sign(PayloadType.KEYRING, body, list(signers) or [self.root])

    def anchors_json(self, **changes: Any) -> dict[str, Any]:
        return {
            "kind": "production",
            "roots": [public(self.root)],
            "threshold": 1,
            "keyring": json.loads(self.keyring().to_json()),
            "built_at": None,
            **changes,
        }

    def anchors(self, **changes: Any) -> Anchors:
        return parse_anchors(canonical_json(self.anchors_json(**changes)))

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Well-formed claims of a pro licence for 2026."""
        return {**self.base, **changes}

    def licence(self, *, by: Ed25519PrivateKey | None = None, **changes: Any) -> bytes:
        """A signed licence in its JSON form."""
        body = canonical_json(self.claims(**changes))
        return sign(PayloadType.LICENCE, body, [by or self.issuing]).to_json()


@pytest.fixture
def golden() -> Path:
    return Path(__file__).resolve().parents[1] / "golden" / "licence"


@pytest.fixture
def vendor(golden: Path) -> Vendor:
    base = json.loads((golden / "pro.json").read_bytes())
    return Vendor(base={**base, "kind": "paid"})


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(START)


@pytest.fixture
def open_store(tmp_path: Path, vendor: Vendor, clock: FixedClock) -> Callable[..., LicenceStore]:
    """Open (again) the store of one appliance."""

    def opened(**changes: Any) -> LicenceStore:
        anchors = changes.pop("anchors", None) or vendor.anchors()
        return LicenceStore(tmp_path, anchors, clock, **changes)

    return opened


@pytest.fixture
def store(open_store: Callable[..., LicenceStore]) -> LicenceStore:
    return open_store()
