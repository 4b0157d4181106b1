"""Every way a ledger can be wrong has its name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lotabotsd.foundation.chain import GENESIS
from lotabotsd.usage.batch import Finding, FindingKind
from lotabotsd.usage.ledger import open_ledger
from lotabotsd.usage.report import freeze
from lotabotsd.usage.verification import Fault
from lotabotsd.usage.windows import row_hash


@pytest.fixture
def filled(box: Any) -> Any:
    """Three hours: rows 1-2, 3-4, 5-6."""
    journal = box.worker()
    for _ in range(3):
        box.serve(journal)
        box.clock.advance(3_600)
        box.seal()
    return box


def tamper(box: Any, script: str) -> None:
    """What root can do with sqlite3."""
    with box.ledger.reading() as connection:
        connection.executescript(
            "DROP TRIGGER IF EXISTS windows_stay; DROP TRIGGER IF EXISTS windows_stay_as_they_are;"
            "PRAGMA ignore_check_constraints = ON;" + script
        )


def test_an_untouched_ledger_is_whole_and_complete(filled: Any) -> None:
    verdict = filled.ledger.verify()
    assert verdict.ok
    assert (verdict.rows, verdict.head) == (6, filled.ledger.head())


def test_an_empty_ledger_is_whole_and_complete(box: Any) -> None:
    verdict = box.ledger.verify()
    assert verdict.ok
    assert verdict.rows == 0
    assert verdict.head.hash == GENESIS


def test_a_missing_row_is_a_gap(filled: Any) -> None:
    tamper(filled, "DELETE FROM windows WHERE sequence = 3")
    verdict = filled.ledger.verify()
    assert (verdict.integrity.fault, verdict.integrity.sequence) == (Fault.GAP, 4)
    assert "row 3 is missing" in verdict.integrity.detail


def test_a_missing_first_row_is_a_gap(filled: Any) -> None:
    tamper(filled, "DELETE FROM windows WHERE sequence = 1")
    assert filled.ledger.verify().integrity.fault is Fault.GAP


def test_rows_closed_up_after_a_removal_follow_the_wrong_row(filled: Any) -> None:
    tamper(
        filled,
        "DELETE FROM windows WHERE sequence = 3;"
        "UPDATE windows SET sequence = sequence - 1 WHERE sequence > 3",
    )
    verdict = filled.ledger.verify()
    assert (verdict.integrity.fault, verdict.integrity.sequence) == (Fault.PREDECESSOR_MISMATCH, 3)


def test_swapped_rows_follow_the_wrong_row(filled: Any) -> None:
    tamper(
        filled,
        "UPDATE windows SET sequence = 99 WHERE sequence = 3;"
        "UPDATE windows SET sequence = 3 WHERE sequence = 5;"
        "UPDATE windows SET sequence = 5 WHERE sequence = 99",
    )
    assert filled.ledger.verify().integrity.fault is Fault.PREDECESSOR_MISMATCH


@pytest.mark.parametrize(
    "change",
    [
        "inferences = 0", "requests = 0", "input_bytes = 0", "output_bytes = 0", "gate_us = 0", "charged = 0",
        "outcome = 'aborted'", "key = 'other'", "organisation = 'other'", "model = 'other'",
        "start = start + 1", '"end" = "end" + 1', "late_for = 1", "clock_suspect = 1", "kind = 'gap'",
        "row_hash = previous_hash",
    ],
)  # fmt: skip
def test_a_changed_field_does_not_fit_its_hash(filled: Any, change: str) -> None:
    tamper(filled, "UPDATE windows SET " + change + " WHERE sequence = 3")  # noqa: S608 - a test's own text
    verdict = filled.ledger.verify()
    assert (verdict.integrity.fault, verdict.integrity.sequence) == (Fault.ROW_HASH_MISMATCH, 3)


def test_a_cut_tail_is_seen_by_the_head_file(filled: Any) -> None:
    tamper(filled, "DELETE FROM windows WHERE sequence > 4")
    verdict = filled.ledger.verify()
    assert (verdict.integrity.fault, verdict.integrity.sequence) == (Fault.TAIL_TRUNCATED, 4)
    assert "head file knows rows up to 6" in verdict.integrity.detail


def test_a_cut_tail_is_seen_by_the_newest_report(filled: Any) -> None:
    freeze(filled.ledger, filled.ledger.sealed_until, filled.about(), filled.now())
    tamper(filled, "DELETE FROM windows WHERE sequence > 4")
    (filled.path / "ledger.head").unlink()
    verdict = filled.ledger.verify()
    assert verdict.integrity.fault is Fault.TAIL_TRUNCATED
    assert "newest report" in verdict.integrity.detail


def test_an_older_copy_of_the_database_is_seen_by_the_head_file(disk_box: Any) -> None:
    disk_box.seal(cut=True)
    disk_box.ledger.close()
    older = (disk_box.path / "ledger.db").read_bytes()
    disk_box.ledger = open_ledger(disk_box.path / "ledger.db", disk_box.clock)
    disk_box.clock.advance(3_600)
    disk_box.seal()
    disk_box.ledger.close()
    for extra in disk_box.path.glob("ledger.db-*"):
        extra.unlink()
    (disk_box.path / "ledger.db").write_bytes(older)
    disk_box.ledger = open_ledger(disk_box.path / "ledger.db", disk_box.clock)
    assert disk_box.ledger.verify().integrity.fault is Fault.TAIL_TRUNCATED


def rebuild_from(box: Any, sequence: int) -> None:
    """Chain everything from a row on anew, as the machine's owner can."""
    with box.ledger.reading() as connection:
        previous = connection.execute(
            "SELECT row_hash FROM windows WHERE sequence = ?", (sequence - 1,)
        ).fetchone()[0]
        for stored in list(box.ledger.rows(sequence)):
            made = row_hash(previous, stored.row)
            connection.execute(
                "UPDATE windows SET previous_hash = ?, row_hash = ? WHERE sequence = ?",
                (previous, made, stored.row.sequence),
            )
            previous = made


