"""A real appliance behind a real control socket, without Triton and gate; and lotabotsctl run against it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lotabotsd.cli.ctl import lotabotsctl
from lotabotsd.cli.failures import run
from lotabotsd.control.app import control_app
from lotabotsd.control.server import control_server
from lotabotsd.daemon.listeners import control_listener
from lotabotsd.daemon.rooms import Attester, rooms_of
from lotabotsd.daemon.wiring import open_appliance, open_gate
from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.config import parse


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str


Ctl = Callable[..., Said]


def _clock() -> FixedClock:
    return FixedClock(datetime(2026, 3, 17, 10, 30, tzinfo=UTC))


@contextmanager
def _served(root: Path, clock: FixedClock) -> Iterator[Path]:
    """Where a control socket of a fresh appliance listens."""
    text = f'[appliance]\nstate_directory = "{root}/state"\nrun_directory = "{root}/run"\n'
    config = parse(text.encode(), "test")
    for path, mode in config.paths.directories():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
    appliance = open_appliance(config, clock)
    open_gate(appliance, triton_runs=False)
    server = control_server(control_app(rooms_of(appliance, Attester(appliance))))
    listener = control_listener(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    yield config.paths.control_socket
    server.stop()
    thread.join(20)
    appliance.publishing.let_go()
    appliance.close()


def _run(path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> Said:
    capsys.readouterr()
    code = run(lotabotsctl, "lotabotsctl", ("--socket", str(path), *words))
    said = capsys.readouterr()
    return Said(code, said.out, said.err)


@pytest.fixture
def clock() -> FixedClock:
    return _clock()


@pytest.fixture
def socket_path(tmp_path: Path, clock: FixedClock) -> Iterator[Path]:
    with _served(tmp_path, clock) as path:
        yield path


@pytest.fixture
def ctl(socket_path: Path, capsys: pytest.CaptureFixture[str]) -> Ctl:
    """`ctl("key", "list")`: run it as a person would type it, against an appliance of its own."""
    return lambda *words: _run(socket_path, capsys, words)


@pytest.fixture(scope="module")
def shared_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with _served(tmp_path_factory.mktemp("shared"), _clock()) as path:
        yield path


@pytest.fixture
def shared_ctl(shared_path: Path, capsys: pytest.CaptureFixture[str]) -> Ctl:
    """The same against one appliance for all tests of a module: for commands that change nothing."""
    return lambda *words: _run(shared_path, capsys, words)
