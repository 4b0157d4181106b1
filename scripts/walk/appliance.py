"""The appliance of the demo: its folder and configuration, its start and stop, its commands and its gate."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from telling import Telling, WrongResultError

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MARK = ".lotabots-demo"
START_SECONDS = 150.0
STOP_SECONDS = 90.0
LAST_WORDS_SECONDS = 5.0
# What `lotabotsd up` says of itself, its children's lines having their names before them.
SAYS = "up      | "
SAYS_READY = f"{SAYS}ready: "
SAYS_FAILED = ("error: ", f"{SAYS}still not ready")
# A Unix socket's path holds 107 bytes; the longest of ours is RUN/triton/grpc.sock:8001.
MAX_RUN_PATH = 80


@dataclass(frozen=True, slots=True)
class Answer:
    """What the gate sent back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON; WrongResultError when it is none."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise WrongResultError(f"the answer is no JSON: {self.body[:200]!r}") from error


class FolderInUseError(Exception):
    """The demo cannot use this folder now; the text says why and what to do."""


class FolderUnusableError(Exception):
    """The demo can never use this folder; the text says why and what to do."""


def claim_folder(folder: Path) -> int:
    """Make or empty the demo's folder and lock it; returns the lock's descriptor.

    Raises FolderInUseError, and FolderUnusableError for a path that is no folder or that may not be written.
    """
    # The configuration takes no other path: Triton's Python stub is started through an unquoted shell line.
    if not re.fullmatch(r"/[A-Za-z0-9._+@=:,/-]*", str(folder)):
        raise FolderUnusableError(
            f'"{folder}" cannot be used: give --dir a path without white space and shell characters'
        )
    try:
        return _claim(folder)
    except OSError as error:
        raise FolderUnusableError(
            f"{folder} cannot be used ({error.strerror}): give --dir an empty or a new folder of your own"
        ) from error


