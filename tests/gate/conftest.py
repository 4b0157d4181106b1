"""A whole gate worker in this process: policy.db, limits table, journal and server; a scripted Triton."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from lotabotsd.foundation.clock import NANOSECONDS, SystemClock
from lotabotsd.foundation.config import ApplianceConfig, Config, GateConfig, UsageConfig
from lotabotsd.foundation.keys import load_or_create_key
from lotabotsd.gate.worker import Worker
from lotabotsd.identity.api_key import format_api_key, hash_secret
from lotabotsd.identity.limits_values import NO_LIMITS, ScopeLimits
from lotabotsd.identity.records import KeyRecord
from lotabotsd.licence.standing import judge
from lotabotsd.limits.table import Table, adopt_or_create, current_boot_id
from lotabotsd.models.facts import ModelFacts, PredictSpec, TensorFact
from lotabotsd.policy.compile import PolicySource
from lotabotsd.policy.grant import InstanceFacts
from lotabotsd.policy.publish import Publisher
from lotabotsd.usage.drain import Drainer
from lotabotsd.usage.ledger import Ledger, open_ledger

PEPPER = bytes(range(32))
UEID = "AQ" + "a" * 42
KEY_ID, SECRET = "K" * 12, "S" * 32
API_KEY = format_api_key("live", KEY_ID, SECRET)
MODEL = ModelFacts(
    "m",
    ("1",),
    "ab" * 32,
    8,
    (TensorFact("x", "FP32", (2,)),),
    (TensorFact("y", "FP32", (2,)),),
    ("a", "b"),
    None,
    True,
)
PAGES = ModelFacts(
    "pages",
    ("1",),
    "cd" * 32,
    8,
    (TensorFact("x", "FP32", (3, 4, 4)),),
    (TensorFact("y", "FP32", (2,)),),
    ("left", "right"),
    PredictSpec("x", "y", 4, 4, top_k=2),
    True,
)
Handler = Callable[[bytes, bytes, bytes, asyncio.StreamWriter], Awaitable[None]]


async def answer_ok(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    """Triton as it is on a good day."""
    shown = b'{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[1,2]}]}'
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(shown)
        + shown
    )


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Rig:
    """The parts of one test's gate."""

    config: Config
    publisher: Publisher
    ledger: Ledger
    handler: Handler = answer_ok
    raw_handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None
    api_key: str = API_KEY
    send_buffer: int = 0  # bytes that the kernel takes for a client that does not read; 0: its own choice
    seen: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    keys: list[KeyRecord] = field(default_factory=list)
    models: tuple[ModelFacts, ...] = (MODEL, PAGES)
    standing: dict[str, Any] = field(default_factory=dict)
    instance: InstanceFacts = InstanceFacts("apl_test", "0", UEID)  # noqa: RUF009 - frozen
    worker: Worker | None = None
    ended: int | None = None  # what the worker's program would exit with
    port: int = 0

    def publish(self) -> None:
        """Make policy.db say what the rig says, and tell the table."""
        source = PolicySource(self.keys, self.standing, self.models, {"keys": []}, self.instance)
        published = self.publisher.publish(source, SystemClock().wall_ns())
        paths = self.config.paths
        if not paths.limits_table.exists():
            adopt_or_create(paths.limits_table, slots=256, workers=4, boot_id=current_boot_id(), fill=[])
        table = Table.open(paths.limits_table, None)
        table.set_generation(published.generation)
        table.close()

    def key(self, **changes: Any) -> KeyRecord:
        """The rig's one key with changes, published."""
        self.keys = [replace(self.keys[0], **changes)]
        self.publish()
        return self.keys[0]

    def limit(self, key: ScopeLimits = NO_LIMITS, organisation: ScopeLimits = NO_LIMITS) -> None:
        """Limit the key or its organisation."""
        self.key(limits=key, organisation_limits=organisation)

    def outcomes(self) -> dict[str, int]:
        """Requests by outcome, as the ledger counts them after a drain."""
        Drainer(self.config.paths.journal, self.ledger, SystemClock()).drain_once()
        with self.ledger.reading() as connection:
            rows = connection.execute(
                "SELECT outcome, sum(requests) FROM accumulators GROUP BY outcome"
            ).fetchall()
        return {str(outcome): int(count) for outcome, count in rows}

    def sums(self) -> tuple[int, int]:
        """Inferences and input bytes, as the ledger counts them after a drain."""
        self.outcomes()
        with self.ledger.reading() as connection:
            row = connection.execute("SELECT sum(inferences), sum(input_bytes) FROM accumulators").fetchone()
        return int(row[0]), int(row[1])

    def take_over(
        self, handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    ) -> None:
        """From now on this is Triton, from the first byte of each connection on."""
        assert self.worker is not None
        self.worker._parts.pool.close()
        self.raw_handler = handler

    def connections(self) -> int:
        """How many the worker has open with clients."""
        assert self.worker is not None
        return self.worker.connections

    async def _triton(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.raw_handler is not None:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await self.raw_handler(reader, writer)
            return
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.startswith(b"content-length")
                )
                body = await reader.readexactly(length)
                path = head.split(b" ")[1]
                if path == b"/v2/health/live":  # the gate's own probe
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    continue
                self.seen.append((path, head, body))
                await self.handler(path, head, body, writer)
                await writer.drain()

    def run(self, story: Callable[[Rig], Awaitable[None]], *, triton: bool = True) -> None:
        """Play a story against the running gate."""

        async def play() -> None:
            listener = socket.create_server(("127.0.0.1", 0))
            if self.send_buffer:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_buffer)
            self.port = listener.getsockname()[1]
            upstream = (
                await asyncio.start_unix_server(self._triton, self.config.paths.triton_http)
                if triton
                else None
            )
            self.worker = Worker(self.config, 0, SystemClock().wall_ns(), listener, farewell_seconds=0)
            started = asyncio.Event()
            running = asyncio.create_task(self.worker.run(started.set))
            await started.wait()
            try:
                await story(self)
            finally:
                if upstream is not None:
                    upstream.close()
                self.worker.stop()
                self.ended = await running

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the worker program does
            runner.run(asyncio.wait_for(play(), 30))

    async def ready(self) -> None:
        """Wait until the gate answers /readyz with 200."""
        while (await self.ask("GET", "/readyz", key=None)).status != 200:
            await asyncio.sleep(0.01)

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        key: str | None = API_KEY,
    ) -> Answer:
        """One request on a connection of its own."""
        sent = {"host": "x", "connection": "close", "content-length": str(len(body)), **(headers or {})}
        if key is not None:
            sent["authorization"] = f"Bearer {key}"
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in sent.items()) + "\r\n"
        return await self.send(head.encode() + body)

    async def send(self, data: bytes) -> Answer:
        """Raw bytes, and the answer parsed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        top, _, rest = answer.partition(b"\r\n\r\n")
        lines = top.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        return Answer(int(lines[0].split()[1]), headers, rest)

    async def infer(self, **changes: Any) -> Answer:
        """A small JSON inference."""
        return await self.ask("POST", "/v2/models/m/infer", INFER, **changes)


INFER = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}).encode()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A gate with one key, two models and the free tier, not yet started."""
    config = Config(
        appliance=ApplianceConfig(
            state_directory=str(tmp_path / "state"), run_directory=str(tmp_path / "run")
        ),
        gate=GateConfig(upstream_timeout_seconds=5, drain_seconds=2, max_body_bytes=1 << 20, decoders=1),
        usage=UsageConfig(segment_bytes=64 * 1024, durability="process"),
    )
    for directory, _ in config.paths.directories():
        directory.mkdir(parents=True, exist_ok=True)
    config.paths.pepper.write_bytes(PEPPER)
    load_or_create_key(config.paths.receipt_key, shared=True)
    clock = SystemClock()
    publisher = Publisher(config.paths.policy_db, slots=256, lease_seconds=60)
    ledger = open_ledger(config.paths.ledger_db, clock)
    made = Rig(config, publisher, ledger)
    made.standing = judge(None, clock.wall_ns(), 0, development=True).to_dict()
    now = clock.wall_ns()
    made.keys = [
        KeyRecord(
            key_id=KEY_ID,
            organisation_id="org_a",
            organisation_name="A",
            member_id="mem_a",
            role="developer",
            name="k",
            models=("*",),
            environment="live",
            created_at_ns=now,
            expires_at_ns=now + 3_600 * NANOSECONDS,
            secrets=((hash_secret(PEPPER, KEY_ID, SECRET), None),),
        )
    ]
    yield made
    publisher.close()
    ledger.close()
