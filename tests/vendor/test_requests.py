"""Activation at the vendor: a request is read, answered with a bound licence; and licences are taken back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.envelope import PayloadType, armour, sign
from lotabotsd.foundation.errors import Code, Exit, LotaBotsError
from lotabotsd.foundation.keys import raw_public, thumbprint
from lotabotsd.licence.activation import ActivationRequest, request_body, short_code
from lotabotsd.licence.fingerprint import component
from lotabotsd.licence.keyring import parse_anchors
from lotabotsd.licence.standing import State
from lotabotsd.licence.store import LicenceStore
from lotabotsd.usage.report import LicenceFacts

Vendor = Callable[..., Any]
KEY = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
HERE = {
    "machine-id": component("machine-id", "a" * 32),
    "first-mac": component("first-mac", "52:54:00:12:34:56"),
    "gpus": component("gpus", "GPU-1"),
    "operator": component("operator", "rack 7, slot 3, chosen"),
}


def request_file(
    folder: Path, components: Mapping[str, str], by: Ed25519PrivateKey = KEY, **more: Any
) -> Path:
    asked = ActivationRequest(
        appliance_id="apl_test",
        public_key=raw_public(by),
        requested_at=datetime(2026, 3, 1, tzinfo=UTC),
        release="0.1.0",
        components=components,
        gpus=1,
        licence_id="",
        sequence=more.get("sequence", 0),
        note="order 4711",
    )
    file = folder / "request.txt"
    file.write_text(armour(sign(PayloadType.ACTIVATION_REQUEST, request_body(asked), [by])))
    return file


@pytest.fixture
def issue(vendor: Vendor, directory: Path, passphrase_file: Path) -> Callable[..., Any]:
    keys = ("--dir", directory, "--passphrase-file", passphrase_file)
    order = ("--tier", "pro", "--customer", "Example Works")
    return lambda *more: vendor("licence", "issue", *keys, *order, *more)


def store_of(folder: Path, directory: Path, clock: FixedClock, here: Mapping[str, str]) -> LicenceStore:
    anchors = parse_anchors((directory / "anchors/production.json").read_bytes())
    folder.mkdir(exist_ok=True)
    return LicenceStore(folder, anchors, clock, components=lambda: here)


def test_a_request_is_shown_with_the_code_that_the_customer_reads_out(vendor: Vendor, tmp_path: Path) -> None:
    file = request_file(tmp_path, HERE)
    found = vendor("--json", "request", "show", file).json
    assert (found["appliance"], found["note"], found["gpus"]) == ("apl_test", "order 4711", 1)
    assert found["components"] == HERE
    assert found["code"] in vendor("request", "show", file).out
    file.write_bytes(b"nothing of the kind")
    assert vendor("request", "show", file).code == Exit.SIGNATURE


def test_the_answer_works_on_the_machine_that_asked_also_with_a_new_gpu(
    issue: Callable[..., Any], directory: Path, tmp_path: Path, clock: FixedClock
) -> None:
    file = tmp_path / "licence"
    answer = issue("--request", request_file(tmp_path, HERE), "--output", file)
    assert answer.code == 0, answer.err
    assert store_of(tmp_path / "a", directory, clock, HERE).install(file.read_bytes()).after.state == "valid"
    swapped = {**HERE, "gpus": component("gpus", "GPU-2")}
    assert store_of(tmp_path / "a", directory, clock, swapped).standing().state is State.VALID
    elsewhere = {**swapped, "first-mac": component("first-mac", "52:54:00:00:00:01")}
    with pytest.raises(LotaBotsError) as caught:
        store_of(tmp_path / "b", directory, clock, elsewhere).install(file.read_bytes())
    assert caught.value.code is Code.LICENCE_FINGERPRINT


def test_the_operators_value_is_bound_alone_or_not_at_all(issue: Callable[..., Any], tmp_path: Path) -> None:
    from lotabotsd.foundation.envelope import parse_envelope
    from lotabotsd.licence.claims import parse_licence

    def bound(*more: object) -> set[str]:
        said = issue("--request", request_file(tmp_path, HERE), *more)
        fingerprint = parse_licence(parse_envelope(said.out.encode()).body).fingerprint
        assert fingerprint is not None
        return set(dict(fingerprint.components))

    assert bound("--match", "operator") == {"operator"}
    assert bound("--match", "all") == {"machine-id", "first-mac", "gpus"}
    without = request_file(tmp_path, {"machine-id": HERE["machine-id"]})
    assert "licence.operator_fingerprint" in issue("--request", without, "--match", "operator").err
    alone = request_file(tmp_path, {"operator": HERE["operator"]})
    assert "--match operator" in issue("--request", alone).err
    assert issue("--request", alone, "--bind", "machine-id=" + "a" * 64).code == Exit.CHECK_FAILED


def test_the_answer_comes_after_everything_that_the_appliance_has_seen(
    issue: Callable[..., Any], vendor: Vendor, directory: Path, tmp_path: Path
) -> None:
    """The vendor's records may be an older copy; a licence below the highest sequence would be refused."""
    issue("--output", tmp_path / "one")
    issue("--request", request_file(tmp_path, HERE, sequence=40), "--output", tmp_path / "two")
    issue("--output", tmp_path / "three")
    listed = vendor("--json", "licence", "list", "--dir", directory).json
    assert [entry["sequence"] for entry in listed] == [1, 41, 42]


