"""Billing real reports of an appliance: whole months once, later reports as corrections, nothing twice."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.foundation.clock import from_ns, to_ns
from lotabotsd.foundation.errors import Exit
from lotabotsd.usage.bill_lines import line_json
from lotabotsd.usage.drain import Drainer
from lotabotsd.usage.month_usage import recorded_from, usage_of_month
from lotabotsd.usage.rate_card import parse_rate_card
from lotabotsd.usage.rating import Plan, rate_month, usage_by_month
from lotabotsd.usage.report import LicenceFacts
from lotabotsd.usage.windows import HOUR

Vendor = Callable[..., Any]
CARD = Path(__file__).resolve().parents[1] / "golden" / "rate-card" / "standard.json"
MARCH, APRIL = datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC)  # their ends


@pytest.fixture
def licence(vendor: Vendor, directory: Path, passphrase_file: Path) -> LicenceFacts:
    """A paid licence with a rate card in the vendor's books."""
    issued = vendor(
        "--json", "licence", "issue", "--dir", directory, "--passphrase-file", passphrase_file,
        "--tier", "pro", "--customer", "Example GmbH", "--rate-card", CARD,
    )  # fmt: skip
    return LicenceFacts(issued.json["licence"]["licence_id"], "pro", "Example GmbH")


@pytest.fixture
def appliance(make_metered: Callable[..., Any], licence: LicenceFacts) -> Any:
    return make_metered("apl_test", licence)


@pytest.fixture
def verified(vendor: Vendor, directory: Path) -> Callable[[Path], Path]:
    def verify(file: Path) -> Path:
        assert vendor("report", "verify", "--dir", directory, file).code in (Exit.OK, Exit.WARNINGS)
        return file

    return verify


def total(lines: str) -> Decimal:
    return sum((Decimal(json.loads(line)["amount"]) for line in lines.splitlines()), Decimal(0))


def test_a_month_is_billed_once_and_again_gives_the_same_bytes(
    vendor: Vendor, directory: Path, appliance: Any, verified: Any
) -> None:
    appliance.use(110_000)
    appliance.use(5_000, "org_archive", "page_segmentation")
    report = verified(appliance.report(MARCH))
    first = vendor("rate", "--dir", directory, report)
    assert first.code == Exit.OK, first.err
    # 10 000 free, 100 000 at 1.90 per 1 000 (2.00 less 5 %), and 5 000 at 3.80.
    assert total(first.out) == Decimal("209.00")
    assert "3 lines, 3 of them new; total 209.00 EUR" in first.err
    second = vendor("rate", "--dir", directory, report)
    assert second.out == first.out
    assert "3 lines, 0 of them new" in second.err


def test_a_card_sent_with_an_acknowledgement_bills_the_months_that_it_is_for(
    vendor: Vendor, directory: Path, passphrase_file: Path, appliance: Any, verified: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    keys = ("--dir", directory, "--passphrase-file", passphrase_file)
    first = verified(appliance.report(MARCH))
    value = json.loads(CARD.read_bytes())
    value.update(card_id="dearer", valid_from="2026-04-01T00:00:00Z", minimum="99.00")
    plain, signed = tmp_path / "plain.json", tmp_path / "card.txt"
    plain.write_text(json.dumps(value))
    assert vendor("rate-card", "sign", *keys, "--output", signed, plain).code == Exit.OK
    answer = vendor("ack", "issue", *keys, "--rate-card", signed, first)
    assert answer.code == Exit.OK, answer.err
    again = vendor("ack", "issue", *keys, first)
    assert again.out == answer.out
    second = verified(appliance.report(datetime(2026, 5, 1, tzinfo=UTC)))
    assert total(vendor("rate", "--dir", directory, first).out) == Decimal("50.00")
    assert total(vendor("rate", "--dir", directory, "--month", "2026-04", second).out) == Decimal("99.00")


def test_the_ledger_and_the_report_give_the_same_lines(
    vendor: Vendor, directory: Path, appliance: Any, verified: Any
) -> None:
    for number in range(5):
        appliance.use(20_000 + number, f"org_{number % 2}")
        appliance.clock.advance(HOUR)
        appliance.seal()
    appliance.use(70_000)  # not sealed yet
    Drainer(appliance.path / "journal", appliance.ledger, appliance.clock, batch_records=9).drain_once()
    here = usage_of_month(appliance.ledger, 202603)
    card = parse_rate_card(CARD.read_bytes())
    preview = b"".join(
        line_json(line) + b"\n" for line in rate_month(here, card, Plan("pro", 0), 202603, "apl_test")
    )
    report = verified(appliance.report(MARCH))
    assert vendor("rate", "--dir", directory, report).out.encode() == preview
    assert usage_of_month(appliance.ledger, 202603) == here
    assert usage_by_month(stored.row for stored in appliance.ledger.rows()) == {202603: here}
    assert usage_of_month(appliance.ledger, 202604) == {}
    assert recorded_from(appliance.ledger) == int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp())


