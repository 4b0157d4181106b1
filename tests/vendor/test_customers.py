"""Customers: one spelling each, their licences and appliances, and what is missing of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lotabots_vendor.customers import admit, known_as

from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.errors import Code, Exit, LotaBotsError
from lotabotsd.usage.report import LicenceFacts

Vendor = Callable[..., Any]
KNOWN = ["Example GmbH", "Straße & Söhne"]


@pytest.mark.parametrize("name", ["Example GmbH", "Another", "Example GmbH & Co. KG"])
def test_known_and_new_names_are_let_through(name: str) -> None:
    admit(name, KNOWN, as_new=False)


@pytest.mark.parametrize(
    "name",
    [
        "example gmbh",
        "Example  GmbH",
        " Example GmbH",
        "ExampleGmbH",
        "ＥＸＡＭＰＬＥ GmbH",
        "STRASSE & SÖHNE",
    ],
)
def test_another_spelling_is_refused_with_the_known_one_unless_it_is_another_customer(name: str) -> None:
    with pytest.raises(LotaBotsError) as caught:
        admit(name, KNOWN, as_new=False)
    assert caught.value.code is Code.CONFLICT
    assert any(f"--customer '{known}'" in caught.value.hint for known in KNOWN)
    assert "--new-customer" in caught.value.hint
    admit(name, KNOWN, as_new=True)


def test_the_same_name_is_no_other_customer() -> None:
    with pytest.raises(LotaBotsError) as caught:
        admit("Example GmbH", KNOWN, as_new=True)
    assert caught.value.code is Code.ALREADY_EXISTS


def test_a_name_is_found_in_any_spelling_but_not_guessed() -> None:
    assert known_as("example gmbh", KNOWN) == "Example GmbH"
    twice = [*KNOWN, "EXAMPLE GmbH"]
    assert known_as("EXAMPLE GmbH", twice) == "EXAMPLE GmbH"
    for name, known, code in (("example gmbh", twice, Code.CONFLICT), ("Nobody", KNOWN, Code.NOT_FOUND)):
        with pytest.raises(LotaBotsError) as caught:
            known_as(name, known)
        assert caught.value.code is code


# --- on the command line


@pytest.fixture
def issue(vendor: Vendor, directory: Path, passphrase_file: Path) -> Callable[..., Any]:
    def issued(name: str, *options: object) -> Any:
        return vendor(
            "--json", "licence", "issue", "--dir", directory, "--passphrase-file", passphrase_file,
            "--tier", "pro", "--customer", name, *options,
        )  # fmt: skip

    return issued


def test_a_licence_for_another_spelling_is_not_issued(
    vendor: Vendor, directory: Path, issue: Callable[..., Any], tmp_path: Path
) -> None:
    assert issue("Example GmbH").code == Exit.OK
    refused = issue("example gmbh", "--output", tmp_path / "licence")
    assert (refused.code, json.loads(refused.err)["error"]["code"]) == (Exit.CHECK_FAILED, "conflict")
    assert not (tmp_path / "licence").exists()
    assert len(vendor("--json", "licence", "list", "--dir", directory).json) == 1
    again = issue("Example GmbH")
    assert (again.code, again.json["licence"]["sequence"]) == (Exit.OK, 2)
    assert issue("example gmbh", "--new-customer").code == Exit.OK
    listed = vendor("--json", "customer", "list", "--dir", directory).json
    assert [(one["customer"], one["licences"]) for one in listed] == [
        ("Example GmbH", 2),
        ("example gmbh", 1),
    ]
    assert json.loads(issue("example gmbh", "--new-customer").err)["error"]["code"] == "already_exists"


def test_a_licence_that_could_not_be_written_leaves_no_customer(
    vendor: Vendor, directory: Path, issue: Callable[..., Any], tmp_path: Path
) -> None:
    assert issue("X", "--output", tmp_path / "missing" / "licence").code == Exit.CHECK_FAILED
    assert vendor("customer", "list", "--dir", directory).out == "no licence was issued yet\n"


def test_a_customer_is_shown_with_licences_appliances_and_what_is_missing(
    vendor: Vendor, directory: Path, issue: Callable[..., Any], make_appliance: Callable[..., Any],
    clock: FixedClock,
) -> None:  # fmt: skip
    used, unused = (issue("Example GmbH").json["licence"]["licence_id"] for _ in range(2))
    issue("Other Works")
    appliance = make_appliance("appliance", LicenceFacts(used, "pro", "Example GmbH"))
    appliance.report()
    second = appliance.report()
    assert vendor("report", "verify", "--dir", directory, second).code == Exit.WARNINGS
    shown = vendor("--json", "customer", "show", "--dir", directory, "example gmbh").json
    assert (shown["customer"], shown["state"]) == ("Example GmbH", "gap")
    assert [one["licence"] for one in shown["licences"]] == [used, unused]
    assert [one["appliance"] for one in shown["appliances"]] == ["apl_test"]
    (missing,) = shown["missing"]
    assert missing.startswith("apl_test: gap: report 1 was not verified here")
    clock.advance((31 + 14) * 86_400)
    shown = vendor("--json", "customer", "show", "--dir", directory, "Example GmbH").json
    assert [line.split(": ")[:2] for line in shown["missing"]] == [
        ["apl_test", "gap"], ["apl_test", "overdue"], [unused, "overdue"],
    ]  # fmt: skip
    text = vendor("customer", "show", "--dir", directory, "Example GmbH").out
    assert f"{unused}: overdue: no appliance reports under it; a report was due on 2026-04-01" in text
    listed = vendor("--json", "customer", "list", "--dir", directory).json
    assert [(one["customer"], one["appliances"], one["state"]) for one in listed] == [
        ("Example GmbH", 1, "gap"),
        ("Other Works", 0, "overdue"),
    ]


def test_a_licence_that_ended_unused_is_asked_for_no_longer(
    vendor: Vendor, directory: Path, issue: Callable[..., Any], clock: FixedClock
) -> None:
    issue("Example GmbH", "--days", 60, "--grace-days", 0)
    for days, state in ((45, "overdue"), (15, "up to date")):
        clock.advance(days * 86_400)
        assert vendor("--json", "customer", "list", "--dir", directory).json[0]["state"] == state
    assert "nothing is missing" in vendor("customer", "show", "--dir", directory, "Example GmbH").out


def test_a_renewed_licence_leaves_nothing_to_ask_of_the_old_one(
    vendor: Vendor, directory: Path, issue: Callable[..., Any], make_appliance: Callable[..., Any],
    clock: FixedClock,
) -> None:  # fmt: skip
    old, new = (issue("Example GmbH").json["licence"]["licence_id"] for _ in range(2))
    appliance = make_appliance("appliance", LicenceFacts(old, "pro", "Example GmbH"))
    vendor("report", "verify", "--dir", directory, appliance.report())
    clock.advance(40 * 86_400)
    appliance.licence = LicenceFacts(new, "pro", "Example GmbH")
    vendor("report", "verify", "--dir", directory, appliance.report())
    clock.advance(40 * 86_400)
    shown = vendor("--json", "customer", "show", "--dir", directory, "Example GmbH").json
    assert shown["missing"] == []
    assert shown["appliances"][0]["licence"] == new


def test_nobody_is_told_as_nobody(vendor: Vendor, directory: Path) -> None:
    answer = vendor("--json", "customer", "show", "--dir", directory, "Nobody")
    assert (answer.code, json.loads(answer.err)["error"]["code"]) == (Exit.CHECK_FAILED, "not_found")
    assert "customer list" in answer.err
