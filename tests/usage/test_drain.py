"""Journals into the ledger: everything once, whatever ends where."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.usage.batch import Batch, Cursor
from lotabotsd.usage.drain import Drainer
from lotabotsd.usage.records import Outcome, Receipt, decode, encode_receipt

SERVED = "served"
ABORTED = "aborted"


def segments(box: Any) -> list[str]:
    return sorted(path.name for path in (box.journal / "0").iterdir())


def test_nothing_is_drained_from_nothing(box: Any) -> None:
    drained = box.drain()
    assert (drained.records, drained.damaged, drained.segments_freed, drained.problems) == (0, 0, 0, [])


def test_a_request_is_counted_when_it_is_closed(box: Any) -> None:
    journal = box.worker()
    number = box.open(journal)
    assert box.drain().records == 1
    assert (box.requests(), box.ledger.in_flight()) == ({}, 1)
    box.close(journal, number, inferences=8)
    assert box.drain().records == 1
    assert (box.requests(), box.ledger.in_flight()) == ({SERVED: 1}, 0)
    [row] = box.ledger.usage()
    assert (row.meters.inferences, row.meters.input_bytes, row.charged) == (8, 100, True)


def test_draining_twice_counts_once(box: Any) -> None:
    box.serve(box.worker())
    box.drain()
    assert box.drain().records == 0
    assert box.requests() == {SERVED: 1}


def test_a_batch_applied_twice_counts_once(box: Any) -> None:
    opened = decode(box.open_record())
    batch = Batch(0, 1, "", Cursor(), ((1, opened),), (0, 200), ended=True)
    assert box.ledger.apply(batch)
    assert not box.ledger.apply(batch)
    assert box.requests() == {ABORTED: 1}


def test_two_drainers_at_once_count_once(box: Any) -> None:
    """The second one's batch starts where the cursor no longer is."""
    journal = box.worker()
    for _ in range(5):
        box.serve(journal)
    cursor = box.ledger.cursor(0, 1)
    box.drain()
    late = Batch(0, 1, "", cursor, ((1, decode(box.open_record())),), (0, 200), ended=False)
    assert not box.ledger.apply(late)
    assert box.requests() == {SERVED: 5}


def test_the_segment_of_a_living_worker_stays(box: Any) -> None:
    journal = box.worker()
    box.serve(journal)
    assert box.drain().segments_freed == 0
    assert len(segments(box)) == 1
    box.serve(journal)
    box.drain()
    assert box.requests() == {SERVED: 2}


def test_full_segments_of_a_living_worker_are_freed_and_requests_pair_across_them(box: Any) -> None:
    journal = box.worker(segment_bytes=2_400)
    numbers = [box.open(journal) for _ in range(60)]
    for number in numbers:
        box.close(journal, number)
    drained = box.drain(batch_records=7)
    assert drained.records == 120
    assert drained.segments_freed > 3
    assert len(segments(box)) == 1
    assert (box.requests(), box.ledger.in_flight(), box.kinds()) == ({SERVED: 60}, 0, [])


def test_draining_beside_a_worker_that_writes_loses_and_doubles_nothing(box: Any) -> None:
    journal = box.worker(segment_bytes=16_384)
    done = threading.Event()
    failures: list[object] = []

    def keep_draining() -> None:
        while not done.is_set():
            drained = box.drain(batch_records=100)
            failures.extend(drained.problems)

    drainer = threading.Thread(target=keep_draining)
    drainer.start()
    for _ in range(1_000):
        box.serve(journal)
    done.set()
    drainer.join(30)
    journal.close()
    box.drain()
    assert (box.requests(), box.kinds(), failures) == ({SERVED: 1_000}, [], [])


def test_what_a_dead_worker_left_open_was_aborted(box: Any) -> None:
    journal = box.worker()
    box.open(journal)
    box.serve(journal)
    box.drain()
    box.open(journal)
    journal.close()
    assert box.drain().segments_freed == 1
    assert box.requests() == {SERVED: 1, ABORTED: 2}
    assert box.ledger.in_flight() == 0
    assert segments(box) == []
    assert box.kinds() == []


def test_what_a_dead_worker_wrote_last_stays_for_as_long_as_somebody_needs_it(box: Any) -> None:
    journal = box.worker(worker=0, epoch=7)
    box.serve(journal)
    box.open(journal)
    asked: list[tuple[int, int]] = []

    def drain(*, may_end: bool) -> int:
        def ask(worker: int, epoch: int) -> bool:
            asked.append((worker, epoch))
            return may_end

        return Drainer(box.journal, box.ledger, box.clock, may_end=ask).drain_once().segments_freed

    assert drain(may_end=False) == 0
    assert asked == []  # it lives
    journal.close()
    assert drain(may_end=False) == 0
    assert asked == [(0, 7)]
    assert (box.requests(), box.ledger.in_flight(), len(segments(box))) == ({SERVED: 1}, 1, 1)
    assert drain(may_end=True) == 1
    assert (box.requests(), box.ledger.in_flight(), segments(box)) == ({SERVED: 1, ABORTED: 1}, 0, [])


def test_an_aborted_request_is_not_charged(box: Any) -> None:
    journal = box.worker()
    box.open(journal, reserved=100)
    journal.close()
    box.drain()
    [row] = box.ledger.usage()
    assert (row.charged, row.meters.inferences) == (False, 0)
    assert box.ledger.month_usage(202611) == {}


