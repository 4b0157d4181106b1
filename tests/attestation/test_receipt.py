"""Issuing receipts: the frozen bytes, what is left out, and what does not fit."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.attestation.receipt import (
    MAX_RECEIPT_BYTES,
    Body,
    ReceiptSigner,
    Stated,
    receipt_claims,
    receipt_json,
)
from lotabotsd.attestation.verify import verify_receipt
from lotabotsd.foundation.canonical import canonical_json

GOLDEN = Path(__file__).parent.parent / "golden" / "receipt"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
GPUS = tuple(f"GPU-00000000-1111-2222-3333-{number:012d}" for number in range(8))  # as many as are named
LONGEST = {  # what the gate's routes let through
    "image": "sha256:" + "0" * 64,
    "gpus": GPUS,
    "model": "m" * 128,
    "version": "9" * 9,
    "path": f"/v2/models/{'m' * 128}/versions/{'9' * 9}/generate_stream",
    "nonce": "n" * 88,
    "licence_id": "lic_0123456789abcdef",
    "tier": "enterprise",
    "outcome": "refused_concurrency",
    "epoch": 2**64 - 1,
    "record": 2**53,
    "gate_us": 600_000_000,
    "upstream_us": 600_000_000,
}


def body(name: str) -> Body:
    data = (GOLDEN / name).read_bytes()
    return Body(len(data), f"sha256:{hashlib.sha256(data).hexdigest()}")


def stated(**changes: Any) -> Stated:
    """What the golden receipt states."""
    made = Stated(
        issuer="AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB",
        receipt_id="019abcde-f012-7345-8678-9abcdef01234",
        issued_at=1_795_651_200,
        nonce=None,
        token_hash="B0TwI0S_SfFO9Z_RtmTaJClprfXzUHE9sE5Bi3_hsHg",
        development=True,
        worker=1,
        epoch=0x0123456789ABCDEF,
        record=42,
        method="POST",
        path="/v1/models/page_orientation/predict",
        request=body("request.json"),
        status=200,
        outcome="served",
        response=body("response.json"),
        model="page_orientation",
        version="1",
        digest="ab" * 32,
        licence_id="",
        tier="free",
        key_id="key_golden",
        gate_us=812,
        upstream_us=9_401,
    )
    return dataclasses.replace(made, **changes)


def test_the_frozen_receipt_is_what_the_gate_issues() -> None:
    assert ReceiptSigner(KEY).sign(stated()) == (GOLDEN / "plain.txt").read_text().strip()


OUTSIDE = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    texts=st.fixed_dictionaries(
        dict.fromkeys(("method", "path", "model", "version", "licence_id", "tier", "image"), OUTSIDE)
    ),
    nonce=st.none() | OUTSIDE,
    token_hash=OUTSIDE,
    digest=st.sampled_from(["", "ab" * 32]),
    upstream_us=st.none() | st.integers(0, 10**9),
    development=st.booleans(),
    gpus=st.lists(OUTSIDE, max_size=3).map(tuple),
)
def test_what_is_written_out_is_the_canonical_json_of_the_claims(texts: dict[str, str], **more: Any) -> None:
    made = stated(**texts, **more)
    assert receipt_json(made) == canonical_json(receipt_claims(made))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"nonce": "n" * 22, "token_hash": "", "upstream_us": None},
        {"version": "", "digest": ""},
        {"licence_id": "lic_0123456789abcdef", "tier": "pro", "development": False},
        {"image": "sha256:" + "0" * 64, "gpus": GPUS},
        LONGEST,
        {"status": 429, "outcome": "refused_rate", "model": "m" * 128, "path": "/" + "p" * 511},
    ],
    ids=["golden", "nonce", "no model facts", "licence", "container", "longest", "long refusal"],
)
@pytest.mark.parametrize("algorithm", ["EdDSA", "Ed25519"])
def test_whatever_is_stated_the_verifier_accepts(changes: dict[str, Any], algorithm: str) -> None:
    text = ReceiptSigner(KEY, algorithm).sign(stated(**changes))
    verdict = verify_receipt(
        text,
        json.loads((GOLDEN / "jwks.json").read_text()),
        now=1_795_651_200,
        request=(GOLDEN / "request.json").read_bytes(),
        response=(GOLDEN / "response.json").read_bytes(),
        nonce=changes.get("nonce"),
    )
    assert verdict.valid, [check for check in verdict.checks if check.passed is False]
    assert len(text) <= MAX_RECEIPT_BYTES


def test_what_is_not_known_is_left_out() -> None:
    content = receipt_claims(stated(token_hash="", version="", digest="", upstream_us=None))
    shown = content["x-lotabots-receipt"]
    assert shown["model"] == {"name": "page_orientation"}
    assert shown["timing"] == {"gate_us": 812}
    assert not {"att", "image", "gpus"} & set(shown)
    assert "eat_nonce" not in content


def test_a_receipt_that_could_not_travel_is_not_signed() -> None:
    with pytest.raises(ValueError, match="3072 are allowed"):
        ReceiptSigner(KEY).sign(stated(gpus=("g" * 64,) * 40))


def test_the_longest_one_may_hide_its_bodies_too() -> None:
    hidden = Body(2**30, f"hmac-sha256:{'0' * 64}")
    text = ReceiptSigner(KEY, "Ed25519").sign(stated(**LONGEST, request=hidden, response=hidden))
    assert len(text) <= MAX_RECEIPT_BYTES


def test_only_the_two_names_of_the_algorithm_are_known() -> None:
    with pytest.raises(ValueError, match="ES256"):
        ReceiptSigner(KEY, "ES256")
