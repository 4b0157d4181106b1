"""No worker serves a removed team's keys: neither an idle one, nor one that is stopped or dies meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from fleet import Client, Fleet, Heard, clients, running_fleet, send
from gate_clients import Key, wait_for

pytestmark = pytest.mark.required

WORKERS = 3
CLIENTS = 24  # connections; the kernel spreads them over the workers' sockets
LATER = {"limits_unavailable", "starting", "overloaded"}  # 503: nothing was admitted


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Three workers."""
    yield from running_fleet(Fleet(WORKERS))


@contextmanager
def idle(fleet: Fleet) -> Iterator[None]:
    """Nobody asks while the team is removed."""
    yield


@contextmanager
def stopped(fleet: Fleet) -> Iterator[None]:
    """One worker stands still, and goes on afterwards if it is still there."""
    pid = min(fleet.workers().values())
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
        assert pid not in fleet.workers().values(), "it was replaced before the call returned"
    finally:
        send(pid, signal.SIGCONT)


@contextmanager
def dying(fleet: Fleet) -> Iterator[None]:
    """One worker after the other is killed as long as the call runs."""
    returned = threading.Event()

    def kill() -> None:
        while True:
            for pid in fleet.workers().values():
                send(pid, signal.SIGKILL)
                if returned.wait(0.01):
                    return

    pids = set(fleet.workers().values())
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        wait_for(lambda: pids - set(fleet.workers().values()), 10, "a worker died")
        yield
    finally:
        returned.set()
        killer.join(10)


async def asked_everywhere(fleet: Fleet, keys: list[Key]) -> list[Heard]:
    """Each key at many connections, each until somebody decided."""
    heard: list[Heard] = []

    async def ask(client: Client) -> None:
        for key in keys:
            one = await client.ask(key)
            while one.status == 0 or one.code in LATER:
                await asyncio.sleep(0.05)
                one = await client.ask(key)
            heard.append(one)

    await asyncio.wait_for(clients(fleet.port, CLIENTS, ask), 40)
    return heard


@pytest.mark.parametrize("workers", [idle, stopped, dying], ids=lambda how: how.__name__)
def test_a_removed_teams_keys_are_refused_by_every_worker(
    fleet: Fleet, workers: Callable[[Fleet], AbstractContextManager[None]]
) -> None:
    def everybody_serves() -> bool:
        found = fleet.control.get("status")["gate"]["workers"]
        return [worker["state"] for worker in found] == ["live"] * WORKERS

    wait_for(everybody_serves, 30, "every worker serves")
    owner, member = fleet.organisation(f"removal {workers.__name__}")
    team = fleet.team_of(owner, member)
    of_the_team = [fleet.key_of(owner, member, f"k{number}", team) for number in range(3)]
    without = fleet.key_of(owner, member, "without")
    before = asyncio.run(asked_everywhere(fleet, [*of_the_team, without]))
    assert {one.status for one in before} == {200}
    with workers(fleet):
        answer = fleet.control.delete("organisations", owner, "teams", team)
    assert answer["spread"]["complete"]
    assert sorted(answer["revoked_keys"]) == sorted(key.key_id for key in of_the_team)
    after = asyncio.run(asked_everywhere(fleet, [*of_the_team, without]))
    seen = Counter((one.key == without, one.status, one.code) for one in after)
    assert seen == {(False, 401, "key_invalid"): 3 * CLIENTS, (True, 200, ""): CLIENTS}
