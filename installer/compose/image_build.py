"""Build images with a container engine: on a Debian made by debootstrap, without pull or network."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

SUITE = "bookworm"
ENGINE_SECONDS = 600
DEBOOTSTRAP_SECONDS = 600
START_ENGINE = "systemctl start docker (apt-get install docker.io)"
# What no program in an image reads.
NEEDLESS = ("var/cache/apt", "var/lib/apt/lists", "var/cache/debconf", "usr/share/doc", "usr/share/man")
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Saved:
    """An image in an archive, as the configuration names it."""

    archive: Path
    archive_sha256: str
    image: str  # sha256:… of the image's own configuration


def engine_at(socket: str) -> docker.APIClient:
    """The engine behind this socket. Raises docker.errors.DockerException when it does not answer."""
    return docker.APIClient(base_url=f"unix://{socket}", version="auto", timeout=ENGINE_SECONDS)


@contextmanager
def debian(client: docker.APIClient, folder: Path, packages: Path, include: Sequence[str]) -> Iterator[str]:
    """The name of a Debian with these packages, removed again at the end; what was built on it stays.

    `packages` keeps Debian's packages for the next time. Raises RuntimeError, OSError,
    subprocess.TimeoutExpired, docker.errors.DockerException.
    """
    packages.mkdir(parents=True, exist_ok=True)
    root, archive = folder / "root", folder / "root.tar"
    done = subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private"),  # what it mounts goes with it
            *("debootstrap", "--variant=minbase", f"--cache-dir={packages}"),
            *(f"--include={','.join(include)}", SUITE, str(root)),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEBOOTSTRAP_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"debootstrap ended with {done.returncode}: {done.stdout[-1000:]}")
    for needless in NEEDLESS:
        shutil.rmtree(root / needless, ignore_errors=True)
    with tarfile.open(archive, "w") as tar:
        tar.add(root, arcname=".")
    tag = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    client.import_image(src=str(archive), repository="lotabots-debian", tag=tag)
    archive.unlink()
    shutil.rmtree(root)
    name = f"lotabots-debian:{tag}"
    try:
        yield name
    finally:
        client.remove_image(name, noprune=True)


def build(client: docker.APIClient, context: Path, tag: str, **arguments: str) -> str:
    """Build the Dockerfile in `context`; returns the image's id.

    Raises RuntimeError with the engine's last words, docker.errors.DockerException.
    """
    said: list[str] = []
    for line in _lines(client, context, tag, arguments):
        if "error" in line:
            raise RuntimeError(f"the image cannot be built: {line['error']}\n{''.join(said)[-2000:]}")
        said.append(line.get("stream", ""))
    inspected: dict[str, Any] = client.inspect_image(tag)  # type: ignore[no-untyped-call]
    return str(inspected["Id"])


def save(client: docker.APIClient, image: str, archive: Path) -> Saved:
    """Write an image as an archive that `docker load` takes, under its final name only when it is whole."""
    unfinished = archive.with_name(f"{archive.name}.unfinished")
    digest = hashlib.sha256()
    with unfinished.open("wb") as file:
        for chunk in client.get_image(image, chunk_size=_CHUNK_BYTES):
            file.write(chunk)
            digest.update(chunk)
    unfinished.rename(archive)
    return Saved(archive, digest.hexdigest(), image)


@contextmanager
def work_folder() -> Iterator[Path]:
    """A folder of its own for one build."""
    with tempfile.TemporaryDirectory(prefix="lotabots-image-") as name:
        yield Path(name)


def missing() -> Iterator[tuple[str, str]]:
    """What a build needs and is not here, each with the command that helps."""
    if os.geteuid() != 0:
        yield "debootstrap needs root", "run it with sudo"
    if shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
        yield "debootstrap is missing", "apt-get install debootstrap"


def _lines(
    client: docker.APIClient, context: Path, tag: str, arguments: dict[str, str]
) -> Iterator[dict[str, str]]:
    built: Iterator[dict[str, str]] = client.build(
        path=str(context),
        tag=tag,
        buildargs=arguments,
        network_mode="none",
        pull=False,
        rm=True,
        forcerm=True,
        decode=True,
    )
    return built