def test_what_came_too_late_is_a_correction_of_its_month(
    vendor: Vendor, directory: Path, appliance: Any, verified: Any
) -> None:
    appliance.use(60_000)
    appliance.clock.set_wall(datetime(2026, 3, 31, 23, 30, tzinfo=UTC))
    late, then = appliance.begin(), appliance.clock.wall_ns()
    march = verified(appliance.report(MARCH))
    first = vendor("rate", "--dir", directory, march)
    assert total(first.out) == Decimal("95.00")
    appliance.finish(late, 30_000, wall_ns=then)
    appliance.use(40_000)
    april = verified(appliance.report(APRIL))
    both = vendor("rate", "--dir", directory, april)
    lines = [json.loads(line) for line in both.out.splitlines()]
    assert both.out.startswith(first.out)
    for month, inferences in ((202603, 90_000), (202604, 40_000)):
        [used] = usage_of_month(appliance.ledger, month).values()
        assert used.inferences == inferences
    [correction] = [line for line in lines if line["kind"] == "correction"]
    assert (correction["month"], correction["billing_month"]) == ("2026-03", "2026-05")
    assert (correction["raw_quantity"], correction["amount"]) == (30_000, "57.00")
    assert total("".join(json.dumps(line) + "\n" for line in lines if line["month"] == "2026-04")) == 57
    assert vendor("rate", "--dir", directory, march, april).out == both.out
    focus = list(csv.DictReader(io.StringIO(
        vendor("rate", "--dir", directory, "--format", "focus", "--month", "2026-03", april).out
    )))  # fmt: skip
    assert [row["ChargeClass"] for row in focus] == ["", "", "Correction"]
    assert {row["ChargePeriodStart"] for row in focus} == {"2026-03-01T00:00:00Z"}
    assert focus[-1]["BillingPeriodStart"] == "2026-05-01T00:00:00Z"
    assert {row["SubAccountName"] for row in focus} == {"Research"}


def test_a_month_that_goes_on_is_not_billed_unless_asked(
    vendor: Vendor, directory: Path, appliance: Any, verified: Any
) -> None:
    appliance.use(60_000)
    early = verified(appliance.report(datetime(2026, 3, 20, tzinfo=UTC)))
    answer = vendor("rate", "--dir", directory, early)
    assert (answer.code, answer.out) == (Exit.OK, "")
    assert "2026-03 of apl_test: not billed yet: its reports end at 2026-03-20T00:00:00Z" in answer.err
    appliance.use(10_000)
    rest = verified(appliance.report(MARCH))
    whole = vendor("rate", "--dir", directory, rest)
    assert total(whole.out) == Decimal("114.00")  # both reports: 60 000 of 70 000
    assert '"kind":"correction"' not in whole.out


def test_the_last_month_of_a_customer_can_be_billed(
    vendor: Vendor, directory: Path, appliance: Any, verified: Any
) -> None:
    appliance.use(60_000)
    early = verified(appliance.report(datetime(2026, 3, 20, tzinfo=UTC)))
    answer = vendor("rate", "--dir", directory, "--incomplete", early)
    assert total(answer.out) == Decimal("95.00")


def test_a_report_left_out_is_asked_for(
    vendor: Vendor, directory: Path, appliance: Any, verified: Any
) -> None:
    appliance.use(60_000)
    verified(appliance.report(datetime(2026, 3, 20, tzinfo=UTC)))
    rest = verified(appliance.report(MARCH))
    answer = vendor("rate", "--dir", directory, rest)
    assert answer.code == Exit.CHECK_FAILED
    assert "report 1 of apl_test also is about 2026-03" in answer.err
    assert sqlite3.connect(directory / "billing.db").execute("SELECT count(*) FROM reports").fetchone() == (
        0,
    )


def test_a_month_with_a_hole_waits_for_the_report_that_is_missing(
    vendor: Vendor, directory: Path, appliance: Any, verified: Any
) -> None:
    first = verified(appliance.report(datetime(2026, 3, 10, tzinfo=UTC)))
    appliance.use(60_000)
    missing = appliance.report(datetime(2026, 3, 20, tzinfo=UTC))
    last = verified(appliance.report(MARCH))
    answer = vendor("rate", "--dir", directory, first, last)
    assert (answer.code, answer.out) == (Exit.OK, "")
    assert "nothing is reported from 2026-03-10T00:00:00Z until 2026-03-20T00:00:00Z" in answer.err
    assert total(vendor("rate", "--dir", directory, verified(missing)).out) == Decimal("95.00")


