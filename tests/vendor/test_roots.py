"""Roots with a threshold, replaced at once or in steps, and appliances that follow them by a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.envelope import parse_envelope
from lotabotsd.foundation.errors import Code, Exit, LotaBotsError
from lotabotsd.licence.keyring import DEVELOPMENT_ROOT, Anchors, rotate
from lotabotsd.licence.store import LicenceStore

Vendor = Callable[..., Any]
DEVELOPMENT_ANCHORS = Path(__file__).resolve().parents[2] / "lotabotsd/licence/anchors/development.json"


def store(path: Path, anchors: Anchors, clock: FixedClock) -> LicenceStore:
    path.mkdir(exist_ok=True)
    return LicenceStore(path, anchors, clock)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- root init


def test_init_makes_as_many_roots_as_asked_and_the_threshold_signs(house: Any) -> None:
    assert names(house.directory / "offline") == ["root-1.pem", "root-2.pem", "root-3.pem"]
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
    assert (answer.code, answer.problem["code"]) == (Exit.USAGE, "value_invalid")
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
    assert vendor(*order, "--passphrase-file", one).code == Exit.USAGE
    # Files are tried in their order, so that one command opens keys of several holders.
    rotated = ("keyring", "rotate", "--dir", directory, "--new-passphrase-file", issuing)
    refused = vendor(*rotated, "--passphrase-file", one)
    assert refused.code == Exit.USAGE
    assert "root-2.pem" in refused.err
    assert "check the passphrase" in refused.err
    opened = vendor(*rotated, "--passphrase-file", two, "--passphrase-file", one)
    assert opened.code == Exit.OK, opened.err


def test_two_passphrases_for_three_keys_are_refused(vendor: Vendor, tmp_path: Path) -> None:
    files_given = [written(tmp_path / f"p{n}", "a passphrase of some length") for n in range(2)]
    each = [argument for file in files_given for argument in ("--passphrase-file", file)]
    answer = vendor("--json", "root", "init", "--dir", tmp_path / "v", "--roots", 2, *each)
    assert (answer.code, answer.problem["code"]) == (Exit.USAGE, "usage")
    assert "root-1.pem, root-2.pem, the issuing key" in answer.problem["hint"]
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
    house: Any, tmp_path: Path, clock: FixedClock
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
    assert old.trust.install_keyring(house.keyring(2)).roots == after.roots
    # A release that carries this keyring is sent it all the same, with those that have older ones.
    assert new.trust.install_keyring(house.keyring(2)) == after.keyring
    assert names(tmp_path / "new") == []
    for appliance in (old, new):
        assert appliance.trust.keyring() == after.keyring
        assert appliance.install(licence.read_bytes()).licence.customer == "X"


def test_an_appliance_goes_on_after_two_rotations_and_a_new_release(
    house: Any, tmp_path: Path, clock: FixedClock
) -> None:
    oldest = house.anchors()
    assert house.keys("root", "rotate").code == Exit.OK
    middle = house.anchors()
    assert house.keys("root", "rotate").code == Exit.OK
    appliance = store(tmp_path / "a", oldest, clock)
    with pytest.raises(LotaBotsError) as caught:
        appliance.trust.install_keyring(house.keyring(3))
    assert caught.value.code is Code.SIGNER_UNKNOWN, "in between the roots changed twice"
    for version in (2, 3):
        appliance.trust.install_keyring(house.keyring(version))
    assert appliance.trust.keyring().version == 3
    # The same directory under a newer release: it starts at its own keyring and reads on from there.
    for anchors in (middle, house.anchors()):
        assert store(tmp_path / "a", anchors, clock).trust.keyring() == house.anchors().keyring


def test_a_root_is_added_and_one_removed_and_the_threshold_changes(house: Any) -> None:
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


def test_roots_sign_from_where_they_are(house: Any, tmp_path: Path) -> None:
    sticks = []
    for number in (1, 3):
        stick = tmp_path / f"stick-{number}" / "root.pem"
        stick.parent.mkdir()
        (house.directory / "offline" / f"root-{number}.pem").rename(stick)
        sticks.append(stick)
    (house.directory / "offline" / "root-2.pem").unlink()
    refused = house.keys("keyring", "rotate")
    assert (refused.code, refused.problem["code"]) == (Exit.CHECK_FAILED, "conflict")
    assert "0 of 2 by the present roots" in refused.problem["detail"]
    one = house.keys("keyring", "rotate", "--root-key", sticks[0])
    assert "1 of 2 by the present roots" in one.problem["detail"]
    assert names(house.directory / "keyrings") == ["keyring-1.dsse.json"]
    assert len(names(house.directory / "issuing")) == 1, "a refusal leaves no key"
    both = house.keys("keyring", "rotate", "--root-key", sticks[0], "--root-key", f"file:{sticks[1]}")
    assert both.code == Exit.OK, both.err


def test_a_key_that_is_no_root_does_not_sign_for_one(house: Any) -> None:
    issuing = next((house.directory / "issuing").iterdir())
    answer = house.keys("keyring", "rotate", "--root-key", issuing)
    assert (answer.code, answer.problem["code"]) == (Exit.SIGNATURE, "signer_unknown")


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
def test_roots_that_cannot_be_are_refused(house: Any, options: list[str], code: str) -> None:
    answer = house.keys("root", "rotate", *options)
    assert answer.problem["code"] == code
    assert answer.problem["hint"]
    assert names(house.directory / "keyrings") == ["keyring-1.dsse.json"]
    assert len(names(house.directory / "offline")) == 3


def test_removing_so_many_that_the_rest_cannot_sign_is_refused(house: Any) -> None:
    one, two, _ = sorted(house.anchors().roots)
    answer = house.keys("root", "rotate", "--remove-root", one, "--remove-root", two)
    assert answer.problem["code"] == "value_invalid"
    assert "--threshold" in answer.problem["hint"]


def public_of(document: Path, section: str = "roots") -> str:
    public: str = json.loads(document.read_bytes())[section][0]["public"]
    return public


def test_the_published_root_and_known_keys_cannot_be_added(house: Any, tmp_path: Path) -> None:
    published = public_of(DEVELOPMENT_ANCHORS)
    answer = house.keys("root", "rotate", "--add-root", published)
    assert answer.problem["code"] == "value_invalid"
    assert "published" in answer.problem["detail"]
    known = public_of(house.directory / "anchors" / "production.json")
    assert house.keys("root", "rotate", "--add-root", known).problem["code"] == "already_exists"
    body = tmp_path / "body"
    body.write_bytes(parse_envelope(house.keyring(1)).body)
    issuing = house.keys("root", "rotate", "--add-root", public_of(body, "keys"))
    assert issuing.problem["code"] == "value_invalid"
    assert "issuing key" in issuing.problem["detail"]
    assert DEVELOPMENT_ROOT not in house.anchors().roots


def test_the_most_signatures_that_a_document_carries_are_enough_and_one_more_is_refused(
    make_house: Callable[[Path], Any], tmp_path: Path
) -> None:
    for threshold, signatures in ((8, 16), (9, 18)):
        house = make_house(tmp_path / str(threshold))
        made = house.keys("root", "init", "--roots", threshold, "--threshold", threshold)
        assert made.code == Exit.OK, made.err
        answer = house.keys("root", "rotate")
        if signatures == 16:
            assert answer.code == Exit.OK, answer.err
            assert len(parse_envelope(house.keyring(2)).signatures) == signatures
        else:
            assert answer.problem["code"] == "value_invalid"
            assert f"{signatures} signatures" in answer.problem["detail"]


def test_a_use_that_no_key_may_sign_any_more_is_told(house: Any) -> None:
    (old,) = house.anchors().keyring.keys
    rotated = ("keyring", "rotate", "--dir", house.directory, "--passphrase-file", house.passphrase)
    text = house.vendor(*rotated, "--revoke", old.keyid, "--use", "rate-card").out
    assert "No key may sign licences now: lotabots-vendor keyring rotate --use licence" in text
    assert "No key may sign acknowledgements now" in text
    assert "No key may sign rate cards" not in text
