"""Verifying real reports of an appliance: once, twice, damaged, cloned, and those of development."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.foundation.clock import NANOSECONDS, FixedClock
from lotabotsd.foundation.errors import Exit
from lotabotsd.usage.reconciliation import Count, Look, State, compare
from lotabotsd.usage.report import LicenceFacts

Vendor = Callable[..., Any]


@pytest.fixture
def licence(vendor: Vendor, directory: Path, passphrase_file: Path) -> LicenceFacts:
    """A paid licence in the vendor's books."""
    issued = vendor(
        "--json", "licence", "issue", "--dir", directory, "--passphrase-file", passphrase_file,
        "--tier", "pro", "--customer", "Example GmbH",
    )  # fmt: skip
    return LicenceFacts(issued.json["licence"]["licence_id"], "pro", "Example GmbH")


@pytest.fixture
def appliance(make_appliance: Callable[..., Any], licence: LicenceFacts) -> Any:
    return make_appliance("appliance", licence)


def test_a_months_reports_are_valid_and_billable(vendor: Vendor, directory: Path, appliance: Any) -> None:
    for sequence in (1, 2):
        answer = vendor("--json", "report", "verify", "--dir", directory, appliance.report())
        assert answer.code == Exit.OK, answer.out
        found = answer.json
        assert (found["verdict"], found["billable"], found["sequence"]) == ("valid", True, sequence)
        assert found["already_verified"] is None
        assert found["findings"] == []
        assert found["licence"]["customer"] == "Example GmbH"


def test_the_second_time_says_what_was_said_and_when(
    vendor: Vendor, directory: Path, appliance: Any, clock: FixedClock
) -> None:
    file = appliance.report()
    first = vendor("--json", "report", "verify", "--dir", directory, file).json
    clock.advance(86_400)
    second = vendor("--json", "report", "verify", "--dir", directory, file)
    assert second.code == Exit.OK
    assert second.json == {**first, "already_verified": "2026-03-01T14:00:00Z"}
    text = vendor("report", "verify", "--dir", directory, file).out
    assert "valid (already verified on 2026-03-01T14:00:00Z)" in text
    assert "billable   yes" in text


def test_what_triton_ran_beyond_the_ledger_is_told_and_still_billed(
    vendor: Vendor, directory: Path, appliance: Any, clock: FixedClock
) -> None:
    now = clock.wall_ns() // NANOSECONDS
    begun = compare(State(), Look(now, "", {}, {}, {}, {}, {}))
    around = Look(now + 60, "run", {}, {}, {"hidden": {"1": Count(3, 9)}}, {}, {})
    appliance.compared = compare(begun, around)
    answer = vendor("report", "verify", "--dir", directory, appliance.report(1))
    assert answer.code == Exit.WARNINGS
    assert "billable   yes" in answer.out
    assert (
        "warning: unaccounted: 1 model(s) without usage in this report: Triton ran at least 3 requests with "
        "9 inferences that the ledger does not hold (2026-03-01T12:00:00Z until 2026-03-01T12:01:00Z)"
    ) in answer.out


def test_an_appliance_that_never_looked_at_triton_gets_a_note(
    vendor: Vendor, directory: Path, appliance: Any
) -> None:
    appliance.compared = State()
    answer = vendor("report", "verify", "--dir", directory, appliance.report())
    assert answer.code == Exit.OK
    assert "note: not_compared: Triton's counters were never read: nothing was compared" in answer.out


def test_a_missing_report_is_a_gap_with_its_time(vendor: Vendor, directory: Path, appliance: Any) -> None:
    vendor("report", "verify", "--dir", directory, appliance.report())
    appliance.report()
    answer = vendor("report", "verify", "--dir", directory, appliance.report())
    assert answer.code == Exit.WARNINGS
    assert "warning: report_missing: report 2 of this appliance" in answer.out
    assert "(2026-03-01T14:00:00Z until 2026-03-01T16:00:00Z)" in answer.out


