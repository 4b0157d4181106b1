"""Group commit: who waits, who shares, and what a failing disk does."""

from __future__ import annotations

import asyncio
import threading

import pytest

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.gate import durability
from lotabotsd.gate.durability import GroupCommit


class FakeJournal:
    def __init__(self) -> None:
        self.written = 0
        self.durable = 0
        self.syncing = False
        self.syncs = 0
        self.failing = False
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[int] = set()

    def sync(self) -> None:
        target = self.written
        self.threads.add(threading.get_ident())
        self.gate.wait(10)
        self.syncs += 1
        if self.failing:
            raise LotaBotsError(Code.JOURNAL_UNAVAILABLE, "no space")
        self.durable = target


def test_many_waiters_share_few_syncs() -> None:
    async def story() -> None:
        journal = FakeJournal()
        commit = GroupCommit(journal, power_safe=True)
        journal.gate.clear()

        async def one() -> None:
            journal.written += 1
            number = journal.written
            await commit.durable(number, alone=False)
            assert journal.durable >= number

        tasks = [asyncio.create_task(one()) for _ in range(50)]
        await asyncio.sleep(0)
        journal.gate.set()
        await asyncio.gather(*tasks)
        assert journal.syncs <= 3

    asyncio.run(asyncio.wait_for(story(), 10))


def test_a_lonely_request_syncs_on_the_loop_once_the_disk_proved_quick() -> None:
    async def story() -> None:
        journal = FakeJournal()
        commit = GroupCommit(journal, power_safe=True)
        commit._last_sync_ns = 10
        journal.written = 1
        await commit.durable(1, alone=True)
        assert journal.threads == {threading.get_ident()}
        journal.written = 2
        await commit.durable(2, alone=False)
        assert journal.threads != {threading.get_ident()}

    asyncio.run(asyncio.wait_for(story(), 10))


def test_mode_process_waits_for_nothing() -> None:
    async def story() -> None:
        journal = FakeJournal()
        journal.written = 1
        await GroupCommit(journal, power_safe=False).durable(1, alone=True)
        assert journal.syncs == 0

    asyncio.run(story())


def test_what_nobody_waits_for_is_synced_beside_the_loop() -> None:
    async def story() -> None:
        journal = FakeJournal()
        journal.written = 3
        commit = GroupCommit(journal, power_safe=False)
        commit.keep_up()
        commit.keep_up()  # one at a time
        while journal.durable < 3:
            await asyncio.sleep(0)
        assert journal.syncs == 1
        assert threading.get_ident() not in journal.threads
        while commit._running is not None:
            await asyncio.sleep(0)
        commit.keep_up()  # nothing new
        assert commit._running is None

    asyncio.run(asyncio.wait_for(story(), 10))


def test_a_background_sync_that_fails_or_hangs_is_noticed_without_a_waiter() -> None:
    async def story() -> None:
        journal = FakeJournal()
        journal.written = 1
        journal.gate.clear()
        journal.failing = True
        commit = GroupCommit(journal, power_safe=False, stuck_seconds=0.01)
        commit.keep_up()
        assert not commit.stuck
        while not commit.stuck:
            await asyncio.sleep(0.001)
        journal.gate.set()
        while commit._running is not None:
            await asyncio.sleep(0)
        assert not commit.stuck

    asyncio.run(asyncio.wait_for(story(), 10))


def test_a_lonely_request_does_not_wait_on_the_loop_behind_another_sync() -> None:
    async def story() -> None:
        journal = FakeJournal()
        commit = GroupCommit(journal, power_safe=True)
        commit._last_sync_ns = 10
        journal.written = 1
        journal.syncing = True  # the background after a rotation
        await commit.durable(1, alone=True)
        assert threading.get_ident() not in journal.threads

    asyncio.run(asyncio.wait_for(story(), 10))


def test_a_failed_sync_reaches_every_waiter() -> None:
    async def story() -> None:
        journal = FakeJournal()
        journal.failing = True
        journal.written = 3
        commit = GroupCommit(journal, power_safe=True)
        results = await asyncio.gather(
            *(commit.durable(n, alone=False) for n in (1, 2, 3)), return_exceptions=True
        )
        assert [getattr(r, "code", None) for r in results] == [Code.JOURNAL_UNAVAILABLE] * 3

    asyncio.run(asyncio.wait_for(story(), 10))


def test_a_sync_that_never_returns_is_an_error_and_then_readiness_knows() -> None:
    async def story() -> None:
        journal = FakeJournal()
        journal.written = 1
        journal.gate.clear()
        commit = GroupCommit(journal, power_safe=True, stuck_seconds=0.01)
        with pytest.raises(LotaBotsError) as caught:
            await commit.durable(1, alone=False)
        assert caught.value.code is Code.JOURNAL_UNAVAILABLE
        assert commit.stuck
        journal.gate.set()
        while commit._running is not None:
            await asyncio.sleep(0)
        assert not commit.stuck

    asyncio.run(asyncio.wait_for(story(), 10))
    assert durability.STUCK_SECONDS == 5.0
