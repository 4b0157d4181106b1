"""The store's clock floor and keyrings: time and trust that only move forward, also over a restart."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.foundation.clock import FixedClock, to_ns
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.licence.keyring import Use, load_anchors
from lotabotsd.licence.standing import State
from lotabotsd.licence.store import LicenceStore


def code_of(call: Callable[[], Any]) -> Code:
    with pytest.raises(LotaBotsError) as caught:
        call()
    return caught.value.code


def test_the_floor_only_moves_forward_and_survives_a_restart(
    store: LicenceStore, open_store: Callable[..., LicenceStore], vendor: Any, clock: FixedClock
) -> None:
    store.install(vendor.licence(terminates_at=None))
    clock.set_wall(datetime(2027, 6, 1, tzinfo=UTC))
    store.raise_floor()
    clock.set_wall(datetime(2026, 6, 1, tzinfo=UTC))
    for found in (store, open_store()):
        found.raise_floor()
        standing = found.standing()
        assert (standing.state, standing.clock_suspect) == (State.RESTRICTED, True)


def test_the_floor_takes_moments_from_elsewhere(store: LicenceStore, vendor: Any) -> None:
    store.install(vendor.licence())
    store.raise_floor(to_ns(datetime(2026, 12, 30, tzinfo=UTC)), 0)
    assert store.standing().state is State.EXPIRING
    assert store.standing().clock_suspect


def test_the_floor_is_written_once_a_minute(store: LicenceStore, tmp_path: Path, clock: FixedClock) -> None:
    store.raise_floor()
    first = (tmp_path / "clock.json").read_bytes()
    clock.advance(59)
    store.raise_floor()
    assert (tmp_path / "clock.json").read_bytes() == first
    clock.advance(1)
    store.raise_floor()
    assert (tmp_path / "clock.json").read_bytes() != first


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"floor_ns":-1}', b'{"floor_ns":1.5}', b'{"floor_ns":true}']
)
def test_a_damaged_floor_stops_nothing(
    open_store: Callable[..., LicenceStore], vendor: Any, tmp_path: Path, damage: bytes
) -> None:
    (tmp_path / "clock.json").write_bytes(damage)
    store = open_store()
    store.install(vendor.licence())
    assert store.standing().state is State.VALID


def test_a_clock_before_issue_or_build_is_suspect(
    open_store: Callable[..., LicenceStore], vendor: Any, clock: FixedClock
) -> None:
    open_store().install(vendor.licence())
    clock.set_wall(datetime(2025, 1, 1, tzinfo=UTC))
    assert open_store().standing().clock_suspect
    assert open_store().standing().state is State.VALID
    built = open_store(anchors=vendor.anchors(built_at="2026-01-02T00:00:00Z"))
    clock.set_wall(datetime(2026, 1, 1, 12, tzinfo=UTC))
    assert built.standing().clock_suspect


def test_everything_under_the_development_anchors_is_marked(
    tmp_path: Path, golden: Path, clock: FixedClock
) -> None:
    store = LicenceStore(tmp_path, load_anchors(), clock)
    assert store.standing().development
    change = store.install((golden / "pro.dsse.json").read_bytes())
    assert (change.before.development, change.after.development) == (True, True)
    clock.advance(timedelta(days=3650).total_seconds())
    assert store.standing().development


def test_the_next_keyring_brings_a_new_key_and_revokes_the_old(
    store: LicenceStore, open_store: Callable[..., LicenceStore], vendor: Any
) -> None:
    store.install(vendor.licence())
    later = vendor.licence(by=vendor.second, sequence=8)
    assert code_of(lambda: store.install(later)) is Code.SIGNER_UNKNOWN
    old, new = vendor.entry(vendor.issuing), vendor.entry(vendor.second)
    second = vendor.keyring(version=2, keys=[old, new]).to_json()
    assert store.trust.install_keyring(second).version == store.trust.install_keyring(second).version == 2
    third = vendor.keyring(version=3, keys=[old, new], revoked=[old["keyid"]]).to_json()
    store.trust.install_keyring(third)
    assert open_store().trust.keyring().version == 3
    assert store.standing().code == "licence_unusable"
    assert store.install(later).after.state is State.VALID


def test_the_keyring_that_the_package_carries_is_trusted_already(
    store: LicenceStore, vendor: Any, tmp_path: Path
) -> None:
    """A vendor sends one keyring to old and new releases alike."""
    assert store.trust.install_keyring(vendor.keyring().to_json()) == vendor.anchors().keyring
    assert list(tmp_path.iterdir()) == []
    forged = vendor.keyring(vendor.second).to_json()
    assert code_of(lambda: store.trust.install_keyring(forged)) is Code.SIGNER_UNKNOWN


def test_a_keyring_out_of_order_is_refused(store: LicenceStore, vendor: Any, tmp_path: Path) -> None:
    another = vendor.keyring(version=1, keys=[vendor.entry(vendor.issuing), vendor.entry(vendor.second)])
    for envelope, says in ((vendor.keyring(version=3), "in its order"), (another, "leave it out")):
        with pytest.raises(LotaBotsError) as caught:
            store.trust.install_keyring(envelope.to_json())
        assert caught.value.code is Code.KEYRING_ORDER
        assert says in caught.value.hint
    assert code_of(lambda: store.trust.install_keyring(vendor.licence())) is Code.ENVELOPE_TYPE
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_keyring_restricts_and_names_its_file(
    store: LicenceStore, vendor: Any, tmp_path: Path
) -> None:
    store.install(vendor.licence())
    (tmp_path / "keyring-2.dsse.json").write_bytes(b"{}")
    assert store.standing().state is State.RESTRICTED
    assert "keyring-2.dsse.json" in store.standing().detail


def test_a_damaged_keyring_is_mended_by_installing_it_again(
    store: LicenceStore, vendor: Any, tmp_path: Path
) -> None:
    store.install(vendor.licence())
    second, third = (vendor.keyring(version=version).to_json() for version in (2, 3))
    for data in (second, third):
        store.trust.install_keyring(data)
    (tmp_path / "keyring-2.dsse.json").write_bytes(b"{}")
    assert store.standing().code == "licence_unusable"
    assert code_of(lambda: store.trust.install_keyring(third)) is Code.KEYRING_ORDER
    store.trust.install_keyring(second)
    assert (store.trust.keyring().version, store.standing().state) == (3, State.VALID)


def test_a_thief_who_signed_the_highest_sequence_does_not_lock_the_vendor_out(
    store: LicenceStore, vendor: Any
) -> None:
    store.install(vendor.licence(sequence=10**15))
    assert code_of(lambda: store.install(vendor.licence(sequence=8))) is Code.LICENCE_ROLLBACK
    old, new = vendor.entry(vendor.issuing), vendor.entry(vendor.second)
    store.trust.install_keyring(vendor.keyring(version=2, keys=[old, new], revoked=[old["keyid"]]).to_json())
    assert store.install(vendor.licence(by=vendor.second, sequence=8)).after.state is State.VALID


def test_every_key_that_was_ever_named_for_a_use_is_known(
    store: LicenceStore, vendor: Any, tmp_path: Path
) -> None:
    old, new = vendor.entry(vendor.issuing), vendor.entry(vendor.second, uses=["acknowledgement"])
    assert set(store.trust.keys_ever(Use.LICENCE)) == {old["keyid"]}
    assert store.trust.keys_ever(Use.ACKNOWLEDGEMENT) == {}
    second = vendor.keyring(version=2, keys=[new], revoked=[old["keyid"], new["keyid"]])
    store.trust.install_keyring(second.to_json())
    assert set(store.trust.keys_ever(Use.LICENCE)) == {old["keyid"]}
    assert set(store.trust.keys_ever(Use.ACKNOWLEDGEMENT)) == {new["keyid"]}
    (tmp_path / "keyring-3.dsse.json").write_bytes(b"{}")
    assert store.trust.keys_ever(Use.LICENCE) == {}


def two_keyrings(vendor: Any) -> tuple[bytes, bytes]:
    """Two that may both follow the package's, of one length."""
    entry = vendor.entry(vendor.issuing)
    days = ("2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z")
    one, other = (vendor.keyring(version=2, keys=[entry], issued_at=day).to_json() for day in days)
    assert len(one) == len(other)
    return one, other


