"""Roots with a threshold, replaced at once or in steps, and appliances that follow them by a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.envelope import parse_envelope
from lotabotsd.foundation.errors import Code, Exit, LotaBotsError
from lotabotsd.licence.keyring import DEVELOPMENT_ROOT, Anchors, parse_anchors, rotate
from lotabotsd.licence.store import LicenceStore

Vendor = Callable[..., Any]
DEVELOPMENT_ANCHORS = Path(__file__).resolve().parents[2] / "lotabotsd/licence/anchors/development.json"


@dataclass
class House:
    """A vendor's directory with several roots."""

    vendor: Vendor
    directory: Path
    passphrase: Path

    def run(self, *arguments: object) -> Any:
        return self.vendor("--json", *arguments)

    def keys(self, *arguments: object) -> Any:
        """A command with the directory and the passphrase."""
        return self.run(*arguments, "--dir", self.directory, "--passphrase-file", self.passphrase)

    def anchors(self) -> Anchors:
        return parse_anchors((self.directory / "anchors" / "production.json").read_bytes())

    def keyring(self, version: int) -> bytes:
        return (self.directory / "keyrings" / f"keyring-{version}.dsse.json").read_bytes()

    def draft(self, output: Path, *arguments: object) -> Any:
        return self.run(
            "keyring", "draft", "--dir", self.directory, "--output", output,
            "--new-passphrase-file", self.passphrase, *arguments,
        )  # fmt: skip

    def sign(self, key: Path, draft: Path) -> Any:
        return self.run("keyring", "sign", "--key", key, "--passphrase-file", self.passphrase, draft)

    def finish(self, *drafts: Path) -> Any:
        return self.run("keyring", "finish", "--dir", self.directory, *drafts)


@pytest.fixture
def house(vendor: Vendor, tmp_path: Path, passphrase_file: Path) -> House:
    """Three roots of which two must sign."""
    made = House(vendor, tmp_path / "house", passphrase_file)
    answer = made.keys("root", "init", "--roots", 3, "--threshold", 2)
    assert answer.code == Exit.OK, answer.err
    return made


def store(path: Path, anchors: Anchors, clock: FixedClock) -> LicenceStore:
    path.mkdir(exist_ok=True)
    return LicenceStore(path, anchors, clock)


def code_of(answer: Any) -> str:
    code: str = json.loads(answer.err)["error"]["code"]
    return code


def problem(answer: Any) -> dict[str, str]:
    found: dict[str, str] = json.loads(answer.err)["error"]
    return found


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- root init


def test_init_makes_as_many_roots_as_asked_and_the_threshold_signs(house: House) -> None:
    assert files(house.directory / "offline") == ["root-1.pem", "root-2.pem", "root-3.pem"]
    found = house.anchors()
    assert (len(found.roots), found.threshold, found.keyring.threshold) == (3, 2, 2)
    assert len(parse_envelope(house.keyring(1)).signatures) == 2


@pytest.mark.parametrize(("roots", "threshold"), [(1, 2), (3, 4)])
def test_more_signatures_than_roots_are_refused(
    vendor: Vendor, tmp_path: Path, passphrase_file: Path, roots: int, threshold: int
) -> None:
    answer = vendor(
        "--json", "root", "init", "--dir", tmp_path / "v", "--passphrase-file", passphrase_file,
        "--roots", roots, "--threshold", threshold,
    )  # fmt: skip
    assert (answer.code, code_of(answer)) == (Exit.USAGE, "value_invalid")
    assert not (tmp_path / "v").exists()


def written(path: Path, text: str) -> Path:
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return path


def test_each_root_may_have_a_passphrase_of_its_own(vendor: Vendor, tmp_path: Path) -> None:
    one, two, issuing = (
        written(tmp_path / f"p{n}", f"the passphrase of holder {n}") for n in range(3)
    )  # fmt: skip
    directory = tmp_path / "v"
    each = [argument for file in (one, two, issuing) for argument in ("--passphrase-file", file)]
    made = vendor("root", "init", "--dir", directory, "--roots", 2, "--threshold", 2, *each)
    assert made.code == Exit.OK, made.err
    order = ("licence", "issue", "--dir", directory, "--tier", "pro", "--customer", "X")
    assert vendor(*order, "--passphrase-file", issuing).code == Exit.OK
    assert vendor(*order, "--passphrase-file", one).code == Exit.CHECK_FAILED
    # Files are tried in their order, so that one command opens keys of several holders.
    rotated = ("keyring", "rotate", "--dir", directory, "--new-passphrase-file", issuing)
    refused = vendor(*rotated, "--passphrase-file", one)
    assert refused.code == Exit.CHECK_FAILED
    assert "root-2.pem" in refused.err
    assert "check the passphrase" in refused.err
    opened = vendor(*rotated, "--passphrase-file", two, "--passphrase-file", one)
    assert opened.code == Exit.OK, opened.err


