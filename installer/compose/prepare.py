"""Make the appliance's directories in the volumes, and put its configuration where nobody else writes.

Runs in a container as root, with the rights to make and give away directories and no others, and ends. The
directories are those of systemd/tmpfiles.d/lotabots.conf, which lies beside this file; CHANGED says what is
otherwise in containers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TMPFILES = Path(__file__).resolve().parent / "lotabots.conf"
GIVEN = Path("/config/lotabots.toml")
CONFIG = Path("/etc/lotabots/lotabots.toml")
LOTABOTSD = "/opt/lotabots/current/venv/bin/lotabotsd"


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory as tmpfiles.d names it."""

    path: Path
    mode: int
    user: str
    group: str


# Part of the image, or of the container runtime alone.
NOT_HERE = frozenset({Path("/run/lotabots"), Path("/run/lotabots/runtime")})
# No service manager binds the helper's socket for it: it does so itself, and is not root.
CHANGED = {
    Path("/run/lotabots/helper"): Directory(
        Path("/run/lotabots/helper"), 0o2750, "lotabots-triton", "lotabots"
    )
}


def directories(text: str) -> Iterator[Directory]:
    """The directories to make, parents first."""
    for line in text.splitlines():
        kind, *fields = line.split() or ("#",)
        if kind != "d":
            continue
        path, mode, user, group = fields
        if Path(path) not in NOT_HERE:
            yield CHANGED.get(Path(path), Directory(Path(path), int(mode, 8), user, group))


def make(wanted: Directory) -> None:
    """Make it, or bring it into shape. Raises OSError, LookupError for an unknown user or group."""
    wanted.path.mkdir(exist_ok=True)
    shutil.chown(wanted.path, wanted.user, wanted.group)
    wanted.path.chmod(wanted.mode)  # after chown, which takes the s bit away


def install_config() -> int:
    """Check the given configuration and put it in place, whole; `lotabotsd check-config`'s exit code."""
    checked = subprocess.run([LOTABOTSD, "check-config", str(GIVEN)], check=False)
    if checked.returncode == 0:
        new = CONFIG.with_suffix(".new")
        shutil.copyfile(GIVEN, new)
        shutil.chown(new, "root", "root")
        new.chmod(0o644)
        new.rename(CONFIG)
    return checked.returncode


def main() -> int:
    """0 done, 1 a directory cannot be made, 5 the configuration is not valid."""
    os.umask(0o022)
    try:
        for wanted in directories(TMPFILES.read_text(encoding="utf-8")):
            make(wanted)
        return install_config()
    except (OSError, LookupError) as error:
        print(f"prepare: {error}\n  fix: look at the volumes of the service init", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
