"""A power cut under journal and ledger at once: what was answered is in the one or in the other, once."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.usage.drain import Drainer
from lotabotsd.usage.journal import Journal
from lotabotsd.usage.ledger import Ledger, open_ledger


@dataclass
class PowerCuts:
    """Lives whose journal and ledger are on the same crash disk."""

    make_box: Callable[..., Any]
    disks: ModuleType
    databases: ModuleType
    lives: ModuleType
    template: Path  # an empty ledger.db, as the product makes it
    like: Any  # the product's connection to it
    settings: dict[str, object] = field(default_factory=dict)  # others than the product's
    images: int = 0
    checked_rows: int = 0
    checkpoints: int = 0

    def look(self, *, enough: int, about: str = "") -> str:
        """What was wrong first (in the words of `about`), or ""."""
        for seed in range(1_000):
            for wrong in self.live(seed):
                if about in wrong:
                    return f"life {seed}: {wrong}"
            if self.images >= enough:
                return ""
        raise AssertionError("the lives do nothing")

    def live(self, seed: int) -> list[str]:
        """One machine and its power cuts; everything that is wrong with their images."""
        chance = random.Random(seed)  # noqa: S311 - the same lives every time
        box = self.make_box()
        box.ledger.close()
        path = box.path / "ledger.db"
        shutil.copy(self.template, path)
        disk = box.files = self.disks.CrashDisk(box.path)
        disk.adopt()
        # Checkpoints come often here: no life is long enough for one otherwise.
        database = self.databases.open_on(disk, path, self.like, wal_autocheckpoint=15, **self.settings)
        box.ledger = Ledger(database, box.clock, box.path / "ledger.head")
        life = self.lives.Life(box, disk, chance, 1, Journal)
        life.begin()
        wrong: list[str] = []

        def perhaps_crash(call: str) -> None:
            if call != "pwrite" and chance.random() < (0.04 if call == "database" else 0.1):
                self.images += 1
                wrong.append(self.look_at(life, disk.crash(chance)))

        disk.after = perhaps_crash
        for _ in range(60):
            life.step()
            if chance.random() < 0.1:
                box.clock.advance(1_300)
                box.seal(cut=chance.random() < 0.3)
            perhaps_crash("step")
        disk.after, disk.during_sync = (lambda call: None), (lambda: None)
        self.checkpoints += path.read_bytes() != self.template.read_bytes()
        life.end()
        box.ledger.close()
        return [problem for problem in wrong if problem]

    def look_at(self, life: Any, image: Any) -> str:
        """Start the product on an image; what is wrong with what it has, or ""."""
        place = life.box.path / "image"
        (place / "journal").mkdir(parents=True, exist_ok=True)
        for leftover in [*place.glob("ledger*"), *place.glob("journal/*/*")]:  # of the image before
            leftover.unlink()
        image.write(place)
        head = life.box.path / "ledger.head"
        if head.exists():
            shutil.copy(head, place / "ledger.head")
        try:
            ledger = open_ledger(place / "ledger.db", life.box.clock)
        except LotaBotsError as error:
            return f"the ledger cannot be opened: {error}"
        try:
            with ledger.reading() as connection:
                connection.execute("PRAGMA synchronous = OFF")  # this disk is not what is tested
            return self.judge(life, image, ledger, place / "journal")
        except LotaBotsError as error:
            return f"the ledger cannot be used: {error}"
        finally:
            ledger.close()

    def judge(self, life: Any, image: Any, ledger: Ledger, journal: Path) -> str:
        """What is wrong with a recovered ledger, before and after the journal is drained into it."""
        before = ledger.verify()
        if not before.integrity.ok:
            return f"the chain is broken: {before.integrity}"
        counted = ledger.cursor(0, 1).next_number
        known = len(ledger.findings(harmless=True))
        for _ in range(2):
            if (
                problems := Drainer(journal, ledger, life.box.clock, files=self.disks.NoSyncs())
                .drain_once()
                .problems
            ):
                return f"problems {problems}"
        wrong = self.lives.what_is_wrong(life, image, ledger, counted, known)
        ledger.seal(life.box.clock.wall_ns(), cut=True)
        after = ledger.verify()
        self.checked_rows += after.rows
        return wrong or ("" if after.integrity.ok else f"the chain broke: {after.integrity}")


@pytest.fixture
def cuts(
    make_box: Callable[..., Any], crash_disk: ModuleType, crash_database: ModuleType, worker_life: ModuleType
) -> Iterator[PowerCuts]:
    box = make_box(on_disk=True)
    with box.ledger.reading() as like:
        template = box.path / "template.db"
        like.execute("VACUUM INTO ?", (str(template),))
        yield PowerCuts(make_box, crash_disk, crash_database, worker_life, template, like)
    box.ledger.close()


@pytest.mark.thorough
def test_a_power_cut_under_the_ledger_loses_and_doubles_nothing(cuts: PowerCuts) -> None:
    assert cuts.look(enough=300) == ""
    assert cuts.checked_rows > 1_000
    assert cuts.checkpoints > 3


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"synchronous": "NORMAL"}, "answered and not counted"),
        ({"synchronous": "NORMAL"}, "the chain is broken"),
        ({"synchronous": "OFF"}, "the ledger cannot be"),
        ({"journal_mode": "DELETE"}, "the chain is broken"),  # a deleted journal may come back
    ],
)
def test_a_ledger_that_does_not_wait_for_the_disk_is_caught(
    cuts: PowerCuts, settings: dict[str, object], problem: str
) -> None:
    cuts.settings = settings
    assert cuts.look(enough=300, about=problem)
