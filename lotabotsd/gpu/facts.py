"""What is known of one GPU at one moment. Pure.

A value that this GPU or driver does not give is None; a GPU that does not answer has a `failure`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """One GPU as the driver describes it."""

    index: int
    uuid: str
    name: str
    driver: str
    vbios: str = ""
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    temperature_celsius: int | None = None
    slowdown_celsius: int | None = None  # where the hardware begins to slow itself down
    power_milliwatts: int | None = None
    utilisation_percent: int | None = None  # time in the last sample period with a kernel running
    mig: bool | None = None
    throttle_reasons: int = 0  # bits of nvmlClocksEventReason*
    uncorrected_errors: int | None = None  # of the memory, since the driver was loaded
    remap_pending: bool | None = None  # a memory row waits for a reset to be replaced
    remap_failed: bool | None = None  # there are no spare rows left
    recovery_action: str = ""  # what the driver advises; empty where it gives none
    failure: str = ""  # why the GPU could not be asked


@dataclass(frozen=True, slots=True)
class XidEvent:
    """A fault that the driver reported (NVIDIA, "XID Errors")."""

    uuid: str  # empty when the GPU was gone before it could be named
    xid: int
