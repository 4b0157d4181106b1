"""A power cut at any moment: no acknowledged answer is without its record, and none is counted twice."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

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
            self.disk.root, 0, BOOT, self.epoch, MIN_SEGMENT_BYTES,
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


def look_at(life: Life, image: Any, after: Any) -> str:
    """Drain an image with the real drainer into a real ledger; what is wrong with the result, or "".

    It happens in the box `after`, whose ledger begins with what the daemon's had committed before the crash.
    """
    place, ledger = after.journal, after.ledger
    with life.box.ledger.reading() as connection, ledger.reading() as copy:
        connection.backup(copy)
    counted = ledger.cursor(0, life.epoch).next_number
    known = len(ledger.findings(harmless=True))
    for leftover in [*place.glob("*/*")]:  # of the image before
        leftover.unlink()
    image.write(place)
    for _ in range(2):  # the second one must change nothing
        drained = after.drain()
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
    if drained.problems or not findings_are_right(life, image, counted, kinds):
        return f"findings {kinds}, problems {drained.problems}"
    return ""


@dataclass
class PowerCuts:
    """Lives with power cuts, until enough images were looked at or one is wrong."""

    make_box: Callable[[], Any]
    simulator: Any
    change: Callable[[Life], None] = lambda life: None  # spoils a life, to see that this is noticed
    journal: type[Journal] = Journal
    disk: Callable[[Path], Any] | None = None
    lives: int = 1  # before the last power cut; each but the first begins with what the one before left
    images: int = 0

    def look(self, *, enough: int, about: str = "", often: float = 0.2) -> str:
        """What was wrong first (in the words of `about`), or ""."""
        after_the_crash = self.make_box()
        for seed in range(10_000):
            for wrong in self.live(seed, often, after_the_crash):
                if about in wrong:
                    return f"life {seed}: {wrong}"
            if self.images >= enough:
                return ""
        raise AssertionError("the lives do nothing")

    def live(self, seed: int, often: float, after: Any) -> list[str]:
        """One box and its power cuts; everything that is wrong with their images."""
        box = self.make_box()
        chance = random.Random(seed)  # noqa: S311 - the same lives every time
        wrong: list[str] = []
        root = box.journal
        before: dict[tuple[str, str], tuple[int, int]] = {}
        for epoch in range(1, self.lives + 1):
            disk = (self.disk or self.simulator.CrashDisk)(root)
            disk.adopt()
            box.files = disk
            life = Life(box, disk, chance, epoch, self.journal)
            life.before = before

            def perhaps_crash(call: str, life: Life = life) -> None:
                if call != "pwrite" and chance.random() < often:  # after a write: with the step
                    self.images += 1
                    image = life.disk.crash(chance)
                    wrong.append(look_at(life, image, after))

            self.change(life)
            life.begin()
            disk.after = perhaps_crash
            for _ in range(60 if epoch == self.lives else chance.randint(1, 60)):
                life.step()
                perhaps_crash("step")
            disk.after, disk.during_sync = (lambda call: None), (lambda: None)
            if epoch < self.lives:
                image = disk.crash(chance)
                root = box.path / f"journal-{epoch}"
                box.journal = root
                root.mkdir()
                image.write(root)
                before = what_must_be_counted(life, image, box.ledger.cursor(0, epoch).next_number)
            life.end()
        box.ledger.close()
        return [problem for problem in wrong if problem]


@pytest.fixture
def cuts(make_box: Callable[[], Any], crash_disk: Any) -> PowerCuts:
    return PowerCuts(make_box, crash_disk)


def test_no_answer_is_without_its_record_and_none_counts_twice(cuts: PowerCuts) -> None:
    assert cuts.look(enough=1_500) == ""


def test_also_not_when_the_power_fails_again_after_the_restart(cuts: PowerCuts) -> None:
    cuts.lives = 3
    assert cuts.look(enough=500) == ""


class WithoutSync(Journal):
    def sync(self) -> None:
        self.durable = self.written


class ClaimsTooMuch(Journal):
    def sync(self) -> None:
        super().sync()
        self.durable = self.written  # also what was written while the disk was busy


class WritesAfterTheSync(Journal):
    """Keeps records to itself until they were said to be durable."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.kept: list[Callable[[], None]] = []
        super().__init__(*arguments, **options)
        pwrite = self._pwrite

        def later(descriptor: int, data: bytes, offset: int) -> int:
            copy = os.dup(descriptor)

            def write() -> None:
                pwrite(copy, data, offset)
                os.close(copy)

            self.kept.append(write)
            return len(data)

        self._pwrite = later

    def sync(self) -> None:
        super().sync()
        while self.kept:
            self.kept.pop(0)()


class ForgetsTheSegmentBefore(Journal):
    def sync(self) -> None:
        with self._state:
            self._retired.clear()
        super().sync()


def forgetful(simulator: Any, call: str, what: Callable[[Path], bool]) -> Callable[[Path], Any]:
    """A disk on which one kind of sync does nothing."""

    class Forgetful(simulator.CrashDisk):
        def _sync(self, name: str, descriptor: int) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115 - text is enough
            if name != call or not what(path):
                super()._sync(name, descriptor)

    return Forgetful


def answers_before_the_sync(life: Life) -> None:
    life.waits = False


def counts_what_is_not_durable(life: Life) -> None:
    life.box.files = NoNames(life.disk)
    life.box.files.fdatasync = life.box.files.fsync


class NoNames:
    """The drain's calls, without the syncs of directories."""

    def __init__(self, disk: Any) -> None:
        self.fdatasync, self.rename, self.unlink = disk.fdatasync, disk.rename, disk.unlink

    def fsync(self, descriptor: int, /) -> None:
        """Done, it says."""


def counts_in_segments_without_a_durable_name(life: Life) -> None:
    life.box.files = NoNames(life.disk)


@pytest.mark.parametrize("journal", [WithoutSync, ClaimsTooMuch, WritesAfterTheSync, ForgetsTheSegmentBefore])
def test_a_journal_that_does_not_keep_its_word_is_caught(cuts: PowerCuts, journal: type[Journal]) -> None:
    cuts.journal = journal
    assert cuts.look(enough=500, about="answered and not counted")


def test_an_answer_that_does_not_wait_is_caught(cuts: PowerCuts) -> None:
    cuts.change = answers_before_the_sync
    assert cuts.look(enough=500, about="answered and not counted")


@pytest.mark.parametrize("directory", ["0", "journal"])
def test_a_directory_that_is_not_synced_is_caught(cuts: PowerCuts, crash_disk: Any, directory: str) -> None:
    cuts.disk = forgetful(crash_disk, "fsync", lambda path: path.name == directory)
    assert cuts.look(enough=500, about="answered and not counted")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (counts_what_is_not_durable, "counted before it was durable"),
        (counts_in_segments_without_a_durable_name, "missing_segment"),
    ],
)
def test_a_drain_that_runs_ahead_of_the_disk_is_caught(
    cuts: PowerCuts, change: Callable[[Life], None], problem: str
) -> None:
    cuts.change = change
    assert cuts.look(enough=1_000, about=problem)
