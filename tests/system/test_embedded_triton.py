"""Helper, supervisor and package with the real Triton: it serves, dies, comes back, and leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from embedded_bench import Bench, desired, request_of, scores, turned, until
from whole_appliance import MODEL, ROOT, runtime_python, wait_for

from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.models.prepare import restore
from lotabotsd.runtime.client import TritonClient
from lotabotsd.runtime.helper_client import HelperClient
from lotabotsd.runtime.seen import Seen
from lotabotsd.runtime.supervisor import Supervisor

pytestmark = pytest.mark.required


@pytest.fixture
def bench() -> Iterator[Bench]:
    folder = Path(tempfile.mkdtemp(prefix="lotabots-bench-"))  # short: sockets are in it
    try:
        yield Bench(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
        inodes = set()
        for descriptor in Path(f"/proc/{seen.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since the folder was read
                inodes.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
        assert inodes, "it has sockets, and those are looked up"
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
