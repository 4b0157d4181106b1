"""Whether this machine has room for a second Triton beside the one that serves."""

from __future__ import annotations

from pathlib import Path

from lotabotsd.foundation.config import RuntimeConfig

MEMINFO = Path("/proc/meminfo")


def why_not_beside(runtime: RuntimeConfig, meminfo: Path = MEMINFO) -> str:
    """Why another image must take the place of the one that serves; empty where both have room.

    The second one may use as much as runtime.memory_bytes. The memory of GPUs is not looked at.
    """
    if runtime.upgrade == "replace":
        return 'runtime.upgrade is "replace"'
    if runtime.transport == "tcp":
        return "two cannot have the same ports"
    free = available_bytes(meminfo)
    if free < runtime.memory_bytes:
        return f"{free >> 20} MiB are free, runtime.memory_bytes are {runtime.memory_bytes >> 20} MiB"
    return ""


def available_bytes(meminfo: Path = MEMINFO) -> int:
    """What this machine could give to another process; 0 where it does not say."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return 0
