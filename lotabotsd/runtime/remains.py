"""Clear away what dead runs of Triton left: orphan Python stubs, shared memory, sockets."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Triton's Python backend puts its regions
PROC = Path("/proc")


def shared_memory_prefix(state: Path, run_id: str = "") -> str:
    """What names the regions of this appliance's runs, of one run when `run_id` is given.

    The state directory is in it as a hash, so that two appliances on one machine do not clear each other's.
    """
    tag = hashlib.sha256(os.fsencode(state)).hexdigest()[:12]
    return f"lotabots-{tag}-{run_id}"


def clear_shared_memory(prefix: str, directory: Path = SHARED_MEMORY) -> int:
    """Remove the regions whose names begin with `prefix`; call it only while none of their runs lives.

    Returns how many there were.
    """
    removed = 0
    for path in directory.glob(f"{prefix}*"):
        try:
            path.unlink()
            removed += 1
        except OSError as error:
            log.warning("%s could not be removed: %s", path, error.strerror)
    return removed


def end_orphans(stub: Path, proc: Path = PROC) -> int:
    """Kill processes that run our own copy of the Python stub; call it only while no Triton lives.

    Our copy's path names this appliance, so nobody else's stub is hit. Returns how many.
    """
    ended = 0
    for process in proc.iterdir():
        if not process.name.isdigit():
            continue
        try:
            running = os.readlink(process / "exe").removesuffix(" (deleted)")  # noqa: PTH115 - not a path
            if running == str(stub):
                os.kill(int(process.name), signal.SIGKILL)
                ended += 1
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return ended


def clear_sockets(files: Iterable[Path]) -> None:
    """Remove socket files that a run before left; Triton does not start over them."""
    for path in files:
        path.unlink(missing_ok=True)


def clear_bytecode(repository: Path) -> None:
    """Remove what Python stubs compiled beside models: only files that a digest covers may be run."""
    for path in repository.glob("*/*/__pycache__/*.pyc"):
        path.unlink(missing_ok=True)
