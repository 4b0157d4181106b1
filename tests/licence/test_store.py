"""The licence store: installed whole, never an older one, undone once, and right after a cut at any file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.envelope import armour, one_line, parse_envelope
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.licence.claims import Tier
from lotabotsd.licence.fingerprint import component
from lotabotsd.licence.standing import State
from lotabotsd.licence.store import LICENCES_KEPT, LicenceStore

HERE = {"machine-id": component("machine-id", "a"), "dmi-uuid": component("dmi-uuid", "b")}


def code_of(call: Callable[[], Any]) -> Code:
    with pytest.raises(LotaBotsError) as caught:
        call()
    return caught.value.code


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_an_empty_directory_is_the_free_tier(store: LicenceStore) -> None:
    assert store.current() is None
    assert store.standing().state is State.NONE
    assert not store.standing().development


@pytest.mark.parametrize("form", ["json", "armour", "line"])
def test_an_installed_licence_holds_at_once_and_after_a_restart(
    store: LicenceStore, open_store: Callable[..., LicenceStore], vendor: Any, form: str
) -> None:
    envelope = parse_envelope(vendor.licence())
    data = {
        "json": envelope.to_json(),
        "armour": armour(envelope).encode(),
        "line": one_line(envelope).encode(),
    }[form]
    change = store.install(data)
    assert (change.before.state, change.after.state) == (State.NONE, State.VALID)
    assert change.differences()["requests_per_minute"] == (600, 60_000)
    assert json.loads(json.dumps(change.to_dict()))["licence"] == vendor.claims()
    for found in (store, open_store()):
        assert found.standing() == change.after
        assert found.standing().tier is Tier.PRO


def test_files_are_readable_by_the_daemon_alone(store: LicenceStore, vendor: Any, tmp_path: Path) -> None:
    store.install(vendor.licence())
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_check_says_the_same_and_changes_nothing(store: LicenceStore, vendor: Any, tmp_path: Path) -> None:
    checked = store.install(vendor.licence(), check_only=True)
    assert files(tmp_path) == {}
    assert store.standing().state is State.NONE
    assert store.install(vendor.licence()) == checked


def test_the_same_licence_again_changes_nothing(store: LicenceStore, vendor: Any, tmp_path: Path) -> None:
    store.install(vendor.licence())
    before = files(tmp_path)
    assert store.install(vendor.licence()).differences() == {}
    assert files(tmp_path) == before


def test_an_older_sequence_is_refused_also_after_a_restart(
    store: LicenceStore, open_store: Callable[..., LicenceStore], vendor: Any
) -> None:
    store.install(vendor.licence(sequence=8))
    for found in (store, open_store()):
        assert code_of(lambda found=found: found.install(vendor.licence(sequence=7))) is Code.LICENCE_ROLLBACK
        assert found.standing().sequence == 8


def test_a_sequence_is_used_by_one_licence(store: LicenceStore, vendor: Any) -> None:
    store.install(vendor.licence(sequence=8))
    assert code_of(lambda: store.install(vendor.licence(sequence=8, gpus=8))) is Code.LICENCE_ROLLBACK
    assert store.install(vendor.licence(sequence=9, gpus=8)).after.gpus == 8


def test_an_older_file_copied_into_place_is_not_used(
    store: LicenceStore, vendor: Any, tmp_path: Path
) -> None:
    store.install(vendor.licence(sequence=7))
    store.install(vendor.licence(sequence=8, gpus=2))
    (tmp_path / "current.dsse.json").write_bytes(vendor.licence(sequence=7))
    assert code_of(store.current) is Code.LICENCE_ROLLBACK
    assert (store.standing().state, store.standing().code) == (State.RESTRICTED, "licence_unusable")
    assert store.install(vendor.licence(sequence=8, gpus=2)).after.gpus == 2


def test_a_lost_memory_is_refilled_from_the_installed_licence(
    store: LicenceStore, vendor: Any, tmp_path: Path
) -> None:
    store.install(vendor.licence(sequence=8))
    for damage in (b"", b"{", b"[]", b'{"highest":1}', b'{"highest":{"a":{"sequence":-1,"digest":""}}}'):
        (tmp_path / "memory.json").write_bytes(damage)
        assert store.standing().state is State.VALID
        assert code_of(lambda: store.install(vendor.licence(sequence=7))) is Code.LICENCE_ROLLBACK


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"starts_at": "2026-01-01T00:00:01Z"}, Code.LICENCE_NOT_YET_VALID),
        ({"starts_at": "2024-01-01T00:00:00Z", "expires_at": "2025-12-18T00:00:00Z"}, Code.LICENCE_EXPIRED),
        (
            {
                "starts_at": "2024-01-01T00:00:00Z",
                "expires_at": "2025-12-01T00:00:00Z",
                "terminates_at": "2025-12-31T00:00:00Z",
            },
            Code.LICENCE_EXPIRED,
        ),
        (
            {"fingerprint": {"match": "most", "components": {"machine-id": "a" * 64}}},
            Code.LICENCE_FINGERPRINT,
        ),
        ({"tier": "gold"}, Code.LICENCE_INVALID),
    ],
)
def test_what_would_not_count_is_not_installed(
    store: LicenceStore, vendor: Any, tmp_path: Path, changes: dict[str, Any], code: Code
) -> None:
    changes = {"issued_at": "2025-06-01T00:00:00Z", "terminates_at": None, **changes}
    for check_only in (True, False):
        data = vendor.licence(**changes)
        assert code_of(lambda data=data, only=check_only: store.install(data, check_only=only)) is code
    assert files(tmp_path) == {}


def test_a_licence_in_its_days_of_grace_can_still_be_installed(store: LicenceStore, vendor: Any) -> None:
    ended = {"issued_at": "2025-06-01T00:00:00Z", "starts_at": "2024-01-01T00:00:00Z", "terminates_at": None}
    assert (
        store.install(vendor.licence(expires_at="2025-12-25T00:00:00Z", **ended)).after.state is State.GRACE
    )


def test_a_release_newer_than_the_licence_covers_is_refused(
    open_store: Callable[..., LicenceStore], vendor: Any
) -> None:
    store = open_store(anchors=vendor.anchors(built_at="2025-12-01T12:00:00Z"))
    assert (
        code_of(lambda: store.install(vendor.licence(max_release_date="2025-11-30"))) is Code.LICENCE_EXPIRED
    )
    assert store.install(vendor.licence(max_release_date="2025-12-01")).after.state is State.VALID


def test_a_bound_licence_works_on_its_machine_and_not_after_a_move(
    open_store: Callable[..., LicenceStore], vendor: Any
) -> None:
    bound = {"match": "all", "components": dict(HERE)}
    store = open_store(components=lambda: HERE)
    assert store.install(vendor.licence(fingerprint=bound)).after.state is State.VALID
    moved = open_store(components=lambda: {**HERE, "machine-id": component("machine-id", "z")})
    assert (moved.standing().state, moved.standing().code) == (State.RESTRICTED, "licence_fingerprint")


def test_a_refusal_leaves_the_installed_licence_alone(
    store: LicenceStore, vendor: Any, tmp_path: Path
) -> None:
    store.install(vendor.licence())
    before = files(tmp_path)
    for data in (b"", b"junk", vendor.licence(by=vendor.second, sequence=9), vendor.keyring().to_json()):
        code_of(lambda data=data: store.install(data))
    assert files(tmp_path) == before
    assert store.standing().state is State.VALID


@pytest.mark.parametrize("damage", [b"{}", b"\0" * 100, b"x" * 3_000_000])
def test_a_damaged_file_restricts_and_is_mended_by_installing_again(
    store: LicenceStore, vendor: Any, tmp_path: Path, damage: bytes
) -> None:
    store.install(vendor.licence())
    (tmp_path / "current.dsse.json").write_bytes(damage)
    standing = store.standing()
    assert (standing.state, standing.code) == (State.RESTRICTED, "licence_unusable")
    assert standing.detail
    assert standing.admits
    assert store.install(vendor.licence()).after.state is State.VALID


def test_an_undo_puts_back_the_licence_before_and_no_other(
    store: LicenceStore, open_store: Callable[..., LicenceStore], vendor: Any, clock: FixedClock
) -> None:
    for sequence in (6, 7, 9):
        store.install(vendor.licence(sequence=sequence, gpus=sequence))
    clock.advance(7 * 86_400)
    change = store.rollback()
    assert (change.before.gpus, change.after.gpus) == (9, 7)
    assert open_store().standing().gpus == 7
    assert code_of(store.rollback) is Code.NOT_FOUND
    assert code_of(lambda: store.install(vendor.licence(sequence=6, gpus=6))) is Code.LICENCE_ROLLBACK
    assert code_of(lambda: store.install(vendor.licence(sequence=7, gpus=70))) is Code.LICENCE_ROLLBACK
    assert code_of(lambda: store.install(vendor.licence(sequence=8, gpus=8))) is Code.LICENCE_ROLLBACK
    assert store.install(vendor.licence(sequence=9, gpus=9)).after.gpus == 9


def test_an_undo_is_possible_for_seven_days(store: LicenceStore, vendor: Any, clock: FixedClock) -> None:
    store.install(vendor.licence(sequence=7))
    store.install(vendor.licence(sequence=8))
    clock.advance(7 * 86_400 + 1)
    store.install(vendor.licence(sequence=8))  # the same again does not begin the days anew
    assert code_of(store.rollback) is Code.LICENCE_ROLLBACK
    assert store.standing().sequence == 8


def test_there_is_nothing_to_undo_after_the_first(store: LicenceStore, vendor: Any) -> None:
    assert code_of(store.rollback) is Code.NOT_FOUND
    store.install(vendor.licence())
    assert code_of(store.rollback) is Code.NOT_FOUND


def test_an_undo_gives_no_expired_licence(store: LicenceStore, vendor: Any, clock: FixedClock) -> None:
    store.install(
        vendor.licence(sequence=7, expires_at="2026-01-03T00:00:00Z", grace_days=0, terminates_at=None)
    )
    store.install(vendor.licence(sequence=8))
    clock.advance(3 * 86_400)
    assert code_of(store.rollback) is Code.LICENCE_EXPIRED
    assert store.standing().state is State.VALID


@pytest.mark.parametrize("written", range(4))
def test_a_cut_between_two_files_of_an_installation_leaves_one_licence_or_the_other(
    store: LicenceStore, open_store: Callable[..., LicenceStore], vendor: Any, tmp_path: Path, written: int
) -> None:
    store.install(vendor.licence(sequence=7, gpus=7))
    before = files(tmp_path)
    store.install(vendor.licence(sequence=8, gpus=8))
    after = files(tmp_path)
    order = ["previous.dsse.json", "current.dsse.json", "memory.json"]
    _put(tmp_path, {**before, **{name: after[name] for name in order[:written]}})
    cut = open_store()
    assert cut.standing().gpus == (8 if written >= 2 else 7)
    assert cut.standing().state is State.VALID
    if written >= 2:
        assert code_of(lambda: cut.install(vendor.licence(sequence=7, gpus=7))) is Code.LICENCE_ROLLBACK
    cut.install(vendor.licence(sequence=8, gpus=8))
    assert files(tmp_path) == after
    assert cut.rollback().after.gpus == 7


@pytest.mark.parametrize("written", range(4))
def test_a_cut_between_two_files_of_an_undo_leaves_one_licence_or_the_other(
    store: LicenceStore, open_store: Callable[..., LicenceStore], vendor: Any, tmp_path: Path, written: int
) -> None:
    store.install(vendor.licence(sequence=7, gpus=7))
    store.install(vendor.licence(sequence=8, gpus=8))
    before = files(tmp_path)
    store.rollback()
    after = files(tmp_path)
    order = ["memory.json", "current.dsse.json"]
    state = {**before, **{name: after[name] for name in order[:written]}}
    if written == 3:
        del state["previous.dsse.json"]
    _put(tmp_path, state)
    cut = open_store()
    assert cut.standing().gpus == (7 if written >= 2 else 8)
    assert cut.standing().state is State.VALID
    if written < 3:
        cut.rollback()
    assert files(tmp_path) == after


def _put(directory: Path, state: dict[str, bytes]) -> None:
    for path in directory.iterdir():
        path.unlink()
    for name, data in state.items():
        (directory / name).write_bytes(data)


def test_a_directory_that_cannot_be_written_is_told(
    open_store: Callable[..., LicenceStore], vendor: Any, tmp_path: Path, clock: FixedClock
) -> None:
    missing = LicenceStore(tmp_path / "missing", vendor.anchors(), clock)
    assert missing.standing().state is State.NONE
    assert code_of(lambda: missing.install(vendor.licence())) is Code.FILE_UNWRITABLE


def test_replaced_licences_are_kept_by_their_id_and_the_oldest_go(
    store: LicenceStore, vendor: Any, tmp_path: Path
) -> None:
    names = [f"lic_{number:016d}" for number in range(LICENCES_KEPT + 2)]
    for number, name in enumerate(names):
        store.install(vendor.licence(licence_id=name, sequence=10 + number))
    kept = store.kept(names[-2])
    assert kept is not None
    assert (kept.licence_id, kept.sequence) == (names[-2], 10 + LICENCES_KEPT)
    assert (store.kept(names[0]), store.kept("../../etc/passwd")) == (None, None)
    assert len(list(tmp_path.glob("licence-*"))) == LICENCES_KEPT
    (tmp_path / f"licence-{names[-1]}.dsse.json").write_bytes(b"{}")
    assert store.kept(names[-1]) is None
