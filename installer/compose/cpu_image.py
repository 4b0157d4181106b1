"""Build LotaBots' processor image of Triton with the container engine of this machine, and save it.

The base is a Debian made by debootstrap, the wheels are those of requirements/embedded.txt with their
digests; nothing is pulled, and the build itself has no network. Needs root (debootstrap) and an engine.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import docker
import docker.errors
import requests

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "scripts")]

import image_build  # noqa: E402
from wheelhouse import fetch_wheels, pins_of  # noqa: E402

PACKAGES = ("libpython3.11", "python3", "python3-venv")
LOCK = ROOT / "requirements" / "embedded.txt"
DOCKERFILE = HERE / "Dockerfile.cpu"
REPOSITORY = "lotabots-triton-cpu"


def inputs_digest() -> str:
    """What the image is made from: another value means another image."""
    digest = hashlib.sha256("\0".join((image_build.SUITE, *PACKAGES, *image_build.NEEDLESS)).encode())
    digest.update(DOCKERFILE.read_bytes())
    digest.update(pins_of(LOCK.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()


def build(client: docker.APIClient, packages: Path) -> str:
    """Build it; `packages` keeps Debian's packages for the next time. Returns the image's id.

    Raises RuntimeError, OSError, subprocess.TimeoutExpired, docker.errors.DockerException.
    """
    with image_build.work_folder() as folder:
        context = folder / "context"
        context.mkdir()
        shutil.copyfile(DOCKERFILE, context / "Dockerfile")
        pins = context / "pins.txt"
        pins.write_text(pins_of(LOCK.read_text(encoding="utf-8")), encoding="utf-8")
        fetch_wheels(pins, context / "wheels")
        with image_build.debian(client, folder, packages, PACKAGES) as base:
            return image_build.build(client, context, f"{REPOSITORY}:{inputs_digest()[:16]}", BASE=base)


def main(arguments: Sequence[str]) -> int:
    """Build and save; prints the lines for lotabots.toml. 0 done, 3 something is missing or failed."""
    parser = argparse.ArgumentParser(prog="build-cpu-image", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", default="/run/docker.sock", metavar="SOCKET")
    parser.add_argument("--output", default="lotabots-triton-cpu.tar", metavar="FILE", type=Path)
    chosen = parser.parse_args(arguments)
    for fault, fix in image_build.missing():
        print(f"build-cpu-image: {fault}\n  fix: {fix}", file=sys.stderr)
        return 3
    try:
        client = image_build.engine_at(chosen.engine)
        image = build(client, ROOT / ".cache" / "cpu-image" / "packages")
        saved = image_build.save(client, image, chosen.output)
    except (docker.errors.DockerException, requests.RequestException) as error:
        print(
            f"build-cpu-image: {chosen.engine}: {error}\n  fix: {image_build.START_ENGINE}", file=sys.stderr
        )
        return 3
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        print(f"build-cpu-image: {error}\n  fix: mend the cause, then run this again", file=sys.stderr)
        return 3
    print(f'image = "{saved.image}"')
    print(f'image_archive = "{saved.archive.resolve()}"')
    print(f'image_archive_sha256 = "{saved.archive_sha256}"')
    print('backend = "python"')
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
