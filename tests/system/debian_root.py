"""A Debian 12 with systemd in a folder: made once under .cache, booted on a layer that is thrown away.

The root holds what changes seldom: Debian's packages, and a release's two virtual environments with what the
locks name. A machine lays a folder of files over it and boots with `systemd-nspawn`, in a network of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from wheelhouse import fetch_wheels, pins_of

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "debian-root"
SUITE = "bookworm"
PACKAGES = ("libpython3.11", "python3", "python3-venv", "systemd")
RELEASE = Path("/opt/lotabots/releases/0.1.0")
LOCKS = {"venv": ROOT / "requirements" / "lock.txt", "runtime": ROOT / "requirements" / "embedded.txt"}
TOOLS = {"systemd-nspawn": "systemd-container", "debootstrap": "debootstrap"}
BOOT_SECONDS = 90.0
STOP_SECONDS = 60.0
_FORMAT = "1"  # another one when what is made below changes
_OFFLINE = ("--quiet", "--no-index", "--no-deps", "--find-links=/var/tmp/wheels")
_PATH = f"{RELEASE}/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# In a mount namespace of its own, so that whatever happens nothing stays mounted.
_BOOT = """
cd "$1"
mount --bind "$2" base
mount -t tmpfs -o mode=0755,size=2g tmpfs layer
mkdir layer/upper layer/work
mount -t overlay overlay -o lowerdir=files:base,upperdir=layer/upper,workdir=layer/work root
exec systemd-nspawn --directory=root --boot --register=no --keep-unit --private-network --machine="$3" \
    --settings=no --link-journal=no --resolv-conf=off --timezone=off --console=read-only
"""


def require_nspawn() -> None:
    """Install what a machine needs where we may; else skip and say the command that helps."""
    if os.geteuid() != 0:
        pytest.skip("booting a Debian root needs root; enable it: sudo scripts/test")
    if os.uname().machine != "x86_64":
        pytest.skip("the wheels of the Debian root are for x86_64; enable it: run on such a machine")
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        for command in (["apt-get", "update", "-qq"], install):
            subprocess.run(command, env=environment, capture_output=True, timeout=300, check=False)
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing; enable it: apt-get install {package}")
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    )
    if tried.returncode != 0:
        pytest.skip("mounting is refused here; enable it: run outside a container, or in a privileged one")


def debian_root() -> Path:
    """The root of these locks; made when it is not there yet, which takes some minutes."""
    key = hashlib.sha256("\0".join((_FORMAT, SUITE, *PACKAGES, str(RELEASE))).encode())
    for lock in LOCKS.values():
        key.update(lock.read_bytes())
    base = CACHE / key.hexdigest()[:16]
    CACHE.mkdir(parents=True, exist_ok=True)
    with _locked(CACHE / "lock"):
        if not base.is_dir():
            for old in CACHE.iterdir():
                if old.name not in ("lock", "machine", "packages"):
                    shutil.rmtree(old)  # of other locks, or left half made
            unfinished = CACHE / f"unfinished-{base.name}"
            _make(unfinished)
            unfinished.rename(base)
    return base


def _make(root: Path) -> None:
    packages = CACHE / "packages"
    packages.mkdir(exist_ok=True)
    _run(
        *("unshare", "--mount", "--propagation", "private"),  # what it mounts goes with it
        *("debootstrap", "--variant=minbase", f"--cache-dir={packages}", f"--include={','.join(PACKAGES)}"),
        *(SUITE, str(root)),
    )
    wheels = root / "var" / "tmp" / "wheels"
    for name, lock in LOCKS.items():
        pins = root / "var" / "tmp" / f"{name}.txt"
        pins.write_text(pins_of(lock.read_text()))
        fetch_wheels(pins, wheels)
        pip = f"{RELEASE}/{name}/bin/pip"
        for command in (
            ("python3", "-m", "venv", f"{RELEASE}/{name}"),
            (pip, "install", *_OFFLINE, "--require-hashes", f"--requirement=/var/tmp/{name}.txt"),
        ):
            _run("chroot", str(root), "env", "-i", f"PATH={_PATH}", "PIP_CONFIG_FILE=/dev/null", *command)
    shutil.rmtree(wheels)
    (root / "etc" / "hostname").write_text("appliance\n")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(*command: str) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, (
        f"{' '.join(command)}: {done.returncode}\n{(done.stdout + done.stderr)[-4000:]}"
    )


class Machine:
    """One booted machine; `files` is laid over the root before it starts."""

    def __init__(self, base: Path) -> None:
        # Not pytest's folder: no name in the way of the overlay's options.
        self.folder = Path(tempfile.mkdtemp(prefix="lotabots-machine-"))
        self.files = self.folder / "files"
        for name in ("files", "base", "layer", "root"):
            (self.folder / name).mkdir()
            (self.folder / name).chmod(0o755)
        self._base = base
        self._turn = ExitStack()  # one machine at a time: they would share their control groups
        self._turn.enter_context(_locked(CACHE / "machine"))
        self._console = self.folder / "console"
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def put(self, path: Path | str, text: str, mode: int = 0o644) -> None:
        """A file for the machine, before it boots."""
        target = self.files / str(path).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def boot(self) -> None:
        """Start it and wait until systemd says that it runs."""
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "TERM", "unshare", "--mount", "--propagation", "private"),
                    *("sh", "-ec", _BOOT, "sh", str(self.folder), str(self._base), f"lotabots-{os.getpid()}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + BOOT_SECONDS
        while not self._is_up():
            alive = self._process.poll() is None and time.monotonic() < deadline
            assert alive, f"the machine does not boot\n{self._console.read_text(errors='replace')[-4000:]}"
            time.sleep(0.1)

    def stop(self) -> None:
        """Power it off and remove it."""
        process = self._process
        if process is not None and process.poll() is None:
            if self._leader:
                self.run("systemctl", "poweroff", "--force")  # what runs has nothing more to say
            else:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._turn.close()

    def command(self, *words: str, user: str = "root") -> list[str]:
        """What runs `words` inside, as a user with all of its groups."""
        become = () if user == "root" else ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups")
        enter = (
            "nsenter",
            f"--target={self._leader}",
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--cgroup",
        )
        clean = ("env", "-i", "--chdir=/", f"PATH={_PATH}", "LANG=C.UTF-8", "NO_COLOR=1", "SYSTEMD_COLORS=0")
        return [*enter, "--", *clean, *become, *words]

    def run(
        self, *words: str, user: str = "root", given: str = "", seconds: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end."""
        command = self.command(*words, user=user)
        return subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=seconds, check=False
        )

    def say(self, *words: str, user: str = "root", given: str = "", seconds: float = 120.0) -> str:
        """The output of a command inside, which must succeed."""
        done = self.run(*words, user=user, given=given, seconds=seconds)
        assert done.returncode == 0, f"{words} as {user}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _is_up(self) -> bool:
        assert self._process is not None
        pid = self._process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            for child in children:
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    self._leader = int(child)
        except OSError:
            return False
        return bool(self._leader) and self.run("systemctl", "is-system-running").stdout.strip() == "running"