def test_a_rebuilt_chain_is_seen_by_the_head_file(filled: Any) -> None:
    tamper(filled, "UPDATE windows SET inferences = 0 WHERE sequence = 3")
    rebuild_from(filled, 3)
    verdict = filled.ledger.verify()
    assert (verdict.integrity.fault, verdict.integrity.sequence) == (Fault.FORKED, 6)


def test_a_rebuilt_chain_is_seen_by_the_newest_report(filled: Any) -> None:
    freeze(filled.ledger, filled.ledger.sealed_until, filled.about(), filled.now())
    tamper(filled, "UPDATE windows SET inferences = 0 WHERE sequence = 3")
    rebuild_from(filled, 3)
    (filled.path / "ledger.head").unlink()
    verdict = filled.ledger.verify()
    assert verdict.integrity.fault is Fault.FORKED
    assert "newest report" in verdict.integrity.detail


def test_sealing_on_does_not_hide_a_cut_or_rebuilt_tail(filled: Any) -> None:
    """The head file stays as it was: it is the evidence."""
    tamper(filled, "DELETE FROM windows WHERE sequence > 4")
    for _ in range(5):
        filled.clock.advance(3_600)
        filled.seal()
    assert filled.ledger.verify().integrity.fault is Fault.FORKED


def test_the_head_file_catches_up_after_a_crash_before_its_writing(disk_box: Any) -> None:
    path = disk_box.path / "ledger.head"
    disk_box.seal(cut=True)
    old = path.read_bytes()
    disk_box.clock.advance(3_600)
    disk_box.seal()
    newest = path.read_bytes()
    path.write_bytes(old)
    assert disk_box.ledger.verify().ok
    again = open_ledger(disk_box.path / "ledger.db", disk_box.clock)
    again.seal(disk_box.clock.wall_ns())
    assert path.read_bytes() == newest
    again.close()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"sequence":0,"hash":""}', b'{"sequence":"6","hash":"00"}']
)
def test_a_damaged_head_file_is_said_and_written_anew(filled: Any, content: bytes) -> None:
    path = filled.path / "ledger.head"
    path.write_bytes(content)
    verdict = filled.ledger.verify()
    assert verdict.integrity.ok
    assert verdict.completeness.fault is Fault.TAIL_TRUNCATED
    assert "would not show" in verdict.completeness.detail
    filled.clock.advance(3_600)
    filled.seal()
    assert json.loads(path.read_bytes())["sequence"] == 7
    assert filled.ledger.verify().ok


def test_a_missing_head_file_is_written_anew(filled: Any) -> None:
    (filled.path / "ledger.head").unlink()
    assert filled.ledger.verify().ok
    filled.clock.advance(3_600)
    filled.seal()
    assert (filled.path / "ledger.head").exists()


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (FindingKind.DAMAGE, Fault.GAP),
        (FindingKind.MISSING_RECORDS, Fault.GAP),
        (FindingKind.CLOCK_BACK, Fault.CLOCK_SUSPECT),
    ],
)
def test_lost_records_are_a_matter_of_completeness(filled: Any, kind: FindingKind, fault: Fault) -> None:
    filled.ledger.note(Finding(kind, 0, 1, 2, 3, count=4, detail="because"))
    verdict = filled.ledger.verify()
    assert verdict.integrity.ok
    assert verdict.completeness.fault is fault
    assert verdict.completeness.detail == f"{kind.value} ×4 because"


def test_a_segment_that_cannot_be_read_is_missing_until_it_can(box: Any, image: Any) -> None:
    image.append(box.open_record())
    image.append(box.close_record(1))
    image.write()
    away = image.path(0).rename(box.path / "away")
    image.path(0).mkdir()
    box.drain()
    assert box.ledger.verify().completeness.detail == "unreadable ×1 Is a directory"
    image.path(0).rmdir()
    away.rename(image.path(0))
    box.drain()
    assert box.ledger.verify().ok


@pytest.mark.parametrize("kind", [FindingKind.WORKER_STARTED, FindingKind.TORN_TAIL])
def test_restarts_and_kills_are_no_fault(filled: Any, kind: FindingKind) -> None:
    filled.ledger.note(Finding(kind, 0, 9, 0, 0))
    assert filled.ledger.verify().ok


def test_windows_that_do_not_tile_time_are_a_gap_even_with_good_hashes(filled: Any) -> None:
    tamper(filled, 'UPDATE windows SET start = start + 60, "end" = "end" + 60 WHERE sequence >= 3')
    rebuild_from(filled, 3)
    (filled.path / "ledger.head").unlink()
    verdict = filled.ledger.verify()
    assert verdict.integrity.ok
    assert (verdict.completeness.fault, verdict.completeness.sequence) == (Fault.GAP, 3)