def test_a_month_with_a_hole_is_billed_where_that_is_asked_for(
    vendor: Vendor, directory: Path, appliance: Any, verified: Any
) -> None:
    first = verified(appliance.report(datetime(2026, 3, 10, tzinfo=UTC)))
    appliance.report(datetime(2026, 3, 20, tzinfo=UTC))
    last = verified(appliance.report(MARCH))
    answer = vendor("rate", "--dir", directory, "--incomplete", first, last)
    assert total(answer.out) == Decimal("50.00")  # the minimum


def test_a_month_whose_first_report_is_missing_has_a_hole_at_its_beginning(
    vendor: Vendor, directory: Path, appliance: Any, verified: Any
) -> None:
    appliance.report(datetime(2026, 3, 10, tzinfo=UTC))
    answer = vendor("rate", "--dir", directory, verified(appliance.report(MARCH)))
    assert "nothing is reported from 2026-03-01T00:00:00Z until 2026-03-10T00:00:00Z" in answer.err
    assert answer.out == ""


def test_only_verified_and_billable_reports_are_billed(
    vendor: Vendor, directory: Path, appliance: Any, verified: Any
) -> None:
    report = appliance.report(MARCH)
    answer = vendor("rate", "--dir", directory, report)
    assert answer.code == Exit.CHECK_FAILED
    assert "was not verified here" in answer.err
    appliance.development = True
    answer = vendor("rate", "--dir", directory, verified(appliance.report(APRIL)))
    assert answer.code == Exit.CHECK_FAILED
    assert "a development report is never billed" in answer.err
    report.write_bytes(report.read_bytes()[:-1])
    assert vendor("rate", "--dir", directory, report).code == Exit.SIGNATURE


def test_another_card_is_for_months_not_billed_yet(
    vendor: Vendor,
    directory: Path,
    passphrase_file: Path,
    appliance: Any,
    verified: Any,
    tmp_path: Path,
) -> None:
    body = json.loads(CARD.read_bytes())
    (tmp_path / "other.json").write_text(json.dumps({**body, "minimum": "500.00"}))
    other = tmp_path / "other.card"
    vendor("rate-card", "sign", "--dir", directory, "--passphrase-file", passphrase_file,
           "--output", other, tmp_path / "other.json")  # fmt: skip
    appliance.use(60_000)
    march = verified(appliance.report(MARCH))
    vendor("rate", "--dir", directory, march)
    answer = vendor("rate", "--dir", directory, "--card", other, march)
    assert answer.code == Exit.CHECK_FAILED
    assert "2026-03 was billed with another rate card" in answer.err
    april = verified(appliance.report(APRIL))
    assert total(vendor("rate", "--dir", directory, "--card", other, april).out) == 500
    assert vendor("rate", "--dir", directory, "--card", CARD, april).code == Exit.SIGNATURE  # not signed


def test_a_trial_under_development_remembers_nothing(vendor: Vendor, appliance: Any, tmp_path: Path) -> None:
    file = tmp_path / "demo.licence"
    vendor("licence", "issue", "--development", "--tier", "pro", "--customer", "Demo", "--rate-card", CARD,
           "--output", file)  # fmt: skip
    appliance.development = True
    appliance.use(60_000)
    report = appliance.report(datetime(2026, 3, 20, tzinfo=UTC))
    answer = vendor("rate", "--development", "--licence", file, "--format", "json", report)
    assert answer.code == Exit.OK, answer.err
    assert answer.json["totals"] == {"EUR": "95.00"}
    assert "under --development nothing is billed" in answer.err
    assert vendor("rate", "--development", report).code == Exit.USAGE


def test_the_lines_can_be_written_to_a_new_file(
    vendor: Vendor, directory: Path, appliance: Any, verified: Any, tmp_path: Path
) -> None:
    appliance.use(60_000)
    report, file = verified(appliance.report(MARCH)), tmp_path / "march.csv"
    arguments = ["rate", "--dir", directory, "--format", "csv", "--output", file, report]
    assert vendor(*arguments).code == Exit.OK
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert [(row["step"], row["raw_quantity"], row["amount"]) for row in rows] == [
        ("free", "10000", "0.00"), ("1", "50000", "95.00"),
    ]  # fmt: skip
    assert vendor(*arguments).code == Exit.CHECK_FAILED


def test_what_was_billed_cannot_be_changed(
    vendor: Vendor, directory: Path, appliance: Any, verified: Any
) -> None:
    appliance.use(60_000)
    vendor("rate", "--dir", directory, verified(appliance.report(MARCH)))
    connection = sqlite3.connect(directory / "billing.db")
    for statement in ("UPDATE lines SET month = 1", "DELETE FROM lines", "UPDATE months SET tier = 'free'",
                      "DELETE FROM months"):  # fmt: skip
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(statement)
    connection.close()


def _keys(directory: Path, passphrase_file: Path) -> tuple[object, ...]:
    return ("--dir", directory, "--passphrase-file", passphrase_file)