def test_keyrings_that_did_not_change_are_verified_once(store: LicenceStore, vendor: Any) -> None:
    assert store.trust.keyring() is store.trust.keyring()
    installed = store.trust.install_keyring(two_keyrings(vendor)[0])
    assert store.trust.keyring() is store.trust.keyring()
    assert store.trust.keyring() == installed


def test_a_keyring_file_that_is_replaced_or_removed_is_seen_at_once(
    store: LicenceStore, vendor: Any, tmp_path: Path
) -> None:
    one, other = two_keyrings(vendor)
    path = tmp_path / "keyring-2.dsse.json"
    store.trust.install_keyring(one)
    first = store.trust.keyring()
    (tmp_path / "beside").write_bytes(other)
    os.utime(tmp_path / "beside", ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    (tmp_path / "beside").rename(path)
    second = store.trust.keyring()
    assert (first.version, second.version) == (2, 2)
    assert second.issued_at > first.issued_at
    path.unlink()
    assert store.trust.keyring().version == 1


@pytest.mark.parametrize("again", [1, 2])
def test_a_keyring_file_that_is_damaged_in_place_is_seen_each_time(
    store: LicenceStore, vendor: Any, tmp_path: Path, again: int
) -> None:
    path = tmp_path / "keyring-2.dsse.json"
    store.trust.install_keyring(two_keyrings(vendor)[0])
    assert store.trust.keyring().version == 2
    good = path.read_bytes()
    path.write_bytes(good[:-9] + b"AAAAAAAAA")
    os.utime(path, ns=(1, 1))
    for _ in range(again):
        assert code_of(store.trust.keyring) is Code.KEYRING_INVALID
        assert store.trust.keys_ever(Use.LICENCE) == {}
    path.write_bytes(good)
    assert store.trust.keyring().version == 2
