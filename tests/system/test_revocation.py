"""What is revoked is not served once the call returned: under load, with idle, stopped and dying workers."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from fleet import Client, Fleet, Heard, clients, read_answer, request, running_fleet, send
from gate_clients import Key, wait_for

from lotabotsd.foundation.clock import SystemClock
from lotabotsd.foundation.database import open_database
from lotabotsd.identity import schema
from lotabotsd.identity.pepper import load_or_create_pepper
from lotabotsd.identity.records import IdentityCaps
from lotabotsd.identity.store import IdentityStore

pytestmark = pytest.mark.required

WORKERS = 3
KEYS = 1_000
REVOKERS = 16
CLIENTS = 24
LATER = {"limits_unavailable", "starting", "overloaded"}  # 503: nothing was admitted


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Three workers, and room for two requests at a time in each."""
    yield from running_fleet(Fleet(WORKERS, max_in_flight=2 * WORKERS, drain_seconds=2))


@pytest.fixture
def all_there(fleet: Fleet) -> None:
    """Every worker lives and serves."""
    wait_for(lambda: everybody_serves(fleet), 30, "every worker serves")


def everybody_serves(fleet: Fleet) -> bool:
    workers = fleet.control.get("status")["gate"]["workers"]
    return [worker["state"] for worker in workers] == ["live"] * WORKERS


# -- 1,000 keys
@pytest.fixture
def crowd() -> Iterator[tuple[Fleet, list[Key]]]:
    """As many workers as processors, and a thousand keys that were there before."""
    fleet = Fleet("auto")
    keys = make_keys(fleet, KEYS)
    for ready in running_fleet(fleet):
        yield ready, keys


def make_keys(fleet: Fleet, count: int) -> list[Key]:
    """Keys made before the daemon starts, without waiting for the disk."""
    state = open_database(
        fleet.paths.state_db, application_id=schema.APPLICATION_ID, migrations=schema.MIGRATIONS
    )
    state.conn.execute("PRAGMA synchronous = OFF")
    identity = IdentityStore(state, SystemClock(), load_or_create_pepper(fleet.paths.pepper))
    caps = IdentityCaps()
    owner = identity.create_organisation("crowd", caps=caps).organisation_id
    member = identity.create_member(owner, "app", caps=caps).member_id
    made = [
        identity.create_key(owner, member, name=f"k{number}", expires_in_days=1, caps=caps)
        for number in range(count)
    ]
    state.close()
    return [Key(new.record.key_id, new.text) for new in made]


class Revoking:
    """Revokes keys from several threads, and remembers when each call returned."""

    def __init__(self, fleet: Fleet, keys: list[Key]) -> None:
        self.fleet = fleet
        self.left = list(keys)
        self.returned: dict[str, float] = {}  # key id → monotonic seconds
        self.recent: list[Key] = []
        self.incomplete = 0
        self._lock = threading.Lock()

    def run(self) -> None:
        """Until no key is left."""
        with ThreadPoolExecutor(REVOKERS) as pool:
            for done in [pool.submit(self._revoke) for _ in range(REVOKERS)]:
                done.result()

    def _revoke(self) -> None:
        while True:
            with self._lock:
                if not self.left:
                    return
                key = self.left.pop()
            answer = self.fleet.control.post("keys", key.key_id, "revoke")
            self.returned[key.key_id] = time.monotonic()
            self.recent.append(key)
            self.incomplete += not answer["spread"]["complete"]