def test_a_cloned_appliance_is_found(
    vendor: Vendor, directory: Path, appliance: Any, make_appliance: Callable[..., Any]
) -> None:
    vendor("report", "verify", "--dir", directory, appliance.report())
    clone = make_appliance("clone", appliance.licence)
    answer = vendor("report", "verify", "--dir", directory, clone.report(3))
    assert answer.code == Exit.WARNINGS
    assert "error: forked" in answer.out
    assert "billable   no: a person must decide first: forked" in answer.out


def test_a_development_report_is_valid_and_not_billed(
    vendor: Vendor, directory: Path, appliance: Any
) -> None:
    appliance.development = True
    file = appliance.report()
    for where in (["--development"], ["--dir", directory], ["--dir", directory, "--development"]):
        answer = vendor("report", "verify", *where, file)
        assert answer.code == Exit.OK, answer.out + answer.err
        assert answer.out.startswith("verdict    valid")
        assert "billable   no: a development report is never billed" in answer.out


def test_without_a_directory_nothing_is_remembered(vendor: Vendor, appliance: Any) -> None:
    file = appliance.report()
    for _ in range(2):
        answer = vendor("--json", "report", "verify", "--development", file)
        assert answer.json["already_verified"] is None
        assert answer.json["billable"] is False


def test_development_books_may_be_kept_in_any_directory(
    vendor: Vendor, appliance: Any, tmp_path: Path
) -> None:
    appliance.development = True
    file, books = appliance.report(), tmp_path / "books"
    books.mkdir()
    arguments = ["--json", "report", "verify", "--development", "--dir", books, file]
    assert vendor(*arguments).json["already_verified"] is None
    assert vendor(*arguments).json["already_verified"] == "2026-03-01T14:00:00Z"


def test_a_free_appliance_is_not_billed(vendor: Vendor, directory: Path, appliance: Any) -> None:
    appliance.licence = None
    answer = vendor("--json", "report", "verify", "--dir", directory, appliance.report())
    assert (answer.code, answer.json["billable"], answer.json["licence"]) == (Exit.OK, False, None)


def test_a_forged_licence_is_not_billed(vendor: Vendor, directory: Path, appliance: Any) -> None:
    appliance.licence = LicenceFacts("lic_0000000000000000", "enterprise", "Example GmbH")
    answer = vendor("report", "verify", "--dir", directory, appliance.report())
    assert answer.code == Exit.WARNINGS
    assert "billable   no: its licence was not issued here" in answer.out


def test_what_no_appliance_wrote_is_invalid_and_not_remembered(
    vendor: Vendor, directory: Path, appliance: Any
) -> None:
    file = appliance.report()
    whole = file.read_bytes()
    middle = len(whole) // 2
    for data in (b"", b"PK", whole[:-1], whole + b"\0", whole[:middle] + b"\xff" + whole[middle + 1 :]):
        file.write_bytes(data)
        answer = vendor("--json", "report", "verify", "--dir", directory, file)
        assert answer.code == Exit.SIGNATURE
        assert (answer.json["verdict"], answer.json["billable"]) == ("invalid", False)
        assert answer.json["findings"]
    assert "hint:" in vendor("report", "verify", "--dir", directory, file).out
    file.write_bytes(whole)
    assert vendor("--json", "report", "verify", "--dir", directory, file).json["already_verified"] is None


def test_a_file_that_is_not_there_is_told(vendor: Vendor, directory: Path, tmp_path: Path) -> None:
    answer = vendor("report", "verify", "--dir", directory, tmp_path / "nothing.zip")
    assert answer.code == Exit.CHECK_FAILED
    assert "nothing.zip" in answer.err


def test_books_in_a_directory_that_is_none_are_not_begun(
    vendor: Vendor, appliance: Any, tmp_path: Path
) -> None:
    answer = vendor("report", "verify", "--dir", tmp_path / "none", appliance.report())
    assert answer.code == Exit.CHECK_FAILED
    assert not (tmp_path / "none").exists()
    missing = vendor("report", "verify", "--development", "--dir", tmp_path / "none", appliance.report())
    assert missing.code == Exit.CHECK_FAILED
    assert "hint:" in missing.err
