"""A helper in a process of its own, a supervisor, a package, and Triton in a container of the tests' own."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from container_engine import ContainerEngine
from embedded_bench import Bench
from image_build import Saved
from whole_appliance import ROOT, wait_for

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.runtime.container import account
from lotabotsd.runtime.container_specification import settings_from
from lotabotsd.runtime.helper_client import HelperClient
from lotabotsd.runtime.messages import RunFacts
from lotabotsd.runtime.supervisor import Supervisor

USER = "nobody"  # stands for lotabots-triton, which this machine does not have
GATE_GROUP = 42_421  # stands for lotabots-gate: the group of the sockets' directory
HELPER_SECONDS = 30.0


class ContainerBench(Bench):
    """The embedded bench with another runtime."""

    def __init__(self, folder: Path, engine: ContainerEngine, saved: Saved, /, **chosen: object) -> None:
        lines = {
            "kind": "container",
            "backend": "python",
            "image": saved.image,
            "image_archive": str(saved.archive),
            "image_archive_sha256": saved.archive_sha256,
            "engine_socket": str(engine.socket),
            "user": USER,
            "memory_bytes": 2 << 30,
            "shared_memory_bytes": 64 << 20,
            "max_processes": 512,
        } | chosen
        super().__init__(folder, "\n".join(f"{name} = {_toml(value)}" for name, value in lines.items()))
        self.engine = engine
        self.config_file = folder / "lotabots.toml"
        self.config_file.write_text(self.text)
        self.config_file.chmod(0o644)
        found = pwd.getpwnam(USER)
        os.chown(self.paths.triton, found.pw_uid, GATE_GROUP)
        self.paths.triton.chmod(0o2770)
        self.name = settings_from(self.config, *account(self.config)).name
        self.log = folder / "helper.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._relay: subprocess.Popen[bytes] | None = None

    def start_helper(self) -> None:
        """As systemd does."""
        self._process = process = self._start("runtime")
        wait_for(lambda: process.poll() is not None or self._listens(), HELPER_SECONDS, "the helper listens")
        assert process.poll() is None, self.log.read_text()

    def start_relay(self) -> None:
        """As systemd does."""
        self._relay = process = self._start("relay")
        last = self.paths.triton_metrics
        wait_for(lambda: process.poll() is not None or is_served(last), HELPER_SECONDS, "the relay listens")
        assert process.poll() is None, self.log.read_text()

    def end_relay(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code."""
        assert self._relay is not None
        self._relay.send_signal(number)
        return self._relay.wait(HELPER_SECONDS)

    def _start(self, verb: str) -> subprocess.Popen[bytes]:
        program = "from lotabotsd.cli.server import main; main()"
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", program, verb, "--config", str(self.config_file)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def end_helper(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(HELPER_SECONDS)

    def clear(self) -> None:
        """Nothing stays."""
        if self._process is not None and self._process.poll() is None:
            self.end_helper(signal.SIGKILL)
        if self._relay is not None and self._relay.poll() is None:
            self.end_relay(signal.SIGKILL)
        if self.engine.answers():
            for found in self.engine.client.containers(all=True):
                self.engine.client.remove_container(found["Id"], force=True)

    def tell(self, story: Callable[[Supervisor], Awaitable[Any]]) -> Any:
        """A story of a supervisor; whoever tells it starts and ends helpers."""

        async def told() -> Any:
            return await story(self.new_supervisor())

        return asyncio.run(told())

    def ask_helper(self, verb: str) -> Any:
        """What one verb gives."""
        return asyncio.run(getattr(self.client(), verb)())

    def client(self) -> HelperClient:
        return HelperClient(self.paths.helper_socket, stop_timeout_seconds=20)

    def facts_now(self) -> RunFacts:
        found = self.ask_helper("inspect")
        assert isinstance(found, RunFacts)
        return found

    def _listens(self) -> bool:
        try:
            self.ask_helper("logs")
        except LotaBotsError as error:  # a failure of the engine is an answer too
            return error.code is not Code.HELPER_UNAVAILABLE
        return True


def is_served(path: Path) -> bool:
    """Whether somebody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | list) else f'"{value}"'
