"""Helper, supervisor and package with the real Triton: it serves, dies, comes back, and leaves nothing."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont
from whole_appliance import MODEL, ROOT, runtime_python, wait_for

from lotabotsd.foundation.clock import NANOSECONDS, SystemClock
from lotabotsd.foundation.config import Config, parse
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.foundation.sockets import bind_unix
from lotabotsd.gate.decoder import decode
from lotabotsd.models.facts import ModelFacts, TensorFact
from lotabotsd.models.package import Package
from lotabotsd.models.prepare import prepare, restore
from lotabotsd.runtime.canary import CanaryTensor, make_canary
from lotabotsd.runtime.client import TritonClient
from lotabotsd.runtime.helper import serve_helper
from lotabotsd.runtime.helper_client import HelperClient
from lotabotsd.runtime.plan import DesiredModel
from lotabotsd.runtime.remains import SHARED_MEMORY, shared_memory_prefix
from lotabotsd.runtime.seen import Seen
from lotabotsd.runtime.supervisor import Supervisor

pytestmark = pytest.mark.required

STATE_SECONDS = 60.0


class MovableClock(SystemClock):
    """The machine's clock, moved on at will: nobody waits for the next canary."""

    ahead_ns = 0

    def monotonic_ns(self) -> int:
        return super().monotonic_ns() + self.ahead_ns


class Bench:
    """A helper, a supervisor and a package in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.config: Config = parse(
            f"""
