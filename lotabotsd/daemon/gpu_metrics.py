"""The GPUs' metrics under the names that NVIDIA's dcgm-exporter gives them. Pure.

Names, units, types and labels are those of dcgm-exporter's default list, so that dashboards and alerts made
for it work. Not all of its fields come from NVML: encoder, decoder, NVLink and vGPU series are not here.
A part of a divided GPU (MIG) has its own memory series, told apart by GPU_I_PROFILE and GPU_I_ID.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from lotabotsd.gpu.facts import GpuFacts, MigDevice
from lotabotsd.gpu.health import Level

from .exposition import Family, Sample, counter, gauge

_MEBIBYTE = 1024 * 1024
_Reading = Callable[[GpuFacts], float | None]


def _mebibytes(count: int | None) -> float | None:
    return None if count is None else count // _MEBIBYTE


def _watts(facts: GpuFacts) -> float | None:
    return None if facts.power_milliwatts is None else facts.power_milliwatts / 1_000


def _flag(value: bool | None) -> float | None:
    return None if value is None else float(value)


_GAUGES: tuple[tuple[str, str, _Reading], ...] = (
    ("DCGM_FI_DEV_SM_CLOCK", "SM clock frequency (in MHz).", lambda f: f.sm_clock_mhz),
    ("DCGM_FI_DEV_MEM_CLOCK", "Memory clock frequency (in MHz).", lambda f: f.memory_clock_mhz),
    ("DCGM_FI_DEV_MEMORY_TEMP", "Memory temperature (in C).", lambda f: f.memory_celsius),
    ("DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C).", lambda f: f.temperature_celsius),
    ("DCGM_FI_DEV_POWER_USAGE", "Power draw (in W).", _watts),
    ("DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %).", lambda f: f.utilisation_percent),
    ("DCGM_FI_DEV_MEM_COPY_UTIL", "Memory utilization (in %).", lambda f: f.memory_busy_percent),
    (
        "DCGM_FI_DEV_ROW_REMAP_FAILURE",
        "Whether remapping of rows has failed.",
        lambda f: _flag(f.remap_failed),
    ),
)
_COUNTERS: tuple[tuple[str, str, _Reading], ...] = (
    (
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        "Total energy consumption since the driver was loaded (in mJ).",
        lambda f: f.energy_millijoules,
    ),
    ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "Total number of PCIe retries.", lambda f: f.pcie_replays),
    (
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
        "Total number of uncorrected memory errors since the driver was loaded.",
        lambda f: f.uncorrected_errors,
    ),
    (
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        "Number of remapped rows for uncorrectable errors.",
        lambda f: f.remapped_uncorrected,
    ),
    (
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
        "Number of remapped rows for correctable errors.",
        lambda f: f.remapped_corrected,
    ),
)


def gpu_families(
    gpus: tuple[GpuFacts, ...], levels: Mapping[str, Level], last_xid: Mapping[str, int]
) -> Iterator[Family]:
    """Every family of the GPUs; `levels` and `last_xid` by UUID. A GPU without an answer has no readings."""
    for name, text, reading in _GAUGES:
        yield gauge(name, text, _samples(gpus, reading))
    for name, text, reading in _COUNTERS:
        yield counter(name, text, _samples(gpus, reading))
    yield gauge(
        "DCGM_FI_DEV_XID_ERRORS",
        "Value of the last XID error encountered since lotabotsd started; 0: none.",
        _samples(gpus, lambda f: last_xid.get(f.uuid, 0)),
    )
    yield gauge("DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB).", _memory(gpus, _used, _part_used))
    yield gauge("DCGM_FI_DEV_FB_FREE", "Framebuffer memory free (in MiB).", _memory(gpus, _free, _part_free))
    yield gauge(
        "lotabots_gpu_health",
        "0: healthy, 1: something is not right, 2: it does not work or must not be trusted.",
        [Sample(levels.get(f.uuid, Level.CRITICAL), {"gpu": str(f.index), "uuid": f.uuid}) for f in gpus],
    )


def _labels(facts: GpuFacts) -> dict[str, str]:
    return {
        "gpu": str(facts.index),
        "UUID": facts.uuid,
        "pci_bus_id": facts.pci_bus_id,
        "device": f"nvidia{facts.index}",
        "modelName": facts.name,
    }


def _samples(gpus: tuple[GpuFacts, ...], reading: _Reading) -> list[Sample]:
    found = ((facts, reading(facts)) for facts in gpus if not facts.failure)
    return [Sample(value, _labels(facts)) for facts, value in found if value is not None]


def _memory(
    gpus: tuple[GpuFacts, ...], reading: _Reading, of_part: Callable[[MigDevice], float | None]
) -> list[Sample]:
    samples = _samples(gpus, reading)
    for facts in gpus:
        for part in facts.mig_devices:
            value = of_part(part)
            if value is not None:
                more = {"GPU_I_PROFILE": part.profile, "GPU_I_ID": str(part.gpu_instance)}
                if part.compute_instance:  # several devices in one GPU instance
                    more["compute_instance"] = str(part.compute_instance)
                samples.append(Sample(value, {**_labels(facts), **more}))
    return samples


def _used(facts: GpuFacts) -> float | None:
    return _mebibytes(facts.memory_used_bytes)


def _free(facts: GpuFacts) -> float | None:
    return _mebibytes(facts.memory_free_bytes)


def _part_used(part: MigDevice) -> float | None:
    return _mebibytes(part.memory_used_bytes)


def _part_free(part: MigDevice) -> float | None:
    if part.memory_total_bytes is None or part.memory_used_bytes is None:
        return None
    return _mebibytes(part.memory_total_bytes - part.memory_used_bytes)
