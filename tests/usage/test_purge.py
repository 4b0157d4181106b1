"""A purge takes out acknowledged windows only, all or nothing; what stays is still proven."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lotabotsd.foundation.chain import GENESIS
from lotabotsd.foundation.database import open_database
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.usage.acknowledged import list_acknowledgements
from lotabotsd.usage.acknowledgement import AckVerdict
from lotabotsd.usage.head import read_head
from lotabotsd.usage.ledger import Ledger, open_ledger
from lotabotsd.usage.purge import plan_purge, purge
from lotabotsd.usage.report import build_report, export_report, freeze
from lotabotsd.usage.schema import APPLICATION_ID, MIGRATIONS
from lotabotsd.usage.verification import Fault

DAY = 86_400
KEEP = 5  # days, few, so that the hours between are few too
REJECTED = {"verdict": AckVerdict.REJECTED, "reasons": ("it is damaged",)}


def later(box: Any, days: int) -> None:
    """Let days pass without anybody using the appliance."""
    box.clock.advance(days * DAY)
    box.seal()


def purge_now(box: Any) -> Any:
    return purge(box.ledger, box.now(), KEEP, "uid:0")


def totals(box: Any) -> Any:
    return box.ledger.usage(0)


@pytest.fixture
def aged(box: Any) -> Any:
    """Three reports of one hour; the first two are accepted and, like the third, 6 days old."""
    reports = [box.report() for _ in range(3)]
    for report in reports[:2]:
        box.accept(report)
    later(box, 6)
    box.reports = reports
    return box


def test_nothing_is_purged_that_is_young(box: Any) -> None:
    box.accept(box.report())
    later(box, 4)
    assert plan_purge(box.ledger, box.now(), KEEP) is None
    assert purge_now(box) is None
    assert box.ledger.anchor.head.sequence == 0


def test_the_age_is_that_of_the_reports_end_to_the_second(box: Any) -> None:
    report = box.report()
    box.accept(report)
    box.report()
    edge = report.period_until + KEEP * DAY
    assert plan_purge(box.ledger, edge - 1, KEEP) is None
    found = plan_purge(box.ledger, edge, KEEP)
    assert found is not None
    assert (found.first, found.last, found.head) == (1, report.last, report.head)


def test_a_purge_ends_before_the_first_report_that_was_not_accepted(aged: Any) -> None:
    second = aged.reports[1]
    planned = plan_purge(aged.ledger, aged.now(), KEEP)
    done = purge_now(aged)
    assert done == planned
    assert (done.first, done.last, done.reports, done.until) == (1, second.last, 2, second.period_until)
    assert done.rows == second.last
    assert next(aged.ledger.rows()).row.sequence == second.last + 1
    assert purge_now(aged) is None


@pytest.mark.parametrize("answer", [None, REJECTED])
def test_what_was_not_accepted_stays_whatever_its_age_and_whatever_follows(box: Any, answer: Any) -> None:
    first, second = box.report(), box.report()
    if answer:
        box.accept(first, **answer)
    box.accept(second)
    later(box, 50)
    before = box.ledger.head()
    assert purge_now(box) is None
    assert box.ledger.head() == before
    assert next(box.ledger.rows()).row.sequence == 1


def test_the_newest_row_stays_even_if_it_was_acknowledged(box: Any) -> None:
    report = box.report()
    box.accept(report)
    assert box.ledger.head().sequence == report.last
    assert purge(box.ledger, box.now() + 50 * DAY, KEEP, "uid:0") is None


def test_the_rest_is_proven_from_the_anchor_on(aged: Any) -> None:
    before = aged.ledger.verify()
    assert (before.proven_from, before.integrity.ok) == (1, True)
    done = purge_now(aged)
    verdict = aged.ledger.verify()
    assert verdict.integrity.ok
    assert verdict.completeness == before.completeness
    assert (verdict.rows, verdict.head) == (before.rows, before.head)
    assert (verdict.proven_from, verdict.proven_since) == (done.last + 1, done.until)


def test_life_goes_on_behind_an_anchor(aged: Any) -> None:
    purge_now(aged)
    followed = aged.report()
    assert followed.first == aged.reports[2].last + 1
    aged.accept(aged.reports[2])
    aged.accept(followed)
    later(aged, 6)
    done = purge_now(aged)
    assert done.reports == 2
    assert aged.ledger.verify().integrity.ok
    reopened = Ledger(aged.ledger._database, aged.clock, aged.path / "ledger.head")
    assert reopened.head() == aged.ledger.head()
    assert reopened.recorded_from == done.until


def test_totals_never_go_back(aged: Any) -> None:
    before = totals(aged)
    assert sum(row.meters.inferences for row in before) == 9
    purge_now(aged)
    assert totals(aged) == before
    assert sum(row.meters.inferences for row in aged.ledger.usage(1)) == 3
    aged.accept(aged.reports[2])
    later(aged, 1)
    purge_now(aged)
    assert totals(aged) == before


def test_a_purged_report_cannot_be_written_again_and_says_so(aged: Any) -> None:
    purge_now(aged)
    for report in aged.reports[:2]:
        with pytest.raises(LotaBotsError) as caught:
            build_report(aged.ledger, report, aged.key)
        assert caught.value.code is Code.REPORT_PURGED
        assert "acknowledged/" in caught.value.hint
    assert build_report(aged.ledger, aged.reports[2], aged.key)


def test_a_lost_file_of_a_purged_report_does_not_keep_the_next_from_being_written(box: Any) -> None:
    box.accept(box.report())
    later(box, 6)
    assert purge_now(box) is not None
    written = export_report(
        box.ledger, box.outbox, box.key, until=box.now(), about=box.about(), now=box.now()
    )
    assert written[0].sequence == 2
    assert all(box.outbox.holds(report.file_name) for report in written)


def test_an_old_head_file_does_not_stop_the_sealing(aged: Any) -> None:
    head = aged.path / "ledger.head"
    old = head.read_bytes()
    purge_now(aged)
    head.write_bytes(b'{"format":1,"hash":"' + b"00" * 32 + b'","sequence":1}\n')
    aged.clock.advance(3_600)
    aged.seal()
    assert read_head(head) == aged.ledger.head()
    assert head.read_bytes() != old
    assert aged.ledger.verify().integrity.ok


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO purges SELECT NULL, 1, last, head, period_until, 'me' FROM reports WHERE sequence = 3",
        "INSERT INTO purges SELECT NULL, 1, last, zeroblob(32), period_until, 'me' FROM reports",
        "INSERT INTO purges SELECT NULL, 1, last - 1, previous_head, period_until, 'me' FROM reports",
        "DELETE FROM windows WHERE sequence = 1",
        "DELETE FROM windows",
    ],
)
def test_the_schema_itself_refuses_more(aged: Any, statement: str) -> None:
    with aged.ledger.reading() as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    assert aged.ledger.verify().integrity.ok
    assert aged.ledger.anchor.head.sequence == 0


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM windows",
        "UPDATE purges SET last = 1",
        "DELETE FROM purges",
        "UPDATE windows SET requests = 0",
    ],
)
def test_the_schema_refuses_more_after_a_purge(aged: Any, statement: str) -> None:
    purge_now(aged)
    with aged.ledger.reading() as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    assert aged.ledger.verify().integrity.ok


def forge(box: Any, script: str) -> None:
    """What root can do with sqlite3."""
    with box.ledger.reading() as connection:
        triggers = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        connection.executescript("".join(f'DROP TRIGGER "{name}";' for (name,) in triggers) + script)


def test_a_forged_anchor_shows(aged: Any) -> None:
    """Rows that were never acknowledged are taken out, with an anchor that fits."""
    forge(
        aged,
        "INSERT INTO purges SELECT NULL, 1, last, head, period_until, 'me' FROM reports WHERE sequence = 3;"
        "DELETE FROM windows WHERE sequence <= (SELECT max(last) FROM purges);",
    )
    verdict = aged.ledger.verify()
    assert verdict.integrity.fault is Fault.FORKED
    assert "no acknowledged report" in verdict.integrity.detail


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("DELETE FROM windows WHERE sequence = (SELECT max(last) + 1 FROM purges)", Fault.GAP),
        ("UPDATE purges SET head = zeroblob(32)", Fault.PREDECESSOR_MISMATCH),
        ("DELETE FROM purges", Fault.GAP),
        (
            "UPDATE windows SET gate_us = 8 WHERE sequence = (SELECT max(last) + 1 FROM purges)",
            Fault.ROW_HASH_MISMATCH,
        ),
    ],
)
def test_what_is_cut_or_changed_behind_the_anchor_shows(aged: Any, script: str, fault: Fault) -> None:
    purge_now(aged)
    forge(aged, script)
    assert aged.ledger.verify().integrity.fault is fault


def test_a_ledger_of_the_first_schema_is_brought_up_to_date(tmp_path: Path, box: Any) -> None:
    path = tmp_path / "old.db"
    old = open_database(path, application_id=APPLICATION_ID, migrations=MIGRATIONS[:1])
    assert not old.conn.execute("SELECT 1 FROM sqlite_schema WHERE name = 'purges'").fetchone()
    old.close()
    ledger = open_ledger(path, box.clock)
    assert ledger.anchor.head.hash == GENESIS
    with ledger.reading() as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)
    box.clock.advance(3_600)
    ledger.seal(box.clock.wall_ns())
    assert ledger.verify().ok
    ledger.close()


def test_a_power_cut_during_a_purge_leaves_before_or_after(
    make_box: Callable[..., Any], crash_disk: ModuleType, crash_database: ModuleType
) -> None:
    box = make_box(on_disk=True)
    reports = [box.report() for _ in range(3)]
    for report in reports[:2]:
        box.accept(report)
    later(box, 11)
    whole, gone = box.ledger.head(), reports[1]
    seen = {image_of(seed, box, crash_disk, crash_database, whole, gone) for seed in range(8)}
    box.ledger.close()
    assert {"before", "after"} <= set().union(*seen)


def image_of(
    seed: int, box: Any, disks: ModuleType, databases: ModuleType, whole: Any, gone: Any
) -> frozenset[str]:
    """One purge on a disk that may lose power at each write: what the images were, each checked."""
    chance = random.Random(seed)  # noqa: S311 - the same lives every time
    place = box.path / f"life-{seed}"
    place.mkdir()
    path = place / "ledger.db"
    with box.ledger.reading() as like:
        like.execute("VACUUM INTO ?", (str(path),))
        disk = disks.CrashDisk(place)
        disk.adopt()
        database = databases.open_on(disk, path, like, wal_autocheckpoint=15)
    ledger = Ledger(database, box.clock)
    found: set[str] = set()

    def perhaps_crash(call: str) -> None:
        if chance.random() < 0.15:
            found.add(what_is_left(disk.crash(chance), box, whole, gone))

    disk.after = perhaps_crash
    assert purge(ledger, box.now(), 10, "uid:0") is not None
    for _ in range(3):
        found.add(what_is_left(disk.crash(chance), box, whole, gone))
    disk.after = lambda call: None
    ledger.close()
    return frozenset(found)


def what_is_left(image: Any, box: Any, whole: Any, gone: Any) -> str:
    place = box.path / "image"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    image.write(place)
    ledger = open_ledger(place / "ledger.db", box.clock)
    try:
        verdict = ledger.verify()
        assert verdict.integrity.ok, verdict.integrity.text
        assert verdict.head == whole
        assert sum(row.meters.inferences for row in ledger.usage(0)) == 9
        assert len(list_acknowledgements(ledger)) == 2
        first = next(ledger.rows()).row.sequence
        assert (verdict.proven_from, first) in {(1, 1), (gone.last + 1, gone.last + 1)}
        return "before" if first == 1 else "after"
    finally:
        ledger.close()


def test_frozen_ranges_go_on_after_a_purge(aged: Any) -> None:
    purge_now(aged)
    frozen = freeze(aged.ledger, aged.now(), aged.about(), aged.now())
    assert frozen.previous_head == aged.reports[2].head