[appliance]
state_directory = "{folder}/state"
run_directory = "{folder}/run"
[runtime]
python = "{runtime_python()}"
stop_timeout_seconds = 20
drain_seconds = 10
""".encode(),
            "bench",
        )
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
        return prepare(package, "embedded", self.paths.staged_models, self.paths.live_models).facts

    def new_labels(self) -> ModelFacts:
        """Another version of the package, live."""
        labels = self.package / "labels.txt"
        before = subprocess.run(["sha256sum", labels], capture_output=True, text=True, check=True).stdout[:64]
        labels.write_text("up\nright\ndown\nleft\n", encoding="utf-8")
        after = subprocess.run(["sha256sum", labels], capture_output=True, text=True, check=True).stdout[:64]
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


@pytest.fixture
def bench() -> Iterator[Bench]:
    folder = Path(tempfile.mkdtemp(prefix="lotabots-bench-"))  # short: sockets are in it
    try:
        yield Bench(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def desired(facts: ModelFacts) -> DesiredModel:
    """What the daemon makes of a live model."""

    def shapes(tensors: tuple[TensorFact, ...]) -> tuple[CanaryTensor, ...]:
        return tuple(CanaryTensor(t.name, t.datatype, t.dims) for t in tensors)

    canary = make_canary(
        shapes(facts.inputs), shapes(facts.outputs), batched=facts.max_batch_size > 0, sizes={}
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


def test_a_page_turned_clockwise_gets_the_label_of_its_turn(bench: Bench) -> None:
    async def story(supervisor: Supervisor) -> Seen:
        seen = await until(supervisor, "ready", "ready")
        tensors = [turned(degrees, bench.facts) for degrees in (0, 90, 180, 270)]
        rows = scores(await asyncio.to_thread(bench.ask, *request_of(tensors)))
        labels = [bench.facts.labels[row.index(max(row))] for row in rows]
        assert labels == ["0", "90", "180", "270"]
        assert all(abs(sum(row) - 1) < 1e-3 for row in rows)  # probabilities: activation is "none"
        return seen

    seen = bench.run(story)
    assert seen.version.startswith("2.")
    assert seen.models[0].digest == bench.facts.digest


def test_requests_that_come_together_run_as_one_batch(bench: Bench) -> None:
    async def story(supervisor: Supervisor) -> dict[str, Any]:
        await until(supervisor, "ready", "ready")
        tensor = turned(0, bench.facts)
        alone = scores(await asyncio.to_thread(bench.ask, *request_of([tensor])))[0]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: scores(bench.ask(*request_of([tensor])))[0], range(64)))
        assert all(abs(a - b) < 1e-4 for row in answers for a, b in zip(row, alone, strict=True))
        run = await HelperClient(bench.paths.helper_socket, stop_timeout_seconds=20).inspect()
        client = TritonClient(bench.paths.triton_http, lambda: run.secret, load_timeout_seconds=5)
        return await client.statistics(MODEL)

    counts = bench.run(story)["model_stats"][0]
    assert counts["inference_count"] >= 65
    assert counts["execution_count"] < counts["inference_count"]


def test_an_error_of_one_request_is_its_own(bench: Bench) -> None:
    async def story(supervisor: Supervisor) -> None:
        await until(supervisor, "ready", "ready")
        body, head_bytes = request_of([turned(0, bench.facts)])
        status, _, text = await asyncio.to_thread(
            bench.ask, body.replace(b"224, 224", b"112, 448"), head_bytes
        )
        assert status == 400
        assert b"shape" in text
        assert len(scores(await asyncio.to_thread(bench.ask, body, head_bytes))) == 1

    bench.run(story)


def test_it_listens_on_unix_sockets_only_and_tells_strangers_nothing(bench: Bench) -> None:
    async def story(supervisor: Supervisor) -> None:
        seen = await until(supervisor, "ready")
        inodes = {
            str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]")
            for descriptor in Path(f"/proc/{seen.pid}/fd").iterdir()
        }
        tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6", "udp")]
        assert not {line.split()[9] for table in tables for line in table} & inodes
        stranger = TritonClient(bench.paths.triton_http, lambda: "guess", load_timeout_seconds=5)
        for question in (stranger.index(), stranger.load(MODEL), stranger.unload(MODEL)):
            with pytest.raises(LotaBotsError, match="restricted"):
                await question
        sockets = {path.name: path.stat().st_mode & 0o777 for path in bench.paths.triton.iterdir()}
        assert sockets == dict.fromkeys(("http.sock", "grpc.sock:8001", "metrics.sock"), 0o770)

    bench.run(story)


def test_killed_it_comes_back_with_its_model_over_its_own_remains(bench: Bench) -> None:
    async def story(supervisor: Supervisor) -> None:
        first = await until(supervisor, "ready", "ready")
        os.kill(first.pid, signal.SIGKILL)
        fallen = await until(supervisor, "backing_off")
        assert "killed" in fallen.problem
        assert supervisor.ready_models() == frozenset()
        assert (bench.paths.triton / "http.sock").exists()  # stale, and no obstacle
        bench.clock.ahead_ns += NANOSECONDS
        again = await until(supervisor, "ready", "ready")
        assert (again.pid != first.pid, again.failures) == (True, 1)
        assert len(bench.processes()) == 2  # one Triton, one stub: none of the first run
        assert len(bench.regions()) == 1
        assert scores(await asyncio.to_thread(bench.ask, *request_of([turned(90, bench.facts)])))

    bench.run(story)


def test_drained_it_leaves_no_process_and_starts_again(bench: Bench) -> None:
    async def story(supervisor: Supervisor) -> None:
        await until(supervisor, "ready", "ready")
        order: list[str] = []

        async def close_gate() -> None:
            order.append("gate empty")
            assert bench.processes()

        assert (await supervisor.drain(close_gate)).state == "stopped"
        assert order == ["gate empty"]
        assert bench.processes() == {}
        assert (await supervisor.one_round()).state == "stopped"
        supervisor.want_running()
        await until(supervisor, "ready", "ready")

    bench.run(story)


def test_a_daemon_that_begins_anew_disturbs_nobody(bench: Bench) -> None:
    async def story(supervisor: Supervisor) -> None:
        before = await until(supervisor, "ready", "ready")
        newcomer = bench.new_supervisor()
        await newcomer.one_round()
        assert newcomer.ready_models() == {MODEL}
        after = await until(newcomer, "ready", "ready")
        assert (after.pid, after.run_id) == (before.pid, before.run_id)

    bench.run(story)


def test_a_new_version_takes_over_without_one_failed_request(bench: Bench) -> None:
    async def story(supervisor: Supervisor) -> list[int]:
        await until(supervisor, "ready", "ready")
        request = request_of([turned(0, bench.facts)])
        statuses: list[int] = []
        done = asyncio.Event()

        def keep_asking() -> None:
            while not done.is_set():
                statuses.append(bench.ask(*request)[0])

        asking = asyncio.create_task(asyncio.to_thread(keep_asking))
        facts = bench.new_labels()
        assert facts.digest != bench.facts.digest
        supervisor.want([desired(facts)])
        while (await supervisor.one_round()).models[0].digest != facts.digest:
            assert supervisor.ready_models() == {MODEL}
        await until(supervisor, "ready", "ready")
        done.set()
        await asking
        return statuses

    statuses = bench.run(story)
    assert statuses
    assert set(statuses) == {200}


def test_a_version_that_does_not_load_leaves_the_old_one_and_its_files_come_back(bench: Bench) -> None:
    async def story(supervisor: Supervisor) -> None:
        await until(supervisor, "ready", "ready")
        facts = bench.new_labels()
        (bench.paths.live_models / MODEL / "1" / "model.onnx").write_bytes(b"damaged after the check")
        supervisor.want([desired(facts)])
        while not (seen := (await supervisor.one_round()).models[0]).refused:
            pass
        assert (seen.status, seen.digest, seen.refused) == ("ready", bench.facts.digest, facts.digest)
        assert "onnx" in seen.reason.lower()
        assert scores(await asyncio.to_thread(bench.ask, *request_of([turned(0, bench.facts)])))
        assert restore(MODEL, bench.paths.staged_models, bench.paths.live_models)
        supervisor.want([desired(bench.facts)])
        assert (await until(supervisor, "ready", "ready")).models[0].digest == bench.facts.digest

    bench.run(story)


def test_a_model_whose_process_died_is_loaded_anew(bench: Bench) -> None:
    async def story(supervisor: Supervisor) -> None:
        first = await until(supervisor, "ready", "ready")
        (stub,) = [pid for pid, name in bench.processes().items() if "stub" in name]
        os.kill(stub, signal.SIGKILL)
        bench.clock.ahead_ns += 30 * NANOSECONDS
        broken = await until(supervisor, "ready", "broken")
        assert "not healthy" in broken.models[0].reason
        bench.clock.ahead_ns += 5 * NANOSECONDS
        mended = await until(supervisor, "ready", "ready")
        assert mended.pid == first.pid  # Triton itself went on
        assert scores(await asyncio.to_thread(bench.ask, *request_of([turned(0, bench.facts)])))

    bench.run(story)


def test_nothing_outlives_a_helper_that_was_killed(bench: Bench) -> None:
    code = f"""