def test_two_passphrases_for_three_keys_are_refused(vendor: Vendor, tmp_path: Path) -> None:
    files_given = [written(tmp_path / f"p{n}", "a passphrase of some length") for n in range(2)]
    each = [argument for file in files_given for argument in ("--passphrase-file", file)]
    answer = vendor("--json", "root", "init", "--dir", tmp_path / "v", "--roots", 2, *each)
    assert (answer.code, code_of(answer)) == (Exit.USAGE, "usage")
    assert "root-1.pem, root-2.pem, the issuing key" in problem(answer)["hint"]
    assert not (tmp_path / "v").exists()


def test_a_directory_of_the_first_release_goes_on(
    vendor: Vendor, directory: Path, passphrase_file: Path
) -> None:
    """One root without a number, no key that says its id, the issuing key named after its keyring alone."""
    offline, issuing = directory / "offline", directory / "issuing"
    for old, new in (
        (offline / "root-1.pem", offline / "root.pem"),
        (next(issuing.iterdir()), issuing / "issuing-1.pem"),
    ):
        pem = old.read_bytes().split(b"\n", 1)[1]
        assert pem.startswith(b"-----BEGIN")
        old.unlink()
        new.write_bytes(pem)
        new.chmod(0o600)
    keys = ("--dir", directory, "--passphrase-file", passphrase_file)
    order = ("licence", "issue", "--tier", "pro", "--customer", "X", *keys)
    assert vendor(*order).code == Exit.OK
    rotated = vendor("keyring", "rotate", *keys, "--use", "acknowledgement")
    assert rotated.code == Exit.OK, rotated.err
    assert vendor(*order).code == Exit.OK, "the old key is still the newest for licences"
    assert vendor("root", "rotate", *keys).code == Exit.OK


# --- root rotate


def test_every_root_is_replaced_and_both_old_and_new_anchors_lead_to_the_same_keyring(
    house: House, tmp_path: Path, clock: FixedClock
) -> None:
    before = house.anchors()
    answer = house.keys("root", "rotate")
    assert answer.code == Exit.OK, answer.err
    after = house.anchors()
    assert not set(before.roots) & set(after.roots)
    assert (len(after.roots), after.threshold, after.keyring.version) == (3, 2, 2)
    statement = parse_envelope(house.keyring(2))
    assert len(statement.signatures) == 4, "two of the present roots and two of the new ones"
    assert rotate(before.keyring, statement) == after.keyring
    licence = tmp_path / "licence"
    issued = house.keys("licence", "issue", "--tier", "pro", "--customer", "X", "--output", licence)
    assert issued.code == Exit.OK, issued.err
    old, new = store(tmp_path / "old", before, clock), store(tmp_path / "new", after, clock)
    assert old.install_keyring(house.keyring(2)).roots == after.roots
    for appliance in (old, new):
        assert appliance.keyring() == after.keyring
        assert appliance.install(licence.read_bytes()).licence.customer == "X"


def test_an_appliance_goes_on_after_two_rotations_and_a_new_release(
    house: House, tmp_path: Path, clock: FixedClock
) -> None:
    oldest = house.anchors()
    assert house.keys("root", "rotate").code == Exit.OK
    middle = house.anchors()
    assert house.keys("root", "rotate").code == Exit.OK
    appliance = store(tmp_path / "a", oldest, clock)
    with pytest.raises(LotaBotsError) as caught:
        appliance.install_keyring(house.keyring(3))
    assert caught.value.code is Code.SIGNER_UNKNOWN, "in between the roots changed twice"
    for version in (2, 3):
        appliance.install_keyring(house.keyring(version))
    assert appliance.keyring().version == 3
    # The same directory under a newer release: it starts at its own keyring and reads on from there.
    for anchors in (middle, house.anchors()):
        assert store(tmp_path / "a", anchors, clock).keyring() == house.anchors().keyring