def test_a_thousand_revokes_under_load_and_none_is_served_afterwards(
    crowd: tuple[Fleet, list[Key]],
) -> None:
    fleet, keys = crowd
    wait_for(lambda: len(fleet.workers()) == min(32, os.cpu_count() or 1), 20, '"auto" many workers')
    dice = random.Random(11)  # noqa: S311 - no secret
    revoking = Revoking(fleet, keys)
    heard: list[Heard] = []
    done = asyncio.Event()

    async def ask(client: Client) -> None:
        """Now a key that may be revoked in this moment, now one that was revoked just before."""
        while not done.is_set():
            recent, living = revoking.recent[-40:], revoking.left[-40:]
            chosen = recent if recent and (not living or dice.random() < 0.5) else living
            if not chosen:
                await asyncio.sleep(0.01)
                continue
            one = await client.ask(dice.choice(chosen))
            assert one.status in (0, 200, 401) or one.code in LATER, one
            heard.append(one)

    async def disturb() -> None:
        for how in itertools.cycle(["stop", "kill", "pause", "pause", "pause", "pause"]):
            await asyncio.sleep(dice.uniform(0.2, 1.5))  # how bad the day is
            if done.is_set():
                return
            workers = sorted((await asyncio.to_thread(fleet.workers)).values())
            if len(workers) > 1:
                pid = dice.choice(workers)
                send(pid, signal.SIGKILL if how == "kill" else signal.SIGSTOP)
                await asyncio.sleep(3.0 if how == "stop" else dice.uniform(0, 0.5))
                send(pid, signal.SIGCONT)

    async def revoke() -> None:
        await asyncio.to_thread(revoking.run)
        asked = len(heard)
        while len(heard) < asked + 200:  # the last ones are asked for as well
            await asyncio.sleep(0.05)
        done.set()

    async def everything() -> None:
        await asyncio.gather(revoke(), disturb(), clients(fleet.port, CLIENTS, ask))

    asyncio.run(everything())
    assert len(revoking.returned) == KEYS
    assert revoking.incomplete == 0
    late = [one for one in heard if one.status == 200 and one.began > revoking.returned[one.key.key_id]]
    assert not late
    afterwards = {one.key.key_id for one in heard if one.began > revoking.returned[one.key.key_id]}
    seen = Counter(one.status for one in heard)
    assert seen[200] > KEYS / 10, seen
    assert len(afterwards) > KEYS / 2, "most revoked keys were tried again"


# -- what can be revoked
def revoke_key(fleet: Fleet, owner: str, member: str, key: Key) -> Any:
    return fleet.control.post("keys", key.key_id, "revoke")


def remove_member(fleet: Fleet, owner: str, member: str, key: Key) -> Any:
    return fleet.control.delete("organisations", owner, "members", member)


def remove_organisation(fleet: Fleet, owner: str, member: str, key: Key) -> Any:
    """It can be removed only once its keys are revoked."""
    fleet.control.delete("organisations", owner, "members", member)
    return fleet.control.delete("organisations", owner)


def change_role(fleet: Fleet, owner: str, member: str, key: Key) -> Any:
    return fleet.put("organisations", owner, "members", member, "role", body={"role": "billing"})


def limit_organisation(fleet: Fleet, owner: str, member: str, key: Key) -> Any:
    return fleet.put("organisations", owner, "limits", body={"quota_per_month": 1})


def rotate_key(fleet: Fleet, owner: str, member: str, key: Key) -> Any:
    return fleet.control.post("keys", key.key_id, "rotate", body={"grace_seconds": 0})


def replace_licence(fleet: Fleet, owner: str, member: str, key: Key) -> Any:
    """By one that allows a single inference in the month, which was made before."""
    return fleet.install("enterprise", "--inferences-per-month", "1", "--overage", "none")


