"""What knows the GPUs of this host, and the choice of it: NVML, or the null probe that says why not.

NVML is NVIDIA's management library; the package nvidia-ml-py wraps it as the module `pynvml`, which is
loaded only here and only when a probe is chosen.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

from .facts import GpuFacts, XidEvent


class Probe(Protocol):
    """What knows the GPUs of this host."""

    @property
    def source(self) -> str:
        """How the GPUs are looked for, or why there is nothing to look with."""
        ...

    def look(self) -> tuple[GpuFacts, ...]:
        """Every GPU that there is or was, by index. Never raises for a GPU that does not answer."""
        ...

    def events(self) -> tuple[XidEvent, ...]:
        """The faults since the last call, without waiting."""
        ...

    def close(self) -> None:
        """Let go of the driver."""
        ...


class NoGpus:
    """A host without GPUs."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    @property
    def source(self) -> str:
        return self._reason

    def look(self) -> tuple[GpuFacts, ...]:
        return ()

    def events(self) -> tuple[XidEvent, ...]:
        return ()

    def close(self) -> None:
        return


def choose_probe(load: Callable[[], Any] = lambda: importlib.import_module("pynvml")) -> Probe:
    """NVML where the driver is installed and answers; otherwise the null probe, which says why."""
    from .nvml import NvmlProbe

    try:
        nvml = load()
    except ImportError:
        return NoGpus("the package nvidia-ml-py is not installed")
    try:
        probe = NvmlProbe(nvml)
    except nvml.NVMLError as error:
        return NoGpus(f"NVML: {error}{_hint(nvml, error)}")
    return probe


def _hint(nvml: Any, error: Any) -> str:
    """What the two usual failures of NVML's start mean."""
    known = {
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: " (load it: modprobe nvidia; dmesg says why it is not)",
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: " (the driver was upgraded underneath: reboot the host)",
    }
    return known.get(error.value, "")
