"""What a dead worker's journal still says, and its tickets settled by that."""

from __future__ import annotations

from pathlib import Path

import pytest

from lotabotsd.foundation.paths import Paths
from lotabotsd.gate.aftermath import last_record, recorded_by, settle, settle_beyond
from lotabotsd.limits.table import Scope, Table, Ticket, Totals, create_table, current_boot_id
from lotabotsd.usage.journal import Journal
from lotabotsd.usage.records import Outcome, encode_close

EPOCH = 7
SCOPE = Scope("licence", 0, 1)
BOOT = b"0123456789abcdef"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A journal directory and a limits table with room for three workers."""
    paths = Paths(tmp_path / "state", tmp_path / "run")
    paths.journal.mkdir(parents=True)
    paths.limits_table.parent.mkdir(parents=True)
    create_table(paths.limits_table, slots=4, workers=3, boot_id=current_boot_id(), fill=[])
    return paths


def journal(paths: Paths, worker: int = 0, epoch: int = EPOCH, segment_bytes: int = 65_536) -> Journal:
    return Journal(paths.journal, worker, BOOT, epoch, segment_bytes, in_background=lambda work: None)


def close_record() -> bytes:
    return encode_close(
        open_number=1, wall_ns=1, outcome=Outcome.SERVED, status=200, inferences=1, input_bytes=0,
        output_bytes=0, gate_us=0,
    )  # fmt: skip


def last_segment(paths: Paths) -> Path:
    return max((paths.journal / "0").glob("*.seg"))


def totals(paths: Paths) -> Totals:
    table = Table.open(paths.limits_table, None)
    found = table.totals()
    table.close()
    assert isinstance(found, Totals)
    return found


# -- the last record
@pytest.mark.parametrize("records", [0, 1, 5, 3_000])
def test_the_last_record_is_found_in_whichever_segment_it_is(paths: Paths, records: int) -> None:
    made = journal(paths)
    for _ in range(records):
        made.append(close_record())
    made.close()
    assert last_record(paths.journal / "0", EPOCH) == records
    assert last_record(paths.journal / "0", EPOCH + 1) is None
    assert last_record(paths.journal / "1", EPOCH) is None


def test_records_of_freed_segments_count_as_written(paths: Paths) -> None:
    made = journal(paths)
    for _ in range(2_000):
        made.append(close_record())
    made.close()
    first, *rest = sorted((paths.journal / "0").glob("*.seg"))
    assert rest
    first.unlink()
    recorded = recorded_by(paths.journal, 0)
    assert recorded(EPOCH, 1)
    assert recorded(EPOCH, 2_000)
    assert not recorded(EPOCH, 2_001)


def test_a_torn_record_was_not_written_and_one_behind_damage_was(paths: Paths) -> None:
    made = journal(paths)
    for _ in range(3):
        made.append(close_record())
    made.close()
    segment = last_segment(paths)
    data = bytearray(segment.read_bytes())
    size = len(close_record())
    data[64 + 2 * size + 20] ^= 1  # in the third record
    segment.write_bytes(data)
    assert last_record(paths.journal / "0", EPOCH) == 2
    data[64 + 2 * size + 20] ^= 1
    data[64 + size + 20] ^= 1  # in the second
    data[8] ^= 1  # and in the header
    segment.write_bytes(data)
    assert last_record(paths.journal / "0", EPOCH) == 3


def test_where_nothing_is_left_of_an_epoch_everything_counts_as_written(paths: Paths) -> None:
    assert recorded_by(paths.journal, 0)(EPOCH, 1)


# -- settling
def dead_worker(paths: Paths, *, recorded: bool) -> None:
    """Worker 1 died between the CLOSE of a request and its commit, or just before the CLOSE."""
    table = Table.open(paths.limits_table, 1)
    table.begin(EPOCH)
    made = journal(paths, worker=1)
    made.append(close_record())
    ticket = table.reserve((SCOPE,), 3, 0, 202611)
    assert isinstance(ticket, Ticket)
    table.closing(ticket, 3, made.next_number)
    if recorded:
        made.append(close_record())
    table.close()
    made.close()


@pytest.mark.parametrize("recorded", [True, False])
def test_a_dead_workers_ticket_ends_as_its_journal_says(paths: Paths, recorded: bool) -> None:
    dead_worker(paths, recorded=recorded)
    assert settle(paths, 1, seconds=0)
    found = totals(paths)
    assert (found.committed, found.refunded) == ((1, 0) if recorded else (0, 1))
    assert (found.used, found.reserved, found.open) == (3 if recorded else 0, 0, 0)


def test_workers_of_numbers_that_nobody_has_any_more_are_settled_too(paths: Paths) -> None:
    dead_worker(paths, recorded=True)
    settle_beyond(paths, 2, seconds=0)
    assert totals(paths).open == 1
    settle_beyond(paths, 1, seconds=0)
    assert totals(paths).used == 3


def test_what_cannot_be_settled_is_told_and_left_alone(paths: Paths) -> None:
    living = Table.open(paths.limits_table, 1)
    ticket = living.reserve((SCOPE,), 1, 0, 202611)
    assert isinstance(ticket, Ticket)
    assert not settle(paths, 1, seconds=0)
    assert totals(paths).open == 1
    living.close()
    assert settle(paths, 9, seconds=0)  # beyond the table
    paths.limits_table.unlink()
    assert settle(paths, 1, seconds=0)
    settle_beyond(paths, 0, seconds=0)
