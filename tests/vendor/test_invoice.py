"""One customer's bill over several appliances: what was billed, sums, corrections, and what is missing."""

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

from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.errors import Exit
from lotabotsd.usage.report import LicenceFacts

Vendor = Callable[..., Any]
CARD = Path(__file__).resolve().parents[1] / "golden" / "rate-card" / "standard.json"
# The ends of March and April; the clock of these tests begins on 1 March 2026.
MARCH, APRIL = datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def issue(vendor: Vendor, directory: Path, passphrase_file: Path) -> Callable[..., LicenceFacts]:
    def issued(customer: str, *options: object) -> LicenceFacts:
        made = vendor(
            "--json", "licence", "issue", "--dir", directory, "--passphrase-file", passphrase_file,
            "--tier", "pro", "--customer", customer, *(options or ("--rate-card", CARD)),
        )  # fmt: skip
        assert made.code == Exit.OK, made.err
        return LicenceFacts(made.json["licence"]["licence_id"], "pro", customer)

    return issued


@pytest.fixture
def verified(vendor: Vendor, directory: Path) -> Callable[[Path], Path]:
    def verify(file: Path) -> Path:
        assert vendor("report", "verify", "--dir", directory, file).code in (Exit.OK, Exit.WARNINGS)
        return file

    return verify


@pytest.fixture
def rate(vendor: Vendor, directory: Path) -> Callable[..., Any]:
    def rated(*arguments: object) -> Any:
        answer = vendor("rate", "--dir", directory, *arguments)
        assert answer.code == Exit.OK, answer.err
        return answer

    return rated


@pytest.fixture
def invoice(vendor: Vendor, directory: Path) -> Callable[..., Any]:
    def printed(*options: object, month: str = "2026-03", customer: str = "Example GmbH") -> Any:
        return vendor("invoice", "--dir", directory, "--customer", customer, "--month", month, *options)

    return printed


@pytest.fixture
def two(
    make_metered: Callable[..., Any], issue: Callable[..., LicenceFacts], clock: FixedClock,
    verified: Callable[[Path], Path],
) -> tuple[Path, Path, Any, Any]:  # fmt: skip
    """Two appliances of one customer, one with 60 000 and one with 40 000 inferences in March."""
    licence = issue("Example GmbH")
    start = datetime(2026, 3, 1, 12, tzinfo=UTC)
    one, other = make_metered("apl_a", licence), make_metered("apl_b", licence)
    one.use(60_000)
    other.use(40_000)
    reports = []
    for appliance in (one, other):
        clock.set_wall(start)
        reports.append(verified(appliance.report(MARCH)))
    return reports[0], reports[1], one, other


def pending(answer: Any) -> list[str]:
    return [f"{one['subject']}: {one['why']}" for one in json.loads(answer.out)["not_billed"]]


def test_the_invoice_adds_up_what_each_appliance_was_billed(
    two: Any, rate: Callable[..., Any], invoice: Callable[..., Any]
) -> None:
    lines = rate(two[0]).out + rate(two[1]).out
    answer = invoice("--format", "json")
    assert answer.code == Exit.OK, answer.out
    found = answer.json
    # 10 000 are free on each appliance; 50 000 and 30 000 at 1.90 per 1 000.
    assert [(part["appliance"], part["subtotals"]) for part in found["appliances"]] == [
        ("apl_a", {"EUR": "95.00"}),
        ("apl_b", {"EUR": "57.00"}),
    ]
    assert (found["totals"], found["not_billed"]) == ({"EUR": "152.00"}, [])
    assert (found["customer"], found["month"]) == ("Example GmbH", "2026-03")
    assert invoice("--format", "lines").out == lines, "the same bytes as rate"
    rows = list(csv.DictReader(io.StringIO(invoice("--format", "csv").out)))
    assert sum(Decimal(row["amount"]) for row in rows) == Decimal(152)
    text = invoice().out
    assert "subtotal of apl_b" in text
    assert text.rstrip().endswith("152.00 EUR")
    assert "Research" in text
    assert "not billed" not in text


