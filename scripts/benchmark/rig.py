"""The appliance under test and the bare Triton beside it: made in a folder of their own, started, ended."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import identity

from lotabotsd.runtime.command import environment
from lotabotsd.runtime.installation import find_installation

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MODEL = identity.NAME
IMAGE_MODEL = "page_orientation"
START_SECONDS = 150.0
STOP_SECONDS = 60.0
# Every limit is set, so that every limit is checked; none is so low that it would refuse.
PER_MINUTE, AT_ONCE, PER_MONTH = 6_000_000, 4_000, 10**12


class RigError(Exception):
    """Something that is measured could not be started; the text says what it said last."""


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """One child with its log; its whole session ends with it."""

    def __init__(self, command: list[str], log: Path, **environment_of: Any) -> None:
        self.log = log
        with log.open("ab") as kept:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=kept,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **environment_of,
            )
        self.pid = self._child.pid

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
        """Wait for a condition while the child lives. Raises RigError, and then it has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._child.poll() is not None:
                break
            if holds():
                return
            time.sleep(0.05)  # a poll with a deadline
        self.stop()
        tail = self.log.read_text(errors="replace")[-1500:]
        raise RigError(f"{what} did not happen; the end of {self.log.name}:\n{tail}")

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to everything it started."""
        if self._child.poll() is None:
            self._child.terminate()
        try:
            self._child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self._child.wait()


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and of its living children, so far."""
    try:
        spent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    own = (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(int(child)) for child in children)


def answers(url: str, path: str, headers: dict[str, str] | None = None) -> bool:
    """Whether a GET is answered with 200."""
    address = url.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", path, headers=headers or {})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Rig:
    """Runtime helper, daemon and Triton of one appliance, with a key; gates come and go beside it."""

    models: tuple[str, ...] = (MODEL, IMAGE_MODEL)  # that are live; the first is the one that is waited for

    def __init__(self, folder: Path, run: Path) -> None:
        self.folder = folder
        self._run = run
        self._processes: list[Process] = []
        self.key = ""
        self.triton_socket = run / "triton" / "http.sock"
        self.bare_url = f"http://127.0.0.1:{free_port()}"
        self.triton_pid = 0
        self._packages()

    def _packages(self) -> None:
        """The identity model as a package like any other, beside the image model that the demo uses."""
        for path, data in identity.files().items():
            file = self.folder / "packages" / MODEL / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        shutil.copytree(ROOT / "model_repository" / IMAGE_MODEL, self.folder / "packages" / IMAGE_MODEL)

    def configuration(self, name: str, *, port: int, workers: int, durability: str, more: str = "") -> Path:
        """A configuration of this appliance; all of them share one state and one run directory."""
        path = self.folder / f"{name}.toml"
        path.write_text(
            f'[appliance]\nname = "bench"\nstate_directory = "{self.folder}/state"\n'
            f'run_directory = "{self._run}"\n'
            f'[gate]\nlisten = "127.0.0.1:{port}"\nworkers = {workers}\n{more}'
            f'[runtime]\nkind = "embedded"\npython = "{ROOT}/.venv-runtime/bin/python"\n'
            f'[models]\nrepository = "{self.folder}/packages"\nenabled = {json.dumps(self.models)}\n'
            f'[usage]\ndurability = "{durability}"\n'
        )
        return path

    def start(self) -> None:
        """Start helper, daemon and Triton; issue licence and key; start the bare Triton. Raises RigError."""
        path = self.configuration("appliance", port=free_port(), workers=2, durability="power")
        from lotabotsd.cli.up import make_directories  # the same directories as `lotabotsd up` makes
        from lotabotsd.foundation.config import load

        make_directories(load(path))
        for verb in ("runtime", "serve"):
            self._processes.append(self._server(verb, path))
        daemon = self._processes[-1]
        daemon.wait_until(
            lambda: self._execute("lotabotsctl", "status").returncode == 0, "the daemon's start"
        )
        licence = self.folder / "bench.licence"
        self._must(
            *("lotabots-vendor", "licence", "issue", "--development", "--tier", "enterprise"),
            *("--customer", "Bench", "--requests-per-minute", str(PER_MINUTE)),
            *("--inferences-per-month", str(PER_MONTH), "--overage", "none", "--output", str(licence)),
        )
        self._must("lotabotsctl", "licence", "install", str(licence))
        limits = (
            *("--rate-per-minute", str(PER_MINUTE), "--concurrency", str(AT_ONCE)),
            *("--quota-per-month", str(PER_MONTH)),
        )
        self._must("lotabotsctl", "organisation", "create", "bench", *limits)
        self._must("lotabotsctl", "member", "create", "bench", "--kind", "service")
        self.key = json.loads(self._must("lotabotsctl", "key", "create", "bench", *limits, "--json"))["text"]
        daemon.wait_until(self._models_ready, "every model's readiness")
        self._bare()

    def gate(self, name: str, *, workers: int, durability: str, more: str = "") -> tuple[Process, str]:
        """One gate over this appliance: its process and its URL. One at a time. Raises RigError."""
        port = free_port()
        path = self.configuration(name, port=port, workers=workers, durability=durability, more=more)
        process = self._server("gate", path)
        url = f"http://127.0.0.1:{port}"
        process.wait_until(lambda: answers(url, "/readyz"), f"{name}: readiness", 60.0)
        return process, url

    def stop(self) -> None:
        """End everything, in order."""
        for process in reversed(self._processes):
            process.stop()
        self._processes.clear()

    def versions(self) -> dict[str, str]:
        """Of Triton and what it runs on."""
        return find_installation(f"{ROOT}/.venv-runtime/bin/python").versions

    def _bare(self) -> None:
        """A second Triton over the same live models, listening on TCP as most people run it."""
        installation = find_installation(f"{ROOT}/.venv-runtime/bin/python")
        port = self.bare_url.rpartition(":")[2]
        command = [
            *(str(installation.server), f"--model-repository={self.folder}/state/models/live"),
            *(f"--backend-directory={self.folder}/state/runtime", "--disable-auto-complete-config"),
            *(
                "--http-address=127.0.0.1",
                f"--http-port={port}",
                "--allow-grpc=false",
                "--allow-metrics=false",
            ),
            "--pinned-memory-pool-byte-size=0",
            "--backend-config=python,shm-region-prefix-name=lotabots-bench",
        ]
        log = self.folder / "bare.log"
        process = Process(command, log, env=environment(installation.python, installation.libraries))
        self._processes.append(process)
        process.wait_until(
            lambda: answers(self.bare_url, f"/v2/models/{self.models[0]}/ready"), "bare Triton's start"
        )

    def _server(self, verb: str, path: Path) -> Process:
        command = [sys.executable, "-m", "lotabotsd.cli.server", verb, "--config", str(path)]
        return Process(command, self.folder / f"{verb}.log", cwd=ROOT)

    def _models_ready(self) -> bool:
        asked = self._execute("lotabotsctl", "status", "--json")
        seen = json.loads(asked.stdout) if asked.returncode == 0 else {}
        return bool(seen) and seen["runtime"]["state"] == "ready" and all(m["ready"] for m in seen["models"])

    def _must(self, *words: str) -> str:
        done = self._execute(*words)
        if done.returncode != 0:
            raise RigError(f"{' '.join(words[:3])}: {done.stdout}{done.stderr}")
        return done.stdout

    def _execute(self, *words: str) -> subprocess.CompletedProcess[str]:
        socket_path = self._run / "control" / "control.sock"
        return subprocess.run(
            [str(BIN / words[0]), *words[1:]],
            env={**os.environ, "LOTABOTS_CONTROL_SOCKET": str(socket_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
