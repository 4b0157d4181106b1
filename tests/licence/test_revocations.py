"""Licences that the vendor took back: the list, who may sign it, and what becomes of a licence on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.envelope import PayloadType, sign
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.licence.keyring import parse_keyring
from lotabotsd.licence.revocations import open_revocations, parse_revocations
from lotabotsd.licence.standing import State
from lotabotsd.licence.store import LicenceStore

OURS = "lic_0123456789ABCDEF"  # the golden licence's
OTHER = "lic_00000000000000AA"
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "revocations"


def entry(licence_id: str, reason: str = "not paid") -> dict[str, str]:
    return {"licence_id": licence_id, "reason": reason, "revoked_at": "2026-01-01T00:00:00Z"}


def body(version: int, *licence_ids: str, **changes: Any) -> bytes:
    listed = [entry(name) for name in sorted(licence_ids)]
    return canonical_json(
        {"version": version, "issued_at": "2026-01-01T00:00:00Z", "licences": listed, **changes}
    )


def revocations(by: Ed25519PrivateKey, version: int, *licence_ids: str, **changes: Any) -> bytes:
    return sign(PayloadType.REVOCATIONS, body(version, *licence_ids, **changes), [by]).to_json()


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(LotaBotsError) as caught:
        call()
    return caught.value.code


def test_the_golden_list_is_read_as_ever(vendor: Any) -> None:
    keyring = parse_keyring(canonical_json(vendor.statement()))
    opened = open_revocations((GOLDEN / "revocations.dsse.json").read_bytes(), keyring)
    assert revocations(vendor.issuing, 3, OTHER, OURS) == (GOLDEN / "revocations.dsse.json").read_bytes()
    assert body(3, OTHER, OURS) == (GOLDEN / "revocations.json").read_bytes()
    assert opened.revocations.version == 3
    assert opened.revocations.licences[OURS].reason == "not paid"


def test_a_revoked_licence_falls_to_the_free_tier_at_once_and_says_why(
    store: LicenceStore, vendor: Any
) -> None:
    store.install(vendor.licence())
    assert store.standing().state is State.VALID
    store.trust.install_revocations(revocations(vendor.issuing, 1, OURS))
    standing = store.standing()
    assert (standing.state, standing.code, standing.tier) == (State.RESTRICTED, "licence_revoked", "free")
    assert standing.detail == "not paid, on 2026-01-01T00:00:00Z"


def test_it_cannot_be_installed_again_but_another_one_can(store: LicenceStore, vendor: Any) -> None:
    store.trust.install_revocations(revocations(vendor.issuing, 1, OURS))
    assert code_of(lambda: store.install(vendor.licence())) is Code.LICENCE_REVOKED
    another = vendor.licence(licence_id="lic_00000000000000ZZ", sequence=9)
    assert store.install(another).after.state is State.VALID


def test_an_undo_does_not_bring_it_back(store: LicenceStore, vendor: Any) -> None:
    store.install(vendor.licence())
    store.install(vendor.licence(licence_id="lic_00000000000000ZZ", sequence=9))
    store.trust.install_revocations(revocations(vendor.issuing, 1, OURS))
    assert code_of(store.rollback) is Code.LICENCE_REVOKED


def test_checking_a_list_keeps_nothing(store: LicenceStore, vendor: Any, tmp_path: Path) -> None:
    opened = store.trust.install_revocations(revocations(vendor.issuing, 1, OURS), check_only=True)
    assert (opened.revocations.version, list(tmp_path.iterdir())) == (1, [])


def test_a_list_only_grows_and_its_number_with_it(store: LicenceStore, vendor: Any) -> None:
    trust, by = store.trust, vendor.issuing
    trust.install_revocations(revocations(by, 2, OTHER))
    trust.install_revocations(revocations(by, 2, OTHER))  # the same one again
    for older in (revocations(by, 1, OTHER), revocations(by, 2, OTHER, OURS)):
        assert code_of(lambda older=older: trust.install_revocations(older)) is Code.REVOCATIONS_OLDER
    assert code_of(lambda: trust.install_revocations(revocations(by, 3))) is Code.REVOCATIONS_INVALID
    trust.install_revocations(revocations(by, 9, OTHER, OURS))
    opened = trust.revocations()
    assert opened is not None
    assert sorted(opened.revocations.licences) == [OTHER, OURS]


@pytest.mark.parametrize(
    "data",
    [
        body(0, OURS),
        body(1, OURS, more=1),
        body(1, licences=[entry(OURS), entry(OTHER)]),
        body(1, licences=[entry(OURS), entry(OURS)]),
        body(1, licences=[entry("lic_1")]),
        body(1, licences=[entry(OURS, "")]),
        body(1, licences=[{"licence_id": OURS}]),
        body(1, licences={}),
        b"{}",
        b"[]",
    ],
)
def test_a_malformed_list_is_refused(data: bytes) -> None:
    assert code_of(lambda: parse_revocations(data)) is Code.REVOCATIONS_INVALID


def test_who_may_not_issue_licences_may_not_revoke_them(store: LicenceStore, vendor: Any) -> None:
    listed = revocations(vendor.second, 1, OURS)
    assert code_of(lambda: store.trust.install_revocations(listed)) is Code.SIGNER_UNKNOWN
    acknowledging = vendor.entry(vendor.second, uses=["acknowledgement"])
    keyring = vendor.keyring(version=2, keys=[vendor.entry(vendor.issuing), acknowledging])
    store.trust.install_keyring(keyring.to_json())
    assert code_of(lambda: store.trust.install_revocations(listed)) is Code.SIGNER_UNKNOWN
    root = revocations(vendor.root, 1, OURS)
    assert code_of(lambda: store.trust.install_revocations(root)) is Code.SIGNER_UNKNOWN


def test_a_thiefs_list_goes_with_his_key(store: LicenceStore, vendor: Any) -> None:
    """He revoked everything with the highest number; the vendor revokes him, and goes on from 1."""
    store.trust.install_revocations(revocations(vendor.issuing, 10**15, OURS, OTHER))
    old, new = vendor.entry(vendor.issuing), vendor.entry(vendor.second)
    store.trust.install_keyring(vendor.keyring(version=2, keys=[old, new], revoked=[old["keyid"]]).to_json())
    assert store.trust.revocations() is None
    store.install(vendor.licence(by=vendor.second, sequence=9))
    assert store.standing().state is State.VALID
    store.trust.install_revocations(revocations(vendor.second, 1, OTHER))
    assert store.standing().state is State.VALID


def test_a_damaged_list_counts_for_nothing(store: LicenceStore, vendor: Any, tmp_path: Path) -> None:
    store.install(vendor.licence())
    store.trust.install_revocations(revocations(vendor.issuing, 1, OURS))
    (tmp_path / "revocations.dsse.json").write_bytes(b"\0" * 50)
    assert store.standing().state is State.VALID
    assert store.trust.to_dict()["revocations"] is None


def test_the_list_outlives_a_restart(
    store: LicenceStore, open_store: Callable[..., LicenceStore], vendor: Any
) -> None:
    store.trust.install_revocations(revocations(vendor.issuing, 4, OURS))
    said = open_store().trust.to_dict()
    assert said["revocations"] == {"version": 4, "issued_at": "2026-01-01T00:00:00Z", "licences": 1}
    assert json.loads(json.dumps(said["keyring"]))["version"] == 1
