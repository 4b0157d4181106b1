"""Issuing licences: templates per tier, overrides, sequences, and refusals that an appliance would make."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.errors import Exit
from lotabotsd.licence.claims import TIERS, Kind, Overage, Tier
from lotabotsd.licence.document import Opened, open_licence
from lotabotsd.licence.keyring import load_anchors, parse_anchors
from lotabotsd.licence.standing import State
from lotabotsd.licence.store import LicenceStore

Vendor = Callable[..., Any]
ISSUE = ("licence", "issue", "--development", "--tier", "pro", "--customer", "Example Works")


def opened(text: str) -> Opened:
    return open_licence(text.encode(), load_anchors().keyring)


@pytest.mark.parametrize("tier", Tier)
def test_a_tier_gives_its_own_terms(vendor: Vendor, tier: Tier) -> None:
    answer = vendor("licence", "issue", "--development", "--tier", tier, "--customer", "Example Works")
    assert answer.code == 0, answer.err
    licence = opened(answer.out).licence
    assert licence.terms == TIERS[tier]
    assert (licence.tier, licence.kind, licence.customer) == (tier, Kind.DEVELOPMENT, "Example Works")
    assert licence.issued_at == licence.starts_at == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert licence.expires_at == datetime(2027, 3, 1, 12, tzinfo=UTC)
    assert licence.terminates_at is None
    assert licence.licence_id in answer.err


@pytest.mark.parametrize("form", ["armour", "json", "line"])
def test_every_form_reaches_an_appliance(
    vendor: Vendor, tmp_path: Path, clock: FixedClock, form: str
) -> None:
    file = tmp_path / "licence"
    assert vendor(*ISSUE, "--format", form, "--output", file).code == 0
    store = LicenceStore(tmp_path, load_anchors(), clock)
    change = store.install(file.read_bytes())
    assert (change.after.state, change.after.tier, change.after.development) == (State.VALID, Tier.PRO, True)


def test_overrides_take_the_place_of_the_tiers_values(vendor: Vendor) -> None:
    answer = vendor(
        *ISSUE, "--kind", "trial", "--days", 30, "--grace-days", 0, "--terminates-after-days", 10,
        "--requests-per-minute", 120, "--gpus", 2, "--models", 0, "--organisations", 1, "--members", 7,
        "--priority-band", 3, "--feature", "oidc", "--feature", "ldap", "--starts", "2026-04-01",
        "--max-release-date", "2026-12-31", "--report-days", 7, "--report-grace-days", 3,
    )  # fmt: skip
    licence = opened(answer.out).licence
    terms = licence.terms
    assert (terms.requests_per_minute, terms.gpus, terms.models) == (120, 2, 0)
    assert (terms.organisations, terms.members, terms.priority_band) == (1, 7, 3)
    assert terms.features == ("ldap", "oidc")
    assert licence.kind is Kind.TRIAL
    assert licence.starts_at == datetime(2026, 4, 1, tzinfo=UTC)
    assert licence.expires_at == datetime(2026, 5, 1, tzinfo=UTC)
    assert licence.terminates_at == datetime(2026, 5, 11, tzinfo=UTC)
    assert (licence.report_cadence_days, licence.report_grace_days) == (7, 3)
    assert str(licence.max_release_date) == "2026-12-31"


@pytest.mark.parametrize(
    ("tier", "options", "expected"),
    [
        ("pro", ["--inferences-per-month", "5000"], (5000, 0, Overage.BILLED)),
        ("free", ["--inferences-per-month", "5000"], (0, 5000, Overage.NONE)),
        ("free", ["--overage", "billed"], (100_000, 0, Overage.BILLED)),
        ("pro", ["--inferences-per-month", "5000", "--overage", "none"], (0, 5000, Overage.NONE)),
        (
            "pro",
            ["--inferences-per-month", "1001", "--overage", "capped", "--ratio-percent", "150"],
            (1001, 1501, Overage.CAPPED),
        ),
    ],
)
def test_the_quota_follows_the_overage(
    vendor: Vendor, tier: str, options: list[str], expected: tuple[int, int, Overage]
) -> None:
    answer = vendor("licence", "issue", "--development", "--tier", tier, "--customer", "X", *options)
    terms = opened(answer.out).licence.terms
    assert (terms.inferences_included, terms.inferences_refused, terms.overage) == expected


def test_a_bound_licence_carries_its_fingerprint(vendor: Vendor) -> None:
    answer = vendor(*ISSUE, "--bind", f"machine-id={'a' * 64}", "--bind", "first-mac=00ff", "--match", "all")
    bound = opened(answer.out).licence.fingerprint
    assert bound is not None
    assert (dict(bound.components), bound.match.value) == (
        {"machine-id": "a" * 64, "first-mac": "00ff"},
        "all",
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--customer", ""], "customer"),
        (["--customer", "a\nb"], "customer"),
        (["--customer", "x" * 201], "customer"),
        (["--feature", "No Such"], "features"),
        (["--bind", "serial=00"], "component"),
        (["--bind", "machine-id"], "machine-id"),
        (["--bind", f"machine-id={'a' * 64}", "--match", "operator"], "operator"),
        (["--ratio-percent", "150"], "ratio_percent"),
        (["--overage", "capped"], "capped"),
        (["--overage", "capped", "--inferences-per-month", "10", "--ratio-percent", "50"], "capped"),
        (["--starts", "2199-12-31", "--days", "3660"], "expires_at"),
        (["--starts", "9999-12-31", "--days", "3660"], "future"),
        (["--gpus", "10000000000000000"], "gpus"),
        (["--days", "0"], "days"),
        (["--gpus", "-1"], "gpus"),
        (["--tier", "gold"], "tier"),
        (["--starts", "soon"], "starts"),
    ],
)
def test_an_order_that_makes_no_licence_is_refused(vendor: Vendor, options: list[str], says: str) -> None:
    answer = vendor(*ISSUE, *options)
    assert answer.code == Exit.USAGE
    assert says in answer.err
    assert "hint:" in answer.err
    assert answer.out == ""


def test_sequences_of_a_directory_go_up_by_one(
    vendor: Vendor, directory: Path, passphrase_file: Path
) -> None:
    found = [
        vendor(
            "--json", "licence", "issue", "--dir", directory, "--passphrase-file", passphrase_file,
            "--tier", "pro", "--customer", name,
        ).json["licence"]
        for name in ("One", "Two")
    ]  # fmt: skip
    assert [claims["sequence"] for claims in found] == [1, 2]
    assert {claims["kind"] for claims in found} == {"paid"}
    listed = vendor("--json", "licence", "list", "--dir", directory).json
    assert [(entry["sequence"], entry["customer"]) for entry in listed] == [(1, "One"), (2, "Two")]
    assert "Two" in vendor("licence", "list", "--dir", directory).out


def test_development_licences_follow_each_other_without_a_directory(
    vendor: Vendor, clock: FixedClock
) -> None:
    first = vendor("--json", *ISSUE).json["licence"]["sequence"]
    clock.advance(0.001)
    assert vendor("--json", *ISSUE).json["licence"]["sequence"] > first


def test_a_licence_of_a_directory_opens_under_its_anchors_only(
    vendor: Vendor, directory: Path, passphrase_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "licence.txt"
    options = ["--dir", directory, "--passphrase-file", passphrase_file, "--output", file]
    assert vendor("licence", "issue", "--tier", "enterprise", "--customer", "X", *options).code == 0
    anchors = parse_anchors((directory / "anchors" / "production.json").read_bytes())
    assert open_licence(file.read_bytes(), anchors.keyring).licence.tier is Tier.ENTERPRISE
    shown = vendor("--json", "licence", "show", "--dir", directory, file)
    assert shown.json["licence"]["customer"] == "X"
    assert vendor("licence", "show", "--development", file).code == Exit.SIGNATURE


def test_an_existing_file_is_never_overwritten(vendor: Vendor, tmp_path: Path) -> None:
    file = tmp_path / "licence.txt"
    assert vendor(*ISSUE, "--output", file).code == 0
    before = file.read_bytes()
    assert vendor(*ISSUE, "--output", file).code == Exit.CHECK_FAILED
    assert file.read_bytes() == before


def test_a_licence_that_could_not_be_written_is_not_in_the_books(
    vendor: Vendor, directory: Path, passphrase_file: Path, tmp_path: Path
) -> None:
    answer = vendor(
        "licence", "issue", "--dir", directory, "--passphrase-file", passphrase_file, "--tier", "pro",
        "--customer", "X", "--output", tmp_path / "missing" / "licence.txt",
    )  # fmt: skip
    assert answer.code == Exit.CHECK_FAILED
    assert vendor("--json", "licence", "list", "--dir", directory).json == []


def test_a_wrong_passphrase_says_so(vendor: Vendor, directory: Path, passphrase_file: Path) -> None:
    passphrase_file.write_text("another passphrase of some length\n")
    answer = vendor(
        "licence", "issue", "--dir", directory, "--passphrase-file", passphrase_file, "--tier", "pro",
        "--customer", "X",
    )  # fmt: skip
    assert answer.code == Exit.USAGE
    assert "the passphrase does not open" in answer.err
    assert "check the passphrase" in answer.err


def test_an_issuing_key_that_has_ended_is_to_be_rotated(
    vendor: Vendor, directory: Path, passphrase_file: Path, clock: FixedClock
) -> None:
    clock.set_wall(datetime(2030, 1, 1, tzinfo=UTC))
    answer = vendor(
        "licence", "issue", "--dir", directory, "--passphrase-file", passphrase_file, "--tier", "pro",
        "--customer", "X",
    )  # fmt: skip
    assert answer.code == Exit.SIGNATURE
    assert "keyring rotate" in answer.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["licence", "issue", "--tier", "pro", "--customer", "X"],
        ["licence", "show", "file"],
        ["licence", "list"],
        ["report", "verify", "file"],
        ["licence", "issue", "--development"],
        ["no-such-command"],
        ["licence", "issue", "--no-such-option"],
        [],
    ],
)
def test_a_command_that_is_not_complete_is_a_usage_error(vendor: Vendor, arguments: list[str]) -> None:
    answer = vendor(*arguments)
    assert answer.code == Exit.USAGE
    assert "hint:" in answer.err or "Usage:" in answer.out + answer.err


def test_a_directory_that_is_none_is_told(vendor: Vendor, tmp_path: Path) -> None:
    for arguments in (["licence", "list"], ["licence", "issue", "--tier", "pro", "--customer", "X"]):
        answer = vendor(*arguments, "--dir", tmp_path / "nowhere")
        assert answer.code == Exit.CHECK_FAILED
        assert "root init" in answer.err
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff" * 10, b"x" * 3_000_000])
def test_what_is_no_licence_is_not_shown(vendor: Vendor, tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)
    assert vendor("licence", "show", "--development", file).code in {Exit.SIGNATURE, Exit.CHECK_FAILED}


def test_failures_are_json_where_json_is_asked_for(vendor: Vendor, tmp_path: Path) -> None:
    answer = vendor("--json", "licence", "show", "--development", tmp_path / "nothing")
    problem = json.loads(answer.err)["error"]
    assert (problem["code"], bool(problem["hint"])) == ("file_unreadable", True)
    assert answer.out == ""


def test_a_damaged_book_is_told_and_kept(vendor: Vendor, directory: Path) -> None:
    (directory / "vendor.db").write_bytes(b"not a database, and longer than a header would be " * 100)
    answer = vendor("licence", "list", "--dir", directory)
    assert answer.code == Exit.CHECK_FAILED
    assert "vendor.db" in answer.err
    assert (directory / "vendor.db").exists()


def test_a_customers_name_cannot_steer_the_terminal(vendor: Vendor) -> None:
    assert vendor(*ISSUE, "--customer", "\x1b[31mred").code == Exit.USAGE