def test_a_root_is_added_and_one_removed_and_the_threshold_changes(house: House) -> None:
    first, *stay = sorted(house.anchors().roots)
    answer = house.keys(
        "root", "rotate", "--new-roots", 2, "--remove-root", first, "--threshold", 3
    )  # fmt: skip
    assert answer.code == Exit.OK, answer.err
    after = house.anchors()
    assert set(stay) < set(after.roots)
    assert first not in after.roots
    assert (len(after.roots), after.threshold) == (4, 3)
    # The next one needs three of the four, which are all in the directory.
    assert house.keys("keyring", "rotate").code == Exit.OK
    assert len(parse_envelope(house.keyring(3)).signatures) == 3


def test_roots_sign_from_where_they_are(house: House, tmp_path: Path) -> None:
    sticks = []
    for number in (1, 3):
        stick = tmp_path / f"stick-{number}" / "root.pem"
        stick.parent.mkdir()
        (house.directory / "offline" / f"root-{number}.pem").rename(stick)
        sticks.append(stick)
    (house.directory / "offline" / "root-2.pem").unlink()
    refused = house.keys("keyring", "rotate")
    assert (refused.code, code_of(refused)) == (Exit.CHECK_FAILED, "conflict")
    assert "0 of 2 by the present roots" in problem(refused)["detail"]
    one = house.keys("keyring", "rotate", "--root-key", sticks[0])
    assert "1 of 2 by the present roots" in problem(one)["detail"]
    assert files(house.directory / "keyrings") == ["keyring-1.dsse.json"]
    assert len(files(house.directory / "issuing")) == 1, "a refusal leaves no key"
    both = house.keys("keyring", "rotate", "--root-key", sticks[0], "--root-key", f"file:{sticks[1]}")
    assert both.code == Exit.OK, both.err


def test_a_key_that_is_no_root_does_not_sign_for_one(house: House) -> None:
    issuing = next((house.directory / "issuing").iterdir())
    answer = house.keys("keyring", "rotate", "--root-key", issuing)
    assert (answer.code, code_of(answer)) == (Exit.SIGNATURE, "signer_unknown")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--remove-root", "x" * 43], "not_found"),
        (["--threshold", "4"], "value_invalid"),
        (["--threshold", "2"], "conflict"),
        (["--new-roots", "14"], "value_invalid"),
        (["--add-root", "short"], "value_invalid"),
        (["--add-root", "A" * 43], "key_weak"),
    ],
)
def test_roots_that_cannot_be_are_refused(house: House, options: list[str], code: str) -> None:
    answer = house.keys("root", "rotate", *options)
    assert code_of(answer) == code
    assert problem(answer)["hint"]
    assert files(house.directory / "keyrings") == ["keyring-1.dsse.json"]
    assert len(files(house.directory / "offline")) == 3


def test_removing_so_many_that_the_rest_cannot_sign_is_refused(house: House) -> None:
    one, two, _ = sorted(house.anchors().roots)
    answer = house.keys("root", "rotate", "--remove-root", one, "--remove-root", two)
    assert code_of(answer) == "value_invalid"
    assert "--threshold" in problem(answer)["hint"]


def public_of(document: Path, section: str = "roots") -> str:
    public: str = json.loads(document.read_bytes())[section][0]["public"]
    return public


def test_the_published_root_and_known_keys_cannot_be_added(house: House, tmp_path: Path) -> None:
    published = public_of(DEVELOPMENT_ANCHORS)
    answer = house.keys("root", "rotate", "--add-root", published)
    assert code_of(answer) == "value_invalid"
    assert "published" in problem(answer)["detail"]
    known = public_of(house.directory / "anchors" / "production.json")
    assert code_of(house.keys("root", "rotate", "--add-root", known)) == "already_exists"
    body = tmp_path / "body"
    body.write_bytes(parse_envelope(house.keyring(1)).body)
    issuing = house.keys("root", "rotate", "--add-root", public_of(body, "keys"))
    assert code_of(issuing) == "value_invalid"
    assert "issuing key" in problem(issuing)["detail"]
    assert DEVELOPMENT_ROOT not in house.anchors().roots


def test_more_signatures_than_a_document_carries_are_refused(
    vendor: Vendor, tmp_path: Path, passphrase_file: Path
) -> None:
    house = House(vendor, tmp_path / "v", passphrase_file)
    assert house.keys("root", "init", "--roots", 9, "--threshold", 9).code == Exit.OK
    answer = house.keys("root", "rotate")
    assert code_of(answer) == "value_invalid"
    assert "18 signatures" in problem(answer)["detail"]


