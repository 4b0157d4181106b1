"""Judging a report against its predecessors: what is billed, what a person must look at, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from lotabots_vendor.history import Finding, Issued, Reported, Verdict, decided, judge

HOUR = 3_600
PAID = Issued("Example GmbH", "pro", "paid")


def report(sequence: int, **changes: Any) -> Reported:
    """The report of one hour in an unbroken chain of one appliance."""
    base = Reported(
        report_hash=f"hash{sequence}",
        appliance_id="apl_a",
        key_id="key",
        sequence=sequence,
        previous_report_hash=f"hash{sequence - 1}" if sequence > 1 else None,
        previous_head=f"head{sequence - 1}",
        head=f"head{sequence}",
        first=sequence,
        last=sequence,
        period_from=sequence * HOUR,
        period_until=(sequence + 1) * HOUR,
        licence_id="lic_1",
        customer="Example GmbH",
        tier="pro",
        development=False,
    )
    return replace(base, **changes)


def codes(verdict: Verdict) -> list[str]:
    return [finding.code for finding in verdict.findings]


def test_an_unbroken_chain_is_billed() -> None:
    seen: list[Reported] = []
    for sequence in (1, 2, 3):
        verdict = judge(report(sequence), seen, PAID, [])
        assert verdict == Verdict("valid", True, "", ())
        seen.append(report(sequence))


def test_reports_that_arrive_in_another_order_fit_together() -> None:
    assert codes(judge(report(2), [], PAID, [])) == ["report_missing"]
    assert codes(judge(report(1), [report(2)], PAID, [])) == []
    assert codes(judge(report(3), [report(2), report(1)], PAID, [])) == []


@pytest.mark.parametrize(
    ("sequence", "seen", "says", "since"),
    [
        (2, [], "report 1 of", ""),
        (4, [], "report 1 to 3 of", ""),
        (4, [1, 2], "report 3 of", "1970-01-01T03:00:00Z"),
        (5, [2, 1], "report 3 to 4 of", "1970-01-01T03:00:00Z"),
    ],
)
def test_a_gap_names_what_is_missing_and_since_when(
    sequence: int, seen: list[int], says: str, since: str
) -> None:
    verdict = judge(report(sequence), [report(number) for number in seen], PAID, [])
    (gap,) = verdict.findings
    assert (gap.code, gap.severity, gap.since) == ("report_missing", "warning", since)
    assert gap.detail.startswith(says)
    assert gap.until == report_start(sequence)
    assert (verdict.verdict, verdict.billable) == ("valid_with_findings", True)


def report_start(sequence: int) -> str:
    return f"1970-01-01T{sequence:02}:00:00Z"


def test_a_clone_is_a_fork_and_not_billed() -> None:
    clone = report(2, report_hash="other", head="other")
    verdict = judge(clone, [report(1), report(2)], PAID, [])
    assert codes(verdict) == ["forked"]
    assert (verdict.verdict, verdict.billable) == ("valid_with_findings", False)
    assert "forked" in verdict.reason
    assert verdict.findings[0].since == report_start(2)


def test_an_appliance_that_began_anew_is_a_fork() -> None:
    assert codes(judge(report(1, report_hash="other"), [report(1), report(2)], PAID, [])) == ["forked"]


@pytest.mark.parametrize("changes", [{"previous_head": "other"}, {"first": 1}, {"first": 3}], ids=str)
def test_a_ledger_that_does_not_go_on_is_a_rewind(changes: dict[str, Any]) -> None:
    verdict = judge(report(2, **changes), [report(1)], PAID, [])
    assert codes(verdict) == ["rewound"]
    assert not verdict.billable


def test_a_report_number_that_jumps_is_a_rewind() -> None:
    assert codes(judge(replace(report(2), sequence=5), [report(1)], PAID, [])) == ["rewound"]


def test_another_key_of_the_same_appliance_is_found() -> None:
    verdict = judge(report(2, key_id="new"), [report(1)], PAID, [])
    assert codes(verdict) == ["key_changed"]
    assert not verdict.billable


def test_the_same_time_in_two_reports_is_an_overlap_with_its_range() -> None:
    late = report(4, period_from=HOUR + 60)
    verdict = judge(late, [report(1)], PAID, [])
    assert codes(verdict) == ["report_missing", "overlap"]
    assert (verdict.billable, verdict.reason) == (False, "a person must decide first: overlap")
    overlap = verdict.findings[1]
    assert (overlap.severity, overlap.since, overlap.until) == (
        "error",
        "1970-01-01T01:01:00Z",
        "1970-01-01T02:00:00Z",
    )
    assert overlap.detail.startswith("report 1 is about the same time or rows")


def test_periods_that_only_touch_do_not_overlap() -> None:
    assert codes(judge(report(4, period_from=2 * HOUR), [report(1)], PAID, [])) == ["report_missing"]


@pytest.mark.parametrize(
    ("first", "last", "overlaps"), [(2, 4, False), (1, 4, True), (0, 1, True), (1, 1, True)]
)
def test_the_same_rows_in_two_reports_are_an_overlap_even_at_other_times(
    first: int, last: int, overlaps: bool
) -> None:
    verdict = judge(report(4, first=first, last=last), [report(1)], PAID, [])
    assert ("overlap" in codes(verdict)) is overlaps
    if overlaps:
        found = verdict.findings[-1]
        assert (found.since, found.until) == (report_start(4), report_start(5))


def test_a_report_that_overlaps_many_says_so_once() -> None:
    wide = report(9, period_from=HOUR, period_until=10 * HOUR)
    overlap = judge(wide, [report(n) for n in (1, 2, 3)], PAID, []).findings[-1]
    assert overlap.detail.startswith("report 1 and 2 more is about")
    assert (overlap.since, overlap.until) == (report_start(1), report_start(4))


def test_a_report_that_follows_the_right_one_too_early_overlaps_it() -> None:
    assert codes(judge(report(2, period_from=2 * HOUR - 1), [report(1)], PAID, [])) == ["overlap"]


def test_time_that_no_report_is_about_is_found_with_its_range() -> None:
    verdict = judge(report(2, period_from=2 * HOUR + 60), [report(1)], PAID, [])
    (gap,) = verdict.findings
    assert (gap.code, gap.severity, gap.since, gap.until) == (
        "time_missing",
        "warning",
        "1970-01-01T02:00:00Z",
        "1970-01-01T02:01:00Z",
    )
    assert verdict.billable


def test_a_clone_whose_sibling_comes_first_is_found_by_the_report_after_it() -> None:
    """Report 3 of one history is here, then report 2 of the other: no number and no predecessor is double."""
    verdict = judge(report(2, report_hash="other", head="other"), [report(1), report(3)], PAID, [])
    assert codes(verdict) == ["forked"]
    assert "is the next one and follows another" in verdict.findings[0].detail
    after = judge(report(3, previous_report_hash="other"), [report(2)], PAID, [])
    assert codes(after) == ["forked"]
    assert "is the one before and is not named" in after.findings[0].detail


def test_a_missing_report_that_does_not_fit_the_one_after_it_is_a_rewind() -> None:
    verdict = judge(report(2, last=5), [report(1), report(3)], PAID, [])
    assert codes(verdict) == ["rewound"]
    assert "report 3 does not go on where it ended" in verdict.findings[0].detail


def test_a_development_report_is_valid_and_never_billed() -> None:
    told = [Finding("development", "warning", "made under the development root")]
    for issued in (None, PAID):
        verdict = judge(report(1, development=True), [], issued, told)
        assert (verdict.verdict, verdict.billable, codes(verdict)) == ("valid", False, ["development"])
        assert "development" in verdict.reason


def test_the_free_tier_is_not_billed() -> None:
    verdict = judge(report(1, licence_id="", customer="", tier=""), [], None, [])
    assert (verdict.verdict, verdict.billable, codes(verdict)) == ("valid", False, ["no_licence"])


def test_a_licence_that_was_issued_elsewhere_is_not_billed() -> None:
    verdict = judge(report(1), [], None, [])
    assert (verdict.verdict, verdict.billable) == ("valid_with_findings", False)
    assert codes(verdict) == ["licence_unknown"]


@pytest.mark.parametrize("kind", ["trial", "development"])
def test_a_licence_that_nobody_paid_for_is_not_billed(kind: str) -> None:
    verdict = judge(report(1), [], replace(PAID, kind=kind), [])
    assert (verdict.verdict, verdict.billable) == ("valid", False)
    assert kind in verdict.reason


def test_an_expired_licence_is_reported_with_the_free_tier_and_billed() -> None:
    assert judge(report(1, tier="free"), [], PAID, []) == Verdict("valid", True, "", ())


@pytest.mark.parametrize("changes", [{"customer": "Another"}, {"tier": "enterprise"}], ids=str)
def test_a_licence_of_another_customer_is_found(changes: dict[str, str]) -> None:
    verdict = judge(report(1, **changes), [], PAID, [])
    assert codes(verdict) == ["licence_mismatch"]
    assert not verdict.billable


def test_findings_of_the_file_itself_come_first_and_count() -> None:
    note = Finding("late_rows", "note", "")
    warning = Finding("clock", "warning", "")
    assert judge(report(1), [], PAID, [note]).verdict == "valid"
    verdict = judge(report(2), [], PAID, [warning])
    assert (verdict.verdict, verdict.billable) == ("valid_with_findings", True)
    assert codes(verdict) == ["clock", "report_missing"]


def test_what_follows_a_rejected_report_is_a_fork_and_the_genuine_one_is_not() -> None:
    rejected = report(2, report_hash="copy")
    following = report(3, previous_report_hash="copy", report_hash="copy 3")
    verdict = judge(following, [report(1), report(2)], PAID, [], rejected={rejected.report_hash})
    assert [finding.code for finding in verdict.findings] == ["forked"]
    assert "which was rejected" in verdict.findings[0].detail
    assert judge(report(3), [report(1), report(2)], PAID, [], rejected={"copy"}).verdict == "valid"


def test_a_persons_answer_decides_what_waits_and_nothing_else() -> None:
    forked = judge(report(2, report_hash="other", head="other"), [report(1), report(2)], PAID, [])
    assert (decided(forked, "").billable, decided(forked, "accepted_with_findings").billable) == (False, True)
    assert decided(forked, "rejected").reason == "it was rejected"
    trial = judge(report(1), [], replace(PAID, kind="trial"), [])
    assert decided(trial, "accepted").billable is False
    good = judge(report(1), [], PAID, [])
    assert (decided(good, "accepted").billable, decided(good, "rejected").billable) == (True, False)
