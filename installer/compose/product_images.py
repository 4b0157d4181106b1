"""Build the images of compose.yaml with the container engine of this machine: the product, and its runtime.

`lotabots` is a Debian with the wheels of requirements/lock.txt and this checkout's own wheel;
`lotabots-runtime` is the processor image of Triton with the same product in it. Nothing is pulled, and no
build has a network.
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

import cpu_image  # noqa: E402
import image_build  # noqa: E402
from wheelhouse import fetch_wheels, pins_of  # noqa: E402

LOCK = ROOT / "requirements" / "lock.txt"
PACKAGES = ("python3", "python3-venv")
DEPENDENCIES = "lotabots-dependencies"
PRODUCT = "lotabots"
RUNTIME = "lotabots-runtime"
WHEEL_SECONDS = 120
# What the product's wheel is made from, and what containers need beside it.
_SOURCES = ("pyproject.toml", "setup.cfg", "README.md", "LICENSE")
_BESIDE = ("installer/compose/prepare.py", "installer/compose/health.py", "systemd/tmpfiles.d/lotabots.conf")


def dependencies_digest() -> str:
    """What the image under the product is made from: another value means another image."""
    digest = hashlib.sha256("\0".join((image_build.SUITE, *PACKAGES, *image_build.NEEDLESS)).encode())
    digest.update((HERE / "Dockerfile.dependencies").read_bytes())
    digest.update(pins_of(LOCK.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()


def build_dependencies(client: docker.APIClient, packages: Path) -> str:
    """The image under the product: Debian, users, and the locked wheels. Returns its id.

    Raises RuntimeError, OSError, subprocess.TimeoutExpired, docker.errors.DockerException.
    """
    with image_build.work_folder() as folder:
        context = folder / "context"
        context.mkdir()
        shutil.copyfile(HERE / "Dockerfile.dependencies", context / "Dockerfile")
        pins = context / "pins.txt"
        pins.write_text(pins_of(LOCK.read_text(encoding="utf-8")), encoding="utf-8")
        fetch_wheels(pins, context / "wheels")
        with image_build.debian(client, folder, packages, PACKAGES) as base:
            tag = f"{DEPENDENCIES}:{dependencies_digest()[:16]}"
            return image_build.build(client, context, tag, BASE=base)


def build_product(client: docker.APIClient, dependencies: str, tag: str) -> str:
    """The product of this checkout on its dependencies; returns the image's id. Raises as above."""
    with image_build.work_folder() as context:
        shutil.copyfile(HERE / "Dockerfile.lotabots", context / "Dockerfile")
        make_wheel(context)
        for name in _BESIDE:
            copy = context / Path(name).name
            shutil.copyfile(ROOT / name, copy)
            copy.chmod(0o644)  # whatever our umask is: users without rights read it
        return image_build.build(client, context, tag, DEPENDENCIES=dependencies)


def build_runtime(client: docker.APIClient, product: str, triton: str, tag: str) -> str:
    """The processor image of Triton with the product in it; returns the image's id. Raises as above."""
    with image_build.work_folder() as context:
        shutil.copyfile(HERE / "Dockerfile.runtime", context / "Dockerfile")
        return image_build.build(client, context, tag, PRODUCT=product, TRITON=triton)


def make_wheel(target: Path) -> Path:
    """The wheel of this checkout, made from a copy so that the checkout stays as it is.

    Raises RuntimeError with pip's last lines, OSError, subprocess.TimeoutExpired.
    """
    with image_build.work_folder() as source:
        for name in _SOURCES:
            shutil.copyfile(ROOT / name, source / name)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "lotabotsd", source / "lotabotsd", ignore=ignored)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"),
                *("--no-build-isolation", "--wheel-dir", str(target), str(source)),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WHEEL_SECONDS,
            check=False,
        )
    if done.returncode != 0:
        raise RuntimeError(f"the wheel cannot be built: {done.stderr.strip()[-1000:]}")
    (wheel,) = target.glob("lotabotsd-*.whl")
    return wheel


def main(arguments: Sequence[str]) -> int:
    """Build all; prints the images' ids. 0 done, 3 something is missing or failed."""
    parser = argparse.ArgumentParser(prog="build-images", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", default="/run/docker.sock", metavar="SOCKET")
    parser.add_argument("--tag", default="latest", help="how compose.yaml names them: LOTABOTS_TAG")
    chosen = parser.parse_args(arguments)
    for fault, fix in image_build.missing():
        print(f"build-images: {fault}\n  fix: {fix}", file=sys.stderr)
        return 3
    packages = ROOT / ".cache" / "cpu-image" / "packages"
    try:
        client = image_build.engine_at(chosen.engine)
        triton = cpu_image.build(client, packages)
        product = build_product(client, build_dependencies(client, packages), f"{PRODUCT}:{chosen.tag}")
        runtime = build_runtime(client, product, triton, f"{RUNTIME}:{chosen.tag}")
    except (docker.errors.DockerException, requests.RequestException) as error:
        print(f"build-images: {chosen.engine}: {error}\n  fix: {image_build.START_ENGINE}", file=sys.stderr)
        return 3
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        print(f"build-images: {error}\n  fix: mend the cause, then run this again", file=sys.stderr)
        return 3
    print(f"{PRODUCT}:{chosen.tag}  {product}")
    print(f"{RUNTIME}:{chosen.tag}  {runtime}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
