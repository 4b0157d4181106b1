"""A container engine of the tests' own: Debian's dockerd with everything of it in one folder, and our image.

It has no bridge and touches no packet filter, so it can run beside another engine. The processor image is
built once for its inputs and kept under .cache as an archive.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
import requests
from whole_appliance import ROOT, wait_for

sys.path.insert(0, str(ROOT / "installer" / "compose"))

from cpu_image import build, inputs_digest
from image_build import Saved, save

CACHE = ROOT / ".cache" / "cpu-image"
TOOLS = {"dockerd": "docker.io", "debootstrap": "debootstrap"}
START_SECONDS = 60.0
_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


def require_engine() -> None:
    """Install what an engine needs where we may; else skip and say the command that helps."""
    if os.geteuid() != 0:
        pytest.skip("a container engine of our own needs root; enable it: sudo scripts/test")
    if os.uname().machine != "x86_64":
        pytest.skip("the image's wheels are for x86_64; enable it: run on such a machine")
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{_PATH}"
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        for command in (["apt-get", "update", "-qq"], install):
            subprocess.run(command, env=environment, capture_output=True, timeout=600, check=False)
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing; enable it: apt-get install {package}")


class ContainerEngine:
    """One dockerd beside one containerd; `client` asks it as an administrator would."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lotabots-engine-"))
        self.socket = self.folder / "engine.sock"
        self._log = self.folder / "log"
        self._containers: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        (self.folder / "daemon.json").write_text("{}")  # no settings of this machine are ours
        self._storage = "overlay2"

    @property
    def client(self) -> Any:  # half of docker-py is without types
        return docker.APIClient(base_url=f"unix://{self.socket}", version="auto", timeout=60)

    def start(self) -> None:
        """Start it, and wait until it answers; skips the test where this machine lets no engine run."""
        first = self._process is None
        if first:
            self._start_containerd()
        if not self._starts() and first:
            self._storage = "vfs"  # slower, and works on every file system
            self._starts()
        if self._process is None or self._process.poll() is not None:
            said = self._log.read_text(errors="replace").strip().splitlines()
            pytest.skip(f"dockerd does not start here ({said[-1] if said else 'it says nothing'}); "
                        "enable it: run as root outside a container, or in a privileged one")  # fmt: skip

    def _start_containerd(self) -> None:
        """By itself, as Debian's units do: then what it runs survives a killed dockerd."""
        config = self.folder / "containerd.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        self._containers = self._run(
            *("containerd", f"--config={config}", f"--address={self.folder}/containerd.sock"),
            *(f"--root={self.folder}/containerd", f"--state={self.folder}/exec-containerd"),
        )

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        """Ends when this thread does."""
        with self._log.open("ab") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _starts(self) -> bool:
        self._process = process = self._run(
            *("dockerd", f"--host=unix://{self.socket}", f"--containerd={self.folder}/containerd.sock"),
            *("--iptables=false", "--ip6tables=false", "--bridge=none", "--live-restore=false"),
            *(f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec"),
            *(f"--pidfile={self.folder}/pid", f"--storage-driver={self._storage}"),
            f"--config-file={self.folder}/daemon.json",
        )
        wait_for(lambda: process.poll() is not None or self.answers(), START_SECONDS, "the engine answers")
        return process.poll() is None

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except (docker.errors.DockerException, requests.RequestException, OSError):
            return False

    def kill(self) -> None:
        """As a crash does: containerd and the containers live on, until the next engine comes."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it and all that ran in it, and remove every trace."""
        if self._process is None:
            return
        if self._process.poll() is not None:
            self._starts()  # only the engine can end what a killed one left
        if self._process.poll() is None:
            for found in self.client.containers(all=True):
                self.client.remove_container(found["Id"], force=True)
            for network in self.client.networks(filters={"driver": "bridge"}):
                self.client.remove_network(network["Id"])
        for process in (self._process, self._containers):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((each for each in mounts if each.startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False)  # those of a killed engine
        shutil.rmtree(self.folder)

    def inspect(self, name: str) -> dict[str, Any]:
        """`docker inspect`."""
        found: dict[str, Any] = self.client.inspect_container(name)
        return found

    def inspect_image(self, name: str) -> dict[str, Any]:
        """`docker image inspect`."""
        found: dict[str, Any] = self.client.inspect_image(name)
        return found


def cpu_image(engine: ContainerEngine) -> Saved:
    """Our image as an archive; built with this engine when there is none of these inputs yet."""
    client = engine.client
    client.timeout = 600
    return kept(CACHE, inputs_digest(), engine, lambda: build(client, CACHE / "packages"))


def kept(cache: Path, inputs: str, engine: ContainerEngine, make: Callable[[], str]) -> Saved:
    """The archive of an image that is made from these inputs, out of the cache or made now.

    `make` gives the id of an image in the engine, which does not keep it.
    """
    cache.mkdir(parents=True, exist_ok=True)
    archive, facts = cache / f"{inputs[:16]}.tar", cache / f"{inputs[:16]}.json"
    with _locked(cache / "lock"):
        if not (archive.is_file() and facts.is_file()):
            for old in (*cache.glob("*.tar*"), *cache.glob("*.json")):
                old.unlink()  # of other inputs, or left half made
            image = make()
            client = engine.client
            client.timeout = 600
            saved = save(client, image, archive)
            facts.write_text(json.dumps({**asdict(saved), "archive": archive.name}))
            client.remove_image(image, force=True)  # the tests load it from the archive
        read = json.loads(facts.read_text())
    return Saved(archive, read["archive_sha256"], read["image"])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
