"""Whom a release trusts: pinned roots, keyrings version after version, the published root marked."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.envelope import PayloadType, sign
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.foundation.keys import raw_public, thumbprint
from lotabotsd.licence.keyring import (
    DEVELOPMENT_ROOT,
    Keyring,
    Use,
    load_anchors,
    parse_anchors,
    parse_keyring,
    rotate,
)

ROOT = Path(__file__).resolve().parents[2]


def code_of(call: Callable[[], Any]) -> Code:
    with pytest.raises(LotaBotsError) as caught:
        call()
    return caught.value.code


def entry(private: Ed25519PrivateKey) -> dict[str, str]:
    raw = raw_public(private)
    return {"keyid": thumbprint(raw), "public": b64url(raw)}


def first(vendor: Any) -> Keyring:
    return parse_keyring(canonical_json(vendor.statement()))


def test_the_package_carries_the_development_anchors_of_the_published_keys() -> None:
    anchors = load_anchors()
    folder = ROOT / "scripts" / "vendor" / "lotabots_vendor" / "development"
    root, issuing = (
        serialization.load_pem_private_key((folder / name).read_bytes(), password=None)
        for name in ("root.pem", "issuing.pem")
    )
    assert isinstance(root, Ed25519PrivateKey)
    assert isinstance(issuing, Ed25519PrivateKey)
    assert anchors.development
    assert anchors.roots == {DEVELOPMENT_ROOT: raw_public(root)}
    assert anchors.keyring.version == 1
    assert set(anchors.keyring.trusted_keys(Use.LICENCE)) == {thumbprint(raw_public(issuing))}


def test_the_published_root_is_no_production_root(vendor: Any) -> None:
    document = json.loads((ROOT / "lotabotsd/licence/anchors/development.json").read_bytes())
    with pytest.raises(LotaBotsError, match="published development root") as caught:
        parse_anchors(canonical_json({**document, "kind": "production"}))
    assert caught.value.code is Code.KEYRING_INVALID
    mixed = [*vendor.anchors_json()["roots"], *document["roots"]]
    assert code_of(lambda: vendor.anchors(roots=mixed)) is Code.KEYRING_INVALID


def test_anchors_say_when_the_release_was_built(vendor: Any) -> None:
    assert vendor.anchors().built_at is None
    built = vendor.anchors(built_at="2026-02-03T04:05:06Z")
    assert built.built_at == datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert not built.development


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "test"},
        {"kind": None},
        {"roots": []},
        {"roots": [{"keyid": "a" * 43, "public": "b" * 43}]},
        {"roots": {}},
        {"threshold": 0},
        {"threshold": 2},
        {"keyring": None},
        {"keyring": []},
        {"keyring": {"version": 1.5}},
        {"built_at": "yesterday"},
        {"extra": 1},
    ],
)
def test_wrong_anchors_are_refused(vendor: Any, changes: dict[str, Any]) -> None:
    document = json.dumps(vendor.anchors_json(**changes)).encode()
    assert code_of(lambda: parse_anchors(document)) is Code.KEYRING_INVALID


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"kind":"development","kind":"production"}'])
def test_damaged_anchors_are_refused(data: bytes) -> None:
    assert code_of(lambda: parse_anchors(data)) is Code.KEYRING_INVALID


def test_the_published_root_does_not_become_one_by_a_rotation(vendor: Any) -> None:
    published = json.loads((ROOT / "lotabotsd/licence/anchors/development.json").read_bytes())["roots"]
    roots = sorted([entry(vendor.root), *published], key=lambda e: e["keyid"])
    # Signed by everybody whom the rule of thresholds asks for: only this rule stands against it.
    following = vendor.keyring(version=2, roots=roots)
    with pytest.raises(LotaBotsError, match="development root may not become a root") as caught:
        rotate(first(vendor), following)
    assert caught.value.code is Code.KEYRING_INVALID


def test_a_keyring_that_the_roots_did_not_sign_is_refused(vendor: Any) -> None:
    foreign = json.loads(vendor.keyring(vendor.second).to_json())
    assert code_of(lambda: vendor.anchors(keyring=foreign)) is Code.SIGNER_UNKNOWN
    genuine = json.loads(vendor.keyring().to_json())
    other = json.loads(vendor.keyring(version=2).to_json())
    swapped = {**genuine, "payload": other["payload"]}
    assert code_of(lambda: vendor.anchors(keyring=swapped)) is Code.SIGNATURE_INVALID
    typed = json.loads(sign(PayloadType.LICENCE, b"{}", [vendor.root]).to_json())
    assert code_of(lambda: vendor.anchors(keyring=typed)) is Code.ENVELOPE_TYPE


def test_a_keyring_with_other_roots_than_the_anchors_is_refused(vendor: Any) -> None:
    roots = sorted([entry(vendor.root), entry(vendor.second)], key=lambda e: e["keyid"])
    keyring = json.loads(vendor.keyring(roots=roots).to_json())
    assert code_of(lambda: vendor.anchors(keyring=keyring)) is Code.KEYRING_INVALID


@pytest.mark.parametrize(
    "changes",
    [
        {"uses": ["licence", "acknowledgement"]},
        {"uses": ["keyring"]},
        {"uses": "licence"},
        {"not_after": "2025-06-01T00:00:00Z"},
        {"not_before": "soon"},
        {"public": "a" * 43},
        {"public": "a" * 42},
        {"keyid": "a" * 43},
        {"name": "x"},
    ],
)
def test_every_field_of_an_issuing_key_is_checked(vendor: Any, changes: dict[str, Any]) -> None:
    body = canonical_json(vendor.statement(keys=[vendor.entry(vendor.issuing, **changes)]))
    assert code_of(lambda: parse_keyring(body)) is Code.KEYRING_INVALID


def test_a_keyring_names_no_key_twice_and_no_weak_key(vendor: Any) -> None:
    twice = canonical_json(vendor.statement(keys=[vendor.entry(vendor.issuing)] * 2))
    assert code_of(lambda: parse_keyring(twice)) is Code.KEYRING_INVALID
    weak = bytes([1]) + bytes(31)
    entry_of_weak = vendor.entry(vendor.issuing, keyid=thumbprint(weak), public=b64url(weak))
    body = canonical_json(vendor.statement(keys=[entry_of_weak]))
    assert code_of(lambda: parse_keyring(body)) is Code.KEY_WEAK


def test_keys_are_trusted_for_their_use_in_their_time_and_until_revoked(vendor: Any) -> None:
    keyring = first(vendor)
    key = keyring.keys[0]
    second = timedelta(seconds=1)
    assert keyring.trusted_keys(Use.LICENCE) == {key.keyid: key.public}
    assert keyring.trusted_keys(Use.RATE_CARD) == {}
    assert keyring.trusted_keys(Use.LICENCE, key.not_before - second) == {}
    assert keyring.trusted_keys(Use.LICENCE, key.not_before) == {key.keyid: key.public}
    assert keyring.trusted_keys(Use.LICENCE, key.not_after - second) == {key.keyid: key.public}
    assert keyring.trusted_keys(Use.LICENCE, key.not_after) == {}
    revoked = parse_keyring(canonical_json(vendor.statement(revoked=[key.keyid])))
    assert revoked.trusted_keys(Use.LICENCE) == {}


def test_the_next_keyring_is_one_version_up(vendor: Any) -> None:
    keyring = first(vendor)
    assert rotate(keyring, vendor.keyring(version=2)).version == 2
    for version in (1, 3):
        envelope = vendor.keyring(version=version)
        assert code_of(lambda envelope=envelope: rotate(keyring, envelope)) is Code.KEYRING_ORDER


def test_new_roots_need_the_signatures_of_the_old_and_the_new(vendor: Any) -> None:
    keyring = first(vendor)
    new = {"version": 2, "roots": [entry(vendor.second)]}
    following = rotate(keyring, vendor.keyring(vendor.root, vendor.second, **new))
    assert set(following.roots) == {entry(vendor.second)["keyid"]}
    for signer in (vendor.root, vendor.second):
        envelope = vendor.keyring(signer, **new)
        assert code_of(lambda envelope=envelope: rotate(keyring, envelope)) is Code.SIGNER_UNKNOWN


def test_a_new_threshold_holds_for_the_keyring_that_brings_it(vendor: Any) -> None:
    roots = sorted([entry(vendor.root), entry(vendor.second)], key=lambda e: e["keyid"])
    new = {"version": 2, "roots": roots, "threshold": 2}
    assert rotate(first(vendor), vendor.keyring(vendor.root, vendor.second, **new)).threshold == 2
    assert code_of(lambda: rotate(first(vendor), vendor.keyring(vendor.root, **new))) is Code.SIGNER_UNKNOWN


def test_what_was_revoked_stays_revoked(vendor: Any) -> None:
    revoked = rotate(first(vendor), vendor.keyring(version=2, revoked=["a" * 43]))
    forgetful = vendor.keyring(version=3)
    assert code_of(lambda: rotate(revoked, forgetful)) is Code.KEYRING_INVALID
    assert rotate(revoked, vendor.keyring(version=3, revoked=["a" * 43, "b" * 43])).version == 3
