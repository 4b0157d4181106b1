"""A broken ledger is told by status and keeps reports from being written; an incomplete one only warns."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from lotabotsd.daemon.rounds import Rounds
from lotabotsd.daemon.status import status_of
from lotabotsd.daemon.timetable import rule_of
from lotabotsd.daemon.wiring import open_gate
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.usage.batch import Finding, FindingKind


@pytest.fixture
def used(appliance, clock):
    """An appliance with three sealed hours."""
    open_gate(appliance, triton_runs=False)
    clock.advance(3 * 3_600)
    appliance.bookkeeping.drain_and_seal()
    return appliance


def _tamper(appliance, statement: str) -> None:
    with sqlite3.connect(appliance.config.paths.ledger_db) as connection:
        triggers = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for (name,) in triggers:
            connection.execute(f'DROP TRIGGER "{name}"')
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(statement)
    connection.close()


def _found(appliance) -> dict[str, dict[str, str]]:
    asyncio.run(Rounds(appliance).verify_ledger())
    return {finding["code"]: finding for finding in status_of(appliance)["warnings"]}


def test_nothing_is_said_of_a_sound_ledger(used) -> None:
    assert not {"ledger_damaged", "ledger_incomplete"} & set(_found(used))
    assert status_of(used)["ledger"]["state"] == "good"
    assert status_of(used)["ledger"]["verified_at_ns"] == used.clock.wall_ns()


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE windows SET requests = 9 WHERE sequence = 2", "ROW_HASH_MISMATCH at row 2"),
        ("DELETE FROM windows WHERE sequence = 2", "GAP at row 3"),
        ("DELETE FROM windows WHERE sequence = 3", "TAIL_TRUNCATED at row 2"),
        ("UPDATE windows SET kind = 'nonsense' WHERE sequence = 1", "ROW_HASH_MISMATCH: row 1"),
    ],
)
def test_a_changed_ledger_is_an_error_with_a_fix_and_no_report_is_written(used, statement, fault) -> None:
    _tamper(used, statement)
    finding = _found(used)["ledger_damaged"]
    assert (finding["severity"], bool(finding["hint"])) == ("error", True)
    assert fault in finding["message"]
    assert status_of(used)["ledger"]["state"] == "damaged"
    for attempt in (
        lambda: used.reports.export(""),
        used.reports.preview,
        lambda: used.reports.write_due(rule_of("* * * * *")),
    ):
        with pytest.raises(LotaBotsError, match=fault.rpartition(": ")[2]) as failure:
            attempt()
        assert failure.value.code is Code.LEDGER_DAMAGED
    assert used.reports.written() == []


def test_damage_before_the_last_report_keeps_the_next_one_from_being_written(used, clock) -> None:
    used.reports.export("")
    clock.advance(3_600)
    _tamper(used, "UPDATE windows SET requests = 9 WHERE sequence = 2")
    with pytest.raises(LotaBotsError) as failure:
        used.reports.export("")
    assert failure.value.code is Code.LEDGER_DAMAGED
    assert len(used.reports.written()) == 1
    assert status_of(used)["ledger"]["damage"]  # without waiting for the next round


def test_a_ledger_that_was_taken_away_is_told_and_not_reported_anew(open_one, used, clock) -> None:
    used.publishing.let_go()
    used.close()
    for path in used.config.paths.state.glob("ledger.db*"):
        path.unlink()
    second = open_one()
    open_gate(second, triton_runs=False)
    clock.advance(3_600)
    with pytest.raises(LotaBotsError, match="TAIL_TRUNCATED"):
        second.reports.export("")
    assert "ledger_damaged" in _found(second)


def test_an_incomplete_ledger_is_reported_and_the_report_says_so(used) -> None:
    used.ledger.note(Finding(FindingKind.DAMAGE, 0, 1, 2, 64, detail="64 bytes"))
    codes = _found(used)
    assert "ledger_damaged" not in codes
    assert codes["ledger_findings"]["severity"] == "warning"
    assert used.reports.preview()["body"]["data_condition"]["findings"]["total"] == 1
    assert len(used.reports.export("")) == 1


def test_an_acknowledgement_that_the_vendor_did_not_sign_is_a_warning_and_keeps_from_a_purge(used) -> None:
    used.reports.export("")
    values = "NULL, x'00', sequence, 'accepted', 1, 1, head, x'00'"
    _tamper(used, f"INSERT INTO acknowledgements SELECT {values} FROM reports")  # noqa: S608 - of above
    finding = _found(used)["ledger_incomplete"]
    assert "the acknowledgement of report 1 is not as the vendor signed it" in finding["message"]
    with pytest.raises(LotaBotsError) as failure:
        used.acknowledging.purge("uid:0")
    assert failure.value.code is Code.LEDGER_DAMAGED
    used.clock.advance(3_600)
    assert len(used.reports.export("")) == 1  # the report tells the vendor, who knows what he signed


def test_windows_made_under_a_doubtful_clock_are_a_warning(used, clock) -> None:
    clock.advance(3_600)
    used.ledger.seal(clock.wall_ns(), clock_suspect=True)
    finding = _found(used)["ledger_incomplete"]
    assert finding["severity"] == "warning"
    assert "CLOCK_SUSPECT at row" in finding["message"]
    assert len(used.reports.export("")) == 1
