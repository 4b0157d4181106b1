"""What is known of one GPU at one moment. Pure.

A value that this GPU or driver does not give is None; a GPU that does not answer has a `failure`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MigDevice:
    """One part of a GPU that is divided (MIG): for programs a device of its own."""

    uuid: str
    profile: str  # as nvidia-smi writes it: "1g.10gb"
    gpu_instance: int
    compute_instance: int
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process of this host that uses a GPU; other users' memory may be hidden."""

    pid: int
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """One GPU as the driver describes it."""

    index: int
    uuid: str
    name: str
    driver: str
    vbios: str = ""
    serial: str = ""
    pci_bus_id: str = ""
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    memory_free_bytes: int | None = None  # less than total - used: the driver holds some back
    temperature_celsius: int | None = None
    memory_celsius: int | None = None
    slowdown_celsius: int | None = None  # where the hardware begins to slow itself down
    power_milliwatts: int | None = None
    power_limit_milliwatts: int | None = None
    energy_millijoules: int | None = None  # since the driver was loaded
    utilisation_percent: int | None = None  # time in the last sample period with a kernel running
    memory_busy_percent: int | None = None  # time in it with memory being read or written
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    pcie_replays: int | None = None
    mig: bool | None = None
    mig_devices: tuple[MigDevice, ...] = ()
    confidential: bool | None = None  # confidential computing is on
    throttle_reasons: int = 0  # bits of nvmlClocksEventReason*
    uncorrected_errors: int | None = None  # of the memory, since the driver was loaded
    remapped_corrected: int | None = None  # memory rows replaced after corrected errors
    remapped_uncorrected: int | None = None
    remap_pending: bool | None = None  # a memory row waits for a reset to be replaced
    remap_failed: bool | None = None  # there are no spare rows left
    recovery_action: int | None = None  # NVML_GPU_RECOVERY_ACTION_*: what the driver advises
    processes: tuple[GpuProcess, ...] = ()
    failure: str = ""  # why the GPU could not be asked


@dataclass(frozen=True, slots=True)
class XidEvent:
    """A fault that the driver reported (NVIDIA, "XID Errors")."""

    uuid: str  # empty when the GPU was gone before it could be named
    xid: int


def without_answer(known: GpuFacts, reason: str) -> GpuFacts:
    """What is left of a GPU that does not answer: which one it is, and why."""
    return GpuFacts(
        known.index,
        known.uuid,
        known.name,
        known.driver,
        vbios=known.vbios,
        serial=known.serial,
        pci_bus_id=known.pci_bus_id,
        failure=reason,
    )
