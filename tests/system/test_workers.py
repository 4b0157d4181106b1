"""Several gate workers are one gate: limits exact to the request, while workers are killed and stopped."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fleet import Client, Fleet, Heard, clients, running_fleet, send
from gate_clients import Key, wait_for

from lotabotsd.gate.watch import SILENT_SECONDS

pytestmark = pytest.mark.required

WORKERS = 4
CLIENTS = 64
MOST_KILLED = 8  # each death makes the pause before the next start longer
LATER = {"limits_unavailable", "starting", "overloaded"}  # 503: nothing was admitted, ask again


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Four workers."""
    yield from running_fleet(Fleet(WORKERS))


@pytest.fixture(scope="module")
def home(fleet: Fleet) -> tuple[str, str]:
    """An organisation and its member."""
    return fleet.organisation()


@pytest.fixture
def all_there(fleet: Fleet) -> None:
    """Every worker lives and serves."""
    wait_for(lambda: everybody_serves(fleet), 30, "every worker serves")


def everybody_serves(fleet: Fleet) -> bool:
    workers = fleet.control.get("status")["gate"]["workers"]
    return [worker["state"] for worker in workers] == ["live"] * WORKERS


async def ask_until(client: Client, key: Key, codes: set[str], heard: list[Heard], hold: float = 0) -> None:
    """Ask until one of these refusals comes; whoever may come later tries again."""
    while True:
        one = await client.ask(key, hold)
        heard.append(one)
        if one.code in codes:
            return
        assert one.status in (0, 200) or one.code in LATER, one
        if one.status != 200:
            await asyncio.sleep(0.01)


def count(heard: list[Heard]) -> Counter[str]:
    return Counter(one.code or str(one.status) for one in heard)


# -- four processes
def test_every_worker_accepts_at_a_socket_of_its_own(fleet: Fleet, all_there: None) -> None:
    listening = f":{fleet.port:04X} 00000000:0000 0A"
    assert Path("/proc/net/tcp").read_text().count(listening) == WORKERS
    assert sorted(fleet.workers()) == list(range(WORKERS))
    with fleet.limits() as table:
        assert [cell.lives for cell in table.workers()] == [True] * WORKERS


# -- exactness
def test_a_quota_admits_exactly_so_many_and_refusals_cost_nothing(
    fleet: Fleet, home: tuple[str, str], all_there: None
) -> None:
    limit = 500
    key = fleet.key_of(*home, "quota", quota_per_month=limit)
    before = fleet.triton_says("count")
    heard: list[Heard] = []
    asyncio.run(clients(fleet.port, CLIENTS, lambda client: ask_until(client, key, {"quota_spent"}, heard)))
    seen = count(heard)
    assert seen["200"] == limit
    assert fleet.triton_says("count") - before == limit
    totals = fleet.totals(key)["key"]
    assert (totals.used, totals.committed, totals.refunded) == (limit, limit, 0)
    counted = fleet.counted(key)
    assert counted["served"]["requests"] == counted["served"]["inferences"] == limit
    assert counted["refused_quota"]["requests"] == seen["quota_spent"] >= CLIENTS
    assert sum(row["inferences"] for row in counted.values()) == limit


