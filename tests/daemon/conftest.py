"""A real appliance in a temporary directory, without a runtime helper and without a gate."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "simulators"))

from lotabotsd.daemon.appliance import Appliance
from lotabotsd.daemon.wiring import open_appliance
from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.config import Config, parse


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 3, 17, 10, 30, tzinfo=UTC))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    text = f"""
[appliance]
state_directory = "{tmp_path}/state"
run_directory = "{tmp_path}/run"
[models]
repository = "{tmp_path}/packages"
enabled = ["missing"]
[usage]
reserve_bytes = 4096
retention_days = 30
"""
    config = parse(text.encode(), "test")
    for path, mode in config.paths.directories():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
    return config


@pytest.fixture
def open_one(config: Config, clock: FixedClock) -> Iterator[Callable[[], Appliance]]:
    """Opens the appliance; call it again after `close` for what a restart finds."""
    opened: list[Appliance] = []

    def open_one() -> Appliance:
        opened.append(open_appliance(config, clock))
        return opened[-1]

    yield open_one
    for appliance in opened:
        appliance.publishing.let_go()
    opened[-1].close()


@pytest.fixture
def appliance(open_one: Callable[[], Appliance]) -> Appliance:
    return open_one()


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus' own checker: installed, or taken out of its Debian package into .cache."""
    found = shutil.which("promtool")
    kept = Path(__file__).resolve().parents[2] / ".cache" / "promtool"
    if found is None and not (kept / "usr/bin/promtool").exists() and shutil.which("apt-get"):
        kept.mkdir(parents=True, exist_ok=True)
        # Only the package itself: installing it would start a server.
        download = ["apt-get", "download", "-qq", "prometheus"]
        update = ["apt-get", "update", "-qq", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=20"]
        with contextlib.suppress(subprocess.TimeoutExpired):
            for command in (download, update, download):
                if not list(kept.glob("prometheus_*.deb")):
                    subprocess.run(command, cwd=kept, capture_output=True, timeout=120, check=False)
        for package in kept.glob("prometheus_*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(kept)], timeout=120, check=True)
            package.unlink()
    path = Path(found) if found else kept / "usr/bin/promtool"
    if not path.exists():
        pytest.skip("no promtool here; enable it: apt-get install prometheus")
    return path