import asyncio, os
from pathlib import Path
from lotabotsd.foundation.config import load
from lotabotsd.foundation.sockets import bind_unix
from lotabotsd.runtime.helper import serve_helper
config = load(Path({str(bench.package.parent / "config.toml")!r}))
listener = bind_unix(config.paths.helper_socket)
asyncio.run(serve_helper(config, listener, frozenset({{os.geteuid()}}), asyncio.Event()))
"""
    runtime = f'[runtime]\npython = "{runtime_python()}"\n'
    directories = f'state_directory = "{bench.paths.state}"\nrun_directory = "{bench.paths.run}"\n'
    (bench.package.parent / "config.toml").write_text(f"[appliance]\n{directories}{runtime}")
    helper = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        wait_for(bench.paths.helper_socket.exists, 20, "the helper's socket")
        asyncio.run(until(bench.new_supervisor(), "ready", "ready"))
        waiting = [os.pidfd_open(pid) for pid in bench.processes()]
        assert len(waiting) == 2
    finally:
        helper.kill()
        helper.wait(10)
    for descriptor in waiting:
        assert select.select([descriptor], [], [], 20)[0], bench.processes()
        os.close(descriptor)

    async def story(supervisor: Supervisor) -> None:
        await until(supervisor, "ready", "ready")
        assert len(bench.regions()) == 1

    bench.run(story)