# --- in steps


def test_a_rotation_in_steps_by_holders_who_never_meet(
    house: House, tmp_path: Path, clock: FixedClock
) -> None:
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
    assert (missing.code, code_of(missing)) == (Exit.CHECK_FAILED, "conflict")
    assert "1 of 2 by the present roots, 1 of 2 by the new ones" in problem(missing)["detail"]
    assert house.anchors() == before
    done = house.finish(draft, beside)
    assert done.code == Exit.OK, done.err
    after = house.anchors()
    assert (after.keyring.version, len(after.roots)) == (2, 2)
    appliance = store(tmp_path / "a", before, clock)
    assert appliance.install_keyring(house.keyring(2)) == after.keyring
    again = house.finish(draft, beside)
    assert (again.code, again.json) == (Exit.OK, done.json)
    assert house.anchors() == after


def test_what_was_interrupted_between_keyring_and_anchors_is_finished_by_the_same_command(
    house: House, tmp_path: Path
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


def test_a_signature_too_many_is_left_out(house: House, tmp_path: Path) -> None:
    draft = tmp_path / "draft.json"
    house.draft(draft, "--use", "rate-card")
    for number in (1, 2, 3):
        house.sign(house.directory / "offline" / f"root-{number}.pem", draft)
    assert house.finish(draft).code == Exit.OK
    assert len(parse_envelope(house.keyring(2)).signatures) == 2


def test_signing_twice_is_one_signature(house: House, tmp_path: Path) -> None:
    draft = tmp_path / "draft.json"
    house.draft(draft, "--use", "all")
    root = house.directory / "offline" / "root-1.pem"
    once = house.sign(root, draft).json["signatures"]
    assert house.sign(root, draft).json["signatures"] == once
    assert len(once) == 1


def test_who_is_no_root_cannot_sign_a_draft(house: House, tmp_path: Path) -> None:
    draft, stranger = tmp_path / "draft.json", tmp_path / "stranger.pem"
    house.run("root", "key", "--passphrase-file", house.passphrase, stranger)
    house.draft(draft, "--use", "all")
    answer = house.sign(stranger, draft)
    assert (answer.code, code_of(answer)) == (Exit.SIGNATURE, "signer_unknown")
    assert house.run("keyring", "sign", draft).code == Exit.USAGE


def test_a_draft_that_another_keyring_overtook_is_refused(house: House, tmp_path: Path) -> None:
    draft = tmp_path / "draft.json"
    house.draft(draft, "--use", "all")
    for number in (1, 2):
        house.sign(house.directory / "offline" / f"root-{number}.pem", draft)
    assert house.keys("keyring", "rotate").code == Exit.OK
    answer = house.finish(draft)
    assert (answer.code, code_of(answer)) == (Exit.CHECK_FAILED, "conflict")
    assert "keyring draft" in problem(answer)["hint"]


def test_copies_of_two_drafts_are_not_put_together(house: House, tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    house.draft(one, "--threshold", "1")
    house.draft(two, "--threshold", "3")
    assert code_of(house.finish(one, two)) == "conflict"


def test_a_draft_is_not_written_over_another(house: House, tmp_path: Path) -> None:
    draft = tmp_path / "draft.json"
    assert house.draft(draft, "--threshold", "1").code == Exit.OK
    before = draft.read_bytes()
    assert code_of(house.draft(draft, "--threshold", "3")) == "already_exists"
    assert draft.read_bytes() == before


def test_a_draft_that_changes_nothing_is_refused(house: House, tmp_path: Path) -> None:
    answer = house.draft(tmp_path / "draft.json")
    assert code_of(answer) == "conflict"
    assert not (tmp_path / "draft.json").exists()


def test_any_changed_byte_of_a_signed_draft_is_refused(house: House, tmp_path: Path) -> None:
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
        assert (answer.code, code_of(answer)) == (Exit.SIGNATURE, "keyring_invalid")


def test_a_root_key_is_never_overwritten(house: House, tmp_path: Path) -> None:
    file = tmp_path / "root.pem"
    assert house.run("root", "key", "--passphrase-file", house.passphrase, file).code == Exit.OK
    before = file.read_bytes()
    answer = house.run("root", "key", "--passphrase-file", house.passphrase, file)
    assert code_of(answer) == "already_exists"
    assert file.read_bytes() == before


def test_every_step_says_the_next_one(house: House, tmp_path: Path) -> None:
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
