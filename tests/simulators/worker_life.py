"""A worker and its daemon on a disk that may lose power, and what a ledger must say afterwards."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lotabotsd.usage.journal import MIN_SEGMENT_BYTES, Journal

BOOT = bytes(range(16))


@dataclass
class Request:
    """One request of a life: which record is where, and whether its answer left."""

    model: str
    inferences: int
    opened: tuple[int, Any] = (0, None)  # record number, place on the disk
    closed: tuple[int, Any] = (0, None)
    answered: bool = False


class Life:
    """A worker, a daemon and a disk: requests in the real order, and the power that may fail at any call."""

    journal: Journal

    def __init__(self, box: Any, disk: Any, chance: random.Random, epoch: int, kind: type[Journal]) -> None:
        self.box = box
        self.disk = disk
        self.chance = chance
        self.epoch = epoch
        self.kind = kind
        self.before: dict[tuple[str, str], tuple[int, int]] = {}  # what an earlier life has in the ledger
        self.requests: list[Request] = []
        self.background: list[Callable[[], None]] = []
        self.waits = True  # for the disk, before it answers

    def begin(self) -> None:
        """Make the journal."""
        self.journal = self.kind(
            self.box.journal, 0, BOOT, self.epoch, MIN_SEGMENT_BYTES,
            files=self.disk, in_background=self.background.append,
        )  # fmt: skip
        self.disk.during_sync = self.interleave

    def end(self) -> None:
        """Let go of the files."""
        self.journal.close()

    def step(self) -> None:
        """Whatever may happen next."""
        what = self.chance.choices(
            (self.open, self.close, self.answer, self.tidy, self.drain), (6, 6, 3, 1, 1)
        )[0]
        what()

    def interleave(self) -> None:
        """The event loop goes on while a thread syncs."""
        if self.chance.random() < 0.3:
            self.chance.choice((self.open, self.close))()

    def open(self) -> None:
        request = Request(f"m{self.epoch}-{len(self.requests)}", len(self.requests) + 1)
        number = self.journal.append(self.box.open_record(model=request.model))
        request.opened = (number, self.disk.last_write)
        self.requests.append(request)

    def close(self) -> None:
        running = [r for r in self.requests if not r.closed[0]]
        if running:
            request = self.chance.choice(running)
            record = self.box.close_record(request.opened[0], inferences=request.inferences)
            number = self.journal.append(record)
            request.closed = (number, self.disk.last_write)

    def answer(self) -> None:
        """A group commit: whoever waited leaves."""
        if self.waits:
            self.journal.sync()
        for request in self.requests:
            if request.closed[0] and (request.closed[0] <= self.journal.durable or not self.waits):
                request.answered = True

    def tidy(self) -> None:
        if self.background:
            self.background.pop(0)()

    def drain(self) -> None:
        self.box.drain()


def what_must_be_counted(life: Life, image: Any, counted: int) -> dict[tuple[str, str], tuple[int, int]]:
    """(model, outcome) → (requests, inferences), from the bytes of the image and nothing else.

    `counted`: the ledger had the records below this number before the crash.
    """

    def there(record: tuple[int, Any]) -> bool:
        number, place = record
        return number > 0 and (number < counted or image.holds(*place, ".seg"))

    expected = dict(life.before)
    for request in life.requests:
        if there(request.opened) and there(request.closed):
            expected[request.model, "served"] = (1, request.inferences)
        elif there(request.opened):
            expected[request.model, "aborted"] = (1, 0)
    return expected


def findings_are_right(life: Life, image: Any, counted: int, kinds: list[str]) -> bool:
    """Damage is told where a later record survived a lost one, and no loss is told where there is none."""
    records = sorted(record for r in life.requests for record in (r.opened, r.closed) if record[0] >= counted)
    there = [image.holds(*place, ".seg") for number, place in records]
    told = set(kinds) - {"worker_started", "torn_tail", "header_damaged"}
    if all(there):
        return not told
    lost_in_the_middle = any(there[there.index(False) :])
    return "missing_segment" not in told and (bool(told) or not lost_in_the_middle)


def records_of(life: Life) -> list[tuple[int, Any]]:
    """Number and place of every record that was written, in order."""
    return sorted((r for q in life.requests for r in (q.opened, q.closed) if r[0]), key=lambda r: r[0])


def what_is_wrong(life: Life, image: Any, ledger: Any, counted: int, known: int) -> str:
    """What a ledger that was filled from an image should not say, or "".

    The ledger had the records below number `counted` and `known` findings before.
    """
    found = {
        (row.model, row.outcome): (row.meters.requests, row.meters.inferences)
        for row in ledger.usage(by=("model", "outcome"))
    }
    new = [r.finding for r in ledger.findings(harmless=True)[known:]]
    kinds = [f.kind.value for f in new if f.epoch == life.epoch or f.kind == "missing_segment"]
    missing = [r.model for r in life.requests if r.answered and (r.model, "served") not in found]
    if missing:
        return f"answered and not counted: {missing}"
    if any(requests != 1 for requests, _ in found.values()) or len({m for m, _ in found}) != len(found):
        return f"counted twice: {found}"
    for number, where in records_of(life):
        if number < counted and not life.disk.is_sure(*where):
            return "counted before it was durable"
        if counted <= number <= life.journal.durable and not image.holds(*where, ".seg"):
            return "said to be durable and lost"
    if found != what_must_be_counted(life, image, counted):
        return "not what the image holds"
    if not findings_are_right(life, image, counted, kinds):
        return f"findings {kinds}"
    return ""