def test_a_licence_is_taken_back_by_a_list_that_grows(
    issue: Callable[..., Any], vendor: Vendor, directory: Path, passphrase_file: Path, tmp_path: Path,
    clock: FixedClock,
) -> None:  # fmt: skip
    keys = ("--dir", directory, "--passphrase-file", passphrase_file)
    for name in ("one", "two"):
        issue("--output", tmp_path / name)
    first, second = (e["licence_id"] for e in vendor("--json", "licence", "list", "--dir", directory).json)
    assert vendor("licence", "revocations", "--dir", directory).code == Exit.CHECK_FAILED
    store = store_of(tmp_path / "a", directory, clock, HERE)
    store.install((tmp_path / "one").read_bytes())
    lists = []
    for number, name in enumerate((second, first), start=1):
        file = tmp_path / f"list-{number}"
        said = vendor("--json", "licence", "revoke", *keys, "--reason", "not paid", "--output", file, name)
        assert (said.code, said.json["version"], said.json["revoked"]) == (0, number, number)
        lists.append(file.read_bytes())
    store.trust.install_revocations(lists[0])
    assert store.standing().state is State.VALID
    store.trust.install_revocations(lists[1])
    assert store.standing().code == "licence_revoked"
    again = vendor("licence", "revoke", *keys, "--reason", "another", "--output", tmp_path / "again", first)
    assert (again.code, (tmp_path / "again").read_bytes()) == (0, lists[1])
    vendor("licence", "revocations", "--dir", directory, "--output", tmp_path / "newest")
    assert (tmp_path / "newest").read_bytes() == lists[1]


def test_an_unknown_licence_revokes_nothing(
    vendor: Vendor, directory: Path, passphrase_file: Path, issue: Callable[..., Any], tmp_path: Path
) -> None:
    issue("--output", tmp_path / "one")
    (known,) = (e["licence_id"] for e in vendor("--json", "licence", "list", "--dir", directory).json)
    keys = ("--dir", directory, "--passphrase-file", passphrase_file)
    said = vendor("licence", "revoke", *keys, "--reason", "x", known, "lic_" + "0" * 16)
    assert (said.code, "was not issued here" in said.err) == (Exit.CHECK_FAILED, True)
    assert vendor("licence", "revocations", "--dir", directory).code == Exit.CHECK_FAILED
    assert vendor("licence", "revoke", *keys, "--reason", "", known).code == Exit.USAGE


def test_both_sides_print_the_same_code(vendor: Vendor, tmp_path: Path) -> None:
    file = request_file(tmp_path, HERE)
    from lotabotsd.foundation.envelope import parse_envelope

    body = parse_envelope(file.read_bytes()).body
    assert vendor("--json", "request", "show", file).json["code"] == short_code(body)


def test_an_answered_request_begins_a_seat_that_the_first_report_goes_on_with(
    vendor: Vendor, directory: Path, issue: Callable[..., Any], tmp_path: Path, clock: FixedClock
) -> None:
    file = request_file(tmp_path, HERE)
    assert issue("--request", file, "--output", tmp_path / "a.lic").code == Exit.OK
    (seat,) = vendor("--json", "seat", "list", "--dir", directory).json
    assert (seat["appliance"], seat["customer"], seat["report"]) == ("apl_test", "Example Works", None)
    assert (seat["fingerprint"], seat["state"]) == (HERE, "up to date")
    assert seat["key"] == thumbprint(raw_public(KEY))
    clock.advance((31 + 14) * 86_400)
    assert vendor("--json", "seat", "list", "--dir", directory).json[0]["state"] == "overdue"


