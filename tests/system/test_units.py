"""The units as files: systemd knows every setting, the scores hold, and they agree with the configuration."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lotabotsd.foundation.paths import Paths

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "systemd"
CEILINGS = {  # in tenths
    "lotabots-gate.service": 3,
    "lotabotsd.service": 15,
    "lotabots-runtime.service": 8,
    "lotabots-relay.service": 9,  # it has the machine's loopback
}
NAMES = sorted(path.name for path in UNITS.glob("lotabots*.*") if path.is_file())
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze; enable it: apt-get install systemd"
)


def settings(name: str) -> Iterator[tuple[str, str]]:
    """The settings of a unit, in order."""
    for line in (UNITS / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            yield key, value


def rows(kind: str) -> list[list[str]]:
    """The lines of sysusers.d or tmpfiles.d, as words."""
    text = (UNITS / kind / "lotabots.conf").read_text()
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def test_the_units_are_those_that_the_target_starts() -> None:
    wanted = dict(settings("lotabots.target"))["Wants"].split()
    optional = dict(settings("lotabots.target.d/relay.conf"))["Wants"].split()
    assert sorted([*wanted, *optional, "lotabots.target"]) == NAMES
    for name in (*wanted, *optional):
        assert ("PartOf", "lotabots.target") in settings(name)


@needs_systemd
@pytest.mark.required
@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("name", CEILINGS)
def test_exposure_scores_stay_under_their_ceilings(name: str, embedded: bool, tmp_path: Path) -> None:
    text = (UNITS / name).read_text()
    for drop_in in sorted((UNITS / f"{name}.d").glob("*.conf")) if embedded else ():
        text += drop_in.read_text()
    (tmp_path / name).write_text(text)
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", f"--threshold={CEILINGS[name]}", name],
        cwd=tmp_path,
        env={"SYSTEMD_UNIT_PATH": str(tmp_path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout[-200:] + judged.stderr
    assert "Overall exposure" in judged.stdout


@needs_systemd
@pytest.mark.required
def test_systemd_knows_every_setting(tmp_path: Path) -> None:
    for name in NAMES:
        text = (UNITS / name).read_text()
        # There is no installation on this machine: any program does.
        (tmp_path / name).write_text(
            re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)
        )
    judged = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", *(str(tmp_path / name) for name in NAMES)],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in judged.stderr.splitlines() if str(tmp_path) in line or "Unknown" in line]
    assert ours == []


def test_every_directory_of_the_layout_is_made_with_an_owner_of_ours() -> None:
    users = {row[1] for row in rows("sysusers.d") if row[0] == "u"}
    groups = users | {row[1] for row in rows("sysusers.d") if row[0] == "g"}
    made = {row[1]: row for row in rows("tmpfiles.d")}
    layout = Paths(Path("/var/lib/lotabots"), Path("/run/lotabots")).directories()
    assert made.keys() == {str(path) for path, _ in layout} | {"/var/lib/lotabots/runtime"}
    for kind, path, mode, user, group in made.values():
        assert kind == "d"
        assert user in users | {"root"}, path
        assert group in groups | {"root"}, path
        assert int(mode, 8) & 0o002 == 0, f"{path} is not for everybody to write"


def test_the_address_the_workers_and_the_waits_are_those_of_the_configuration() -> None:
    config = tomllib.loads((ROOT / "etc" / "lotabots.toml").read_text())
    listen = [value for key, value in settings("lotabots-gate.socket") if key == "ListenStream"]
    assert listen == [config["gate"]["listen"]] * config["gate"]["workers"]
    gate, runtime = dict(settings("lotabots-gate.service")), dict(settings("lotabots-runtime.service"))
    assert int(gate["TimeoutStopSec"]) > config["gate"]["drain_seconds"] + 10
    assert int(runtime["TimeoutStopSec"]) > config["runtime"]["stop_timeout_seconds"] + 10