def test_a_rejected_report_is_not_billed_and_not_asked_for(
    vendor: Vendor, directory: Path, passphrase_file: Path, appliance: Any, verified: Any
) -> None:
    appliance.use(60_000)
    report = verified(appliance.report(MARCH))
    answer = vendor("ack", "issue", *_keys(directory, passphrase_file), "--reject", "wrong machine", report)
    assert answer.code == Exit.OK, answer.err
    refused = vendor("rate", "--dir", directory, report)
    assert (refused.code, "it was rejected" in refused.err) == (Exit.CHECK_FAILED, True)
    again = vendor("ack", "issue", *_keys(directory, passphrase_file), "--accept", report)
    assert (again.code, "was rejected before" in again.err) == (Exit.CHECK_FAILED, True)
    assert vendor("--json", "report", "verify", "--dir", directory, report).json["billable"] is False


def test_what_a_rejected_report_was_billed_is_taken_back_by_the_next_run(
    vendor: Vendor, directory: Path, passphrase_file: Path, appliance: Any, verified: Any,
    make_metered: Any, licence: LicenceFacts, clock: Any,
) -> None:  # fmt: skip
    """The copy's report came first and was billed; the genuine one follows."""
    copy = make_metered("apl_test", licence, "copy")
    start = clock.wall_ns()
    copy.use(60_000)
    first = verified(copy.report(MARCH))
    assert total(vendor("rate", "--dir", directory, first).out) == Decimal("95.00")
    clock.set_wall(from_ns(start))
    appliance.use(20_000)
    genuine = appliance.report(MARCH)
    said = vendor("--json", "report", "verify", "--dir", directory, genuine).json
    assert (said["findings"][0]["code"], said["billable"]) == ("forked", False)
    keys = _keys(directory, passphrase_file)
    assert vendor("ack", "issue", *keys, "--reject", "a copy", first).code == Exit.OK
    assert vendor("ack", "issue", *keys, "--accept", genuine).code == Exit.OK
    lines = vendor("rate", "--dir", directory, genuine)
    assert lines.code == Exit.OK, lines.err
    assert total(lines.out) == Decimal("50.00")  # 19.00, and the minimum
    assert " 0 of them new" in vendor("rate", "--dir", directory, genuine).err


def test_a_report_that_a_person_accepted_is_billed(
    vendor: Vendor, directory: Path, passphrase_file: Path, appliance: Any, verified: Any,
    make_metered: Any, licence: LicenceFacts, clock: Any,
) -> None:  # fmt: skip
    start = clock.wall_ns()
    verified(make_metered("apl_test", licence, "copy").report(MARCH))
    clock.set_wall(from_ns(start))
    appliance.use(60_000)
    report = verified(appliance.report(MARCH))
    assert "a person must decide" in vendor("rate", "--dir", directory, report).err
    keys = _keys(directory, passphrase_file)
    assert vendor("ack", "issue", *keys, "--accept", report).code == Exit.OK
    (other,) = (
        entry["report_hash"]
        for entry in vendor("--json", "report", "list", "--dir", directory).json
        if entry["acknowledged"] is None
    )
    assert vendor("ack", "issue", *keys, "--reject", "a copy", other).code == Exit.OK
    assert total(vendor("rate", "--dir", directory, report).out) == Decimal("95.00")


def test_a_month_whose_last_days_are_missing_is_not_billed_before_they_come(
    vendor: Vendor, directory: Path, appliance: Any, verified: Any
) -> None:
    first = verified(appliance.report(datetime(2026, 3, 10, tzinfo=UTC)))
    appliance.use(60_000)
    second = appliance.report(MARCH)
    third = verified(appliance.report(APRIL))
    said = vendor("rate", "--dir", directory, "--month", "2026-03", first, third)
    assert (said.code, "nothing is reported from 2026-03-10" in said.err, said.out) == (Exit.OK, True, "")
    verified(second)
    billed = vendor("rate", "--dir", directory, "--month", "2026-03", first, second, third)
    assert total(billed.out) == Decimal("95.00")


def test_a_month_that_no_report_is_about_waits_for_one(
    vendor: Vendor, directory: Path, appliance: Any, verified: Any
) -> None:
    """Rows that came too late name March; the report about March itself is not here yet."""
    opened = appliance.begin()
    missing = appliance.report(MARCH)
    appliance.finish(opened, 60_000, wall_ns=to_ns(MARCH) - 1)
    late = verified(appliance.report(APRIL))
    said = vendor("rate", "--dir", directory, "--month", "2026-03", late)
    assert (said.code, said.out) == (Exit.OK, "")
    assert "nothing is reported from 2026-03-01" in said.err
    assert total(vendor("rate", "--dir", directory, verified(missing), late).out) > 0
