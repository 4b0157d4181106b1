"""Several issuing keys alive at once: each for its uses and time; the newest that may sign is taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lotabots_vendor.authority import newest_keyring
from lotabots_vendor.issuing import Held, newest, why_not

from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.envelope import parse_envelope
from lotabotsd.foundation.errors import Code, Exit, LotaBotsError
from lotabotsd.licence.document import open_licence
from lotabotsd.licence.keyring import IssuingKey, Keyring, Use
from lotabotsd.usage.acknowledgement import open_acknowledgement
from lotabotsd.usage.report import LicenceFacts

Vendor = Callable[..., Any]
CARD = Path(__file__).resolve().parents[1] / "golden" / "rate-card" / "standard.json"
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ORDER = ("licence", "issue", "--tier", "pro", "--customer", "Example GmbH", "--format", "json")


@pytest.fixture
def keys(directory: Path, passphrase_file: Path) -> tuple[object, ...]:
    return ("--dir", directory, "--passphrase-file", passphrase_file)


def rotated(vendor: Vendor, keys: tuple[object, ...], *options: object) -> dict[str, Any]:
    answer = vendor("--json", "keyring", "rotate", *keys, *options)
    assert answer.code == Exit.OK, answer.err
    found: dict[str, Any] = answer.json
    return found


def signer(document: str) -> str:
    return parse_envelope(document.encode()).signatures[0].keyid


def first_key(directory: Path) -> str:
    return newest_keyring(directory).keys[0].keyid


# --- the rule


def key(name: str, *uses: Use, first: int = 0, days: int = 100) -> IssuingKey:
    return IssuingKey(
        name, bytes(32), frozenset(uses or Use), START + first * DAY, START + (first + days) * DAY
    )


def ring(*keys: IssuingKey, revoked: frozenset[str] = frozenset()) -> Keyring:
    return Keyring(1, START, {}, 1, keys, revoked)


def held(*names: str) -> list[Held]:
    return [Held(Path(f"{name}.pem"), name) for name in names]


@pytest.mark.parametrize(
    ("keyring", "here", "day", "expected"),
    [
        (ring(key("a"), key("b", first=5)), ["a", "b"], 10, "b"),
        (ring(key("a"), key("b", first=5)), ["b", "a"], 10, "b"),
        (ring(key("a"), key("b", first=5)), ["a"], 10, "a"),
        (ring(key("a"), key("b", first=5)), ["a", "b"], 4, "a"),
        (ring(key("a"), key("b", first=5)), ["a", "b"], 5, "b"),
        (ring(key("a"), key("b", days=10)), ["a", "b"], 9, "b"),
        (ring(key("a"), key("b", days=10)), ["a", "b"], 10, "a"),
        (ring(key("a"), key("b", Use.RATE_CARD)), ["a", "b"], 1, "a"),
        (ring(key("a"), key("b"), revoked=frozenset({"b"})), ["a", "b"], 1, "a"),
        (ring(key("a")), ["a", "unnamed"], 1, "a"),
    ],
)
def test_the_newest_key_here_that_may_sign_now_is_taken(
    keyring: Keyring, here: list[str], day: int, expected: str
) -> None:
    assert newest(keyring, held(*here), Use.LICENCE, START + day * DAY).keyid == expected


@pytest.mark.parametrize(
    ("keyring", "day", "says"),
    [
        (ring(), 0, "no keyring names it yet"),
        (ring(key("a"), revoked=frozenset({"a"})), 0, "it was revoked"),
        (ring(key("a", Use.RATE_CARD, Use.ACKNOWLEDGEMENT)), 0, "it is for acknowledgement, rate-card only"),
        (ring(key("a", first=2)), 1, "it begins on 2026-01-03T00:00:00Z"),
        (ring(key("a", days=2)), 2, "it ended on 2026-01-03T00:00:00Z"),
    ],
)
def test_a_key_that_may_not_sign_says_why(keyring: Keyring, day: int, says: str) -> None:
    assert why_not(keyring, "a", Use.LICENCE, START + day * DAY) == says
    with pytest.raises(LotaBotsError) as caught:
        newest(keyring, held("a"), Use.LICENCE, START + day * DAY)
    assert caught.value.code is Code.SIGNER_UNKNOWN
    assert f"a.pem: {says}" in caught.value.detail


# --- on the command line


def test_a_key_file_shows_the_keyring_and_the_id_that_it_is_for(
    vendor: Vendor, directory: Path, keys: tuple[object, ...]
) -> None:
    made = rotated(vendor, keys)
    names = sorted(path.name for path in (directory / "issuing").iterdir())
    assert names == [f"issuing-1-{first_key(directory)[:8]}.pem", f"issuing-2-{made['issuing_key'][:8]}.pem"]
    text = (directory / "issuing" / names[1]).read_text()
    assert text.startswith(f"lotabots key {made['issuing_key']}\n-----BEGIN ENCRYPTED PRIVATE KEY-----\n")


def test_a_billing_machine_can_acknowledge_and_cannot_issue_licences(
    vendor: Vendor, directory: Path, keys: tuple[object, ...], make_appliance: Callable[..., Any]
) -> None:
    issued = json.loads(vendor("--json", *ORDER, *keys).out)
    made = rotated(vendor, keys, "--use", "acknowledgement", "--use", "rate-card")
    assert made["uses"] == ["acknowledgement", "rate-card"]
    # The billing machine has a copy of the directory without the first key.
    (directory / "issuing" / f"issuing-1-{first_key(directory)[:8]}.pem").unlink()
    refused = vendor("--json", *ORDER, *keys)
    assert (refused.code, json.loads(refused.err)["error"]["code"]) == (Exit.SIGNATURE, "signer_unknown")
    assert "it is for acknowledgement, rate-card only" in refused.err
    assert "keyring rotate --use licence" in refused.err
    facts = LicenceFacts(issued["licence"]["licence_id"], "pro", "Example GmbH")
    report = make_appliance("appliance", facts).report()
    assert vendor("report", "verify", "--dir", directory, report).code == Exit.OK
    answer = vendor("ack", "issue", *keys, "--format", "json", report)
    assert answer.code == Exit.OK, answer.err
    assert signer(answer.out) == made["issuing_key"]
    keyring = newest_keyring(directory)
    trusted = partial(keyring.trusted_keys, Use.ACKNOWLEDGEMENT)
    assert open_acknowledgement(answer.out.encode(), trusted, keyring.revoked).signer == made["issuing_key"]
    assert vendor("rate-card", "sign", *keys, CARD).code == Exit.OK


def test_a_newer_key_for_something_else_leaves_licences_to_the_older_one(
    vendor: Vendor, directory: Path, keys: tuple[object, ...]
) -> None:
    rotated(vendor, keys, "--use", "rate-card")
    assert signer(vendor(*ORDER, *keys).out) == first_key(directory)
    newer = rotated(vendor, keys, "--use", "licence")["issuing_key"]
    licence = vendor(*ORDER, *keys).out
    assert signer(licence) == newer
    assert open_licence(licence.encode(), newest_keyring(directory)).signer == newer


def test_a_revoked_key_is_not_taken_and_says_so_when_it_is_the_last(
    vendor: Vendor, directory: Path, keys: tuple[object, ...]
) -> None:
    old = first_key(directory)
    made = rotated(vendor, keys, "--revoke", old)
    assert signer(vendor(*ORDER, *keys).out) == made["issuing_key"]
    Path(made["issuing_key_file"]).unlink()
    refused = vendor(*ORDER, *keys)
    assert refused.code == Exit.SIGNATURE
    assert "it was revoked" in refused.err
    assert "hint: make one: lotabots-vendor keyring rotate --use licence" in refused.err


def test_an_ended_key_leaves_the_signing_to_an_older_one_that_lives_longer(
    vendor: Vendor, directory: Path, keys: tuple[object, ...], clock: FixedClock
) -> None:
    short = rotated(vendor, keys, "--issuing-days", 10)["issuing_key"]
    assert signer(vendor(*ORDER, *keys).out) == short
    clock.advance(10 * 86_400)
    assert signer(vendor(*ORDER, *keys).out) == first_key(directory)


def test_a_key_is_named_by_its_uri_instead(
    vendor: Vendor, directory: Path, keys: tuple[object, ...], tmp_path: Path
) -> None:
    newer = rotated(vendor, keys)["issuing_key"]
    old = next((directory / "issuing").glob("issuing-1-*"))
    away = tmp_path / "a key elsewhere.pem"
    old.rename(away)
    for uri in (away, f"file:{away}", f"FILE://{away}", f"file:{str(away).replace(' ', '%20')}"):
        licence = vendor(*ORDER, *keys, "--issuing-key", uri)
        assert licence.code == Exit.OK, licence.err
        assert signer(licence.out) == first_key(directory) != newer


def test_a_named_key_is_judged_by_the_keyring_too(
    vendor: Vendor, directory: Path, keys: tuple[object, ...], tmp_path: Path, passphrase_file: Path
) -> None:
    for_cards = rotated(vendor, keys, "--use", "rate-card")["issuing_key_file"]
    stranger = tmp_path / "stranger.pem"
    vendor("root", "key", "--passphrase-file", passphrase_file, stranger)
    root = directory / "offline" / "root-1.pem"
    for uri, says in (
        (for_cards, "it is for rate-card only"),
        (stranger, "no keyring names it yet"),
        (root, "it is a root"),
    ):
        refused = vendor(*ORDER, *keys, "--issuing-key", uri)
        assert (refused.code, says in refused.err) == (Exit.SIGNATURE, True), refused.err
    assert vendor("rate-card", "sign", *keys, "--issuing-key", for_cards, CARD).code == Exit.OK


def test_without_any_key_the_directory_says_how_to_make_one(
    vendor: Vendor, directory: Path, keys: tuple[object, ...]
) -> None:
    next((directory / "issuing").iterdir()).unlink()
    refused = vendor(*ORDER, *keys)
    assert refused.code == Exit.SIGNATURE
    assert "there is no key in issuing" in refused.err


def test_a_key_of_an_unfinished_draft_does_not_sign(
    vendor: Vendor, directory: Path, keys: tuple[object, ...], tmp_path: Path, passphrase_file: Path
) -> None:
    draft = tmp_path / "draft.json"
    drafted = ("keyring", "draft", "--dir", directory, "--new-passphrase-file", passphrase_file)
    assert vendor(*drafted, "--use", "all", "--output", draft).code == Exit.OK
    assert len(list((directory / "issuing").iterdir())) == 2
    assert signer(vendor(*ORDER, *keys).out) == first_key(directory)


def test_a_file_with_another_key_than_it_says_is_refused(
    vendor: Vendor, directory: Path, keys: tuple[object, ...]
) -> None:
    newer = Path(rotated(vendor, keys)["issuing_key_file"])
    old = next((directory / "issuing").glob("issuing-1-*"))
    label = newer.read_bytes().split(b"\n", 1)[0]
    newer.write_bytes(label + b"\n" + old.read_bytes().split(b"\n", 1)[1])
    refused = vendor("--json", *ORDER, *keys)
    assert json.loads(refused.err)["error"]["code"] == "conflict"


def test_development_has_a_key_of_its_own(vendor: Vendor, tmp_path: Path) -> None:
    refused = vendor(*ORDER, "--development", "--issuing-key", tmp_path / "key.pem")
    assert refused.code == Exit.USAGE


def test_show_names_roots_and_keys_with_their_state(
    vendor: Vendor, directory: Path, keys: tuple[object, ...], clock: FixedClock
) -> None:
    old = first_key(directory)
    cards = rotated(vendor, keys, "--use", "rate-card", "--issuing-days", 1, "--revoke", old)
    clock.advance(86_400)
    shown = vendor("--json", "keyring", "show", "--dir", directory).json
    assert [(k["keyid"], k["state"], k["uses"]) for k in shown["keys"]] == [
        (old, "revoked", ["acknowledgement", "licence", "rate-card"]),
        (cards["issuing_key"], "ended", ["rate-card"]),
    ]
    assert (shown["version"], shown["threshold"], len(shown["roots"])) == (2, 1, 1)
    text = vendor("keyring", "show", "--dir", directory).out
    assert "revoked  until 2029-02-28  here" in text


def test_a_key_of_a_keyring_that_is_not_here_is_left_out(
    vendor: Vendor, directory: Path, keys: tuple[object, ...]
) -> None:
    """Without a line that says its id, and named after a keyring that nobody made."""
    found = next((directory / "issuing").iterdir())
    stray = directory / "issuing" / "issuing-7.pem"
    stray.write_bytes(found.read_bytes().split(b"\n", 1)[1])
    (directory / "issuing" / "notes.pem").write_bytes(b"")
    assert signer(vendor(*ORDER, *keys).out) == first_key(directory)
