"""Answering reports: only verified ones, always the same answer, and an appliance takes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lotabots_vendor.authority import newest_keyring

from lotabotsd.foundation.clock import NANOSECONDS, FixedClock
from lotabotsd.foundation.errors import Code, Exit
from lotabotsd.licence.document import open_licence
from lotabotsd.licence.keyring import Use, load_anchors
from lotabotsd.usage.acknowledged import list_acknowledgements, record_acknowledgement
from lotabotsd.usage.acknowledgement import OpenedAcknowledgement, open_acknowledgement
from lotabotsd.usage.report import LicenceFacts

Vendor = Callable[..., Any]


@pytest.fixture
def keys(directory: Path, passphrase_file: Path) -> tuple[object, ...]:
    return ("--dir", directory, "--passphrase-file", passphrase_file)


@pytest.fixture
def appliance(make_appliance: Callable[..., Any], vendor: Vendor, keys: tuple[object, ...]) -> Any:
    issued = vendor("--json", "licence", "issue", *keys, "--tier", "pro", "--customer", "Example GmbH").json
    return make_appliance("appliance", LicenceFacts(issued["licence"]["licence_id"], "pro", "Example GmbH"))


def verified(vendor: Vendor, directory: Path, file: Path) -> str:
    """Verify a report; its hash."""
    report_hash: str = vendor("--json", "report", "verify", "--dir", directory, file).json["report"]
    return report_hash


def opened(directory: Path, data: str) -> OpenedAcknowledgement:
    keyring = newest_keyring(directory)
    return open_acknowledgement(
        data.encode(), partial(keyring.trusted_keys, Use.ACKNOWLEDGEMENT), keyring.revoked
    )


def test_a_verified_report_is_acknowledged_and_the_appliance_takes_it(
    vendor: Vendor, directory: Path, keys: tuple[object, ...], appliance: Any, clock: FixedClock
) -> None:
    file = appliance.report()
    report_hash = verified(vendor, directory, file)
    answer = vendor("ack", "issue", *keys, file)
    assert answer.code == Exit.OK, answer.err
    assert answer.out.startswith("-----BEGIN LOTABOTS ACKNOWLEDGEMENT-----\n")
    said = opened(directory, answer.out)
    assert said.acknowledgement.report_hash.hex() == report_hash
    assert said.acknowledgement.verdict.value == "accepted"
    now = clock.wall_ns() // NANOSECONDS
    assert not record_acknowledgement(appliance.ledger, said, "apl_test", now).known
    assert [kept.accepted for kept in list_acknowledgements(appliance.ledger)] == [True]


@pytest.mark.parametrize("form", ["armour", "json", "line"])
def test_the_same_report_gets_the_same_bytes_however_it_is_named(
    vendor: Vendor, directory: Path, keys: tuple[object, ...], appliance: Any, clock: FixedClock, form: str
) -> None:
    file = appliance.report()
    report_hash = verified(vendor, directory, file)
    first = vendor("ack", "issue", *keys, "--format", form, file).out
    clock.advance(86_400)
    for name in (file, report_hash, report_hash[:8]):
        assert vendor("ack", "issue", *keys, "--format", form, name).out == first
    assert vendor("--json", "ack", "issue", *keys, file).json["already_issued"] is True


def test_what_was_not_verified_is_not_acknowledged(
    vendor: Vendor, keys: tuple[object, ...], appliance: Any, tmp_path: Path
) -> None:
    file = appliance.report()
    for name in (file, "00" * 32, "0" * 8):
        answer = vendor("--json", "ack", "issue", *keys, name)
        assert answer.code == Exit.CHECK_FAILED
        assert "report verify FILE" in answer.err
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(file.read_bytes()[:-1])
    assert vendor("ack", "issue", *keys, damaged).code == Exit.SIGNATURE
    assert vendor("ack", "issue", *keys, tmp_path / "nothing.zip").code == Exit.CHECK_FAILED


def test_a_renewed_licence_goes_with_it_once(
    vendor: Vendor, directory: Path, keys: tuple[object, ...], appliance: Any, tmp_path: Path
) -> None:
    renewed, file = tmp_path / "renewed.lic", appliance.report()
    order = ("--tier", "pro", "--customer", "Example GmbH", "--output", renewed)
    issued = vendor("--json", "licence", "issue", *keys, *order).json["licence"]
    verified(vendor, directory, file)
    made = vendor("ack", "issue", *keys, file, "--licence", renewed).out
    carried = opened(directory, made).acknowledgement.licence
    assert carried is not None
    assert open_licence(carried, newest_keyring(directory)).licence.licence_id == issued["licence_id"]
    assert vendor("ack", "issue", *keys, file, "--licence", renewed).out == made
    assert vendor("ack", "issue", *keys, file).out == made
    other = tmp_path / "other.lic"
    vendor("licence", "issue", *keys, *order[:-1], other)
    refused = vendor("ack", "issue", *keys, file, "--licence", other)
    assert refused.code == Exit.CHECK_FAILED
    assert "lotabotsctl licence install" in refused.err


def test_a_licence_of_somebody_else_does_not_go_with_it(
    vendor: Vendor, directory: Path, keys: tuple[object, ...], appliance: Any, tmp_path: Path
) -> None:
    file, foreign = appliance.report(), tmp_path / "foreign.lic"
    verified(vendor, directory, file)
    vendor("licence", "issue", "--development", "--tier", "pro", "--customer", "x", "--output", foreign)
    assert vendor("ack", "issue", *keys, file, "--licence", foreign).code == Exit.SIGNATURE


def test_findings_are_told_with_their_time(
    vendor: Vendor, directory: Path, keys: tuple[object, ...], appliance: Any
) -> None:
    appliance.report()
    file = appliance.report()
    verified(vendor, directory, file)
    said = opened(directory, vendor("ack", "issue", *keys, file).out).acknowledgement
    assert said.verdict.value == "accepted_with_findings"
    assert "report_missing: report 1" in said.reasons[0]


def test_a_cloned_appliance_waits_for_a_person(
    vendor: Vendor,
    directory: Path,
    keys: tuple[object, ...],
    appliance: Any,
    make_appliance: Callable[..., Any],
) -> None:
    verified(vendor, directory, appliance.report())
    file = make_appliance("clone", appliance.licence).report(3)
    verified(vendor, directory, file)
    waiting = vendor("ack", "issue", *keys, file)
    assert waiting.code == Exit.CHECK_FAILED
    assert "a person must decide first: forked" in waiting.err
    rejected = vendor("--json", "ack", "issue", *keys, file, "--reject", "a cloned machine").json
    assert (rejected["verdict"], rejected["reasons"]) == ("rejected", ["a cloned machine"])
    both = vendor("ack", "issue", *keys, file, "--reject", "a", "--accept")
    assert both.code == Exit.USAGE


def test_a_person_may_accept_what_has_errors_and_it_is_not_taken_back(
    vendor: Vendor,
    directory: Path,
    keys: tuple[object, ...],
    appliance: Any,
    make_appliance: Callable[..., Any],
) -> None:
    verified(vendor, directory, appliance.report())
    file = make_appliance("clone", appliance.licence).report(3)
    verified(vendor, directory, file)
    accepted = vendor("--json", "ack", "issue", *keys, file, "--accept").json
    assert accepted["verdict"] == "accepted_with_findings"
    assert accepted["reasons"][0].startswith("forked: ")
    assert vendor("ack", "issue", *keys, file, "--reject", "no").code == Exit.CHECK_FAILED


def test_the_history_shows_what_was_acknowledged(
    vendor: Vendor, directory: Path, keys: tuple[object, ...], appliance: Any
) -> None:
    assert vendor("report", "list", "--dir", directory).out == "no report was verified yet\n"
    first, second = appliance.report(), appliance.report()
    for file in (first, second):
        verified(vendor, directory, file)
    vendor("ack", "issue", *keys, first)
    found = vendor("--json", "report", "list", "--dir", directory).json
    assert [(entry["sequence"], entry["acknowledged"]) for entry in found] == [(1, "accepted"), (2, None)]
    text = vendor("report", "list", "--dir", directory).out
    assert "not acknowledged" in text.splitlines()[1]
    assert vendor("--json", "report", "verify", "--dir", directory, first).json["acknowledged"] is True
    assert vendor("--json", "report", "verify", "--dir", directory, second).json["acknowledged"] is False


def test_development_answers_development_and_nothing_else(
    vendor: Vendor, directory: Path, keys: tuple[object, ...], appliance: Any, tmp_path: Path
) -> None:
    genuine = appliance.report()
    verified(vendor, directory, genuine)
    wrong = vendor("ack", "issue", "--development", genuine)
    assert (wrong.code, "no development report" in wrong.err) == (Exit.CHECK_FAILED, True)
    appliance.development = True
    file = appliance.report()
    verified(vendor, directory, file)
    assert vendor("ack", "issue", *keys, file).code == Exit.CHECK_FAILED
    output = tmp_path / "answer.txt"
    assert vendor("ack", "issue", "--development", file, "--output", output).code == Exit.OK
    keyring = load_anchors().keyring
    said = open_acknowledgement(
        output.read_bytes(), partial(keyring.trusted_keys, Use.ACKNOWLEDGEMENT), keyring.revoked
    )
    assert said.acknowledgement.sequence == 2
    assert vendor("ack", "issue", "--development", file, "--output", output).code == Exit.CHECK_FAILED


def test_an_answer_is_read_back_as_an_appliance_would(
    vendor: Vendor, directory: Path, keys: tuple[object, ...], appliance: Any, tmp_path: Path
) -> None:
    file, output = appliance.report(), tmp_path / "answer.txt"
    report_hash = verified(vendor, directory, file)
    vendor("ack", "issue", *keys, file, "--output", output)
    shown = vendor("--json", "ack", "show", "--dir", directory, output).json
    assert (shown["report"], shown["verdict"], shown["licence"]) == (report_hash, "accepted", False)
    assert report_hash in vendor("ack", "show", "--dir", directory, output).out
    assert vendor("ack", "show", "--development", output).code == Exit.SIGNATURE
    assert vendor("ack", "show", output).code == Exit.USAGE


def test_the_books_of_before_are_brought_up_to_date(tmp_path: Path) -> None:
    from lotabots_vendor.records import APPLICATION_ID, MIGRATIONS, Records

    from lotabotsd.foundation.database import open_database

    old = open_database(tmp_path / "vendor.db", application_id=APPLICATION_ID, migrations=MIGRATIONS[:1])
    old.close()
    records = Records(tmp_path)
    assert records.history() == []
    assert records.acknowledgement("00") is None
    records.close()


def test_a_code_is_told_for_a_refused_answer(vendor: Vendor, keys: tuple[object, ...]) -> None:
    answer = vendor("--json", "ack", "issue", *keys, "00" * 32)
    assert f'"{Code.NOT_FOUND.value}"' in answer.err
