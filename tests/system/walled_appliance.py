"""LotaBots on a booted Debian, as an installer leaves it: a release folder, units, users, directories."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from debian_root import RELEASE, ROOT, Machine
from whole_appliance import load_pages, wait_for

MODEL = "page_orientation"
PORT = 8080
WORKERS = 2
UNITS = ("lotabots-gate.service", "lotabotsd.service", "lotabots-runtime.service")
READY_SECONDS = 120.0
WATCHDOG_SECONDS = 4
CLIENT = "/usr/local/lib/walls_client.py"
PROBE = "/usr/local/lib/walls_probe.py"
_SYSTEM = Path("/etc/systemd/system")
# What a unit is to do is replaced by the probe; in which walls it does it stays.
_NOT_WALLS = re.compile(
    r"^(Type|NotifyAccess|Exec\w+|Restart\w*|WatchdogSec|Requires|Wants|After|PartOf|WantedBy|KillMode)=.*\n",
    re.MULTILINE,
)


def lay_out(machine: Machine) -> None:
    """The files of an installation, for a machine that has not booted."""
    units = ROOT / "systemd"
    for unit in sorted(units.glob("lotabots*")):
        if unit.name == "lotabots.target.d":
            continue  # for runtime.transport = "tcp" alone
        target = machine.files / f"{_SYSTEM}/{unit.name}".lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if unit.is_dir() else shutil.copyfile)(unit, target)
    for kind in ("sysusers.d", "tmpfiles.d"):
        machine.put(f"/usr/lib/{kind}/lotabots.conf", (units / kind / "lotabots.conf").read_text())
    config = (ROOT / "etc" / "lotabots.toml").read_text()
    for default, chosen in (
        ("\nworkers = 1\n", f"\nworkers = {WORKERS}\n"),
        ('\npython = ""\n', '\npython = "/opt/lotabots/current/runtime/bin/python"\n'),
        ("\nprobe_seconds = 1.0\n", "\nprobe_seconds = 0.25\n"),
    ):
        assert config.count(default) == 1, default
        config = config.replace(default, chosen)
    machine.put("/etc/lotabots/lotabots.toml", config)
    another = f"[Socket]\nListenStream=127.0.0.1:{PORT}\n"
    machine.put(f"{_SYSTEM}/lotabots-gate.socket.d/workers.conf", another * (WORKERS - 1))
    for unit in ("lotabots-gate.service", "lotabotsd.service"):
        machine.put(f"{_SYSTEM}/{unit}.d/watchdog.conf", f"[Service]\nWatchdogSec={WATCHDOG_SECONDS}\n")
    for path in (CLIENT, PROBE):
        machine.put(path, (Path(__file__).parent / Path(path).name).read_text())
    models = ROOT / "model_repository"
    shutil.copytree(models, machine.files / f"{RELEASE}/model_repository".lstrip("/"))
    (machine.files / "opt" / "lotabots" / "current").symlink_to(RELEASE.relative_to("/opt/lotabots"))
    load_pages().write_pages(machine.files / "srv")
    shutil.copyfile(_wheel(machine.folder), machine.files / "srv" / "lotabotsd-0.1.0-py3-none-any.whl")
    # A container engine that nobody of ours may speak to, and two persons.
    machine.put(
        "/usr/lib/sysusers.d/persons.conf", "g docker -\nu anna -\nm anna lotabots-admin\nu visitor -\n"
    )
    machine.put(
        f"{_SYSTEM}/engine.socket",
        "[Socket]\nListenStream=/run/docker.sock\nSocketGroup=docker\nSocketMode=0660\nService=engine.service\n",
    )
    machine.put(f"{_SYSTEM}/engine.service", "[Service]\nExecStart=sleep infinity\n")


def _wheel(folder: Path) -> Path:
    """The wheel of this checkout, built away from it."""
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (name.startswith("lotabotsd/") or "/" not in name) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."],
        cwd=source, capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    (wheel,) = (source / "dist").glob("*.whl")
    return wheel


class WalledAppliance:
    """The installed appliance on its machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.key = ""
        self.started = False

    def start(self) -> None:
        """Install the wheel, start everything, and wait until a model can be asked."""
        say = self.machine.say
        pip = ("env", "PIP_CONFIG_FILE=/dev/null", f"{RELEASE}/venv/bin/pip", "install", "--quiet")
        say(*pip, "--no-index", "--no-deps", "/srv/lotabotsd-0.1.0-py3-none-any.whl")
        say("systemctl", "start", "engine.socket", "lotabots.target")
        say("lotabotsctl", "organisation", "create", "works", user="anna")
        say("lotabotsctl", "member", "create", "scanner", "--kind", "service", user="anna")
        made = say("lotabotsctl", "key", "create", "first", "--json", user="anna")
        self.key = json.loads(made)["text"]
        say("lotabotsctl", "licence", "install", self._licence())
        wait_for(self.is_ready, READY_SECONDS, "the gate is ready")
        self.started = True

    def _licence(self) -> str:
        file = self.machine.folder / "enterprise.licence"
        program = "import sys; from lotabots_vendor.cli import main; sys.exit(main())"
        subprocess.run(
            [
                *(sys.executable, "-c", program, "licence", "issue", "--development"),
                *("--tier", "enterprise", "--customer", "Test", "--output", str(file)),
            ],
            cwd=ROOT, capture_output=True, timeout=60, check=True,
        )  # fmt: skip
        self.machine.say("tee", "/srv/enterprise.licence", given=file.read_text())
        return "/srv/enterprise.licence"

    def is_ready(self) -> bool:
        return bool(self.ask("GET", "/readyz")["status"] == 200)

    def ask(self, method: str, path: str, *body: str) -> dict[str, Any]:
        """One request of an app: its status, and its body as text."""
        key = self.key or "none"
        said = self.machine.say("python3", CLIENT, "ask", str(PORT), method, path, key, *body, user="visitor")
        answer: dict[str, Any] = json.loads(said)
        return answer

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.machine.say("systemctl", "show", unit, f"--property={name}", "--value").strip()

    def pid(self, unit: str) -> int:
        """The main process of a unit."""
        return int(self.show(unit, "MainPID"))

    def within(self, unit: str, *attempts: Sequence[str], drop_ins: bool = True) -> dict[str, Any]:
        """What the probe finds when it runs in the place of a unit's program, in the same walls.

        Without drop-ins the runtime helper is the container runtime's.
        """
        shown = ("systemctl", "cat", unit) if drop_ins else ("cat", f"{_SYSTEM}/{unit}")
        walls = self.machine.say(*shown)
        text = _NOT_WALLS.sub("", walls) + (
            f"\n[Service]\nType=oneshot\nExecStart=/usr/bin/python3 {PROBE}\nRestart=no\n"
            "StandardInput=file:/run/probe.json\nStandardOutput=truncate:/run/probe.out\n"
        )
        self.machine.say("tee", "/run/probe.json", given=json.dumps(attempts))
        self.machine.say("tee", "/run/systemd/system/probe.service", given=text)
        self.machine.say("systemctl", "daemon-reload")
        done = self.machine.run("systemctl", "start", "probe.service")
        assert done.returncode == 0, self.machine.say("journalctl", "-u", "probe.service", "-o", "cat")
        found: dict[str, Any] = json.loads(self.machine.say("cat", "/run/probe.out"))
        return found

    def as_user(self, user: str, *attempts: Sequence[str]) -> dict[str, Any]:
        """What the probe finds as a user, without a unit's walls: permissions of files alone."""
        found: dict[str, Any] = json.loads(
            self.machine.say("python3", PROBE, user=user, given=json.dumps(attempts))
        )
        return found


class Load:
    """Apps inside the machine that ask as long as the block lasts."""

    def __init__(self, appliance: WalledAppliance, *, threads: int, kept: bool) -> None:
        how = "kept" if kept else "new"
        words = ("python3", CLIENT, "load", str(PORT), appliance.key, str(threads), how)
        self._command = appliance.machine.command(*words, user="visitor")
        self.ended: dict[str, int] = {}
        self.slowest = 0.0

    def __enter__(self) -> Load:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        while self._hear():
            pass
        self._process.wait(60)

    def until(self, enough: Callable[[], bool], seconds: float, what: str) -> None:
        """Go on until a condition holds."""

        def heard() -> bool:
            return self._hear() and enough()

        wait_for(heard, seconds, what)

    def answers(self, more: int) -> None:
        """Go on until so many more requests were answered with 200."""
        wanted = self.ended.get("200", 0) + more
        self.until(lambda: self.ended.get("200", 0) >= wanted, 60, f"{more} more answers: {self.ended}")

    def _hear(self) -> bool:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            told = json.loads(line)
            self.ended, self.slowest = told["ended"], told["slowest"]
        return bool(line)
