"""Helper, supervisor and model package in one process with the real Triton, and the questions put to it."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import io
import json
import os
import shutil
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from whole_appliance import MODEL, ROOT, runtime_python

from lotabotsd.foundation.clock import SystemClock
from lotabotsd.foundation.config import Config, parse
from lotabotsd.foundation.sockets import bind_unix
from lotabotsd.gate.decoder import decode
from lotabotsd.models.facts import ModelFacts, TensorFact
from lotabotsd.models.package import Package
from lotabotsd.models.prepare import prepare
from lotabotsd.runtime.canary import CanaryTensor, make_canary
from lotabotsd.runtime.client import TritonClient
from lotabotsd.runtime.helper import serve_helper
from lotabotsd.runtime.helper_client import HelperClient
from lotabotsd.runtime.plan import DesiredModel
from lotabotsd.runtime.remains import SHARED_MEMORY, shared_memory_prefix
from lotabotsd.runtime.seen import Seen
from lotabotsd.runtime.supervisor import Supervisor

STATE_SECONDS = 60.0


class MovableClock(SystemClock):
    """The machine's clock, moved on at will: nobody waits for the next canary."""

    ahead_ns = 0

    def monotonic_ns(self) -> int:
        return super().monotonic_ns() + self.ahead_ns


class Bench:
    """A helper, a supervisor and a package in a folder of their own."""

    def __init__(self, folder: Path, runtime: str = "") -> None:
        """`runtime` are the lines of its section that say which one; the embedded one when there are none."""
        self.text = f"""
[appliance]
state_directory = "{folder}/state"
run_directory = "{folder}/run"
[runtime]
{runtime or f'python = "{runtime_python()}"'}
stop_timeout_seconds = 20
drain_seconds = 10
"""
        self.config: Config = parse(self.text.encode(), "bench")
        self.paths = self.config.paths
        for path, mode in self.paths.directories():
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(mode)
        self.package = folder / "packages" / MODEL
        shutil.copytree(ROOT / "model_repository" / MODEL, self.package)
        self.clock = MovableClock()
        self.facts = self.prepare()

    def prepare(self) -> ModelFacts:
        """The package as it is now, live."""
        package = Package.load(self.package)
        return prepare(
            package, self.config.runtime.variant, self.paths.staged_models, self.paths.live_models
        ).facts

    def new_labels(self) -> ModelFacts:
        """Another version of the package, live."""
        labels = self.package / "labels.txt"
        before = hashlib.sha256(labels.read_bytes()).hexdigest()
        labels.write_text("up\nright\ndown\nleft\n", encoding="utf-8")
        after = hashlib.sha256(labels.read_bytes()).hexdigest()
        manifest = self.package / "package.toml"
        manifest.write_text(manifest.read_text(encoding="utf-8").replace(before, after), encoding="utf-8")
        return self.prepare()

    def new_supervisor(self) -> Supervisor:
        """As a daemon that begins makes it."""
        helper = HelperClient(self.paths.helper_socket, stop_timeout_seconds=20)
        supervisor = Supervisor(
            helper,
            lambda secret: TritonClient(self.paths.triton_http, secret, load_timeout_seconds=60),
            self.clock,
            start_timeout_seconds=60,
        )
        supervisor.want([desired(self.facts)])
        return supervisor

    @asynccontextmanager
    async def helper(self) -> AsyncIterator[Supervisor]:
        """A helper in this process, and a supervisor that uses it."""
        stop = asyncio.Event()
        listener = bind_unix(self.paths.helper_socket)
        serving = asyncio.create_task(serve_helper(self.config, listener, frozenset({os.geteuid()}), stop))
        try:
            yield self.new_supervisor()
        finally:
            stop.set()
            await serving

    def run(self, story: Callable[[Supervisor], Awaitable[Any]]) -> Any:
        """Tell a story with a helper around it; afterwards nothing is left."""

        async def both() -> Any:
            async with self.helper() as supervisor:
                return await story(supervisor)

        result = asyncio.run(both())
        assert self.processes() == {}
        assert self.regions() == []
        return result

    def ask(self, body: bytes, head_bytes: int) -> tuple[int, dict[str, str], bytes]:
        """One inference by plain HTTP over Triton's Unix socket."""
        connection = http.client.HTTPConnection("triton", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.paths.triton_http))
        headers = {"Inference-Header-Content-Length": str(head_bytes), "Connection": "close"}
        connection.request("POST", f"/v2/models/{MODEL}/infer", body, headers)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return response.status, found, response.read()

    def processes(self) -> dict[int, str]:
        """Living processes whose command line names this bench: Triton and its Python stubs."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(self.paths.state) in command and "triton" in command:
                found[int(process.name)] = command.split(" ")[0].rpartition("/")[2]
        return found

    def regions(self) -> list[str]:
        """Shared memory of this bench."""
        return [path.name for path in SHARED_MEMORY.glob(f"{shared_memory_prefix(self.paths.state)}*")]


def desired(facts: ModelFacts) -> DesiredModel:
    """What the daemon makes of a live model."""
    expected = Package.load(ROOT / "model_repository" / MODEL).manifest.expected

    def shapes(tensors: tuple[TensorFact, ...]) -> tuple[CanaryTensor, ...]:
        return tuple(CanaryTensor(t.name, t.datatype, t.dims) for t in tensors)

    canary = make_canary(
        shapes(facts.inputs),
        shapes(facts.outputs),
        batched=facts.max_batch_size > 0,
        sizes={},
        expected=expected,
    )
    return DesiredModel(facts.name, facts.digest, canary)


async def until(supervisor: Supervisor, state: str, model: str = "") -> Seen:
    """Round after round until Triton is in a state, and its model in one too."""
    async with asyncio.timeout(STATE_SECONDS):
        while True:
            seen = await supervisor.one_round()
            if seen.state == state and (not model or seen.models[0].status == model):
                return seen
            if not supervisor.acted:
                await asyncio.sleep(0)


def page() -> Image.Image:
    """A page of text, the right way up."""
    image = Image.new("RGB", (620, 877), "white")
    draw = ImageDraw.Draw(image)
    draw.text((60, 40), "Invoice of the Month", fill="black", font=ImageFont.load_default(size=30))
    body = ImageFont.load_default(size=18)
    for line in range(24):
        words = "the quick brown fox counts receipts, ledgers and amounts payable"
        draw.text(
            (60, 110 + 28 * line), f"{line + 1}. {words}"[: 40 + 7 * line % 24], fill="black", font=body
        )
    return image


def request_of(tensors: list[bytes]) -> tuple[bytes, int]:
    """A binary inference request of some images."""
    data = b"".join(tensors)
    head = {
        "inputs": [
            {
                "name": "x",
                "datatype": "FP32",
                "shape": [len(tensors), 3, 224, 224],
                "parameters": {"binary_data_size": len(data)},
            }
        ],
        "outputs": [{"name": "fetch_name_0", "parameters": {"binary_data": True}}],
    }
    text = json.dumps(head).encode()
    return text + data, len(text)


def scores(answer: tuple[int, dict[str, str], bytes]) -> list[tuple[float, ...]]:
    """The rows of a binary answer."""
    status, headers, body = answer
    assert status == 200, body
    return list(struct.iter_unpack("<4f", body[int(headers["inference-header-content-length"]) :]))


def turned(degrees: int, facts: ModelFacts) -> bytes:
    """The tensor of the page turned clockwise, made as the gate makes it."""
    assert facts.predict is not None
    buffer = io.BytesIO()
    page().rotate(-degrees, expand=True).save(buffer, "PNG")
    return decode(buffer.getvalue(), facts.predict, 1 << 24)
