"""A whole appliance for tests: the real processes, Triton and commands, in a folder of its own."""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gate_clients import MODEL, Answer, Key, ask_on, read_answer, wait_for

from lotabotsd.foundation.config import load

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 120.0
STOP_SECONDS = 60.0
_MARK = "LOTABOTS_TEST_FOLDER"
_RUNTIME = "LOTABOTS_RUNTIME_PYTHON"


def runtime_python() -> Path:
    """The Python of the embedded runtime; where there is none, skips and says the command that helps."""
    found = Path(os.environ.get(_RUNTIME) or ROOT / ".venv-runtime" / "bin" / "python")
    if not found.is_file():
        pytest.skip(f"{found} is missing; enable it: scripts/setup-environment development")
    if not (ROOT / "model_repository" / MODEL / "1" / "model.onnx").is_file():
        pytest.skip("the model's weights are missing; enable it: scripts/fetch-models")
    return found


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def load_pages() -> Any:
    """The demo's maker of page images."""
    spec = importlib.util.spec_from_file_location("walk_pages", ROOT / "scripts" / "walk" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True, slots=True)
class Process:
    """A living process of an appliance."""

    pid: int
    parent: int
    command: tuple[str, ...]

    @property
    def role(self) -> str:
        """up, serve, gate, runtime, worker, triton, or another program's name."""
        if self.command[1:3] == ("-m", "lotabotsd.cli.server"):
            return self.command[3]
        if self.command[1:3] == ("-m", "lotabotsd.gate.worker"):
            return "worker"
        name = Path(self.command[0]).name if self.command else ""
        return "triton" if name == "tritonserver" else name


