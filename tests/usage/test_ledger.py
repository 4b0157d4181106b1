"""The ledger: hours sealed once, in order, for good, and the questions it answers."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.usage.ledger import open_ledger
from lotabotsd.usage.records import Outcome
from lotabotsd.usage.windows import HOUR, MAX_ZERO_WINDOWS, Kind, Meters

HOUR_START = 1_795_406_400  # 2026-11-23T04:00:00Z; the box begins ten minutes later


def rows(box: Any) -> list[tuple[Any, ...]]:
    """(kind, minutes from the start, minutes to the end, outcome, late minutes or None, requests)."""
    return [
        (
            str(stored.row.kind),
            (stored.row.start - HOUR_START) / 60,
            (stored.row.end - HOUR_START) / 60,
            stored.row.outcome,
            (stored.row.late_for - HOUR_START) / 60 if stored.row.late_for else None,
            stored.row.meters.requests,
        )
        for stored in box.ledger.rows()
    ]


def test_the_first_window_begins_with_the_hour_of_installation(box: Any) -> None:
    assert box.ledger.sealed_until == HOUR_START


def test_an_hour_without_use_is_one_zero_row(box: Any) -> None:
    box.clock.advance(3_600)
    sealed = box.seal()
    assert (sealed.windows, sealed.rows, sealed.until) == (1, 1, HOUR_START + HOUR)
    assert rows(box) == [("appliance", 0, 60, "", None, 0)]


def test_sealing_twice_writes_once(box: Any) -> None:
    box.clock.advance(3_600)
    box.seal()
    assert box.seal().rows == 0


def test_an_open_hour_is_not_sealed(box: Any) -> None:
    box.serve(box.worker())
    assert box.seal().windows == 0
    assert box.requests() == {"served": 1}


def test_a_request_belongs_to_the_hour_of_its_close(box: Any) -> None:
    journal = box.worker()
    number = box.open(journal)
    box.clock.advance(3_600)
    box.close(journal, number)
    box.clock.advance(3_600)
    box.seal()
    assert rows(box) == [
        ("appliance", 0, 60, "", None, 0),
        ("usage", 60, 120, "served", None, 1),
        ("appliance", 60, 120, "", None, 1),
    ]


@pytest.mark.parametrize(("offset_ns", "window"), [(-1, 0), (0, 60)])
def test_windows_are_half_open(box: Any, offset_ns: int, window: int) -> None:
    journal = box.worker()
    edge = (HOUR_START + HOUR) * 10**9
    box.close(journal, box.open(journal), wall_ns=edge + offset_ns)
    box.clock.advance(2 * 3_600)
    box.seal()
    [usage] = [row for row in rows(box) if row[0] == "usage"]
    assert usage[1] == window


def test_what_comes_after_the_seal_is_a_late_row_of_the_next_window(box: Any) -> None:
    journal = box.worker()
    then = box.clock.wall_ns()
    box.clock.advance(3_600)
    box.seal()
    box.close(journal, box.open(journal), wall_ns=then)
    box.serve(journal)
    box.clock.advance(3_600)
    box.seal()
    assert rows(box)[1:] == [
        ("usage", 60, 120, "served", None, 1),
        ("usage", 60, 120, "served", 0, 1),
        ("appliance", 60, 120, "", None, 2),
    ]
    assert box.ledger.verify().ok


def test_a_cut_closes_the_hour_early_and_the_rest_follows(box: Any) -> None:
    journal = box.worker()
    box.serve(journal)
    sealed = box.seal(cut=True)
    assert sealed.until == box.now() + 1
    box.clock.advance(60)
    box.serve(journal)
    box.clock.advance(3_600)
    box.seal()
    assert [row[1:3] + row[5:] for row in rows(box)] == [
        (0, 10 + 1 / 60, 1), (0, 10 + 1 / 60, 1), (10 + 1 / 60, 60, 1), (10 + 1 / 60, 60, 1),
    ]  # fmt: skip
    assert [row[4] for row in rows(box)] == [None] * 4
    assert box.ledger.verify().ok


def test_a_cut_twice_at_one_moment_adds_nothing(box: Any) -> None:
    box.seal(cut=True)
    assert box.seal(cut=True).rows == 0


def test_a_daemon_that_was_away_writes_every_hour(box: Any) -> None:
    box.serve(box.worker())
    box.clock.advance(5 * 3_600)
    assert box.seal().windows == 5
    assert [row[5] for row in rows(box) if row[0] == "appliance"] == [1, 0, 0, 0, 0]


@pytest.fixture(scope="module")
def returned(make_box: Any) -> Any:
    """An appliance that was used two days after its last seal, and then stood in a cellar for years."""
    box = make_box()
    box.clock.advance(50 * HOUR)
    box.serve(box.worker())
    box.drain()
    box.clock.advance((MAX_ZERO_WINDOWS + 100) * HOUR)
    box.seal()
    return box


def test_an_absence_of_years_is_one_gap_row_and_is_found(returned: Any) -> None:
    kinds = [stored.row.kind for stored in returned.ledger.rows(last=4)]
    assert kinds == [Kind.APPLIANCE, Kind.GAP, Kind.USAGE, Kind.APPLIANCE]
    verdict = returned.ledger.verify()
    assert verdict.integrity.ok
    assert (verdict.completeness.fault, verdict.completeness.sequence) == ("GAP", 2)


def test_use_during_a_gap_is_a_late_row_of_the_window_after_it(returned: Any) -> None:
    [usage] = [row for row in rows(returned) if row[0] == "usage"]
    assert usage[4] == 50 * 60
    assert usage[1] > usage[4]


def test_a_clock_set_back_seals_nothing_and_is_on_record(box: Any) -> None:
    box.clock.advance(2 * 3_600)
    box.seal()
    before = rows(box)
    box.clock.advance(-86_400)
    box.serve(box.worker())
    assert box.seal().rows == 0
    box.seal()
    assert rows(box) == before
    assert box.kinds() == ["clock_back"]
    assert box.ledger.verify().completeness.fault == "CLOCK_SUSPECT"


def test_a_report_can_be_cut_although_the_clock_is_behind(box: Any) -> None:
    box.clock.advance(2 * 3_600)
    box.seal()
    box.clock.advance(-86_400)
    box.serve(box.worker())
    assert box.seal(cut=True).windows == 1
    last = list(box.ledger.rows())[-2:]
    assert [stored.row.clock_suspect for stored in last] == [1, 1]
    assert last[0].row.meters.requests == 1
    assert last[0].row.end - last[0].row.start == 1
    verdict = box.ledger.verify()
    assert verdict.integrity.ok
    assert (verdict.completeness.fault, verdict.completeness.sequence) == (
        "CLOCK_SUSPECT",
        last[0].row.sequence,
    )


def test_a_doubted_clock_marks_the_windows(box: Any) -> None:
    box.clock.advance(3_600)
    box.ledger.seal(box.clock.wall_ns(), clock_suspect=True)
    assert [stored.row.clock_suspect for stored in box.ledger.rows()] == [1]


@pytest.mark.parametrize("table", ["windows", "reports"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET sequence = 9", "DELETE FROM {}"])
def test_sealed_rows_can_be_neither_changed_nor_removed(
    box: Any, exported: Any, table: str, statement: str
) -> None:
    with pytest.raises(LotaBotsError, match="cannot be"), box.ledger.transaction() as connection:
        connection.execute(statement.format(table))


@pytest.fixture
def exported(box: Any) -> None:
    """A ledger with a window and a report."""
    from lotabotsd.usage.report import freeze

    box.clock.advance(3_600)
    freeze(box.ledger, box.seal().until, box.about(), box.now())


def test_usage_is_summed_by_what_is_asked_for(box: Any) -> None:
    journal = box.worker()
    for organisation, key, model, outcome in (
        ("org_a", "k1", "m1", Outcome.SERVED),
        ("org_a", "k1", "m2", Outcome.SERVED),
        ("org_a", "k2", "m1", Outcome.REFUSED_RATE),
        ("org_b", "k3", "m1", Outcome.SERVED),
    ):
        number = box.open(journal, organisation_id=organisation, key_id=key, model=model)
        box.close(journal, number, outcome=outcome, inferences=2 if outcome is Outcome.SERVED else 0)
    box.clock.advance(3_600)
    box.seal()
    number = box.open(journal, organisation_id="org_b", key_id="k3", model="m1")
    box.close(journal, number, inferences=5)
    box.drain()
    by_organisation = box.ledger.usage(by=("organisation",))
    assert [
        (r.organisation, r.key, r.meters.requests, r.meters.inferences, r.charged) for r in by_organisation
    ] == [
        ("org_a", "", 3, 4, None),
        ("org_b", "", 2, 7, True),
    ]
    assert [(r.key, r.model, r.outcome) for r in box.ledger.usage(organisation="org_a")] == [
        ("k1", "m1", "served"), ("k1", "m2", "served"), ("k2", "m1", "refused_rate"),
    ]  # fmt: skip
    assert sum(r.meters.requests for r in box.ledger.usage(HOUR_START, HOUR_START + HOUR)) == 4
    assert sum(r.meters.requests for r in box.ledger.usage(HOUR_START + HOUR)) == 1
    [total] = box.ledger.usage(by=())
    assert total.meters == Meters(5, 11, 500, 50, 35)
    assert box.ledger.usage(organisation="org_c") == []


def test_the_month_counts_what_is_charged_in_every_scope(box: Any) -> None:
    journal = box.worker()
    for model, outcome in (("m1", Outcome.SERVED), ("m2", Outcome.CLIENT_GONE), ("m2", Outcome.MODEL_ERROR)):
        box.close(journal, box.open(journal, model=model), outcome=outcome, inferences=4)
    box.drain()
    assert box.ledger.month_usage(202611) == {
        ("licence", ""): 8, ("organisation", "org_aaaaaaaaaaaaaaaa"): 8, ("key", "kkkkkkkkkkkk"): 8,
        ("model", "m1"): 4, ("model", "m2"): 4,
    }  # fmt: skip


def test_the_month_is_the_one_in_which_the_request_was_reserved(box: Any) -> None:
    journal = box.worker()
    number = box.open(journal, window_id=202610)
    box.close(journal, number)
    box.drain()
    assert box.ledger.month_usage(202611) == {}
    assert box.ledger.month_usage(202610)["licence", ""] == 1


def test_a_ledger_opened_again_goes_on(disk_box: Any) -> None:
    disk_box.serve(disk_box.worker())
    disk_box.clock.advance(3_600)
    disk_box.seal()
    again = open_ledger(disk_box.path / "ledger.db", disk_box.clock)
    assert again.sealed_until == HOUR_START + HOUR
    assert again.head() == disk_box.ledger.head()
    assert again.verify().ok
    again.close()


def test_many_rows_are_read_in_pages_without_loss(box: Any) -> None:
    box.clock.advance(2_500 * 3_600)
    box.seal()
    assert [stored.row.sequence for stored in box.ledger.rows()] == list(range(1, 2_501))
    assert [stored.row.sequence for stored in box.ledger.rows(999, 1_002)] == [999, 1_000, 1_001, 1_002]
    assert list(box.ledger.rows(2_501)) == []


def test_sealing_goes_on_while_rows_are_read(disk_box: Any) -> None:
    disk_box.clock.advance(1_200 * 3_600)
    disk_box.seal()
    reading = disk_box.ledger.rows()
    first = next(reading)
    worker = threading.Thread(target=disk_box.seal)
    disk_box.clock.advance(3_600)
    worker.start()
    worker.join(10)
    assert not worker.is_alive()
    assert len([first, *reading]) == 1_201


def test_a_full_disk_is_said_so_and_nothing_is_half_done(disk_box: Any) -> None:
    journal = disk_box.worker()
    for number in range(500):
        disk_box.open(journal, key_id=f"key{number:09}", model="m" * 100)
    with disk_box.ledger.reading() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LotaBotsError) as caught:
        disk_box.drain()
    assert caught.value.code is Code.DISK_FULL
    assert disk_box.ledger.in_flight() == 0
    with disk_box.ledger.reading() as connection:
        connection.execute("PRAGMA max_page_count = 100000")
    disk_box.drain()
    assert disk_box.ledger.in_flight() == 500


def test_a_database_of_garbage_is_said_so(tmp_path: Path, box: Any) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"garbage" * 1_000)
    with pytest.raises(LotaBotsError) as caught:
        open_ledger(path, box.clock)
    assert caught.value.code is Code.DATABASE_DAMAGED


def test_every_table_is_strict(box: Any) -> None:
    with box.ledger.reading() as connection:
        tables = connection.execute(
            "SELECT name, strict FROM pragma_table_list WHERE schema = 'main'"
        ).fetchall()
    assert {name for name, strict in tables if not strict} == {"sqlite_schema"}


def test_rows_that_hold_what_no_row_can_are_named(disk_box: Any) -> None:
    disk_box.clock.advance(3_600)
    disk_box.seal()
    disk_box.ledger.close()
    raw = sqlite3.connect(disk_box.path / "ledger.db")
    raw.executescript(
        "DROP TRIGGER windows_stay_as_they_are; PRAGMA ignore_check_constraints = ON;"
        "UPDATE windows SET kind = 'nonsense';"
    )
    raw.close()
    with pytest.raises(LotaBotsError, match="row 1") as caught:
        open_ledger(disk_box.path / "ledger.db", disk_box.clock).verify()
    assert caught.value.code is Code.LEDGER_DAMAGED


def test_a_finding_that_no_release_wrote_is_a_damaged_ledger(box: Any) -> None:
    with box.ledger.transaction() as connection:
        connection.execute("INSERT INTO findings VALUES (NULL, 0, 'nonsense', 0, 0, 0, 0, 1, 0, '')")
    with pytest.raises(LotaBotsError) as caught:
        box.ledger.findings()
    assert caught.value.code is Code.LEDGER_DAMAGED
