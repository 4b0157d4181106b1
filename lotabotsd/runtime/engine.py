"""The container engine behind its socket: the few calls that the helper needs, failures in our words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import docker
import docker.errors
import requests

from lotabotsd.foundation.errors import Code, LotaBotsError

from .container_specification import EngineFacts

LOOK_SECONDS = 4.0  # for what only looks; two of them fit into the helper's answer
WORK_SECONDS = 60.0  # for what creates, starts or removes
IMAGE_SECONDS = 1_800.0  # for a pause in the loading of an image; some have tens of gigabytes
MAX_LINE_CHARACTERS = 1_000
_OLDEST_API = (1, 41)  # Docker 20.10


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is here; `image_id` is the digest of its configuration."""

    image_id: str
    digests: tuple[str, ...]  # NAME@sha256:… under which it was pulled
    labels: dict[str, str]
    variables: dict[str, str]  # of its environment


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the engine sees it."""

    container_id: str
    labels: dict[str, str]
    status: str  # created, running, exited, dead …
    pid: int
    exit_code: int
    out_of_memory: bool
    error: str

    @property
    def running(self) -> bool:
        """Whether its first process lives."""
        return self.pid > 0


class Engine:
    """One engine. Every method blocks, and raises ENGINE_UNAVAILABLE or ENGINE_REFUSED."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._clients: dict[float, docker.APIClient] = {}

    def facts(self) -> EngineFacts:
        """Which engine it is, and whether it knows CDI."""
        with self._asking(LOOK_SECONDS) as client:
            info = client.info()
        found = info.get("DiscoveredDevices")
        devices = (
            None
            if "DiscoveredDevices" not in info
            else frozenset(str(each.get("ID", "")) for each in found or () if each.get("Source") == "cdi")
        )
        return EngineFacts(str(info.get("ServerVersion", "")), bool(info.get("CDISpecDirs")), devices)

    def image(self, reference: str) -> Image | None:
        """The image of a digest, or None."""
        with self._asking(LOOK_SECONDS) as client:
            try:
                found = client.inspect_image(reference)
            except docker.errors.NotFound:
                return None
        settings = found.get("Config") or {}
        return Image(
            image_id=str(found["Id"]),
            digests=tuple(found.get("RepoDigests") or ()),
            labels=dict(settings.get("Labels") or {}),
            variables=dict(line.partition("=")[::2] for line in settings.get("Env") or ()),
        )

    def load(self, archive: IO[bytes]) -> None:
        """Load the images of an archive."""
        with self._asking(IMAGE_SECONDS) as client:
            for line in client.load_image(archive):
                if "error" in line:
                    raise LotaBotsError(Code.ENGINE_REFUSED, str(line["error"])[:300])

    def pull(self, reference: str) -> None:
        """Fetch NAME@sha256:… from where the engine fetches images."""
        name, _, digest = reference.partition("@")
        with self._asking(IMAGE_SECONDS) as client:
            for line in client.pull(name, tag=digest, stream=True, decode=True):
                if "error" in line:
                    raise LotaBotsError(Code.ENGINE_REFUSED, str(line["error"])[:300])

    def create(self, specification: dict[str, Any], name: str) -> str:
        """Make a container, not started; its id. Never pulls: the specification names an image by its id."""
        with self._asking(WORK_SECONDS) as client:
            return str(client.create_container_from_config(specification, name)["Id"])

    def start(self, container_id: str) -> None:
        """Start it."""
        with self._asking(WORK_SECONDS) as client:
            client.start(container_id)

    def container(self, name: str) -> Container | None:
        """A container by its name or id, or None."""
        with self._asking(LOOK_SECONDS) as client:
            try:
                found = client.inspect_container(name)
            except docker.errors.NotFound:
                return None
        state = found["State"]
        return Container(
            container_id=str(found["Id"]),
            labels=dict(found["Config"].get("Labels") or {}),
            status=str(state.get("Status", "")),
            pid=int(state.get("Pid", 0)) if state.get("Running") else 0,
            exit_code=int(state.get("ExitCode", 0)),
            out_of_memory=bool(state.get("OOMKilled")),
            error=str(state.get("Error", "")),
        )

    def lines(self, container_id: str, newest: int, since_seconds: int = 0) -> list[tuple[str, str]]:
        """Its last lines, each with the moment (RFC 3339, nanoseconds, UTC) at which it was said.

        `since_seconds` (Unix time) leaves out those before it; a line is cut at MAX_LINE_CHARACTERS.
        """
        with self._asking(LOOK_SECONDS) as client:
            try:
                since = {"since": since_seconds} if since_seconds else {}
                said = client.logs(container_id, timestamps=True, tail=newest, **since)
            except docker.errors.NotFound:
                return []
        lines = bytes(said).decode(errors="replace").splitlines()
        parts = (line.partition(" ") for line in lines)
        return [(moment, text.rstrip()[:MAX_LINE_CHARACTERS]) for moment, _, text in parts]

    def rename(self, container_id: str, name: str) -> None:
        """Give it another name."""
        with self._asking(WORK_SECONDS) as client:
            client.rename(container_id, name)

    def run_inside(self, container_id: str, command: list[str]) -> None:
        """Run a command beside its first process, as its user and within its walls.

        Raises ENGINE_REFUSED when it ends with another code than 0.
        """
        with self._asking(WORK_SECONDS) as client:
            begun = client.exec_create(container_id, command)["Id"]
            said = bytes(client.exec_start(begun)).decode(errors="replace")
            code = client.exec_inspect(begun)["ExitCode"]
        if code != 0:
            raise LotaBotsError(Code.ENGINE_REFUSED, f"{command[-1]} ended with {code}: {said[:300]}")

    def signal(self, container_id: str, name: str) -> None:
        """Tell its first process something; nothing when it is gone."""
        with self._asking(WORK_SECONDS) as client:
            try:
                client.kill(container_id, name)
            except docker.errors.APIError as error:
                if error.status_code not in (404, 409):  # not there, not running
                    raise

    def wait(self, container_id: str) -> None:
        """Until it has ended, WORK_SECONDS at most."""
        with self._asking(WORK_SECONDS) as client:
            client.wait(container_id)

    def remove(self, container_id: str) -> None:
        """End and remove it; nothing when it is gone."""
        with self._asking(WORK_SECONDS) as client:
            try:
                client.remove_container(container_id, force=True, v=True)
            except docker.errors.NotFound:
                return

    @contextmanager
    def _asking(self, timeout_seconds: float) -> Iterator[Any]:  # half of docker-py is without types
        try:
            yield self._client(timeout_seconds)
        except docker.errors.APIError as error:
            said = str(error.explanation or error)
            raise LotaBotsError(Code.ENGINE_REFUSED, " ".join(said.split())[:500]) from error
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            self._clients.pop(timeout_seconds, None)
            why = "it did not answer in time" if isinstance(error, requests.Timeout) else _reason(error)
            raise LotaBotsError(Code.ENGINE_UNAVAILABLE, f"{self._socket_path}: {why}") from error
        except (KeyError, TypeError, ValueError, json.JSONDecodeError) as error:
            raise LotaBotsError(Code.ENGINE_REFUSED, "its answer cannot be read") from error

    def _client(self, timeout_seconds: float) -> docker.APIClient:
        """One client per patience; which version of the API they speak is asked from the engine."""
        client = self._clients.get(timeout_seconds)
        if client is None:
            client = docker.APIClient(
                base_url=f"unix://{self._socket_path}",
                version="auto",
                timeout=int(timeout_seconds),
                user_agent="lotabotsd",
            )
            client.trust_env = False  # no proxy of the environment lies before a Unix socket
            if _numbers(str(client.api_version)) < _OLDEST_API:
                raise LotaBotsError(
                    Code.ENGINE_REFUSED,
                    f"its API {client.api_version} is older than {'.'.join(map(str, _OLDEST_API))}",
                    hint="install Docker 20.10 or later",
                )
            self._clients[timeout_seconds] = client
        return client


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _reason(error: BaseException) -> str:
    """The operating system's word, which the libraries wrap several times."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        seen = seen.__cause__ or seen.__context__
    return " ".join(str(error).split())[:200]
