"""`lotabotsd serve` as a process: ready, alone, and gone in order. Neither helper nor gate is there."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lotabotsd.cli.control_client import ControlClient
from lotabotsd.foundation.config import Config
from lotabotsd.foundation.errors import Exit

SECONDS = 30.0


@pytest.fixture
def config_path(config: Config, tmp_path: Path) -> Path:
    path = tmp_path / "lotabots.toml"
    path.write_text(
        f'[appliance]\nstate_directory = "{tmp_path}/state"\nrun_directory = "{tmp_path}/run"\n'
        f'[models]\nrepository = "{tmp_path}/packages"\nenabled = []\n'
    )
    return path


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """What a service manager listens on for sd_notify(3)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify.sock"))
        listener.settimeout(SECONDS)
        yield listener


@pytest.fixture
def serve(config_path: Path, manager: socket.socket) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def serve() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "lotabotsd.cli.server", "serve", "--config", str(config_path)]
        environment = {
            "NOTIFY_SOCKET": manager.getsockname(),
            "WATCHDOG_USEC": "600000",
            "PATH": "/usr/bin:/bin",
        }
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield serve
    for process in started:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def _told(manager: socket.socket, word: str) -> None:
    """Wait until the service manager was told this."""
    while word not in manager.recv(4_096).decode().splitlines():
        pass


def test_the_daemon_tells_that_it_is_ready_lives_and_stops(serve, manager, config) -> None:
    process = serve()
    _told(manager, "READY=1")
    status = ControlClient(config.paths.control_socket).get("status")
    assert status["appliance"]["pid"] == process.pid
    _told(manager, "WATCHDOG=1")
    process.send_signal(signal.SIGTERM)
    _told(manager, "STOPPING=1")
    assert process.wait(SECONDS) == Exit.OK
    assert config.paths.limits_table.exists()


def test_a_second_daemon_for_the_same_state_is_refused_and_the_first_one_goes_on(
    serve, manager, config
) -> None:
    first = serve()
    _told(manager, "READY=1")
    second = serve()
    assert second.wait(SECONDS) == Exit.BUSY
    assert second.stderr is not None
    assert f"process {first.pid} uses" in second.stderr.read()
    assert ControlClient(config.paths.control_socket).get("status")["appliance"]["pid"] == first.pid


def test_a_damaged_database_keeps_the_daemon_from_starting_and_is_named(serve, config) -> None:
    config.paths.ledger_db.write_bytes(b"this is no database" * 100)
    process = serve()
    assert process.wait(SECONDS) == Exit.CHECK_FAILED
    assert process.stderr is not None
    assert "ledger.db" in process.stderr.read()
