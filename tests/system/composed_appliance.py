"""LotaBots as installer/compose/compose.yaml starts it, in a container engine of the tests' own."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest
from container_engine import ContainerEngine, kept
from gate_clients import Answer, Key, ask_on
from image_build import Saved
from product_images import build_dependencies, build_product, build_runtime, dependencies_digest
from whole_appliance import ROOT, free_port

FOLDER = ROOT / "installer" / "compose"
PROJECT = TAG = "lotabots-test"
CACHE = ROOT / ".cache" / "compose-images"
PACKAGES = ROOT / ".cache" / "cpu-image" / "packages"
STARTED = ("daemon", "gate", "runtime")
COMMAND_SECONDS = 180


def require_compose() -> None:
    """Install docker-compose where we may; else skip and say the command that helps."""
    if shutil.which("docker-compose") is None and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "docker-compose"]
        for command in (["apt-get", "update", "-qq"], install):
            subprocess.run(command, env=environment, capture_output=True, timeout=600, check=False)
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is missing; enable it: apt-get install docker-compose")


def load_images(engine: ContainerEngine, triton: Saved) -> None:
    """What compose.yaml names, of this checkout; the slow parts come from .cache."""
    client = engine.client
    client.timeout = 600
    dependencies = kept(CACHE, dependencies_digest(), engine, lambda: build_dependencies(client, PACKAGES))
    for saved in (dependencies, triton):
        with saved.archive.open("rb") as archive:
            for line in client.load_image(archive):
                assert "error" not in line, line
    product = build_product(client, dependencies.image, f"lotabots:{TAG}")
    build_runtime(client, product, triton.image, f"lotabots-runtime:{TAG}")


class ComposedAppliance:
    """The services, by their names; apps find the gate at `port`."""

    def __init__(self, engine: ContainerEngine) -> None:
        self._engine = engine
        self.port = free_port()

    def compose(self, *words: str, exit_code: int = 0) -> bytes:
        """What `docker-compose …` says; it must end with this exit code."""
        done = subprocess.run(
            [
                *("docker-compose", "--project-name", PROJECT),
                *("--file", str(FOLDER / "compose.yaml"), "--ansi", "never", *words),
            ],
            env={
                **os.environ,
                "DOCKER_HOST": f"unix://{self._engine.socket}",
                "LOTABOTS_TAG": TAG,
                "LOTABOTS_ADDRESS": f"127.0.0.1:{self.port}",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == exit_code, f"{words}: {done.returncode}\n{done.stdout!r}\n{done.stderr!r}"
        return done.stdout

    def within(self, service: str, *command: str) -> bytes:
        """What a command says in a service's container, as with `docker exec`; it must end well."""
        code, said, complained = self._run(service, command)
        assert code == 0, f"{service}: {command}: {code}\n{said!r}\n{complained!r}"
        return said

    def is_well(self, service: str) -> bool:
        """What the service's health check says now."""
        program = ("python", "-I", "/opt/lotabots/compose/health.py", service)
        return self._run(service, program)[0] == 0

    def _run(self, service: str, command: Sequence[str]) -> tuple[int, bytes, bytes]:
        client = self._engine.client
        made = client.exec_create(self.inspect(service)["Id"], list(command))["Id"]
        said, complained = client.exec_start(made, demux=True)
        return client.exec_inspect(made)["ExitCode"], said or b"", complained or b""

    def ctl(self, *words: str) -> str:
        """`lotabotsctl …` as an administrator calls it: inside the daemon's container."""
        return self.within("daemon", "lotabotsctl", *words).decode()

    def ctl_json(self, *words: str) -> Any:
        """The value of `lotabotsctl … --json`."""
        return json.loads(self.ctl(*words, "--json"))

    def key(self) -> Key:
        """A new key of a new member of a new organisation."""
        self.ctl("organisation", "create", "works")
        self.ctl("member", "create", "scanner", "--kind", "service")
        made = self.ctl_json("key", "create", "pages", "--organisation", "works")
        return Key(made["key_id"], made["text"])

    def ask(
        self, method: str, path: str, key: Key | None = None, body: bytes = b"", **headers: str
    ) -> Answer:
        """One request through the published port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            return ask_on(connection, method, path, key, body, **headers)
        finally:
            connection.close()

    def is_ready(self) -> bool:
        """What /readyz says; no answer is a no."""
        try:
            return self.ask("GET", "/readyz").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def inspect(self, service: str) -> dict[str, Any]:
        """`docker inspect` of a service's one container, running or not."""
        found = self._engine.client.containers(
            all=True,
            filters={
                "label": [f"com.docker.compose.project={PROJECT}", f"com.docker.compose.service={service}"]
            },
        )
        (container,) = found
        return self._engine.inspect(container["Id"])

    def is_healthy(self, service: str) -> bool:
        """What the engine found with the service's health check."""
        return bool(self.inspect(service)["State"]["Health"]["Status"] == "healthy")

    def logs(self) -> str:
        """The last lines of all."""
        return self.compose("logs", "--no-color", "--tail=40").decode(errors="replace")

    def remove(self) -> None:
        """Nothing stays: containers, volumes, the network."""
        self.compose("down", "--volumes", "--timeout", "5")