Revoke = Callable[[Fleet, str, str, Key], Any]
KINDS: dict[str, tuple[Revoke, tuple[int, str]]] = {
    "key": (revoke_key, (401, "key_invalid")),
    "licence": (replace_licence, (429, "quota_spent")),
    "role": (change_role, (403, "permission_denied")),
    "member": (remove_member, (401, "key_invalid")),
    "organisation": (remove_organisation, (401, "key_invalid")),
    "limits": (limit_organisation, (429, "quota_spent")),
    "secret": (rotate_key, (401, "key_invalid")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_revocation_holds_when_the_call_returns(
    fleet: Fleet, all_there: None, kind: str
) -> None:
    answer = revoke_under_load(fleet, kind, lambda revoke: revoke())
    assert answer["spread"]["workers"] == answer["spread"]["applied"] == WORKERS


@pytest.mark.parametrize("kind", ["key", "licence", "role"])
def test_a_stopped_worker_is_replaced_before_the_call_returns(
    fleet: Fleet, all_there: None, kind: str
) -> None:
    pid = min(fleet.workers().values())

    def stopped(revoke: Callable[[], Any]) -> Any:
        os.kill(pid, signal.SIGSTOP)
        try:
            return revoke()
        finally:
            send(pid, signal.SIGCONT)  # were it still there, it would judge by what it knew

    answer = revoke_under_load(fleet, kind, stopped)
    assert answer["spread"]["complete"]
    assert pid not in fleet.workers().values()


def revoke_under_load(fleet: Fleet, kind: str, how: Callable[[Callable[[], Any]], Any]) -> Any:
    """Revoke while clients ask; every request sent after the answer is refused. Returns that answer."""
    revoke, refusal = KINDS[kind]
    fleet.install("enterprise")
    owner, member = fleet.organisation(f"{kind} {time.monotonic_ns()}")
    key = fleet.key_of(owner, member, "k")
    heard: list[Heard] = []
    returned: list[float] = []

    async def ask(client: Client) -> None:
        after = 0
        while after < 5:
            one = await client.ask(key)
            if one.status == 0 or one.code in LATER:
                await asyncio.sleep(0.01)
                continue
            heard.append(one)
            after += bool(returned and one.began > returned[0])

    def revoke_now() -> Any:
        wait_for(lambda: len(heard) >= 30, 20, "requests are served")
        answer = how(lambda: revoke(fleet, owner, member, key))
        returned.append(time.monotonic())
        return answer

    async def both() -> Any:
        asking = asyncio.create_task(clients(fleet.port, 8, ask))
        try:
            return await asyncio.to_thread(revoke_now)
        finally:
            returned.append(time.monotonic())  # also when it failed: then nobody asks for ever
            with suppress(TimeoutError):
                await asyncio.wait_for(asking, 20)

    answer = asyncio.run(both())
    after = {(one.status, one.code) for one in heard if one.began > returned[0]}
    assert after == {refusal}
    assert (200, "") in {(one.status, one.code) for one in heard if one.ended < returned[0]}
    return answer


# -- requests that had begun
def test_a_request_whose_body_comes_after_the_revocation_is_refused(fleet: Fleet, all_there: None) -> None:
    fleet.install("enterprise")
    owner, member = fleet.organisation("slow bodies")
    key = fleet.key_of(owner, member, "k")

    async def story() -> tuple[int, bytes, bool]:
        reader, writer = await asyncio.open_connection("127.0.0.1", fleet.port)
        data = request(key, 0)
        writer.write(data[:-10])  # the key is known by now, and its request waits for the rest
        await writer.drain()
        before = Client(fleet.port)
        assert (await before.ask(key)).status == 200
        before.close()
        answer = await asyncio.to_thread(fleet.control.post, "keys", key.key_id, "revoke")
        assert answer["spread"]["complete"]
        writer.write(data[-10:])
        try:
            return await read_answer(reader)
        finally:
            writer.close()

    status, body, _ = asyncio.run(story())
    assert status == 401, body


def test_a_request_in_the_line_is_judged_again_when_it_leaves_it(fleet: Fleet, all_there: None) -> None:
    fleet.install("enterprise")
    owner, member = fleet.organisation("in line")
    holding, waiting = fleet.key_of(owner, member, "a"), fleet.key_of(owner, member, "b")
    heard: list[Heard] = []

    async def hold(client: Client) -> None:
        assert (await client.ask(holding, 500)).status == 200

    async def wait(client: Client) -> None:
        heard.append(await client.ask(waiting))

    def open_requests(key: Key) -> int:
        with fleet.limits() as table:
            return int(getattr(table.totals(fleet.grant(key).scopes[-1].slot), "open", 0))

    async def story() -> None:
        holders = asyncio.create_task(clients(fleet.port, 12 * WORKERS, hold))  # far more than run at once
        await asyncio.to_thread(
            wait_for, lambda: open_requests(holding) == 12 * WORKERS, 10, "every place is taken"
        )
        waiters = asyncio.create_task(clients(fleet.port, 24, wait))
        await asyncio.to_thread(wait_for, lambda: open_requests(waiting) == 24, 10, "they stand in line")
        answer = await asyncio.to_thread(fleet.control.post, "keys", waiting.key_id, "revoke")
        assert answer["spread"]["complete"]
        await waiters
        holders.cancel()

    asyncio.run(story())
    assert {(one.status, one.code) for one in heard} == {(401, "key_invalid")}
