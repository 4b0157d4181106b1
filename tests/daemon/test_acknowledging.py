"""The loop back from the vendor on a whole appliance: reports out, acknowledgements in, limits after."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "vendor"))

from lotabots_vendor.cli import run as vendor

from lotabotsd.daemon.own_metrics import Counts, own_families
from lotabotsd.daemon.rounds import Rounds
from lotabotsd.daemon.status import status_of
from lotabotsd.daemon.wiring import open_gate
from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.usage.outbox import Folder

DAY = 86_400


class Loop:
    """An appliance and its vendor, who uses the published development keys."""

    def __init__(self, appliance: Any, clock: Any, folder: Path) -> None:
        self.appliance, self.clock, self.folder = appliance, clock, folder
        self.books = folder / "books"
        self.books.mkdir()

    def vendor(self, *arguments: object) -> None:
        assert vendor([str(argument) for argument in arguments], self.clock) in (0, 4)

    def licence(self, *more: object) -> Path:
        file = self.folder / f"licence-{self.clock.wall_ns()}.txt"
        order = ("--tier", "pro", "--customer", "Example GmbH", "--output", file)
        self.vendor("licence", "issue", "--development", *order, *more)
        return file

    def days(self, days: float) -> None:
        """Let days pass."""
        self.clock.advance(days * DAY)
        self.appliance.bookkeeping.drain_and_seal()

    def report(self) -> dict[str, Any]:
        self.clock.advance(3_600)
        (made,) = self.appliance.reports.export("")
        return made

    def answer(self, report: dict[str, Any], *more: object) -> bytes:
        """The vendor's acknowledgement of a report."""
        self.clock.advance(60)
        file, answer = self.folder / report["name"], self.folder / f"{report['name']}.answer"
        file.write_bytes(self.appliance.reports.read(report["name"]))
        keys = ("--development", "--dir", self.books)
        self.vendor("report", "verify", *keys, file)
        answer.unlink(missing_ok=True)
        self.vendor("ack", "issue", *keys, "--output", answer, file, *more)
        return answer.read_bytes()

    def state(self, report: dict[str, Any]) -> tuple[str, str]:
        found = {entry["name"]: entry for entry in self.appliance.reports.written()}[report["name"]]
        return found["state"], found["verdict"]

    def findings(self) -> dict[str, dict[str, str]]:
        return {finding["code"]: finding for finding in status_of(self.appliance)["warnings"]}


@pytest.fixture
def loop(appliance: Any, clock: Any, tmp_path: Path) -> Loop:
    open_gate(appliance, triton_runs=False)
    return Loop(appliance, clock, tmp_path)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def code_of(call: Any) -> Code:
    with pytest.raises(LotaBotsError) as caught:
        call()
    return caught.value.code


def test_an_acknowledged_report_is_filed_away_and_known(loop: Loop) -> None:
    report = loop.report()
    assert loop.state(report) == ("new", "")
    data = loop.answer(report)
    take = loop.appliance.acknowledging
    assert take.look(data).value["known"] is False
    assert loop.state(report) == ("new", "")
    assert take.accept(data).value["known"] is False
    assert loop.state(report) == ("acknowledged", "accepted")
    assert take.accept(data).value["known"] is True
    assert status_of(loop.appliance)["report"]["acknowledged"]["sequence"] == 1


def test_what_a_crash_left_undone_is_finished_by_the_next_round(loop: Loop) -> None:
    report = loop.report()
    loop.appliance.acknowledging.accept(loop.answer(report))
    outbox = loop.appliance.config.paths.outbox
    (outbox / Folder.ACKNOWLEDGED / report["name"]).rename(outbox / Folder.SENT / report["name"])
    assert loop.state(report) == ("sent", "accepted")
    asyncio.run(Rounds(loop.appliance).write_due_report())
    assert loop.state(report) == ("acknowledged", "accepted")


def test_a_rejected_report_stays_and_is_an_error_until_it_is_accepted(loop: Loop) -> None:
    report = loop.report()
    loop.appliance.acknowledging.accept(loop.answer(report, "--reject", "it is somebody else's"))
    assert loop.state(report) == ("new", "rejected")
    assert report["name"] in loop.findings()["report_rejected"]["message"]
    (loop.books / "vendor.db").unlink()
    loop.appliance.acknowledging.accept(loop.answer(report))
    assert loop.state(report) == ("acknowledged", "accepted")
    assert "report_rejected" not in loop.findings()


def test_another_appliances_answer_is_refused(loop: Loop, open_one: Any) -> None:
    data = loop.answer(loop.report())
    identity = loop.appliance.config.paths.state / "appliance_id"
    loop.appliance.publishing.let_go()
    loop.appliance.close()
    identity.write_text("apl_anotherOneOfThem\n")
    other = open_one()
    assert code_of(lambda: other.acknowledging.accept(data)) is Code.ACKNOWLEDGEMENT_ELSEWHERE


def test_an_acknowledgement_moves_the_clocks_floor(loop: Loop) -> None:
    loop.days(10)
    data = loop.answer(loop.report())
    loop.clock.advance(-9 * DAY)
    assert not loop.appliance.licence.standing().clock_suspect
    loop.appliance.acknowledging.accept(data)
    assert loop.appliance.licence.standing().clock_suspect


def test_the_free_tier_has_no_duty(loop: Loop) -> None:
    loop.days(100)
    assert status_of(loop.appliance)["report"]["duty"]["state"] == "none"
    assert loop.appliance.licence.standing().state == "none"
    assert not {"report_soon", "report_overdue", "licence_unreported"} & set(loop.findings())