def test_the_invoice_bills_and_remembers_nothing(
    two: Any, rate: Callable[..., Any], invoice: Callable[..., Any], directory: Path
) -> None:
    assert invoice().code == Exit.WARNINGS
    assert not (directory / "billing.db").exists()
    rate(two[0])

    def content() -> list[str]:
        with sqlite3.connect(directory / "billing.db") as connection:
            return list(connection.iterdump())

    before = content()
    first = invoice("--format", "json")
    assert first.out == invoice("--format", "json").out
    assert content() == before


def test_another_customers_appliances_are_not_on_it(
    two: Any, rate: Callable[..., Any], invoice: Callable[..., Any], issue: Callable[..., LicenceFacts],
    make_metered: Callable[..., Any], clock: FixedClock, verified: Callable[[Path], Path],
) -> None:  # fmt: skip
    clock.set_wall(datetime(2026, 3, 2, tzinfo=UTC))
    other = make_metered("apl_c", issue("Other Works"))
    other.use(12_000)
    rate(two[0], two[1], verified(other.report(MARCH)))
    assert invoice("--format", "json").json["totals"] == {"EUR": "152.00"}
    found = invoice("--format", "json", customer="other works").json
    assert (found["customer"], found["totals"]) == ("Other Works", {"EUR": "50.00"})  # the minimum


def test_an_appliance_that_changes_hands_is_on_the_invoice_of_whose_it_was_that_month(
    two: Any, rate: Callable[..., Any], invoice: Callable[..., Any], issue: Callable[..., LicenceFacts],
    verified: Callable[[Path], Path],
) -> None:  # fmt: skip
    _, _, one, _ = two
    rate(two[0], two[1])
    one.licence = issue("Other Works")
    one.use(11_000)
    rate(verified(one.report(APRIL)))
    assert invoice("--format", "json").json["totals"] == {"EUR": "152.00"}
    april = invoice("--format", "json", month="2026-04", customer="Other Works").json
    assert [(p["appliance"], p["subtotals"]) for p in april["appliances"]] == [("apl_a", {"EUR": "50.00"})]
    assert invoice("--format", "json", month="2026-04").json["appliances"] == []


def test_a_correction_is_on_the_invoice_of_the_month_that_bills_it_and_names_the_month_it_corrects(
    make_metered: Callable[..., Any], issue: Callable[..., LicenceFacts], clock: FixedClock,
    verified: Callable[[Path], Path], rate: Callable[..., Any], invoice: Callable[..., Any],
) -> None:  # fmt: skip
    appliance = make_metered("apl_a", issue("Example GmbH"))
    appliance.use(60_000)
    clock.set_wall(datetime(2026, 3, 31, 23, 30, tzinfo=UTC))
    late, then = appliance.begin(), clock.wall_ns()
    rate(verified(appliance.report(MARCH)))
    appliance.finish(late, 30_000, wall_ns=then)
    appliance.use(40_000)
    rate(verified(appliance.report(APRIL)))  # on 1 May
    assert invoice("--format", "json").json["totals"] == {"EUR": "95.00"}
    assert invoice("--format", "json", month="2026-04").json["totals"] == {"EUR": "57.00"}
    may = invoice("--format", "json", month="2026-05").json
    (part,) = may["appliances"]
    assert (part["lines"], part["subtotals"]) == ([], {"EUR": "57.00"})
    assert [(c["month"], c["billing_month"]) for c in part["corrections"]] == [("2026-03", "2026-05")]
    assert "corrects 2026-03" in invoice(month="2026-05").out


def test_what_is_not_billed_yet_says_why(
    two: Any, rate: Callable[..., Any], invoice: Callable[..., Any], issue: Callable[..., LicenceFacts],
    clock: FixedClock,
) -> None:  # fmt: skip
    rate(two[0])
    clock.set_wall(datetime(2026, 3, 31, tzinfo=UTC))
    unused = issue("Example GmbH")
    answer = invoice("--format", "json")
    assert answer.code == Exit.WARNINGS
    assert pending(answer) == [
        "apl_b: report 1 is verified and not rated: lotabots-vendor rate",
        f"{unused.id}: no appliance has reported under it",
    ]
    assert "not billed yet:\n  apl_b: report 1 is verified" in invoice().out
    assert "not billed yet: apl_b: report 1" in invoice("--format", "csv").err
    april = pending(invoice("--format", "json", month="2026-04"))
    assert april == [
        "apl_a: its reports end at 2026-04-01T00:00:00Z, before the month does",
        "apl_b: its reports end at 2026-04-01T00:00:00Z, before the month does",
        f"{unused.id}: no appliance has reported under it",
    ]