def _claim(folder: Path) -> int:
    mark = folder / MARK
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise FolderInUseError(f"{folder} holds something else: give --dir an empty or a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FolderInUseError(
            f"a demo runs in {folder}: stop it with Ctrl-C, or give another --dir"
        ) from None
    for item in folder.iterdir():
        if item.name == MARK:
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        else:
            item.unlink()
    return lock


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_problem(port: int) -> str:
    """Why the gate could not listen there, as the kernel says it; empty when it could."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError as error:
            return error.strerror or str(error)
        return ""


class Appliance:
    """One `lotabotsd up` in a folder of its own."""

    def __init__(self, folder: Path, port: int, telling: Telling, programs: Path = BIN) -> None:
        self._folder = folder
        self._telling = telling
        self._programs = programs
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._said = threading.Event()  # `lotabotsd up` has said that it is ready, or what it failed in
        self._failure = ""
        self._short_run: str | None = None
        run = folder / "run"
        if len(str(run)) > MAX_RUN_PATH:
            self._short_run = tempfile.mkdtemp(prefix="lotabots-", dir="/tmp")
            run = Path(self._short_run)
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "up.log"
        self.config = folder / "lotabots.toml"
        self.control_socket = run / "control" / "control.sock"
        self.config.write_text(
            "# Made by scripts/demo. Every key is explained in etc/lotabots.toml.\n"
            f'[appliance]\nname = "demo"\nstate_directory = "{folder}/state"\nrun_directory = "{run}"\n\n'
            f'[gate]\nlisten = "127.0.0.1:{port}"\n\n'
            f'[runtime]\nkind = "embedded"\npython = "{ROOT}/.venv-runtime/bin/python"\n\n'
            f'[models]\nrepository = "{ROOT}/model_repository"\nenabled = ["page_orientation"]\n'
        )

    def start(self) -> None:
        """Start everything and wait until `lotabotsd up` says that it is ready. Raises WrongResultError.

        Its own word counts, not an answer on the port: that could be somebody else's.
        """
        command = [str(self._programs / "lotabotsd"), "up", "--config", str(self.config)]
        self._telling.command(["lotabotsd", *command[1:]])
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is ours: we stop it in order
        )
        self._reader = threading.Thread(target=self._keep_log, daemon=True)
        self._reader.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._said.wait(0.1) and time.monotonic() < deadline:
            self._refuse_ended()
        if not self._said.is_set():
            raise WrongResultError(f"lotabotsd up is not ready after {START_SECONDS:.0f} s")
        if self._failure:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LAST_WORDS_SECONDS)
            self._refuse_ended()
            raise WrongResultError(f"lotabotsd up says: {self._failure}")

    def wait_for_models(self) -> None:
        """Until the daemon says that Triton is ready with every model. Raises WrongResultError."""
        begun = told = time.monotonic()
        while time.monotonic() < begun + START_SECONDS:
            self._refuse_ended()
            asked = self._execute("lotabotsctl", "status", "--json")
            seen = json.loads(asked.stdout) if asked.returncode == 0 else {}
            if seen and seen["runtime"]["state"] == "ready" and all(m["ready"] for m in seen["models"]):
                self._telling.note(f"Triton {seen['runtime']['version']} is ready with every model")
                return
            if time.monotonic() > told + 5:
                told = time.monotonic()
                self._telling.note(f"Triton is loading the models ({told - begun:.0f} s)")
            time.sleep(0.2)  # a poll with a deadline
        raise WrongResultError(
            f"not every model is ready after {START_SECONDS:.0f} s: {asked.stdout}{asked.stderr}"
        )

    def stop(self) -> int | None:
        """Stop everything in order; the exit code of `lotabotsd up`, or None when it never ran."""
        process = self._process
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if self._reader is not None:
            self._reader.join(5)
        if self._short_run is not None:
            shutil.rmtree(self._short_run, ignore_errors=True)
        return process.returncode

    def wait(self) -> int:
        """Until `lotabotsd up` ends by itself."""
        assert self._process is not None
        return self._process.wait()

    def tail(self, lines: int = 25) -> str:
        """The last lines of the log."""
        return (
            "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""
        )

    def run(self, *words: str, exit_code: int = 0, show: bool = True) -> str:
        """Run one of our commands and return its output. Raises WrongResultError for another exit code."""
        self._telling.command(words)
        done = self._execute(*words)
        if show or done.returncode != exit_code:
            self._telling.came(done.stdout + done.stderr)
        if done.returncode != exit_code:
            raise WrongResultError(f"{words[0]} ended with exit {done.returncode}, not {exit_code}")
        return done.stdout

    def ctl(self, *words: str, exit_code: int = 0) -> str:
        """`lotabotsctl …`, shown."""
        return self.run("lotabotsctl", *words, exit_code=exit_code)

    def ctl_json(self, *words: str) -> Any:
        """`lotabotsctl … --json`, its answer not shown."""
        return json.loads(self.run("lotabotsctl", *words, "--json", show=False))

    def charged_inferences(self) -> int:
        """What `usage show` counts as charged, quietly."""
        asked = self._execute("lotabotsctl", "usage", "show", "--json")
        if asked.returncode != 0:
            raise WrongResultError(f"usage show ended with exit {asked.returncode}: {asked.stderr}")
        return sum(row["inferences"] for row in json.loads(asked.stdout)["rows"] if row["charged"])

    def ask(
        self,
        method: str,
        path: str,
        *,
        key: str = "",
        body: bytes = b"",
        kind: str = "application/json",
        more: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request to the gate over a connection of its own, with `more` headers."""
        headers = {**({"Content-Type": kind} if body else {}), **(more or {})}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
        try:
            connection.request(method, path, body=body or None, headers=headers)
            response = connection.getresponse()
            return Answer(response.status, {n.lower(): v for n, v in response.getheaders()}, response.read())
        except (OSError, http.client.HTTPException) as error:
            raise WrongResultError(f"{method} {path}: {type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def _execute(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._programs / words[0]), *words[1:]],
            env={**os.environ, "LOTABOTS_CONTROL_SOCKET": str(self.control_socket)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def _refuse_ended(self) -> None:
        """Raise WrongResultError when `lotabotsd up` has ended, with what it said last."""
        assert self._process is not None
        code = self._process.poll()
        if code is None:
            return
        if self._reader is not None:
            self._reader.join(LAST_WORDS_SECONDS)
        said = f": {self._failure}" if self._failure else ""
        raise WrongResultError(f"lotabotsd up ended with exit {code}{said}")

    def _keep_log(self) -> None:
        """Everything goes to the log; what `up` itself says is shown as well."""
        assert self._process is not None
        assert self._process.stdout is not None
        with self.log.open("w") as log:
            for line in self._process.stdout:
                log.write(line)
                log.flush()
                if line.startswith(SAYS):
                    self._telling.note(line.rstrip())
                if line.startswith(SAYS_FAILED):
                    self._failure = self._failure or line.strip().removeprefix(SAYS)
                if line.startswith((SAYS_READY, *SAYS_FAILED)):
                    self._said.set()
