"""Build LotaBots' processor image of Triton with the container engine of this machine, and save it.

The base is a Debian made by debootstrap, the wheels are those of requirements/embedded.txt with their
digests; nothing is pulled, and the build itself has no network. Needs root (debootstrap) and an engine.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from wheelhouse import fetch_wheels, pins_of  # noqa: E402

SUITE = "bookworm"
PACKAGES = ("libpython3.11", "python3", "python3-venv")
ENGINE_SECONDS = 600
DEBOOTSTRAP_SECONDS = 600
LOCK = ROOT / "requirements" / "embedded.txt"
DOCKERFILE = HERE / "Dockerfile.cpu"
REPOSITORY = "lotabots-triton-cpu"
_CHUNK_BYTES = 1024 * 1024
# What no program in the image reads.
_NEEDLESS = ("var/cache/apt", "var/lib/apt/lists", "var/cache/debconf", "usr/share/doc", "usr/share/man")
_START = "systemctl start docker (apt-get install docker.io)"


@dataclass(frozen=True, slots=True)
class Saved:
    """An image in an archive, as the configuration names it."""

    archive: Path
    archive_sha256: str
    image: str  # sha256:… of the image's own configuration


def inputs_digest() -> str:
    """What the image is made from: another value means another image."""
    digest = hashlib.sha256("\0".join((SUITE, *PACKAGES, *_NEEDLESS)).encode())
    digest.update(DOCKERFILE.read_bytes())
    digest.update(pins_of(LOCK.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()


def build(client: docker.APIClient, packages: Path) -> str:
    """Build it; `packages` keeps Debian's packages for the next time. Returns the image's id.

    Raises RuntimeError, OSError, subprocess.TimeoutExpired, docker.errors.DockerException.
    """
    with tempfile.TemporaryDirectory(prefix="lotabots-image-") as name:
        folder = Path(name)
        context = folder / "context"
        context.mkdir()
        shutil.copyfile(DOCKERFILE, context / "Dockerfile")
        pins = context / "pins.txt"
        pins.write_text(pins_of(LOCK.read_text(encoding="utf-8")), encoding="utf-8")
        fetch_wheels(pins, context / "wheels")
        base = _base(client, folder, packages)
        try:
            return _build(client, context, base)
        finally:
            client.remove_image(base, noprune=True)


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


def _base(client: docker.APIClient, folder: Path, packages: Path) -> str:
    """A Debian with Python, imported; returns its id."""
    packages.mkdir(parents=True, exist_ok=True)
    root, archive = folder / "root", folder / "root.tar"
    done = subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private"),  # what it mounts goes with it
            *("debootstrap", "--variant=minbase", f"--cache-dir={packages}"),
            *(f"--include={','.join(PACKAGES)}", SUITE, str(root)),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEBOOTSTRAP_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"debootstrap ended with {done.returncode}: {done.stdout[-1000:]}")
    for needless in _NEEDLESS:
        shutil.rmtree(root / needless, ignore_errors=True)
    with tarfile.open(archive, "w") as tar:
        tar.add(root, arcname=".")
    tag = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    client.import_image(src=str(archive), repository="lotabots-debian", tag=tag)
    archive.unlink()
    shutil.rmtree(root)
    return f"lotabots-debian:{tag}"


def _build(client: docker.APIClient, context: Path, base: str) -> str:
    tag = f"{REPOSITORY}:{inputs_digest()[:16]}"
    said: list[str] = []
    for line in _lines(client, context, base, tag):
        if "error" in line:
            raise RuntimeError(f"the image cannot be built: {line['error']}\n{''.join(said)[-2000:]}")
        said.append(line.get("stream", ""))
    inspected: dict[str, Any] = client.inspect_image(tag)  # type: ignore[no-untyped-call]
    return str(inspected["Id"])


def _lines(client: docker.APIClient, context: Path, base: str, tag: str) -> Iterator[dict[str, str]]:
    built: Iterator[dict[str, str]] = client.build(
        path=str(context),
        tag=tag,
        buildargs={"BASE": base},
        network_mode="none",
        pull=False,
        rm=True,
        forcerm=True,
        decode=True,
    )
    return built


def main(arguments: Sequence[str]) -> int:
    """Build and save; prints the lines for lotabots.toml. 0 done, 3 something is missing or failed."""
    parser = argparse.ArgumentParser(prog="build-cpu-image", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", default="/run/docker.sock", metavar="SOCKET")
    parser.add_argument("--output", default="lotabots-triton-cpu.tar", metavar="FILE", type=Path)
    chosen = parser.parse_args(arguments)
    for fault, fix in _missing():
        print(f"build-cpu-image: {fault}\n  fix: {fix}", file=sys.stderr)
        return 3
    try:
        client = docker.APIClient(base_url=f"unix://{chosen.engine}", version="auto", timeout=ENGINE_SECONDS)
        image = build(client, ROOT / ".cache" / "cpu-image" / "packages")
        saved = save(client, image, chosen.output)
    except (docker.errors.DockerException, requests.RequestException) as error:
        print(f"build-cpu-image: {chosen.engine}: {error}\n  fix: {_START}", file=sys.stderr)
        return 3
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        print(f"build-cpu-image: {error}\n  fix: mend the cause, then run this again", file=sys.stderr)
        return 3
    print(f'image = "{saved.image}"')
    print(f'image_archive = "{saved.archive.resolve()}"')
    print(f'image_archive_sha256 = "{saved.archive_sha256}"')
    print('backend = "python"')
    return 0


def _missing() -> Iterator[tuple[str, str]]:
    if os.geteuid() != 0:
        yield "debootstrap needs root", "sudo installer/compose/build-cpu-image"
    if shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
        yield "debootstrap is missing", "apt-get install debootstrap"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