def test_a_report_that_is_missing_or_that_a_person_must_decide_on_is_named(
    make_metered: Callable[..., Any], issue: Callable[..., LicenceFacts], clock: FixedClock,
    verified: Callable[[Path], Path], rate: Callable[..., Any], invoice: Callable[..., Any],
) -> None:  # fmt: skip
    licence = issue("Example GmbH")
    appliance = make_metered("apl_a", licence)
    verified(appliance.report(datetime(2026, 3, 10, tzinfo=UTC)))
    appliance.report(datetime(2026, 3, 20, tzinfo=UTC))  # never arrives
    verified(appliance.report(MARCH))
    clock.set_wall(datetime(2026, 3, 9, tzinfo=UTC))
    clone = make_metered("apl_x", licence)
    clone.appliance_id = "apl_a"
    verified(clone.report(datetime(2026, 3, 11, tzinfo=UTC)))
    found = pending(invoice("--format", "json"))
    assert "apl_a: report 2 was not verified here (until 2026-03-20T00:00:00Z)" in found
    assert any("is not billed: a person must decide first: forked" in line for line in found)
    assert pending(invoice("--format", "json", month="2026-02")) == []


def test_a_licence_that_is_not_paid_for_says_so(
    make_metered: Callable[..., Any], issue: Callable[..., LicenceFacts], verified: Callable[[Path], Path],
    invoice: Callable[..., Any],
) -> None:  # fmt: skip
    appliance = make_metered("apl_a", issue("Example GmbH", "--kind", "trial"))
    verified(appliance.report(MARCH))
    assert pending(invoice("--format", "json")) == [
        "apl_a: report 1 is not billed: its licence is a trial one"
    ]


def test_a_rate_card_for_other_months_is_told(
    make_metered: Callable[..., Any], issue: Callable[..., LicenceFacts], verified: Callable[[Path], Path],
    rate: Callable[..., Any], invoice: Callable[..., Any], tmp_path: Path,
) -> None:  # fmt: skip
    card = {**json.loads(CARD.read_bytes()), "valid_from": "2026-05-01T00:00:00Z", "valid_until": None}
    (tmp_path / "may.json").write_text(json.dumps(card))
    appliance = make_metered("apl_a", issue("Example GmbH", "--rate-card", tmp_path / "may.json"))
    rate(verified(appliance.report(MARCH)))
    assert pending(invoice("--format", "json")) == [
        f"apl_a: rate card {card['card_id']} is not for the month"
    ]


def test_a_month_that_was_left_out_of_rating_is_told(
    two: Any, rate: Callable[..., Any], invoice: Callable[..., Any]
) -> None:
    rate("--month", "2026-04", two[0], two[1])
    assert pending(invoice("--format", "json")) == [
        f"{name}: its reports are rated and the month is not: lotabots-vendor rate"
        for name in ("apl_a", "apl_b")
    ]


def test_the_invoice_is_written_to_a_new_file_only(
    two: Any, rate: Callable[..., Any], invoice: Callable[..., Any], tmp_path: Path
) -> None:
    rate(two[0], two[1])
    file = tmp_path / "march.txt"
    assert invoice("--output", file).code == Exit.OK
    assert "152.00 EUR" in file.read_text()
    assert invoice("--output", file).code == Exit.CHECK_FAILED


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"month": "2026-13"}, Exit.USAGE),
        ({"month": "March"}, Exit.USAGE),
        ({"customer": "Nobody"}, Exit.CHECK_FAILED),
    ],
)
def test_a_month_or_a_customer_that_is_none_is_refused(
    two: Any, invoice: Callable[..., Any], options: dict[str, str], code: Exit
) -> None:
    answer = invoice(**options)
    assert answer.code == code
    assert "hint:" in answer.err
