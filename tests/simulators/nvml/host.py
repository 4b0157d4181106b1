"""A host with NVIDIA GPUs that are not there: the stand-in library, its file, and the probe's environment."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LIBRARY = "libnvidia-ml.so.1"
STATE_VARIABLE = "LOTABOTS_NVML_STATE"
SOURCES = ("nvml.c", "state.c", "json.c")
GIB = 1 << 30
ERRORS = {
    "invalid_argument": 2,
    "not_supported": 3,
    "no_permission": 4,
    "driver_not_loaded": 9,
    "function_not_found": 13,
    "gpu_is_lost": 15,
    "version_mismatch": 18,
    "unknown": 999,
}


class NoCompilerError(Exception):
    """There is nothing to build the library with; the text names the command that changes it."""


def build(folder: Path) -> Path:
    """Build the library into `folder`, unless it is there; returns the folder. Raises NoCompilerError."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NoCompilerError("no C compiler here; enable it: apt-get install gcc libc6-dev")
    if not (folder / LIBRARY).exists():
        made = folder / f"{LIBRARY}.{os.getpid()}"
        flags = (
            "-std=gnu11",
            "-O1",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-fPIC",
            "-shared",
            "-fvisibility=hidden",
        )
        subprocess.run(
            [compiler, *flags, f"-Wl,-soname,{LIBRARY}", "-o", str(made), *(str(HERE / s) for s in SOURCES)],
            check=True,
            timeout=120,
        )
        made.rename(folder / LIBRARY)
    return folder


def uuid(number: int) -> str:
    """The UUID of the GPU with this number."""
    return f"GPU-{number:08x}-0000-4000-8000-0000000000{number:02x}"


def gpu(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A GPU that is well and does nothing; `changes` replace its values."""
    return {
        "uuid": uuid(number),
        "name": "NVIDIA H100 80GB HBM3",
        "serial": f"165042300000{number}",
        "vbios": "96.00.74.00.01",
        "pci_bus_id": f"00000000:{0x17 + number:02X}:00.0",
        "memory": {"total": 80 * GIB, "used": 3 * GIB, "reserved": GIB},
        "utilisation": {"gpu": 12, "memory": 3},
        "temperature": 41,
        "memory_temperature": 44,
        "slowdown_temperature": 87,
        "shutdown_temperature": 92,
        "power_milliwatts": 71_500,
        "power_limit_milliwatts": 700_000,
        "energy_millijoules": 123_456_789_012,
        "clocks": {"graphics": 1_980, "sm": 1_980, "memory": 2_619, "video": 1_545},
        "clocks_event_reasons": 1,
        "ecc": {"corrected": 0, "uncorrected": 0},
        "ecc_lifetime": {"corrected": 0, "uncorrected": 0},
        "remapped_rows": {"corrected": 0, "uncorrected": 0, "pending": 0, "failed": 0},
        "pcie_replays": 0,
        "recovery_action": 0,
        "mig": 0,
        "processes": [],
        **copy.deepcopy(changes),
    }


def mig_device(number: int, instance: int, profile: str = "1g.10gb") -> dict[str, Any]:
    """A seventh of a divided GPU."""
    return {
        "uuid": f"MIG-{number:08x}-0000-4000-8000-0000000000{instance:02x}",
        "name": f"NVIDIA H100 80GB HBM3 MIG {profile}",
        "gpu_instance": instance,
        "compute_instance": 0,
        "memory": {"total": 10 * GIB, "used": 12 << 20},
        "attributes": {
            "multiprocessors": 16, "gpu_slices": 1, "compute_slices": 1, "memory_mib": 9_984
        },
    }  # fmt: skip


class Host:
    """The file that says how the GPUs are. Each change is written as a whole, so that none is half read."""

    def __init__(self, library: Path, path: Path, *gpus: dict[str, Any]) -> None:
        self._library = library
        self._path = path
        self._events = 0
        self.state: dict[str, Any] = {
            "driver_version": "580.95.05",
            "nvml_version": "13.580.95.05",
            "confidential_computing": {"environment": 0, "feature": 0, "dev_tools_mode": 0},
            "fails": {},
            "hangs_ms": {},
            "gpus": list(gpus),
            "events": [],
        }
        self.write()

    @property
    def gpus(self) -> list[dict[str, Any]]:
        """The GPUs, to be changed before `write`."""
        found: list[dict[str, Any]] = self.state["gpus"]
        return found

    def write(self) -> None:
        """Let the library see what was changed."""
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps(self.state, indent=1))
        beside.rename(self._path)

    def change(self, number: int, **changes: Any) -> None:
        """Change one GPU's values."""
        self.gpus[number].update(changes)
        self.write()

    def fail(self, function: str, error: str) -> None:
        """Let a function fail for all GPUs."""
        self.state["fails"][function] = ERRORS[error]
        self.write()

    def hang(self, function: str, milliseconds: int) -> None:
        """Let calls of a function take so long; 0 ends those that wait already."""
        self.state["hangs_ms"][function] = milliseconds
        self.write()

    def xid(self, gpu_uuid: str, number: int, kind: int = 8) -> None:
        """Let the driver report a fault."""
        self._events += 1
        event = {"number": self._events, "uuid": gpu_uuid, "xid": number, "type": kind}
        self.state["events"].append(event)
        self.write()

    def environment(self) -> dict[str, str]:
        """What a process needs to find these GPUs."""
        beside = os.environ.get("LD_LIBRARY_PATH", "")
        return {
            **os.environ,
            STATE_VARIABLE: str(self._path),
            "LD_LIBRARY_PATH": f"{self._library}:{beside}" if beside else str(self._library),
        }
