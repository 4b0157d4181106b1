"""The next keyring in steps: drafted, signed by holders who never meet, put in force when enough have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.envelope import parse_envelope
from lotabotsd.foundation.errors import Exit
from lotabotsd.licence.store import LicenceStore


def test_a_rotation_in_steps_by_holders_who_never_meet(house: Any, tmp_path: Path, clock: FixedClock) -> None:
    before = house.anchors()
    offline = house.directory / "offline"
    first, second = (offline / f"root-{n}.pem" for n in (1, 2))
    fresh = [tmp_path / f"fresh-{n}.pem" for n in (1, 2)]
    publics = [
        house.run("root", "key", "--passphrase-file", house.passphrase, file).json["public"] for file in fresh
    ]
    draft = tmp_path / "draft.json"
    made = house.draft(
        draft, "--add-root", publics[0], "--add-root", publics[1],
        *(a for keyid in sorted(before.roots) for a in ("--remove-root", keyid)),
    )  # fmt: skip
    assert made.code == Exit.OK, made.err
    assert (made.json["complete"], made.json["signatures"]) == (False, [])
    assert len(made.json["can_still_sign"]) == 5
    unsigned = draft.read_bytes()
    shown = house.run("keyring", "sign", "--check", draft)
    assert ["threshold", "2 of 3 roots -> 2 of 2 roots"] in shown.json["changes"]
    assert draft.read_bytes() == unsigned
    # One copy goes from hand to hand, another one beside it; finish takes both.
    beside = tmp_path / "beside.json"
    beside.write_bytes(unsigned)
    for key in (first, fresh[0]):
        answer = house.sign(key, draft)
        assert (answer.code, answer.json["complete"]) == (Exit.OK, False), answer.err
    for key in (second, fresh[1]):
        assert house.sign(key, beside).json["complete"] is False
    missing = house.finish(draft)
    assert (missing.code, missing.problem["code"]) == (Exit.CHECK_FAILED, "conflict")
    assert "1 of 2 by the present roots, 1 of 2 by the new ones" in missing.problem["detail"]
    assert house.anchors() == before
    done = house.finish(draft, beside)
    assert done.code == Exit.OK, done.err
    after = house.anchors()
    assert (after.keyring.version, len(after.roots)) == (2, 2)
    (tmp_path / "a").mkdir()
    appliance = LicenceStore(tmp_path / "a", before, clock)
    assert appliance.trust.install_keyring(house.keyring(2)) == after.keyring
    again = house.finish(draft, beside)
    assert (again.code, again.json) == (Exit.OK, done.json)
    assert house.anchors() == after


def test_what_was_interrupted_between_keyring_and_anchors_is_finished_by_the_same_command(
    house: Any, tmp_path: Path
) -> None:
    document = house.directory / "anchors" / "production.json"
    before, draft = document.read_bytes(), tmp_path / "draft.json"
    first, second = (house.directory / "offline" / f"root-{n}.pem" for n in (1, 2))
    house.draft(draft, "--threshold", "1")
    for key in (first, second):
        house.sign(key, draft)
    assert house.finish(draft).code == Exit.OK
    after = document.read_bytes()
    document.write_bytes(before)
    assert house.run("keyring", "show", "--dir", house.directory).json["version"] == 2
    assert house.finish(draft).code == Exit.OK
    assert document.read_bytes() == after


def test_a_signature_too_many_is_left_out(house: Any, tmp_path: Path) -> None:
    draft = tmp_path / "draft.json"
    house.draft(draft, "--use", "rate-card")
    for number in (1, 2, 3):
        house.sign(house.directory / "offline" / f"root-{number}.pem", draft)
    assert house.finish(draft).code == Exit.OK
    assert len(parse_envelope(house.keyring(2)).signatures) == 2


def test_signing_twice_is_one_signature(house: Any, tmp_path: Path) -> None:
    draft = tmp_path / "draft.json"
    house.draft(draft, "--use", "all")
    root = house.directory / "offline" / "root-1.pem"
    once = house.sign(root, draft).json["signatures"]
    assert house.sign(root, draft).json["signatures"] == once
    assert len(once) == 1


def test_who_is_no_root_cannot_sign_a_draft(house: Any, tmp_path: Path) -> None:
    draft, stranger = tmp_path / "draft.json", tmp_path / "stranger.pem"
    house.run("root", "key", "--passphrase-file", house.passphrase, stranger)
    house.draft(draft, "--use", "all")
    answer = house.sign(stranger, draft)
    assert (answer.code, answer.problem["code"]) == (Exit.SIGNATURE, "signer_unknown")
    assert house.run("keyring", "sign", draft).code == Exit.USAGE


def test_a_draft_that_another_keyring_overtook_is_refused(house: Any, tmp_path: Path) -> None:
    draft = tmp_path / "draft.json"
    house.draft(draft, "--use", "all")
    for number in (1, 2):
        house.sign(house.directory / "offline" / f"root-{number}.pem", draft)
    assert house.keys("keyring", "rotate").code == Exit.OK
    answer = house.finish(draft)
    assert (answer.code, answer.problem["code"]) == (Exit.CHECK_FAILED, "conflict")
    assert "keyring draft" in answer.problem["hint"]


def test_copies_of_two_drafts_are_not_put_together(house: Any, tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    house.draft(one, "--threshold", "1")
    house.draft(two, "--threshold", "3")
    assert house.finish(one, two).problem["code"] == "conflict"


def test_a_draft_is_not_written_over_another(house: Any, tmp_path: Path) -> None:
    draft = tmp_path / "draft.json"
    assert house.draft(draft, "--threshold", "1").code == Exit.OK
    before = draft.read_bytes()
    assert house.draft(draft, "--threshold", "3").problem["code"] == "already_exists"
    assert draft.read_bytes() == before


def test_a_draft_that_changes_nothing_is_refused(house: Any, tmp_path: Path) -> None:
    answer = house.draft(tmp_path / "draft.json")
    assert answer.problem["code"] == "conflict"
    assert not (tmp_path / "draft.json").exists()


def test_any_changed_byte_of_a_signed_draft_is_refused(house: Any, tmp_path: Path) -> None:
    draft = tmp_path / "draft.json"
    house.draft(draft, "--threshold", "1")
    house.sign(house.directory / "offline" / "root-1.pem", draft)
    whole = draft.read_bytes()
    for position in range(0, len(whole) - 1, 97):
        changed = bytearray(whole)
        changed[position] ^= 1
        draft.write_bytes(changed)
        answer = house.run("keyring", "sign", "--check", draft)
        assert answer.code in (Exit.SIGNATURE, Exit.CHECK_FAILED), position
    for data in (b"", b"{}", b"[]", whole[:-2], b"\xff", house.keyring(1)):
        draft.write_bytes(data)
        answer = house.run("keyring", "sign", "--check", draft)
        assert (answer.code, answer.problem["code"]) == (Exit.SIGNATURE, "keyring_invalid")


def test_a_root_key_is_never_overwritten(house: Any, tmp_path: Path) -> None:
    file = tmp_path / "root.pem"
    assert house.run("root", "key", "--passphrase-file", house.passphrase, file).code == Exit.OK
    before = file.read_bytes()
    answer = house.run("root", "key", "--passphrase-file", house.passphrase, file)
    assert answer.problem["code"] == "already_exists"
    assert file.read_bytes() == before


def test_every_step_says_the_next_one(house: Any, tmp_path: Path) -> None:
    draft = tmp_path / "draft.json"
    text = house.vendor(
        "keyring", "draft", "--dir", house.directory, "--output", draft, "--threshold", "1"
    ).out  # fmt: skip
    assert "Next: a holder of one of these: lotabots-vendor keyring sign" in text
    assert all(keyid in text for keyid in house.anchors().roots)
    for number in (1, 2):
        key = house.directory / "offline" / f"root-{number}.pem"
        signed = ("keyring", "sign", "--key", key, "--passphrase-file", house.passphrase, draft)
        text = house.vendor(*signed).out
    assert f"Next: lotabots-vendor keyring finish --dir DIR {draft}" in text
    text = house.vendor("keyring", "finish", "--dir", house.directory, draft).out
    assert "send the keyring to every appliance" in text
    assert "roots that left" not in text
    rotated = ("root", "rotate", "--dir", house.directory, "--passphrase-file", house.passphrase)
    assert "The roots that left are needed no more" in house.vendor(*rotated).out