class Appliance:
    """One appliance: its folder and configuration, its processes, its commands and its gate."""

    def __init__(self, *, packages: Sequence[Path] = (), **gate: int | float) -> None:
        """`packages` are live too, and may bring code; `gate` holds keys of the configuration's section."""
        # Not pytest's folder: a Unix socket's path has room for 107 bytes only.
        self.folder = Path(tempfile.mkdtemp(prefix="lotabots-test-"))
        self.state = self.folder / "state"
        self.run = self.folder / "run"
        self.config = self.folder / "lotabots.toml"
        self.log = self.folder / "log"
        self.port = free_port()
        self.control_socket = self.run / "control" / "control.sock"
        self.triton_http = self.run / "triton" / "http.sock"
        self._started: list[subprocess.Popen[bytes]] = []
        repository = self.folder / "packages"
        repository.mkdir()
        for package in (ROOT / "model_repository" / MODEL, *packages):
            (repository / package.name).symlink_to(package)
        self.models = [MODEL, *(package.name for package in packages)]
        self.config.write_text(
            f'[appliance]\nname = "test"\nstate_directory = "{self.state}"\nrun_directory = "{self.run}"\n'
            f'[gate]\nlisten = "127.0.0.1:{self.port}"\n'
            + "".join(f"{name} = {value}\n" for name, value in gate.items())
            + f'[runtime]\npython = "{runtime_python()}"\nprobe_seconds = 0.25\n'
            f'[models]\nrepository = "{repository}"\nenabled = {json.dumps(self.models)}\n'
            f"allow_code = {json.dumps(bool(packages))}\n"
            "[usage]\ndrain_seconds = 0.25\n"
        )

    def directories(self) -> None:
        """Make the directories, as tmpfiles.d does on a server."""
        for path, mode in load(self.config).paths.directories():
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(mode)

    def copy_of(self, other: Appliance) -> None:
        """Take over what another, stopped appliance left on its disk, and its limits table."""
        shutil.copytree(other.state, self.state, symlinks=True)
        self.directories()
        shutil.copy2(other.run / "gate" / "limits.table", self.run / "gate" / "limits.table")

    # -- processes
    def start(self, verb: str = "up") -> subprocess.Popen[bytes]:
        """Start `lotabotsd VERB`; its words go to the log."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "lotabotsd.cli.server", verb, "--config", str(self.config)],
                cwd=ROOT,
                env={**os.environ, _MARK: str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def ready(self) -> Appliance:
        """Wait until the gate says that it is ready."""
        wait_for(self.is_ready, READY_SECONDS, "the gate is ready")
        return self

    def is_ready(self) -> bool:
        """What /readyz says; no answer is a no, and a process that ended by itself a failure."""
        for process in self._started:
            assert process.poll() is None, f"{process.args} ended with {process.returncode}"
        try:
            return self.ask("GET", "/readyz").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def end(self, process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> int:
        """Signal a process that we started, and wait for its end."""
        self._started.remove(process)
        if process.poll() is None:
            process.send_signal(number)
        return process.wait(STOP_SECONDS)

    def stop(self) -> None:
        """Stop everything in order; whoever then still lives is ended, and that is a failure."""
        late = []
        for process in reversed(self._started):
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                late.append(process.args)
                process.kill()
                process.wait()
        self._started.clear()
        orphans = self.processes()
        for orphan in orphans:
            os.kill(orphan.pid, signal.SIGKILL)
        assert not late, f"did not stop within {STOP_SECONDS:g} s: {late}"
        assert not orphans, f"left behind: {orphans}"
        assert not self.shared_memory(), "Triton's shared memory was left behind"

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def shared_memory(self) -> set[str]:
        """The runs of Triton that have shared memory."""
        tag = hashlib.sha256(os.fsencode(self.state)).hexdigest()[:12]
        return {path.name.split("-")[2] for path in Path("/dev/shm").glob(f"lotabots-{tag}-*")}

    def processes(self, role: str = "") -> list[Process]:
        """The living processes of this appliance, of one role when it is given."""
        found = []
        mark = os.fsencode(f"{_MARK}={self.folder}")
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
                environment = (entry / "environ").read_bytes()
                status = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile, or is another user's
            ours = mark in environment.split(b"\0") or os.fsencode(self.folder) in command
            if ours and status[0] != "Z":
                words = tuple(os.fsdecode(word) for word in command.split(b"\0") if word)
                found.append(Process(int(entry.name), int(status[1]), words))
        return [process for process in found if role in ("", process.role)]

    def pid(self, role: str) -> int:
        """The one process of a role."""
        (found,) = self.processes(role)
        return found.pid

    def kill(self, role: str) -> int:
        """SIGKILL to the one process of a role; which one it was."""
        pid = self.pid(role)
        os.kill(pid, signal.SIGKILL)
        return pid

    # -- commands
    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `lotabotsctl`, `lotabotsd` or `lotabots-vendor` with its arguments."""
        modules = {
            "lotabotsctl": "lotabotsd.cli.ctl",
            "lotabotsd": "lotabotsd.cli.server",
            "lotabots-vendor": "lotabots_vendor.cli",
        }
        program = f"import sys; from {modules[words[0]]} import main; sys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", program, *words[1:]],
            cwd=ROOT,
            env={**os.environ, "LOTABOTS_CONTROL_SOCKET": str(self.control_socket), "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ctl(self, *words: str, exit_code: int = 0) -> str:
        """The output of `lotabotsctl …`, which must end with this exit code."""
        done = self.command("lotabotsctl", *words)
        assert done.returncode == exit_code, (
            f"lotabotsctl {words}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout + done.stderr

    def ctl_json(self, *words: str) -> Any:
        """The value of `lotabotsctl … --json`."""
        done = self.command("lotabotsctl", *words, "--json")
        assert done.returncode == 0, f"lotabotsctl {words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def people(self) -> None:
        """One organisation with one member."""
        self.ctl("organisation", "create", "works")
        self.ctl("member", "create", "scanner", "--kind", "service")

    def key(self, name: str, *options: str) -> Key:
        """A new API key of the one member."""
        made = self.ctl_json("key", "create", name, "--organisation", "works", *options)
        return Key(made["key_id"], made["text"])

    def licence(self, tier: str, *options: str) -> Path:
        """A licence of the development vendor, in a new file."""
        file = self.folder / f"{tier}-{time.time_ns()}.licence"
        done = self.command(
            *("lotabots-vendor", "licence", "issue", "--development", "--tier", tier),
            *("--customer", "Test", "--output", str(file), *options),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return file

    def status(self) -> Any:
        """What `lotabotsctl status` shows."""
        return self.ctl_json("status")

    def drained(self) -> None:
        """Wait until everything that is in the journals now is in the ledger."""
        begun = time.time_ns()

        def round_after(moment: int) -> int:
            pulses = {loop["name"]: loop["succeeded_ns"] for loop in self.status()["loops"]}
            return pulses["drain"] if pulses["drain"] > moment else 0

        first = wait_for(lambda: round_after(begun), 20, "the journals are read")
        wait_for(lambda: round_after(first), 20, "the journals are read once more")  # begun after `begun`

    def outcomes(self, key: Key) -> dict[str, int]:
        """Requests of a key by outcome, as the ledger counts them."""
        rows = self.ctl_json("usage", "show", "--by", "key,outcome")["rows"]
        return {row["outcome"]: row["requests"] for row in rows if row["key"] == key.key_id}

    # -- the gate
    def ask(
        self, method: str, path: str, key: Key | None = None, body: bytes = b"", **headers: str
    ) -> Answer:
        """One request on a connection of its own; in header names `_` stands for `-`."""
        connection = self.connection()
        try:
            return ask_on(connection, method, path, key, body, **headers)
        finally:
            connection.close()

    def connection(self, seconds: float = 30.0) -> http.client.HTTPConnection:
        """A connection to the gate, not opened yet."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)

    def raw(self, *parts: bytes, seconds: float = 10.0) -> Answer:
        """Bytes on a connection of their own, and the answer up to its end."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            for part in parts:
                try:
                    connection.sendall(part)
                except OSError:
                    break  # it has heard enough, and may have said so
            return read_answer(connection)


_RUNNING: list[Appliance] = []


def running_appliance(appliance: Appliance) -> Iterator[Appliance]:
    """For fixtures: the appliance, stopped at the end without orphans; its log is shown with failures."""
    _RUNNING.append(appliance)
    try:
        yield appliance
    finally:
        try:
            appliance.stop()
        finally:
            _RUNNING.remove(appliance)
            appliance.remove()


def logs(lines: int = 60) -> list[tuple[str, str]]:
    """Title and last lines of the log of every appliance that is up."""
    return [
        (
            f"log of {appliance.folder}",
            "\n".join(appliance.log.read_text(errors="replace").splitlines()[-lines:]),
        )
        for appliance in _RUNNING
        if appliance.log.exists()
    ]
