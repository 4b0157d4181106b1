"""The daemon over the stand-in: it starts although the driver hangs, and finds the GPUs afterwards."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.cli.control_client import ControlClient
from lotabotsd.foundation.config import load
from lotabotsd.foundation.errors import LotaBotsError

pytestmark = pytest.mark.required
FOR_EVER_MS = 3_600_000
SECONDS = 60.0


@pytest.fixture
def control(host: Any, tmp_path: Path) -> Iterator[ControlClient]:
    """A daemon whose driver hangs from the start."""
    host.hang("nvmlInitWithFlags", FOR_EVER_MS)
    path = tmp_path / "lotabots.toml"
    path.write_text(
        f'[appliance]\nstate_directory = "{tmp_path}/state"\nrun_directory = "{tmp_path}/run"\n'
        f'[models]\nrepository = "{tmp_path}/packages"\nenabled = []\n'
    )
    config = load(path)
    for directory, mode in config.paths.directories():
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(mode)
    daemon = subprocess.Popen(
        [sys.executable, "-m", "lotabotsd.cli.server", "serve", "--config", str(path)],
        env=host.environment(),
        stderr=subprocess.DEVNULL,
    )
    yield ControlClient(config.paths.control_socket, timeout_seconds=10)
    daemon.terminate()
    try:
        assert daemon.wait(SECONDS) == 0
    finally:
        daemon.kill()
        daemon.wait()


def gpus(control: ControlClient, good: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the daemon says of its GPUs, as soon as it is good."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            found: dict[str, Any] = control.get("gpus")
        except LotaBotsError:  # it has not begun yet
            found = {}
        if found and good(found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)  # a poll with a deadline


@pytest.mark.thorough
def test_a_daemon_starts_and_stops_although_the_driver_hangs(host: Any, control: ControlClient) -> None:
    waiting = gpus(control, lambda found: True)
    assert waiting == {"items": [], "detail": "NVML has not answered yet"}
    host.hang("nvmlInitWithFlags", 0)
    found = gpus(control, lambda found: len(found["items"]) == 2)
    assert [item["health"] for item in found["items"]] == ["healthy", "healthy"]
    assert b"DCGM_FI_DEV_GPU_TEMP{" in control.get_bytes("metrics")
    host.hang("nvmlDeviceGetTemperature", FOR_EVER_MS)  # and it must end all the same