def test_nobody_is_asked_to_report_under_a_licence_that_was_taken_back(
    vendor: Vendor, directory: Path, issue: Callable[..., Any], passphrase_file: Path, clock: FixedClock
) -> None:
    assert issue().code == Exit.OK
    (entry,) = vendor("--json", "licence", "list", "--dir", directory).json
    invoice = ("invoice", "--dir", directory, "--customer", "Example Works", "--month", "2026-03")
    assert vendor(*invoice).code == Exit.WARNINGS
    clock.advance((31 + 14) * 86_400)
    assert vendor("--json", "customer", "list", "--dir", directory).json[0]["state"] == "overdue"
    revoked = ("licence", "revoke", "--dir", directory, "--passphrase-file", passphrase_file)
    assert vendor(*revoked, "--reason", "returned", entry["licence_id"]).code == Exit.OK
    assert vendor("--json", "customer", "list", "--dir", directory).json[0]["state"] == "revoked"
    assert vendor(*invoice).code == Exit.OK


def test_an_appliance_that_is_another_machine_now_waits_for_a_person(
    issue: Callable[..., Any], vendor: Vendor, directory: Path, tmp_path: Path
) -> None:
    assert issue("--request", request_file(tmp_path, HERE)).code == Exit.OK
    repaired = {**HERE, "gpus": component("gpus", "GPU-2")}
    assert issue("--request", request_file(tmp_path, repaired)).code == Exit.OK
    copied = {name: component(name, "another") for name in HERE}
    refused = issue("--request", request_file(tmp_path, copied))
    assert (refused.code, "4 of 4 parts are others" in refused.err) == (Exit.CHECK_FAILED, True)
    stranger = Ed25519PrivateKey.from_private_bytes(bytes([8]) * 32)
    file = request_file(tmp_path, repaired, by=stranger)
    refused = issue("--request", file)
    assert (refused.code, "--other-machine" in refused.err) == (Exit.CHECK_FAILED, True)
    assert issue("--request", file, "--other-machine").code == Exit.OK
    assert issue("--request", file).code == Exit.OK
    assert len(vendor("--json", "licence", "list", "--dir", directory).json) == 4


def test_a_report_by_another_key_than_that_of_the_request_is_not_billed(
    issue: Callable[..., Any], vendor: Vendor, directory: Path, tmp_path: Path, make_appliance: Any
) -> None:
    said = issue(
        "--request", request_file(tmp_path, HERE), "--output", tmp_path / "licence", "--format", "json"
    )
    assert said.code == Exit.OK
    (entry,) = vendor("--json", "licence", "list", "--dir", directory).json
    appliance = make_appliance("one", LicenceFacts(entry["licence_id"], "pro", "Example Works"))
    verdict = vendor("--json", "report", "verify", "--dir", directory, appliance.report()).json
    assert [finding["code"] for finding in verdict["findings"]] == ["key_changed"]
    assert verdict["billable"] is False


def test_usage_under_a_revoked_licence_is_told_with_its_time(
    issue: Callable[..., Any], vendor: Vendor, directory: Path, passphrase_file: Path, tmp_path: Path,
    make_appliance: Any, clock: FixedClock,
) -> None:  # fmt: skip
    issue("--output", tmp_path / "licence")
    (entry,) = vendor("--json", "licence", "list", "--dir", directory).json
    appliance = make_appliance("one", LicenceFacts(entry["licence_id"], "pro", "Example Works"))
    assert vendor("report", "verify", "--dir", directory, appliance.report()).code == Exit.OK
    clock.advance(1_800)
    keys = ("--dir", directory, "--passphrase-file", passphrase_file)
    vendor("licence", "revoke", *keys, "--reason", "not paid", entry["licence_id"])
    assert "revoked" in vendor("licence", "list", "--dir", directory).out
    verdict = vendor("--json", "report", "verify", "--dir", directory, appliance.report()).json
    (found,) = verdict["findings"]
    assert (found["code"], found["since"], verdict["billable"]) == (
        "licence_revoked", "2026-03-01T14:30:00Z", True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("components", "match", "says"),
    [
        (("machine-id",), "most", "it must stay the same, and a copied disk may have it too"),
        (("machine-id", "first-mac"), "most", "both must stay the same"),
        (("machine-id", "first-mac", "operator"), "most", "both must stay the same"),
        (("machine-id", "first-mac", "gpus"), "most", ""),
        (("machine-id", "first-mac"), "all", ""),
    ],
)
def test_most_of_fewer_than_three_parts_is_warned_of(
    issue: Callable[..., Any], tmp_path: Path, components: tuple[str, ...], match: str, says: str
) -> None:
    file = request_file(tmp_path, {name: HERE[name] for name in components})
    answer = issue("--request", file, "--match", match)
    assert answer.code == Exit.OK, answer.err
    assert ("warning" in answer.err, says in answer.err) == (bool(says), True)