def test_two_keys_of_a_team_share_its_quota_to_the_last_inference(
    fleet: Fleet, home: tuple[str, str], all_there: None
) -> None:
    limit = 500
    team = fleet.team_of(*home, "shared", quota_per_month=limit)
    keys = [fleet.key_of(*home, name, team) for name in ("one", "two")]
    heard: list[Heard] = []

    async def everybody() -> None:
        await asyncio.gather(
            *(
                clients(fleet.port, CLIENTS // 2, lambda c, k=key: ask_until(c, k, {"quota_spent"}, heard))
                for key in keys
            )
        )

    asyncio.run(everybody())
    assert count(heard)["200"] == limit
    assert all(any(one.status == 200 and one.key == key for one in heard) for key in keys)
    totals = [fleet.totals(key) for key in keys]
    assert totals[0]["team"] == totals[1]["team"]
    assert (totals[0]["team"].used, totals[0]["team"].committed, totals[0]["team"].reserved) == (
        limit,
        limit,
        0,
    )
    assert sum(each["key"].used for each in totals) == limit
    assert sum(fleet.counted(key)["served"]["inferences"] for key in keys) == limit


def test_never_more_at_once_than_the_concurrency(
    fleet: Fleet, home: tuple[str, str], all_there: None
) -> None:
    limit = 5
    key = fleet.key_of(*home, "concurrency", concurrency=limit)
    heard: list[Heard] = []
    assert fleet.triton_says("highest") >= 0  # from now on

    async def ask(client: Client) -> None:
        while sum(one.status == 200 for one in heard) < 200:
            one = await client.ask(key, 15)
            heard.append(one)
            assert one.status == 200 or one.code in {"concurrency_limited", *LATER}, one
            if one.status != 200:
                await asyncio.sleep(0.02)

    asyncio.run(clients(fleet.port, CLIENTS, ask))
    assert fleet.triton_says("highest") == limit
    totals = fleet.totals(key)["key"]
    assert totals.admitted == totals.committed == count(heard)["200"]


def test_the_rate_is_reached_and_never_passed(fleet: Fleet, home: tuple[str, str], all_there: None) -> None:
    per_minute = 1_200
    burst = per_minute // 6
    key = fleet.key_of(*home, "rate", rate_per_minute=per_minute)
    heard: list[Heard] = []
    began = time.monotonic()
    end = began + 4.0

    async def ask(client: Client) -> None:
        while time.monotonic() < end:
            one = await client.ask(key)
            heard.append(one)
            assert one.status == 200 or one.code in {"rate_limited", *LATER}, one
            if one.status != 200:
                await asyncio.sleep(0.05)

    asyncio.run(clients(fleet.port, CLIENTS, ask))
    served = sorted(one.ended for one in heard if one.status == 200)
    sent = min(one.began for one in heard)
    asked_last = max(one.began for one in heard)
    assert len(served) <= burst + per_minute / 60 * (served[-1] - sent)
    assert len(served) >= burst + per_minute / 60 * (asked_last - sent - 0.5)
    counted = fleet.counted(key)
    assert counted["served"]["requests"] == len(served)
    assert counted["refused_rate"]["inferences"] == 0


# -- bad days
@pytest.mark.slow
def test_a_worker_that_does_not_move_is_replaced_also_when_nobody_waits_for_it(
    fleet: Fleet, all_there: None
) -> None:
    pid = fleet.workers()[2]
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: fleet.workers().get(2, pid) != pid, SILENT_SECONDS + 5, "it is replaced")
    wait_for(lambda: everybody_serves(fleet), 30, "every worker serves")


def test_a_worker_that_dies_again_and_again_is_started_ever_more_slowly(
    fleet: Fleet, all_there: None
) -> None:
    pauses = []
    for _ in range(3):
        pid = wait_for(lambda: fleet.workers().get(3), 20, "worker 3 lives")
        died = time.clock_gettime(time.CLOCK_BOOTTIME)
        os.kill(pid, signal.SIGKILL)
        successor = wait_for(partial(another, fleet, pid), 20, "worker 3 has a successor")
        pauses.append(begun_at(successor) - died)
    assert pauses[1] >= 0.15, pauses
    assert pauses[2] >= 0.35, pauses


def another(fleet: Fleet, before: int) -> int | None:
    found = fleet.workers().get(3)
    return None if found == before else found


