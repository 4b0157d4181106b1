"""An appliance that will lose its power: the product's own daemon parts and gate workers, under load.

Every request of a life has a model and a key of its own, so that the ledger names each of them. Whoever had
the last byte of an answer says so on the channel, and nobody else does.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlite_utils  # noqa: F401 - the product imports it late, and the guest's root holds what this file imports
import uvloop

from lotabotsd.foundation.clock import NANOSECONDS, SystemClock
from lotabotsd.foundation.config import ApplianceConfig, Config, GateConfig, UsageConfig
from lotabotsd.foundation.keys import load_or_create_key
from lotabotsd.gate.worker import Worker
from lotabotsd.identity.api_key import format_api_key, hash_secret
from lotabotsd.identity.records import KeyRecord
from lotabotsd.licence.standing import judge
from lotabotsd.limits.table import Table, adopt_or_create, current_boot_id
from lotabotsd.models.facts import ModelFacts, TensorFact
from lotabotsd.policy.compile import PolicySource
from lotabotsd.policy.grant import InstanceFacts
from lotabotsd.policy.publish import Publisher
from lotabotsd.usage.drain import Drainer
from lotabotsd.usage.journal import Journal
from lotabotsd.usage.ledger import Ledger, open_ledger

WORKERS = 3
CLIENTS = 48
PORT = 8000
MODELS, KEYS = 64, 64
DRAIN_SECONDS = 0.3  # more often than the product, so that power fails in a drain as well
SEGMENT_BYTES = 64 * 1024
PEPPER = bytes(range(32))
SECRET = "S" * 32
CLOCK = SystemClock()
SPOILED = ("", "journal", "answer")  # what is done wrong on purpose
Say = Callable[[str], None]


def rows_of(number: int) -> int:
    """How many inferences request `number` asks for."""
    return 1 + number % 8


def model_of(life: int, number: int) -> str:
    """The model that request `number` goes to."""
    return f"m{life}-{number % MODELS}"


def key_of(number: int) -> str:
    """The id of the key that request `number` comes with."""
    return f"K{number // MODELS:011d}"


class JournalWithoutSync(Journal):
    """Says that everything is durable."""

    def sync(self) -> None:
        self.durable = self.written


class Forgetful(Worker):
    """A worker with a journal that does not keep its word."""

    def _open(self) -> Any:
        if self._journal is None:
            self._journal = JournalWithoutSync(
                self._config.paths.journal, self._worker, current_boot_id(), self._epoch, SEGMENT_BYTES
            )
        return super()._open()


def configuration(state: Path, run: Path, spoiled: str) -> Config:
    """The appliance's; an answer that does not wait for the disk is mode "process"."""
    durability = "process" if spoiled == "answer" else "power"
    return Config(
        appliance=ApplianceConfig(state_directory=str(state), run_directory=str(run)),
        gate=GateConfig(workers=WORKERS, decoders=1),
        usage=UsageConfig(segment_bytes=SEGMENT_BYTES, durability=durability),
    )


