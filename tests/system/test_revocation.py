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
from dataclasses import dataclass
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
TEAMS = 50
IN_A_TEAM = 4
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
@dataclass(frozen=True)
class Lot:
    """Keys that one call revokes: a key by itself, or a team with all of its keys."""

    keys: tuple[Key, ...]
    owner: str
    team: str | None = None

    def revoke(self, fleet: Fleet) -> Any:
        if self.team is None:
            return fleet.control.post("keys", self.keys[0].key_id, "revoke")
        answer = fleet.control.delete("organisations", self.owner, "teams", self.team)
        assert sorted(answer["revoked_keys"]) == sorted(key.key_id for key in self.keys)
        return answer


@pytest.fixture
def crowd() -> Iterator[tuple[Fleet, list[Lot]]]:
    """As many workers as processors; a thousand keys, and fifty teams, that were there before."""
    fleet = Fleet("auto")
    lots = make_lots(fleet)
    for ready in running_fleet(fleet):
        yield ready, lots


def make_lots(fleet: Fleet) -> list[Lot]:
    """Keys and teams in no order, made before the daemon starts, without waiting for the disk."""
    state = open_database(
        fleet.paths.state_db, application_id=schema.APPLICATION_ID, migrations=schema.MIGRATIONS
    )
    state.conn.execute("PRAGMA synchronous = OFF")
    identity = IdentityStore(state, SystemClock(), load_or_create_pepper(fleet.paths.pepper))
    caps = IdentityCaps()
    owner = identity.create_organisation("crowd", caps=caps).organisation_id
    member = identity.create_member(owner, "app", caps=caps).member_id

    def make(team: str | None = None) -> Key:
        new = identity.create_key(owner, member, name="k", team_id=team, expires_in_days=1, caps=caps)
        return Key(new.record.key_id, new.text)

    lots = [Lot((make(),), owner) for _ in range(KEYS)]
    for number in range(TEAMS):
        team = identity.teams.create(owner, f"t{number}").team_id
        identity.teams.join(team, member)
        lots.append(Lot(tuple(make(team) for _ in range(IN_A_TEAM)), owner, team))
    state.close()
    random.Random(7).shuffle(lots)  # noqa: S311 - no secret
    return lots


class Revoking:
    """Revokes keys and removes teams from several threads, and remembers when each call returned."""

    def __init__(self, fleet: Fleet, lots: list[Lot]) -> None:
        self.fleet = fleet
        self.left = list(lots)
        self.returned: dict[str, float] = {}  # key id → monotonic seconds
        self.recent: list[Key] = []
        self.incomplete = 0
        self._lock = threading.Lock()

    def run(self) -> None:
        """Until nothing is left."""
        with ThreadPoolExecutor(REVOKERS) as pool:
            for done in [pool.submit(self._revoke) for _ in range(REVOKERS)]:
                done.result()

    def _revoke(self) -> None:
        while True:
            with self._lock:
                if not self.left:
                    return
                lot = self.left.pop()
            answer = lot.revoke(self.fleet)
            now = time.monotonic()
            self.returned.update((key.key_id, now) for key in lot.keys)
            self.recent += lot.keys
            self.incomplete += not answer["spread"]["complete"]


def test_a_thousand_revokes_under_load_and_none_is_served_afterwards(
    crowd: tuple[Fleet, list[Lot]],
) -> None:
    fleet, lots = crowd
    wait_for(lambda: len(fleet.workers()) == min(32, os.cpu_count() or 1), 20, '"auto" many workers')
    dice = random.Random(11)  # noqa: S311 - no secret
    revoking = Revoking(fleet, lots)
    of_a_team = {key.key_id for lot in lots if lot.team is not None for key in lot.keys}
    heard: list[Heard] = []
    done = asyncio.Event()

    async def ask(client: Client) -> None:
        """Now a key that may be revoked in this moment, now one that was revoked just before."""
        while not done.is_set():
            recent = revoking.recent[-40:]
            living = [key for lot in revoking.left[-40:] for key in lot.keys]
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
    assert len(revoking.returned) == KEYS + TEAMS * IN_A_TEAM
    assert revoking.incomplete == 0
    late = [one for one in heard if one.status == 200 and one.began > revoking.returned[one.key.key_id]]
    assert not late
    afterwards = {one.key.key_id for one in heard if one.began > revoking.returned[one.key.key_id]}
    seen = Counter(one.status for one in heard)
    assert seen[200] > KEYS / 10, seen
    assert len(afterwards) > KEYS / 2, "most revoked keys were tried again"
    served = {one.key.key_id for one in heard if one.status == 200}
    assert len(afterwards & of_a_team) > TEAMS, "keys of removed teams were tried again"
    assert len(served & of_a_team) > TEAMS / 2, "keys of teams were served before"


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


def team_of(fleet: Fleet, owner: str) -> tuple[str, str, str, str]:
    """Where the control API has the organisation's one team."""
    (team,) = fleet.control.all_items("organisations", owner, "teams")
    return "organisations", owner, "teams", team["team_id"]


def remove_team(fleet: Fleet, owner: str, member: str, key: Key) -> Any:
    return fleet.control.delete(*team_of(fleet, owner))


def leave_team(fleet: Fleet, owner: str, member: str, key: Key) -> Any:
    return fleet.control.delete(*team_of(fleet, owner), "members", member)


def change_team_role(fleet: Fleet, owner: str, member: str, key: Key) -> Any:
    return fleet.put(*team_of(fleet, owner), "members", member, body={"role": "billing"})


def limit_team(fleet: Fleet, owner: str, member: str, key: Key) -> Any:
    return fleet.put(*team_of(fleet, owner), "limits", body={"quota_per_month": 1})


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
    # the key is of a team
    "team": (remove_team, (401, "key_invalid")),
    "team member": (leave_team, (401, "key_invalid")),
    "team role": (change_team_role, (403, "permission_denied")),
    "team limits": (limit_team, (429, "quota_spent")),
    "team key's member": (remove_member, (401, "key_invalid")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_revocation_holds_when_the_call_returns(
    fleet: Fleet, all_there: None, kind: str
) -> None:
    answer = revoke_under_load(fleet, kind, lambda revoke: revoke())
    assert answer["spread"]["workers"] == answer["spread"]["applied"] == WORKERS


@pytest.mark.parametrize("kind", ["key", "licence", "role", "team", "team role"])
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
    team = fleet.team_of(owner, member) if kind.startswith("team") else None
    key = fleet.key_of(owner, member, "k", team)
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
