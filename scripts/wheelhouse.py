"""Fetch what a lock names as wheels for Debian 12's Python, so that it can be installed without a network.

pip fetches them as it fetches anything else on this machine (its index, proxy, certificates and cache).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

FETCH_SECONDS = 600
_PYTHON = {"python_version": "3.11", "python_full_version": "3.11.2", "sys_platform": "linux"}
_PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(5, 37)] + [
    "manylinux2014_x86_64",
    "linux_x86_64",
]


def pins_of(lock: str) -> str:
    """The lock's lines that hold for Debian's Python: pip judges them by the Python that it runs on."""
    kept = []
    for line in lock.replace("\\\n", " ").splitlines():
        pin, *hashes = line.partition("#")[0].split(" --hash=")
        if pin.strip():
            requirement = Requirement(pin.strip())
            if requirement.marker is None or requirement.marker.evaluate(dict(_PYTHON)):
                known = "".join(f" --hash={each.strip()}" for each in hashes)
                kept.append(f"{requirement.name}{requirement.specifier}{known}\n")
    return "".join(kept)


def fetch_wheels(pins: Path, wheels: Path) -> None:
    """Fetch every wheel of `pins`, digests checked, into `wheels`.

    Raises RuntimeError with pip's last lines, OSError, subprocess.TimeoutExpired.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
            *("--only-binary=:all:", "--implementation=cp", "--python-version=3.11"),
            *("--abi=cp311", "--abi=abi3", "--abi=none", *(f"--platform={each}" for each in _PLATFORMS)),
            *("--dest", str(wheels), "--requirement", str(pins)),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=FETCH_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"pip could not fetch the wheels: {done.stderr.strip()[-1000:]}")
