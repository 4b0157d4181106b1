"""How appliances stand with their reports, and which seats the books keep of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lotabots_vendor.history import Head
from lotabots_vendor.records import MIGRATIONS, Records, Seat
from lotabots_vendor.seats import DAY_SECONDS, Owed, State, concerns, overdue, worst

from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.database import open_database
from lotabotsd.foundation.errors import Exit
from lotabotsd.usage.report import LicenceFacts

Vendor = Callable[..., Any]
HOUR = 3_600


def head(sequence: int, **changes: Any) -> Head:
    """The report of one hour in an unbroken chain of one appliance."""
    values: dict[str, Any] = {
        "report_hash": f"hash{sequence}",
        "appliance_id": "apl_a",
        "key_id": "key",
        "sequence": sequence,
        "previous_report_hash": f"hash{sequence - 1}" if sequence > 1 else None,
        "previous_head": f"head{sequence - 1}",
        "head": f"head{sequence}",
        "first": sequence,
        "last": sequence,
        "period_from": sequence * HOUR,
        "period_until": (sequence + 1) * HOUR,
    }
    return Head(**{**values, **changes})


# --- the rule


def test_an_unbroken_chain_is_up_to_date_in_any_order() -> None:
    for order in ((1, 2, 3), (3, 1, 2), ()):
        assert concerns([head(number) for number in order], None, 10 * HOUR) == []
    assert worst([]) is State.UP_TO_DATE


@pytest.mark.parametrize(
    ("heads", "says", "since", "until"),
    [
        ([head(2)], "report 1 was not", "", "1970-01-01T02:00:00Z"),
        ([head(1), head(3)], "report 2 was not", "1970-01-01T02:00:00Z", "1970-01-01T03:00:00Z"),
        ([head(1), head(5)], "report 2 to 4 was not", "1970-01-01T02:00:00Z", "1970-01-01T05:00:00Z"),
        (
            [head(1), head(2, period_from=2 * HOUR + 60)],
            "nothing is recorded between reports 1 and 2",
            "1970-01-01T02:00:00Z",
            "1970-01-01T02:01:00Z",
        ),
    ],
)
def test_a_gap_has_its_time(heads: list[Head], says: str, since: str, until: str) -> None:
    (found,) = concerns(heads, None, 10 * HOUR)
    assert found.state is State.GAP
    assert found.detail.startswith(says)
    assert (found.since, found.until) == (since, until)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (head(2, report_hash="x", head="x"), "two histories"),
        (head(3, report_hash="x", previous_report_hash="y"), "two histories"),
        (head(3, report_hash="x", previous_report_hash="hash1"), "two histories"),
        (head(3, report_hash="x", first=2), "rewound"),
        (head(3, report_hash="x", previous_head="y"), "rewound"),
        (head(3, report_hash="x", key_id="y"), "different keys"),
        (head(3, report_hash="x", period_from=2 * HOUR + 1), "same time or rows"),
        (head(9, report_hash="x", previous_report_hash="y", first=1, last=1), "same time or rows"),
        (head(9, report_hash="x", previous_report_hash="y", period_from=HOUR), "same time or rows"),
    ],
)
def test_two_histories_of_one_appliance_are_a_fork(other: Head, says: str) -> None:
    for order in ([head(1), head(2), other], [other, head(2), head(1)]):
        found = concerns(order, None, 10 * HOUR)
        assert worst(found) is State.FORK
        assert says in found[0].detail


def test_a_fork_is_worse_than_a_gap_and_a_gap_than_being_late() -> None:
    owed = Owed(HOUR, HOUR, 0, 1_000 * HOUR)
    late = concerns([head(1), head(3)], owed, 900 * HOUR)
    assert [found.state for found in late] == [State.GAP, State.OVERDUE]
    clone = head(3, report_hash="x")
    assert worst(concerns([head(1), head(3), clone], owed, 900 * HOUR)) is State.FORK


OWED = Owed(31 * DAY_SECONDS, 14 * DAY_SECONDS, 100 * DAY_SECONDS, 400 * DAY_SECONDS)


@pytest.mark.parametrize(
    ("reported_day", "day", "late"),
    [
        (0, 99, False),
        (0, 144, False),
        (0, 145, True),  # the first day, 31 days of cadence, 14 of grace
        (50, 144, False),  # an earlier licence's report
        (130, 174, False),
        (130, 175, True),
        (399, 1_000, True),  # the last day is still owed
        (400, 1_000, False),  # its end and grace are reported
    ],
)
def test_a_report_is_overdue_after_cadence_and_grace(reported_day: int, day: int, late: bool) -> None:
    for second, expected in ((0, late), (-1, late and (day, reported_day) not in {(145, 0), (175, 130)})):
        found = overdue(reported_day * DAY_SECONDS, OWED, day * DAY_SECONDS + second)
        assert (found is not None) is expected


# --- the books


@pytest.fixture
def keys(directory: Path, passphrase_file: Path) -> tuple[object, ...]:
    return ("--dir", directory, "--passphrase-file", passphrase_file)


@pytest.fixture
def licence(vendor: Vendor, keys: tuple[object, ...]) -> LicenceFacts:
    issued = vendor("--json", "licence", "issue", *keys, "--tier", "pro", "--customer", "Example GmbH").json
    return LicenceFacts(issued["licence"]["licence_id"], "pro", "Example GmbH")


@pytest.fixture
def appliance(make_appliance: Callable[..., Any], licence: LicenceFacts) -> Any:
    return make_appliance("appliance", licence)


def seats(vendor: Vendor, directory: Path) -> Any:
    answer = vendor("--json", "seat", "list", "--dir", directory)
    assert answer.code == Exit.OK, answer.err
    return answer.json


def verify(vendor: Vendor, directory: Path, file: Path) -> Any:
    return vendor("--json", "report", "verify", "--dir", directory, file).json


def test_a_seat_begins_with_the_first_verified_report(
    vendor: Vendor, directory: Path, appliance: Any, licence: LicenceFacts
) -> None:
    file = appliance.report()
    assert seats(vendor, directory) == []
    assert vendor("seat", "list", "--dir", directory).out == "no appliance is known yet\n"
    found = verify(vendor, directory, file)
    (seat,) = seats(vendor, directory)
    assert (seat["appliance"], seat["customer"], seat["licence"]) == ("apl_test", "Example GmbH", licence.id)
    assert (seat["report"], seat["state"], seat["concerns"]) == (1, "up to date", [])
    assert (seat["key"], seat["period_until"]) == (found["appliance_key"], found["period"]["until"])
    text = vendor("seat", "list", "--dir", directory).out
    assert seat["head"][:12] in text
    assert "up to date" in text


def test_verifying_again_changes_no_book(vendor: Vendor, directory: Path, appliance: Any) -> None:
    file = appliance.report()
    verify(vendor, directory, file)

    def content() -> list[str]:
        with sqlite3.connect(directory / "vendor.db") as connection:
            return list(connection.iterdump())

    before = content()
    for _ in range(2):
        assert verify(vendor, directory, file)["already_verified"]
    assert content() == before


def test_an_older_report_that_comes_late_closes_the_gap_and_does_not_become_the_last(
    vendor: Vendor, directory: Path, appliance: Any
) -> None:
    first, second = appliance.report(), appliance.report()
    verify(vendor, directory, second)
    (seat,) = seats(vendor, directory)
    assert (seat["report"], seat["state"]) == (2, "gap")
    assert verify(vendor, directory, first)["findings"] == []
    (seat,) = seats(vendor, directory)
    assert (seat["report"], seat["state"]) == (2, "up to date")


def test_a_clone_shows_as_a_fork(
    vendor: Vendor, directory: Path, appliance: Any, make_appliance: Callable[..., Any]
) -> None:
    verify(vendor, directory, appliance.report())
    verify(vendor, directory, make_appliance("clone", appliance.licence).report(3))
    (seat,) = seats(vendor, directory)
    assert seat["state"] == "fork"
    assert "two histories" in seat["concerns"][0]["detail"]


def test_a_seat_is_overdue_by_its_licence(
    vendor: Vendor, directory: Path, appliance: Any, clock: FixedClock
) -> None:
    verify(vendor, directory, appliance.report())
    clock.advance((31 + 14) * 86_400 - 1)
    assert seats(vendor, directory)[0]["state"] == "up to date"
    clock.advance(1)
    assert seats(vendor, directory)[0]["state"] == "overdue"
    verify(vendor, directory, appliance.report())
    assert seats(vendor, directory)[0]["state"] == "up to date"


def test_a_licence_that_was_not_issued_here_gives_a_seat_no_customer(
    vendor: Vendor, directory: Path, appliance: Any
) -> None:
    appliance.licence = LicenceFacts("lic_0000000000000000", "enterprise", "Example GmbH")
    verify(vendor, directory, appliance.report())
    (seat,) = seats(vendor, directory)
    assert (seat["customer"], seat["licence"]) == (None, None)


def test_what_is_known_of_a_seat_before_its_first_report_stays(
    vendor: Vendor, directory: Path, appliance: Any
) -> None:
    records = Records(directory)
    with records.writing():
        records.add_seat(Seat("apl_test", 5, None, None, {"machine-id": "aa"}))
        records.add_seat(Seat("apl_other", 6, "key", "lic_x"))
        records.add_seat(Seat("apl_other", 7, "later", None, {"first-mac": "00ff"}))
    found = records.seats()
    records.close()
    assert found == [
        Seat("apl_other", 6, "key", "lic_x", {"first-mac": "00ff"}),
        Seat("apl_test", 5, None, None, {"machine-id": "aa"}),
    ]
    assert [(seat["report"], seat["state"]) for seat in seats(vendor, directory)] == [
        (None, "up to date")
    ] * 2
    key = verify(vendor, directory, appliance.report())["appliance_key"]
    seat = seats(vendor, directory)[1]
    assert (seat["fingerprint"], seat["key"], seat["since"]) == (
        {"machine-id": "aa"},
        key,
        "1970-01-01T00:00:00Z",
    )


def test_books_of_the_release_before_keep_everything(
    vendor: Vendor, directory: Path, appliance: Any, licence: LicenceFacts
) -> None:
    files = [appliance.report(), appliance.report()]
    for file in files:
        verify(vendor, directory, file)
    now = seats(vendor, directory)
    customers = vendor("--json", "customer", "list", "--dir", directory).json
    with sqlite3.connect(directory / "vendor.db") as connection:
        rows = {
            table: connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - fixed names
            for table in ("licences", "reports", "acknowledgements")
        }
    for file in directory.glob("vendor.db*"):
        file.unlink()
    old = open_database(directory / "vendor.db", application_id=0x4C42564E, migrations=MIGRATIONS[:3])
    for table, found in rows.items():
        for row in found:
            old.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608
    old.conn.close()
    assert seats(vendor, directory) == now
    assert vendor("--json", "customer", "list", "--dir", directory).json == customers
    records = Records(directory)
    heads = records.heads("apl_test")
    assert [h.sequence for h in heads] == [1, 2]
    assert heads == [Head(**{f: getattr(r, f) for f in Head.__slots__}) for r in records.reports("apl_test")]
    records.close()
    assert verify(vendor, directory, appliance.report())["findings"] == []


def test_the_list_is_json_or_text_safe_to_show(vendor: Vendor, directory: Path) -> None:
    records = Records(directory)
    with records.writing():
        records.add_seat(Seat("apl_\x1b[31m", 5))
    records.close()
    assert "\x1b" not in vendor("seat", "list", "--dir", directory).out
    assert json.dumps(seats(vendor, directory))
