"""How GPUs are shown: narrow enough for a terminal, a part below its GPU, and what to do below the table."""

from __future__ import annotations

from typing import Any

from lotabotsd.cli.commands.gpus import gpus_text
from lotabotsd.daemon.gpus import gpu_value
from lotabotsd.gpu.facts import GpuFacts, GpuProcess, MigDevice, XidEvent

UUID = "GPU-1a2b3c4d-0000-4000-8000-000000000000"


def shown(*gpus: GpuFacts, events: frozenset[XidEvent] = frozenset()) -> list[str]:
    value: dict[str, Any] = {"items": [gpu_value(facts, events) for facts in gpus], "detail": "nvml"}
    return gpus_text(value).splitlines()


def large(**changes: Any) -> GpuFacts:
    """A GPU whose every column is as wide as it gets."""
    return GpuFacts(
        **{
            "index": 15,
            "uuid": UUID,
            "name": "NVIDIA RTX PRO 6000 Blackwell Server Edition",
            "driver": "580.95.05",
            "memory_total_bytes": 288 << 30,
            "memory_used_bytes": 287 << 30,
            "temperature_celsius": 100,
            "utilisation_percent": 100,
            "power_milliwatts": 1_199_600,
            "power_limit_milliwatts": 1_200_000,
            **changes,
        }
    )


def test_the_widest_gpu_fits_into_a_terminal() -> None:
    heading, row = shown(large())
    assert heading.split() == ["GPU", "NAME", "UUID", "MEMORY", "UTIL", "TEMP", "POWER", "HEALTH"]
    assert row == (
        "15   RTX PRO 6000 Blackw…  GPU-1a2b3c4d  287.0/288.0 GiB  100 %  100 °C  1200/1200 W  healthy"
    )
    assert max(map(len, shown(large(uncorrected_errors=1))[:2])) <= 96


def test_what_is_not_known_is_a_hyphen() -> None:
    _, row, *rest = shown(GpuFacts(0, UUID, "a GPU", "580", failure="GPU is lost"))
    assert row.split() == ["0", "a", "GPU", "GPU-1a2b3c4d", "-", "-", "-", "-", "critical"]
    assert rest == [
        "GPU 0, critical: it does not answer: GPU is lost",
        "    fix: reboot the host: systemctl reboot",
    ]


def test_parts_stand_below_their_gpu() -> None:
    parts = (
        MigDevice("MIG-11111111-2222", "1g.10gb", 7, 0, 10 << 30, 0),
        MigDevice("MIG-33333333-4444", "1c.2g.20gb", 3, 1, 20 << 30, 1 << 30),
    )
    _, _, first, second = shown(large(mig=True, mig_devices=parts))
    assert first.split() == ["15.7", "MIG", "1g.10gb", "MIG-11111111", "0.0/10.0", "GiB", *["-"] * 4]
    assert second.split()[:3] == ["15.3.1", "MIG", "1c.2g.20gb"]


def test_a_reset_names_who_uses_the_gpu() -> None:
    lines = shown(large(uncorrected_errors=2, processes=(GpuProcess(4_711, 300 << 20),)))
    assert lines[2] == "GPU 15, critical: 2 uncorrected memory errors"
    assert f"nvidia-smi --gpu-reset -i {UUID}" in lines[3]
    assert lines[3].endswith("(in use by process 4711 (300 MiB): all must have ended)")


def test_an_applications_fault_is_a_warning_with_nothing_to_reset() -> None:
    lines = shown(large(), events=frozenset({XidEvent(UUID, 13)}))
    assert lines[2:] == [
        "GPU 15, warning: XID 13: an application failed on it",
        "    fix: nothing to do yet; if it stays: nvidia-smi -q",
    ]


def test_without_gpus_the_reason_stands_there() -> None:
    text = gpus_text({"items": [], "detail": "NVML: NVML Shared Library Not Found"})
    assert text == "none: NVML: NVML Shared Library Not Found"