def begun_at(pid: int) -> float:
    """When a process was started, in seconds since the boot (proc(5))."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")


def test_killed_and_stopped_workers_neither_lose_nor_give_away_a_request(
    fleet: Fleet, home: tuple[str, str], all_there: None
) -> None:
    limit = 5_000
    key = fleet.key_of(*home, "bad day", quota_per_month=limit)
    dice = random.Random(3)  # noqa: S311 - no secret
    heard: list[Heard] = []
    killed: list[int] = []
    stopped: list[int] = []

    async def disturb() -> None:
        while not any(one.code == "quota_spent" for one in heard):
            await asyncio.sleep(dice.uniform(0.02, 0.2))  # how bad the day is
            workers = sorted((await asyncio.to_thread(fleet.workers)).values())
            if len(workers) > 1 and len(killed) < MOST_KILLED and dice.random() < 0.5:
                killed.append(dice.choice(workers))
                send(killed[-1], signal.SIGKILL)
            elif workers:
                stopped.append(dice.choice(workers))
                send(stopped[-1], signal.SIGSTOP)
                await asyncio.sleep(dice.uniform(0.0, 0.4))
                send(stopped[-1], signal.SIGCONT)

    async def both() -> None:
        await asyncio.gather(
            disturb(),
            clients(fleet.port, CLIENTS, lambda client: ask_until(client, key, {"quota_spent"}, heard, 50)),
        )

    asyncio.run(both())
    assert min(len(killed), len(stopped)) >= 4, "the day was not bad enough"
    wait_for(lambda: everybody_serves(fleet), 30, "every worker serves again")
    # What was given back by a killed worker after the others found the quota spent is there to be used.
    asyncio.run(clients(fleet.port, 4, lambda client: ask_until(client, key, {"quota_spent"}, heard)))
    answered = count(heard)["200"]
    broken = count(heard)["0"]
    counted = fleet.counted(key)
    charged = {outcome: row for outcome, row in counted.items() if row["inferences"]}
    assert set(charged) <= {"served", "client_gone", "undelivered"}
    assert sum(row["inferences"] for row in charged.values()) == limit
    assert answered <= counted["served"]["requests"] <= answered + broken
    totals = fleet.totals(key)
    assert (totals["key"].used, totals["key"].reserved) == (limit, 0)
    assert totals["key"].committed == limit
    assert counted.get("aborted", {"requests": 0})["requests"] <= totals["key"].refunded + broken
    for one in totals.values():
        assert one.admitted == one.committed + one.refunded
    assert fleet.control.get("status")["ledger"]["findings"] == 0


def test_a_worker_stopped_while_it_holds_the_lock_is_replaced_and_the_others_answer_meanwhile(
    fleet: Fleet, home: tuple[str, str], all_there: None
) -> None:
    key = fleet.key_of(*home, "lock")
    heard: list[Heard] = []
    done = asyncio.Event()
    held: list[tuple[int, int, float]] = []

    def stop_a_holder() -> tuple[int, int, float]:
        workers = fleet.workers()
        with fleet.limits() as table:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                for number, pid in workers.items():
                    send(pid, signal.SIGSTOP)
                    if table.is_entered() and table.holder() == number:
                        return number, pid, time.monotonic()
                    send(pid, signal.SIGCONT)
        raise AssertionError("no worker was caught with the lock")

    async def catch() -> None:
        held.append(await asyncio.to_thread(stop_a_holder))
        number, pid, _ = held[0]

        def replaced() -> bool:
            return fleet.workers().get(number, pid) != pid

        await asyncio.to_thread(wait_for, replaced, 20, "the holder is replaced")
        caught = len(heard)
        while count(heard[caught:])["200"] < 100:
            await asyncio.sleep(0.05)
        done.set()

    async def ask(client: Client) -> None:
        while not done.is_set():
            one = await asyncio.wait_for(client.ask(key), 20)
            heard.append(one)
            assert one.status in (0, 200) or one.code in LATER, one

    async def both() -> None:
        await asyncio.gather(catch(), clients(fleet.port, 16, ask))

    asyncio.run(both())
    assert count(heard)["limits_unavailable"] > 0
    totals = fleet.totals(key)["key"]
    assert totals.committed == fleet.counted(key)["served"]["requests"] >= count(heard)["200"]


def test_the_parents_death_ends_all_its_workers_the_stopped_one_too(
    fleet: Fleet, home: tuple[str, str], all_there: None
) -> None:
    key = fleet.key_of(*home, "parent")
    before = fleet.workers()
    os.kill(before[1], signal.SIGSTOP)
    assert fleet.end_gate(signal.SIGKILL) == -signal.SIGKILL
    wait_for(lambda: not fleet.workers(), 10, "every worker ends")
    fleet.start_gate()
    wait_for(lambda: everybody_serves(fleet), 30, "every worker serves")
    heard: list[Heard] = []

    async def ask(client: Client) -> None:
        heard.extend([await client.ask(key) for _ in range(5)])

    asyncio.run(clients(fleet.port, 16, ask))
    assert count(heard)["200"] == len(heard)


def test_a_gate_that_is_told_to_stop_finishes_what_it_has_begun(
    fleet: Fleet, home: tuple[str, str], all_there: None
) -> None:
    key = fleet.key_of(*home, "stop")
    heard: list[Heard] = []

    async def story() -> None:
        async def ask(client: Client) -> None:
            heard.append(await client.ask(key, 700))

        asking = asyncio.create_task(clients(fleet.port, 32, ask))

        def all_run() -> bool:
            with fleet.limits() as table:
                found = table.totals(fleet.grant(key).scopes[-1].slot)
            return getattr(found, "open", 0) == 32

        await asyncio.to_thread(wait_for, all_run, 10, "all are under way")
        assert await asyncio.to_thread(fleet.end_gate) == 0
        await asking

    asyncio.run(story())
    assert count(heard) == {"200": 32}
    assert fleet.totals(key)["key"].committed == 32
    fleet.start_gate()
