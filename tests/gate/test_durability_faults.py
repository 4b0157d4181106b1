"""A disk that fails at any of its calls, or never returns: nothing unrecorded is answered."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lotabotsd.foundation.clock import SystemClock, month_window
from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.database import open_database
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.gate.durability import INLINE_BELOW_NS, GroupCommit
from lotabotsd.gate.metering import Measured, Meter
from lotabotsd.limits.scope import Scope, Ticket
from lotabotsd.limits.table import Table, create_table
from lotabotsd.policy.grant import Grant
from lotabotsd.usage.drain import Drainer
from lotabotsd.usage.journal import MIN_SEGMENT_BYTES, Journal
from lotabotsd.usage.ledger import Ledger
from lotabotsd.usage.records import Outcome
from lotabotsd.usage.schema import APPLICATION_ID, MIGRATIONS

SIMULATOR = Path(__file__).parents[1] / "simulators" / "crash_disk.py"
BOOT = bytes(range(16))
SCOPE = Scope("key", 1, 1, quota=1_000_000)
GRANT = Grant(
    "k" * 12, "org_a", "A", None, "mem_a", "developer", "live", frozenset({"infer"}), ("*",), 1 << 62, (),
    (SCOPE,), 0,
)  # fmt: skip
ROUNDS, AT_ONCE = 8, 3


@pytest.fixture(scope="module")
def crash_disk() -> ModuleType:
    """The module tests/simulators/crash_disk.py."""
    spec = importlib.util.spec_from_file_location("crash_disk_at_the_gate", SIMULATOR)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Seen:
    """What became of the requests of one life."""

    answered: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    codes: set[Code] = field(default_factory=set)
    poisoned: bool = False
    answered_when_poisoned: int = 0


class Gate:
    """One life of the real journal, group commit, meter and limits table, without the HTTP around them."""

    def __init__(self, disk: Any, table: Table, life: int, journal: type[Journal]) -> None:
        self._clock = SystemClock()
        self._table = table
        self._background: list[Callable[[], None]] = []
        self._journal = journal(
            disk.root, 0, BOOT, life, MIN_SEGMENT_BYTES, files=disk, in_background=self._background.append
        )
        self.meter = Meter(self._journal, table, GroupCommit(self._journal, power_safe=True), self._clock)

    async def live(self, seen: Seen) -> None:
        for turn in range(ROUNDS):
            names = [f"m{turn}-{n}" for n in range(AT_ONCE)]
            await asyncio.gather(*(self._request(name, seen) for name in names))
            while self._background:
                self._background.pop(0)()
        seen.poisoned = self._journal.poisoned

    async def _request(self, model: str, seen: Seen) -> None:
        """One request as `application.py` takes it through steps 4 to 9; Triton answers at once."""
        wall_ns = self._clock.wall_ns()
        ticket = self._table.reserve(GRANT.scopes, 1, self._clock.monotonic_ns(), month_window(wall_ns))
        assert isinstance(ticket, Ticket)
        try:
            opened = self.meter.open(GRANT, model, "", bytes(16), 1, 100)
        except LotaBotsError as error:
            self._table.refund(ticket)
            seen.codes.add(error.code)
            seen.refused.append(model)
            return
        await asyncio.sleep(0)
        poisoned_before = self._journal.poisoned
        try:
            await self.meter.durable(
                self.meter.close(opened, Measured(Outcome.SERVED, 200, 10), ticket).number
            )
        except LotaBotsError as error:
            seen.codes.add(error.code)
            seen.refused.append(model)
        else:
            seen.answered.append(model)
            seen.answered_when_poisoned += poisoned_before

    def end(self) -> None:
        """Let go of the files, whatever the disk says."""
        try:
            self._journal.close()
        except LotaBotsError:
            return


@dataclass
class Bench:
    """Life after life on a fresh disk, and a power cut at the end of each."""

    path: Path
    simulator: ModuleType
    table: Table
    ledger: Ledger
    runner: asyncio.Runner
    lives: int = 0

    def live(
        self,
        fault: Callable[[int, str], int | None],
        *,
        short: bool = False,
        journal: type[Journal] = Journal,
    ) -> tuple[Seen, Any]:
        """One life with this fault; checks what must hold in any."""
        self.lives += 1
        root = self.path / f"journal-{self.lives}"
        root.mkdir()
        disk = self.simulator.CrashDisk(root)
        disk.fault = fault
        disk.short = short
        seen = Seen()
        try:
            gate = Gate(disk, self.table, self.lives, journal)
        except LotaBotsError as error:  # the worker waits, and is not ready
            seen.codes.add(error.code)
            return seen, disk
        self.runner.run(gate.live(seen))
        assert seen.codes <= {Code.JOURNAL_UNAVAILABLE}
        image = disk.crash(random.Random(self.lives))  # noqa: S311 - the same every time
        disk.fault = lambda number, name: None
        gate.end()
        assert gate.meter.open_requests == 0
        totals = self.table.totals(SCOPE.slot)
        assert totals.balanced
        assert totals.open == totals.reserved == 0
        self._check(image, seen)
        return seen, disk

    def calls(self, *, short: bool = False) -> int:
        """How many calls a whole life makes when nothing fails."""
        seen, disk = self.live(lambda number, name: None, short=short)
        assert len(seen.answered) == ROUNDS * AT_ONCE
        assert disk.calls > 60
        assert disk.syncs > 10
        return int(disk.calls)

    def _check(self, image: Any, seen: Seen) -> None:
        """What the power cut left has every answer in it, once."""
        left = self.path / f"left-{self.lives}"
        left.mkdir()
        image.write(left)
        before = self._served()
        drained = Drainer(left, self.ledger, SystemClock(), files=self.simulator.NoSyncs()).drain_once()
        assert drained.problems == []
        after = self._served()
        for model in seen.answered:
            assert after.get(model, 0) == before.get(model, 0) + 1, "answered, and not counted once"
        assert not set(seen.answered) & set(seen.refused)
        assert self.ledger.in_flight() == 0

    def _served(self) -> dict[str, int]:
        rows = self.ledger.usage(by=("model", "outcome"))
        return {row.model: row.meters.requests for row in rows if row.outcome == "served"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, crash_disk: ModuleType) -> Iterator[Bench]:
    path = tmp_path_factory.mktemp("faults")
    create_table(path / "limits", slots=8, workers=1, boot_id=BOOT, fill=[])
    table = Table.open(path / "limits", 0, boot_id=BOOT)
    database = open_database(Path(":memory:"), application_id=APPLICATION_ID, migrations=MIGRATIONS)
    ledger = Ledger(database, SystemClock())
    with asyncio.Runner() as runner:
        yield Bench(path, crash_disk, table, ledger, runner)
    table.close()
    ledger.close()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("number", "short"),
    [(errno.ENOSPC, False), (errno.EIO, False), (errno.ENOSPC, True)],
    ids=["ENOSPC", "EIO", "ENOSPC-half-way"],
)
def test_whichever_call_fails_nothing_unrecorded_is_answered(bench: Bench, number: int, short: bool) -> None:
    """One failure in the whole life, at every call of it in turn; a record may be half written then."""
    failed: set[str] = set()
    for n in range(1, bench.calls(short=short) + 1):
        hit: list[str] = []

        def fault(call: int, name: str, n: int = n, hit: list[str] = hit) -> int | None:
            if call == n:
                hit.append(name)
            return number if call == n else None

        seen, _ = bench.live(fault, short=short)
        failed.update(hit)
        assert seen.answered_when_poisoned == 0
        if hit == ["fdatasync"]:
            assert seen.poisoned
        if hit in (["pwrite"], ["open"]):  # nothing is lost: the next request is served
            assert not seen.poisoned
            assert len(seen.refused) <= 1
    assert failed >= {"open", "pwrite", "fsync", "fdatasync", "rename"}


@pytest.mark.thorough
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_a_disk_that_stays_broken_answers_nobody(bench: Bench, number: int) -> None:
    """From call n on everything fails, for every n."""
    for n in range(1, bench.calls() + 1):
        late: list[int] = []

        def fault(call: int, name: str, n: int = n, late: list[int] = late) -> int | None:
            if call >= n:
                late.append(call)
            return number if call >= n else None

        seen, _ = bench.live(fault)
        assert not late or len(seen.answered) < ROUNDS * AT_ONCE


class RetriesSyncs(Journal):
    """What databases did until 2018: a sync that failed is tried again, and then believed."""

    def sync(self) -> None:
        try:
            super().sync()
        except LotaBotsError:
            self._poison = ""
            super().sync()


def test_a_journal_that_tries_a_failed_sync_again_is_caught(bench: Bench) -> None:
    def fault(n: int) -> Callable[[int, str], int | None]:
        return lambda call, name: errno.EIO if call == n and name == "fdatasync" else None

    with pytest.raises(AssertionError, match="answered, and not counted"):
        [bench.live(fault(n), journal=RetriesSyncs) for n in range(1, bench.calls() + 1)]


class BrokenFiles:
    """The module `os` for a running worker, with one call that fails or does not return."""

    def __init__(self, call: str, number: int = 0) -> None:
        self._call = call
        self._number = number
        self.released = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return self._broken if name == self._call else getattr(os, name)

    def _broken(self, descriptor: int, *rest: Any) -> None:
        if self._number:
            raise OSError(self._number, os.strerror(self._number))
        self.released.wait(30)
        getattr(os, self._call)(descriptor, *rest)


def in_mode(rig: Any, durability: str) -> None:
    rig.config = replace(rig.config, usage=replace(rig.config.usage, durability=durability))


def test_a_failed_sync_is_503_and_replaces_the_worker(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        assert (await rig.infer()).status == 200
        rig.worker._journal._files = BrokenFiles("fdatasync", errno.EIO)
        answer = await rig.infer()
        assert (answer.status, answer.json()["code"]) == (503, "journal_unavailable")
        await rig.worker._stopping.wait()
        assert rig.worker._journal.poisoned

    in_mode(rig, "power")
    rig.publish()
    rig.run(story)
    assert rig.ended == 1  # the parent starts another


@pytest.mark.parametrize("durability", ["power", "process"])
def test_a_sync_that_never_returns_is_503_within_the_bound_and_not_ready(rig: Any, durability: str) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        commit, files = rig.worker._commit, BrokenFiles("fdatasync")
        commit._stuck_seconds = 0.2
        commit._last_sync_ns = INLINE_BELOW_NS  # else a lonely request syncs on the loop
        rig.worker._journal._files = files
        first = await rig.infer()
        assert first.status == (503 if durability == "power" else 200)
        while (readiness := await rig.ask("GET", "/readyz", key=None)).status == 200:
            await asyncio.sleep(0.01)
        assert readiness.json()["code"] == "journal_unavailable"
        asked = len(rig.seen)
        answer = await rig.infer()
        assert (answer.status, answer.json()["code"]) == (503, "journal_unavailable")
        assert len(rig.seen) == asked  # nothing runs that could not be recorded
        files.released.set()
        await rig.ready()
        assert (await rig.infer()).status == 200

    in_mode(rig, durability)
    rig.publish()
    rig.run(story)
    assert rig.ended == 0


def test_a_full_disk_refuses_until_there_is_room_again(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        journal = rig.worker._journal
        pwrite, full = journal._pwrite, BrokenFiles("pwrite", errno.ENOSPC)
        journal._pwrite = full.pwrite
        answer = await rig.infer()
        assert (answer.status, answer.json()["code"]) == (503, "journal_unavailable")
        assert rig.seen == []
        journal._pwrite = pwrite
        assert (await rig.infer()).status == 200

        async def full_now(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
            journal._pwrite = full.pwrite
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")

        rig.handler = full_now
        answer = await rig.infer()  # the OPEN was written, the CLOSE cannot be
        assert (answer.status, answer.json()["code"]) == (503, "journal_unavailable")
        assert b"secret" not in answer.body
        journal._pwrite = pwrite

    in_mode(rig, "power")
    rig.publish()
    rig.run(story)
    assert rig.ended == 0
    assert rig.outcomes() == {"served": 1, "aborted": 1}


def test_in_mode_process_nobody_waits_and_the_disk_has_it_soon(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        for _ in range(3):
            assert (await rig.infer()).status == 200
        journal = rig.worker._journal
        while journal.durable < journal.written:
            await asyncio.sleep(0.01)
        assert journal.written == 6

    in_mode(rig, "process")
    rig.publish()
    rig.run(story)