def test_a_licence_without_acknowledgements_is_told_overdue_then_restricted_then_freed(loop: Loop) -> None:
    loop.appliance.licence.install(loop.licence().read_bytes())
    assert loop.appliance.licence.standing().tier == "pro"
    loop.days(25)
    assert loop.findings()["report_soon"]["severity"] == "note"
    loop.days(7)
    overdue = loop.findings()["report_overdue"]
    assert (overdue["severity"], "usage acknowledge" in overdue["hint"]) == ("warning", True)
    assert loop.appliance.licence.standing().tier == "pro"
    loop.days(14)
    unreported = loop.findings()["licence_unreported"]
    assert (unreported["severity"], "usage acknowledge" in unreported["hint"]) == ("error", True)
    standing = loop.appliance.licence.standing()
    assert (standing.tier, standing.state, standing.admits) == ("free", "restricted", True)
    loop.appliance.acknowledging.accept(loop.answer(loop.report()))
    assert loop.appliance.licence.standing().tier == "pro"
    assert status_of(loop.appliance)["report"]["duty"]["state"] == "not_due"


def test_the_duty_is_remembered_over_a_restart(loop: Loop, open_one: Any) -> None:
    loop.appliance.licence.install(loop.licence().read_bytes())
    loop.days(40)
    loop.appliance.acknowledging.accept(loop.answer(loop.report()))
    before = loop.appliance.licence.duty()
    loop.appliance.publishing.let_go()
    loop.appliance.close()
    assert open_one().licence.duty() == before


def test_the_policy_of_the_gate_follows_the_duty(loop: Loop) -> None:
    loop.appliance.licence.install(loop.licence().read_bytes())
    loop.appliance.publishing.publish()
    before = loop.appliance.publishing.generation()
    loop.days(46)
    asyncio.run(Rounds(loop.appliance).keep_policy())
    assert loop.appliance.publishing.generation() > before


def test_the_metrics_tell_of_the_duty(loop: Loop) -> None:
    def samples() -> dict[tuple[str, str], float]:
        families = own_families(status_of(loop.appliance), Counts({}, {}, None, {}, 0))
        return {
            (family.name, sample.labels.get("state", "")): sample.value
            for family in families
            for sample in family.samples
            if family.name.startswith("lotabots_report")
        }

    assert samples()["lotabots_report_state", "none"] == 1
    assert ("lotabots_report_due_timestamp_seconds", "") not in samples()
    loop.appliance.licence.install(loop.licence().read_bytes())
    installed = loop.clock.wall_ns() / NANOSECONDS
    loop.days(32)
    found = samples()
    assert (found["lotabots_report_state", "overdue"], found["lotabots_report_state", "none"]) == (1, 0)
    assert found["lotabots_report_due_timestamp_seconds", ""] == installed + 31 * DAY
    assert found["lotabots_report_restricted_timestamp_seconds", ""] == installed + 45 * DAY
    report = loop.report()
    loop.appliance.acknowledging.accept(loop.answer(report))
    assert samples()["lotabots_report_acknowledged_timestamp_seconds", ""] == report["until"]


def test_an_acknowledged_month_may_be_purged_and_reports_go_on(loop: Loop) -> None:
    report = loop.report()
    take = loop.appliance.acknowledging
    take.accept(loop.answer(report))
    loop.days(29)
    assert (take.purgeable(), take.purge("uid:0")) == (None, None)
    loop.days(2)
    planned = take.purgeable()
    assert planned is not None
    assert planned["until"] == report["until"]
    assert take.purge("uid:0") == planned
    verdict = loop.appliance.ledger_watch.look()
    assert (verdict.integrity.ok, verdict.proven_from) == (True, planned["last"] + 1)
    assert status_of(loop.appliance)["ledger"]["purged_rows"] == planned["last"]
    assert loop.state(report) == ("acknowledged", "accepted")
    assert loop.appliance.reports.write_due(loop.appliance.report_rule)[0]["from"] == report["until"]


def test_a_damaged_ledger_is_not_purged(loop: Loop) -> None:
    loop.appliance.acknowledging.accept(loop.answer(loop.report()))
    loop.days(31)
    with loop.appliance.ledger.reading() as connection:
        connection.executescript(
            "DROP TRIGGER windows_stay_as_they_are; UPDATE windows SET requests = 9 WHERE sequence = 1"
        )
    assert code_of(lambda: loop.appliance.acknowledging.purge("uid:0")) is Code.LEDGER_DAMAGED
    assert loop.appliance.ledger.anchor.head.sequence == 0


def test_a_walk_in_the_background_ends_with_the_verdict(loop: Loop) -> None:
    loop.days(1)
    watch = loop.appliance.ledger_watch
    assert watch.begin().running or watch.walking().verdict
    wait_until(lambda: not watch.walking().running)
    verdict = watch.walking().verdict
    assert verdict is not None
    assert verdict == watch.look()
    assert watch.last.verdict == verdict


def test_a_stop_ends_a_walk(loop: Loop) -> None:
    loop.days(60)  # more than a page of rows
    watch = loop.appliance.ledger_watch
    with watch.nobody_walks():
        assert watch.begin().running
        watch._stopping.set()
    wait_until(lambda: not watch.walking().running)
    failure = watch.walking().failure
    assert failure is not None
    assert failure.code is Code.DRAINING
    watch.stop()
