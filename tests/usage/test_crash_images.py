"""A power cut at any moment: no acknowledged answer is without its record, and none is counted twice."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.usage.journal import Journal


def look_at(life: Any, image: Any, after: Any, what_is_wrong: Callable[..., str]) -> str:
    """Drain an image with the real drainer into a real ledger; what is wrong with the result, or "".

    It happens in the box `after`, whose ledger begins with what the daemon's had committed before the crash.
    """
    with life.box.ledger.reading() as connection, after.ledger.reading() as copy:
        connection.backup(copy)
    counted = after.ledger.cursor(0, life.epoch).next_number
    known = len(after.ledger.findings(harmless=True))
    for leftover in [*after.journal.glob("*/*")]:  # of the image before
        leftover.unlink()
    image.write(after.journal)
    for _ in range(2):  # the second one must change nothing
        if problems := after.drain().problems:
            return f"problems {problems}"
    return what_is_wrong(life, image, after.ledger, counted, known)


@dataclass
class PowerCuts:
    """Lives with power cuts, until enough images were looked at or one is wrong."""

    make_box: Callable[[], Any]
    simulator: Any
    worker_life: Any
    change: Callable[[Any], None] = lambda life: None  # spoils a life, to see that this is noticed
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
            life = self.worker_life.Life(box, disk, chance, epoch, self.journal)
            life.before = before

            def perhaps_crash(call: str, life: Any = life) -> None:
                if call != "pwrite" and chance.random() < often:  # after a write: with the step
                    self.images += 1
                    image = life.disk.crash(chance)
                    wrong.append(look_at(life, image, after, self.worker_life.what_is_wrong))

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
                counted = box.ledger.cursor(0, epoch).next_number
                before = self.worker_life.what_must_be_counted(life, image, counted)
            life.end()
        box.ledger.close()
        return [problem for problem in wrong if problem]


@pytest.fixture
def cuts(make_box: Callable[[], Any], crash_disk: Any, worker_life: Any) -> PowerCuts:
    return PowerCuts(make_box, crash_disk, worker_life)


@pytest.mark.thorough
def test_no_answer_is_without_its_record_and_none_counts_twice(cuts: PowerCuts) -> None:
    assert cuts.look(enough=1_500) == ""


@pytest.mark.thorough
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


def answers_before_the_sync(life: Any) -> None:
    life.waits = False


def counts_what_is_not_durable(life: Any) -> None:
    life.box.files = NoNames(life.disk)
    life.box.files.fdatasync = life.box.files.fsync


class NoNames:
    """The drain's calls, without the syncs of directories."""

    def __init__(self, disk: Any) -> None:
        self.fdatasync, self.rename, self.unlink = disk.fdatasync, disk.rename, disk.unlink

    def fsync(self, descriptor: int, /) -> None:
        """Done, it says."""


def counts_in_segments_without_a_durable_name(life: Any) -> None:
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
    cuts: PowerCuts, change: Callable[[Any], None], problem: str
) -> None:
    cuts.change = change
    assert cuts.look(enough=1_000, about=problem)