@dataclass
class Appliance:
    """One life of it, from a start to a power cut."""

    config: Config
    life: int
    seed: int
    spoiled: str = ""

    def look(self) -> dict[str, Any]:
        """Count what the life before left, as the daemon does at its start; what the ledger says then."""
        for directory, mode in self.config.paths.directories():
            directory.mkdir(mode=mode, parents=True, exist_ok=True)
        ledger = open_ledger(self.config.paths.ledger_db, CLOCK)
        drained = self._drainer(ledger).drain_once()
        ledger.seal(drained.barrier_ns, cut=True)
        again = self._drainer(ledger).drain_once()  # must find nothing
        verdict = ledger.verify()
        told = {
            "counted": [
                [row.model, row.key, row.outcome, row.meters.requests, row.meters.inferences]
                for row in ledger.usage(by=("model", "key", "outcome"))
            ],
            "findings": [r.finding.kind.value for r in ledger.findings(harmless=True)],
            "problems": [*drained.problems, *again.problems],
            "found_again": again.records,
            "integrity": "" if verdict.integrity.ok else str(verdict.integrity),
            "completeness": "" if verdict.completeness.ok else str(verdict.completeness.fault),
        }
        ledger.close()
        return told

    def begin(self) -> None:
        """Publish, make the limits, start daemon and workers as processes of their own."""
        paths = self.config.paths
        paths.pepper.write_bytes(PEPPER)
        load_or_create_key(paths.receipt_key, shared=True)
        publisher = Publisher(paths.policy_db, slots=256, lease_seconds=3_600)
        published = publisher.publish(self._policy(), CLOCK.wall_ns())
        adopt_or_create(paths.limits_table, slots=256, workers=WORKERS, boot_id=current_boot_id(), fill=[])
        table = Table.open(paths.limits_table, None)
        table.set_generation(published.generation)
        table.close()
        publisher.close()
        in_a_child(self._daemon)
        for worker in range(WORKERS):
            in_a_child(lambda worker=worker: self._work(worker))

    def _policy(self) -> PolicySource:
        now = CLOCK.wall_ns()
        standing = judge(None, now, 0, development=True).to_dict()
        standing.update(requests_per_minute=6_000_000, burst=100_000, inferences_per_month=1_000_000_000)
        keys = [
            KeyRecord(
                key_id=key_of(number),
                organisation_id="org_a",
                organisation_name="A",
                member_id="mem_a",
                role="developer",
                name="k",
                models=("*",),
                environment="live",
                created_at_ns=now,
                expires_at_ns=now + 86_400 * NANOSECONDS,
                secrets=((hash_secret(PEPPER, key_of(number), SECRET), None),),
            )
            for number in range(0, MODELS * KEYS, MODELS)
        ]
        pair = (TensorFact("x", "FP32", (2,)),), (TensorFact("y", "FP32", (2,)),)
        models = [
            ModelFacts(model_of(self.life, number), ("1",), "ab" * 32, 8, *pair, ("a", "b"), None, True)
            for number in range(MODELS)
        ]
        return PolicySource(keys, standing, models, {"keys": []}, InstanceFacts("apl_test", "0"))

    def _drainer(self, ledger: Ledger) -> Drainer:
        return Drainer(self.config.paths.journal, ledger, CLOCK)

    def _daemon(self) -> None:
        """Drain again and again, and seal now and then."""
        ledger = open_ledger(self.config.paths.ledger_db, CLOCK)
        drainer = self._drainer(ledger)
        chance = random.Random(self.seed)  # noqa: S311 - no secret
        while True:
            drained = drainer.drain_once()
            if chance.random() < 0.2:
                ledger.seal(drained.barrier_ns, cut=True)
            time.sleep(DRAIN_SECONDS)

    def _work(self, worker: int) -> None:
        """A gate worker, from its start on."""
        listener = socket.create_server(("127.0.0.1", PORT + worker))
        kind = Forgetful if self.spoiled == "journal" else Worker
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(kind(self.config, worker, CLOCK.wall_ns(), listener).run(lambda: None))


def in_a_child(work: Callable[[], None]) -> None:
    """Run work in a process of its own; if it ever ends, so does the machine."""
    parent = os.getpid()
    if os.fork() == 0:
        try:
            work()
        finally:
            os.kill(parent, signal.SIGTERM)


async def triton(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A Triton on a good day; how long it takes is chance."""
    shown = b'{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[1,2]}]}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(shown)
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while asked := await reader.readuntil(b"\r\n\r\n"):
            lengths = [
                int(x.split(b":")[1]) for x in asked.split(b"\r\n") if x.lower().startswith(b"content-l")
            ]
            await reader.readexactly(sum(lengths))
            await asyncio.sleep(random.random() * 0.01)  # noqa: S311 - no secret
            writer.write(head + shown)


class Clients:
    """Many clients that ask again as soon as they were answered."""

    def __init__(self, life: int, say: Say) -> None:
        self._life = life
        self._say = say
        self._numbers = iter(range(MODELS * KEYS))

    async def run(self, triton_socket: Path) -> None:
        """Ask until every number was used up, or the power fails."""
        upstream = await asyncio.start_unix_server(triton, triton_socket)
        async with upstream, asyncio.TaskGroup() as group:
            for client in range(CLIENTS):
                group.create_task(self._client(PORT + client % WORKERS))

    async def _client(self, port: int) -> None:
        while await self._status(port, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n") != 200:
            await asyncio.sleep(0.05)
        for number in self._numbers:
            status = await self._status(port, request(self._life, number))
            self._say(f"{number} {status}")

    async def _status(self, port: int, asked: bytes) -> int:
        """One request on a connection of its own; returns when its last byte is here. 0: no answer."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            return 0
        writer.write(asked)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [
                int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-l")
            ]
            await reader.readexactly(lengths[0])
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0
        finally:
            writer.close()
        return int(head.split()[1])


def request(life: int, number: int) -> bytes:
    """The bytes of one inference."""
    rows = rows_of(number)
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 2], "data": [1.0] * (2 * rows)}
    body = json.dumps({"inputs": [tensor]}).encode()
    head = (
        f"POST /v2/models/{model_of(life, number)}/infer HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {format_api_key('live', key_of(number), SECRET)}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