def test_lives_of_one_worker_do_not_mix(box: Any) -> None:
    first = box.worker(epoch=1)
    box.open(first)
    first.close()
    second = box.worker(epoch=2)
    box.close(second, box.open(second))
    box.drain()
    assert box.requests() == {SERVED: 1, ABORTED: 1}


def test_a_crash_between_counting_and_freeing_counts_once(box: Any) -> None:
    journal = box.worker()
    box.serve(journal)
    journal.close()
    copy = box.path / "copy"
    shutil.copytree(box.journal, copy)
    box.drain()
    shutil.rmtree(box.journal)
    shutil.copytree(copy, box.journal)
    drained = box.drain()
    assert (drained.records, drained.segments_freed) == (0, 1)
    assert (box.requests(), box.kinds(), segments(box)) == ({SERVED: 1}, [], [])


def test_a_crash_between_batches_goes_on_at_the_cursor(box: Any, image: Any) -> None:
    for number in range(1, 20, 2):
        image.append(box.open_record())
        image.append(box.close_record(number))
    image.write()
    drainer = Drainer(box.journal, ApplyTimes(box.ledger, 2), box.clock, batch_records=3)
    with pytest.raises(KeyboardInterrupt):
        drainer.drain_once()
    box.drain()
    assert (box.requests(), box.ledger.in_flight(), box.kinds()) == ({SERVED: 10}, 0, [])


class ApplyTimes:
    """A ledger during which the process ends after a number of batches."""

    def __init__(self, ledger: Any, times: int) -> None:
        self._ledger = ledger
        self._times = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def apply(self, batch: Batch) -> bool:
        if self._times == 0:
            raise KeyboardInterrupt
        self._times -= 1
        return bool(self._ledger.apply(batch))


def test_a_close_without_its_open_is_counted_for_nobody(box: Any) -> None:
    journal = box.worker()
    box.close(journal, 77, inferences=5)
    box.drain()
    assert box.requests() == {}
    [found] = box.ledger.findings()
    assert (found.finding.kind, found.finding.inferences) == ("orphan_close", 5)


def test_a_request_closed_twice_is_counted_once(box: Any) -> None:
    journal = box.worker()
    number = box.open(journal)
    box.close(journal, number, inferences=3)
    box.close(journal, number, inferences=3)
    box.drain()
    assert (box.requests(), box.kinds()) == ({SERVED: 1}, ["orphan_close"])


def test_the_barrier_is_the_moment_before_the_first_look(box: Any) -> None:
    assert box.drain().barrier_ns == box.clock.wall_ns()


def test_every_start_of_a_worker_is_on_record(box: Any) -> None:
    for epoch in (1, 2, 3):
        journal = box.worker(epoch=epoch)
        box.serve(journal)
        journal.close()
    box.drain()
    found = box.ledger.findings(harmless=True)
    assert [r.finding.kind for r in found] == ["worker_started"] * 3
    assert found[0].finding.detail == f"boot {bytes(range(16)).hex()}"


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_its_place(box: Any, outcome: Outcome) -> None:
    journal = box.worker()
    box.close(journal, box.open(journal), outcome=outcome)
    box.drain()
    assert box.requests() == {outcome.label: 1}


def test_an_open_keeps_its_parts_while_it_waits_for_its_close(box: Any) -> None:
    journal = box.worker()
    number = box.open(journal, window_id=202612, model="other", key_id="another")
    box.drain()
    box.close(journal, number)
    box.drain()
    assert box.ledger.month_usage(202612) == {
        ("licence", ""): 1,
        ("organisation", "org_aaaaaaaaaaaaaaaa"): 1,
        ("key", "another"): 1,
        ("model", "other"): 1,
    }


def receipt_record(box: Any, close_number: int, text: str) -> bytes:
    return encode_receipt(
        close_number=close_number, wall_ns=box.clock.wall_ns(), request_id=bytes(16), key_id="K",
        organisation_id="org", text=text,
    )  # fmt: skip


def test_receipts_are_kept_before_anything_of_their_batch_counts(box: Any) -> None:
    journal = box.worker()
    box.serve(journal)
    journal.append(receipt_record(box, 2, "a.b.c"))
    counted_before: list[dict[str, int]] = []

    def keep(receipts: Sequence[Receipt]) -> None:
        counted_before.append(box.requests())
        assert [receipt.text for receipt in receipts] == ["a.b.c"]

    drainer = Drainer(box.journal, box.ledger, box.clock, keep_receipts=keep)
    assert drainer.drain_once().records == 3
    assert counted_before == [{}]
    assert box.requests() == {SERVED: 1}
    drainer.drain_once()
    assert len(counted_before) == 1
    assert box.kinds() == []


def test_where_receipts_cannot_be_kept_nothing_counts_and_a_later_round_goes_on(box: Any) -> None:
    journal = box.worker()
    box.serve(journal)
    journal.append(receipt_record(box, 2, "a.b.c"))
    kept: list[Receipt] = []

    def full(receipts: Sequence[Receipt]) -> None:
        raise LotaBotsError(Code.DISK_FULL)

    with pytest.raises(LotaBotsError):
        Drainer(box.journal, box.ledger, box.clock, keep_receipts=full).drain_once()
    assert box.requests() == {}
    Drainer(box.journal, box.ledger, box.clock, keep_receipts=kept.extend).drain_once()
    assert box.requests() == {SERVED: 1}
    assert len(kept) == 1
