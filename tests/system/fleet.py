"""An appliance with several gate workers and a Triton that costs nothing, and many clients in one loop."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gate_clients import Key, wait_for
from quick_triton import MODEL
from whole_appliance import ROOT, Appliance, free_port, running_appliance

from lotabotsd.cli.control_client import ControlClient
from lotabotsd.foundation.config import load
from lotabotsd.foundation.sockets import bind_unix
from lotabotsd.limits.scope import Totals
from lotabotsd.limits.table import Table
from lotabotsd.policy.grant import Grant
from lotabotsd.policy.reader import PolicyReader
from lotabotsd.runtime.helper import serve_host
from lotabotsd.runtime.messages import NO_RUN, RunFacts

INFER = f"/v2/models/{MODEL}/infer"
PACKAGE = """
format = 1
name = "number"
title = "One number"
task = "regression"
licence = "Apache-2.0"
[objective]
p99_milliseconds = 20
"""
CONFIGURATION = """
name: "number"
backend: "onnxruntime"
max_batch_size: 8
input [{ name: "x" data_type: TYPE_FP32 dims: [ 1 ] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [ 1 ] }]
"""


class Fleet(Appliance):
    """Daemon and gate are the real processes; helper and Triton are simulated."""

    def __init__(self, workers: int | str, **gate: int | float) -> None:
        # Not by way of the parent class: that one wants a real runtime.
        self.folder = Path(tempfile.mkdtemp(prefix="lotabots-test-"))
        self.state = self.folder / "state"
        self.run = self.folder / "run"
        self.config = self.folder / "lotabots.toml"
        self.log = self.folder / "log"
        self.port = free_port()
        self.control_socket = self.run / "control" / "control.sock"
        self.triton_http = self.run / "triton" / "http.sock"
        self._started: list[subprocess.Popen[bytes]] = []
        self.config.write_text(
            f'[appliance]\nname = "test"\nstate_directory = "{self.state}"\nrun_directory = "{self.run}"\n'
            f'[gate]\nlisten = "127.0.0.1:{self.port}"\nworkers = {json.dumps(workers)}\n'
            + "".join(f"{name} = {value}\n" for name, value in gate.items())
            + "[runtime]\nprobe_seconds = 0.25\n"
            f'[models]\nrepository = "{self.folder}/packages"\nenabled = ["{MODEL}"]\n'
            "[usage]\ndrain_seconds = 0.1\nsegment_bytes = 262144\n"
        )
        self.directories()
        self._make_package()
        self.paths = load(self.config).paths
        self.control = ControlClient(self.control_socket)

    def _make_package(self) -> None:
        """A package that passes every rule; its weights are never loaded."""
        packages = _load(ROOT / "tests" / "models" / "conftest.py")
        directory = self.folder / "packages" / MODEL
        (directory / "1").mkdir(parents=True)
        (directory / "config.pbtxt").write_text(CONFIGURATION)
        weights = packages.onnx_bytes({"x": (1, ["N", 1])}, {"y": (1, ["N", 1])})
        (directory / "1" / "model.onnx").write_bytes(weights)
        packages.seal(directory, PACKAGE)

    def start_all(self) -> None:
        """Triton, daemon and gate, until the gate is ready."""
        script = Path(__file__).with_name("quick_triton.py")
        triton = subprocess.Popen([sys.executable, str(script), str(self.triton_http)])
        self._started.append(triton)
        self.start("serve")
        self.start_gate()

    def start_gate(self) -> None:
        """The gate, until it is ready."""
        self.gate = self.start("gate")
        self.ready()

    def end_gate(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal the gate's parent and wait for its end; its exit code."""
        return self.end(self.gate, number)

    def install(self, tier: str, *options: str) -> Any:
        """Install a licence, issued now."""
        return self.control.put_bytes("licence", data=self.licence(tier, *options).read_bytes())

    def put(self, *parts: str, body: dict[str, Any]) -> Any:
        """PUT JSON to the control API."""
        return self.control._json("PUT", parts, {}, json.dumps(body).encode(), "application/json")

    def organisation(self, name: str = "works", **limits: int) -> tuple[str, str]:
        """A new organisation with one member: their ids."""
        made = self.control.post("organisations", body={"name": name, "limits": limits})
        owner = made["organisation_id"]
        member = self.control.post("organisations", owner, "members", body={"name": "app", "kind": "service"})
        return owner, member["member_id"]

    def team_of(self, owner: str, member: str, name: str = "team", **limits: int) -> str:
        """A new team with limits, and the member in it as a developer: its id."""
        made = self.control.post("organisations", owner, "teams", body={"name": name, "limits": limits})
        team: str = made["team_id"]
        self.put("organisations", owner, "teams", team, "members", member, body={"role": "developer"})
        return team

    def key_of(self, owner: str, member: str, name: str, team: str | None = None, **limits: int) -> Key:
        """A new API key with limits of its own, of a team or of none."""
        body = {"name": name, "member_id": member, "team_id": team, "limits": limits}
        made = self.control.post("organisations", owner, "keys", body=body)
        assert made["spread"]["complete"]
        return Key(made["key_id"], made["text"])

    def grant(self, key: Key) -> Grant:
        """What the gate knows of a key."""
        reader = PolicyReader(self.paths.policy_db)
        reader.open()
        try:
            found = reader.grant(key.key_id)
        finally:
            reader.close()
        assert found is not None
        return found

    @contextmanager
    def limits(self) -> Iterator[Table]:
        """The limits table as an onlooker sees it."""
        table = Table.open(self.paths.limits_table, None)
        try:
            yield table
        finally:
            table.close()

    def totals(self, key: Key) -> dict[str, Totals]:
        """The accounts of the key's scopes by kind, once nothing is open in them."""
        scopes = self.grant(key).scopes
        with self.limits() as table:

            def settled() -> dict[str, Totals]:
                found = {scope.kind: table.totals(scope.slot) for scope in scopes}
                ended = {k: t for k, t in found.items() if isinstance(t, Totals) and t.open == 0}
                return ended if len(ended) == len(scopes) else {}

            totals: dict[str, Totals] = wait_for(settled, 20, "every request is settled in the limits")
        assert all(one.balanced for one in totals.values())
        return totals

    def counted(self, key: Key) -> dict[str, dict[str, Any]]:
        """What the ledger says of a key, by outcome, once no request is open in it."""

        def closed() -> Any:
            found = self.control.get("usage", by="key,outcome")
            return found if found["in_flight"] == 0 else None

        found = wait_for(closed, 20, "every request is closed in the ledger")
        return {row["outcome"]: row for row in found["rows"] if row["key"] == key.key_id}

    def workers(self) -> dict[int, int]:
        """Worker number → process id, of those that live."""
        found = {}
        for process in self.processes("worker"):
            words = process.command
            found[int(words[words.index("--worker") + 1])] = process.pid
        return found

    def triton_says(self, name: str) -> int:
        """`highest` or `count`."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.triton_http))
            connection.sendall(f"GET /{name} HTTP/1.1\r\nconnection: close\r\n\r\n".encode())
            with connection.makefile("rb") as answer:
                return int(answer.read().rpartition(b"\r\n\r\n")[2])


def running_fleet(fleet: Fleet) -> Iterator[Fleet]:
    """For fixtures: the fleet, ready, with a licence that does not stand in the way; stopped at the end."""
    with simulated_helper(fleet.paths.helper_socket):
        for appliance in running_appliance(fleet):
            fleet.start_all()
            fleet.install("enterprise")
            assert appliance is fleet
            yield fleet


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.parent.name + "_" + path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class RunningTriton:
    """A runtime host (`runtime.helper.RuntimeHost`) whose Triton always runs."""

    facts = RunFacts("run", True, os.getpid(), "secret")

    async def ensure(self) -> dict[str, Any]:
        return {"kind": "embedded", "triton": "0.0-quick"}

    async def start(self) -> dict[str, Any]:
        return self.facts.to_dict()

    async def stop(self) -> dict[str, Any]:
        return NO_RUN.to_dict()

    async def promote(self) -> dict[str, Any]:
        return self.facts.to_dict()

    async def inspect(self) -> dict[str, Any]:
        return self.facts.to_dict()

    async def logs(self) -> dict[str, Any]:
        return {"lines": []}

    async def close(self) -> None:
        pass


@contextmanager
def simulated_helper(path: Path) -> Iterator[None]:
    """Answer the daemon's supervisor at the helper's socket, in a thread."""
    listener = bind_unix(path, mode=0o600)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def run() -> None:
        loop.run_until_complete(serve_host(RunningTriton(), listener, frozenset({os.getuid()}), stop))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@dataclass(frozen=True, slots=True)
class Heard:
    """One request and what came of it. Times are monotonic seconds."""

    key: Key
    began: float
    ended: float
    status: int  # 0: no whole answer came
    code: str = ""  # of the problem


class Client:
    """One connection that asks one thing after the other, and is made anew when it breaks."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, key: Key, milliseconds: float = 0) -> Heard:
        """One inference. A connection that breaks, or is refused, gives status 0."""
        began = time.monotonic()
        status, code = 0, ""
        try:
            if self._stream is None:
                self._stream = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._stream
            writer.write(request(key, milliseconds))
            status, body, ends = await read_answer(reader)
            if status != 200:
                code = json.loads(body)["code"]
            if ends:
                self.close()
        except (OSError, asyncio.IncompleteReadError):
            self.close()
        return Heard(key, began, time.monotonic(), status, code)

    def close(self) -> None:
        """Hang up."""
        if self._stream is not None:
            self._stream[1].close()
            self._stream = None


def request(key: Key, milliseconds: float) -> bytes:
    """The bytes of an inference that Triton answers after so long."""
    number = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [float(milliseconds)]}
    body = json.dumps({"inputs": [number]})
    return (
        f"POST {INFER} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key.text}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    ).encode()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Status, body, and whether the connection ends with it. Raises IncompleteReadError, OSError."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    length = int(lower.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    body = await reader.readexactly(length)
    return int(head[9:12]), body, b"connection: close" in lower


async def clients(port: int, count: int, work: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
    """So many clients, each doing its work; all are hung up at the end."""
    made = [Client(port) for _ in range(count)]
    try:
        async with asyncio.TaskGroup() as group:
            for client in made:
                group.create_task(work(client))
    finally:
        for client in made:
            client.close()


def send(pid: int, number: signal.Signals) -> None:
    """Signal a worker that may be gone by now."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
