"""A container engine in memory: containers run until they are told to end, images come from an archive."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from lotabotsd.foundation.config import Config, parse
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.runtime.container import ContainerRuntime
from lotabotsd.runtime.container_specification import EngineFacts, settings_from
from lotabotsd.runtime.engine import Container, Image

IMAGE = "sha256:" + "a" * 64
OPTIONS = (
    *("model-repository", "backend-directory", "model-control-mode", "exit-on-error", "strict-readiness"),
    *("disable-auto-complete-config", "http-address", "grpc-address", "grpc-port", "metrics-address"),
    *("http-restricted-api", "grpc-restricted-protocol", "exit-timeout-secs", "backend-config"),
)


def said_at(second: int) -> str:
    """A moment as the engine writes it."""
    return f"2026-11-26T12:00:{second:02}.000000001Z"


class EngineInMemory:
    """Containers that run until they are told to end; images that are here, or come from an archive."""

    def __init__(self, *images: str, labels: dict[str, str] | None = None) -> None:
        self.images = {
            each: Image(IMAGE, (), labels or {}, {"TRITON_SERVER_VERSION": "2.70.0"}) for each in images
        }
        self.containers: dict[str, Container] = {}
        self.specifications: dict[str, dict[str, Any]] = {}
        self.specifications_by_id: dict[str, dict[str, Any]] = {}
        self.said: dict[str, list[tuple[str, str]]] = {}
        self.signals: list[str] = []
        self.since: list[int] = []
        self.pulled: list[str] = []
        self.away = False
        self.ends_on_term = True
        self.slow = threading.Event()
        self.slow.set()
        self.made = 0
        self.published: list[tuple[str, str]] = []  # container, and the script's last line
        self.refuses: dict[str, str] = {}  # what the engine says when a container of an image is started

    def add(self, image: str) -> None:
        """One more image."""
        self.images[image] = Image(image, (), {}, {})

    def facts(self) -> EngineFacts:
        self._here()
        return EngineFacts("20.10", cdi=False, cdi_devices=None)

    def image(self, reference: str) -> Image | None:
        self._here()
        self.slow.wait(10)
        return self.images.get(reference)

    def pull(self, reference: str) -> None:
        self.pulled.append(reference)
        self.images[reference] = Image(IMAGE, (reference,), {}, {})

    def load(self, archive: Any) -> None:
        self.images[IMAGE] = Image(IMAGE, (), {}, {})

    def create(self, whole: dict[str, Any], name: str) -> str:
        self._here()
        if name in self.containers:
            raise LotaBotsError(Code.ENGINE_REFUSED, "the name is in use")
        self.made += 1
        container_id = f"c{self.made}"
        self.containers[name] = Container(container_id, whole["Labels"], "created", 0, 0, False, "")
        self.specifications[name] = self.specifications_by_id[container_id] = whole
        self.said[container_id] = [(said_at(1), f"  --{option} <text>") for option in OPTIONS]
        return container_id

    def start(self, container_id: str) -> None:
        image = self.specifications_by_id[container_id]["Image"]
        if (why := self.refuses.get(image)) is not None:
            raise LotaBotsError(Code.ENGINE_REFUSED, why)
        self.change(container_id, status="running", pid=1000 + self.made)
        name = self._name(container_id)
        if name.endswith("-probe"):
            self.change(container_id, status="exited", pid=0)

    def container(self, name: str) -> Container | None:
        self._here()
        found = self.containers.get(name)
        return found or next((c for c in self.containers.values() if c.container_id == name), None)

    def lines(self, container_id: str, newest: int, since_seconds: int = 0) -> list[tuple[str, str]]:
        self.since.append(since_seconds)
        return self.said.get(container_id, [])[-newest:]

    def signal(self, container_id: str, name: str) -> None:
        self.signals.append(name)
        if name == "SIGKILL" or self.ends_on_term:
            self.change(container_id, status="exited", pid=0, exit_code=137 if name == "SIGKILL" else 0)

    def wait(self, container_id: str) -> None: ...

    def remove(self, container_id: str) -> None:
        del self.containers[self._name(container_id)]

    def rename(self, container_id: str, name: str) -> None:
        self._here()
        self.containers[name] = self.containers.pop(self._name(container_id))

    def run_inside(self, container_id: str, command: list[str]) -> None:
        self._here()
        self.published.append((container_id, command[2].splitlines()[-1]))

    def change(self, container_id: str, **values: Any) -> None:
        name = self._name(container_id)
        self.containers[name] = replace(self.containers[name], **values)

    def _name(self, container_id: str) -> str:
        return next(name for name, each in self.containers.items() if each.container_id == container_id)

    def _here(self) -> None:
        if self.away:
            raise LotaBotsError(Code.ENGINE_UNAVAILABLE, "connection refused")


class World:
    """A configuration, an engine, and helpers that come and go."""

    def __init__(self, folder: Path, engine: EngineInMemory, more: str = "") -> None:
        self.config: Config = parse(
            f"""
[appliance]
state_directory = "{folder}/state"
run_directory = "{folder}/run"
[runtime]
kind = "container"
image = "{IMAGE}"
stop_timeout_seconds = 1
{more}
""".encode(),
            "test",
        )
        self.engine = engine
        self.settings = settings_from(self.config, 990, 991)

    def helper(self) -> ContainerRuntime:
        settings = replace(self.settings, image=self.config.runtime.image)
        return ContainerRuntime(self.config, self.engine, settings)  # type: ignore[arg-type]

    @property
    def ours(self) -> Container:
        return self.engine.containers[self.settings.name]
