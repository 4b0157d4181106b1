"""From the library to the finding: the daemon's picture of a GPU that fails, with what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.required
Ask = Callable[..., Any]


def test_a_gpu_that_is_well_has_nothing_to_do(host: Any, ask: Ask) -> None:
    first, _ = ask("daemon")("value")["items"]
    assert (first["health"], first["detail"], first["hint"], first["commands"]) == ("healthy", "", "", [])
    assert (first["memory_used_mib"], first["power_watts"], first["power_limit_watts"]) == (3_072, 71.5, 700)


def test_a_driver_without_gpus_says_so(host: Any, ask: Ask) -> None:
    host.gpus.clear()
    host.write()
    assert ask("daemon")("value") == {"items": [], "detail": "the driver lists none"}


def test_uncorrectable_errors_name_the_reset_and_who_must_end_first(host: Any, ask: Ask, nvml: Any) -> None:
    host.change(
        0,
        ecc={"corrected": 9, "uncorrected": 2},
        processes=[{"pid": 4_711, "memory": 300 << 20}],
    )
    first, second = ask("daemon")("value")["items"]
    assert (first["health"], first["detail"]) == ("critical", "2 uncorrected memory errors")
    assert first["commands"] == [
        "systemctl stop lotabots.target",
        f"nvidia-smi --gpu-reset -i {nvml.uuid(0)}",
        "systemctl start lotabots.target",
    ]
    assert first["hint"].endswith("(in use by process 4711 (300 MiB): all must have ended)")
    assert second["health"] == "healthy"


def test_a_gpu_that_falls_off_the_bus_keeps_its_fault_and_needs_a_reboot(
    host: Any, ask: Ask, nvml: Any
) -> None:
    probe = ask("daemon")
    host.xid(nvml.uuid(1), 79)
    host.change(1, off_the_bus=True)
    first, second = probe("value")["items"]
    assert first["health"] == "healthy"
    assert second["health"] == "critical"
    assert second["detail"] == "XID 79: the GPU or its driver failed; it does not answer: GPU is lost"
    assert second["commands"] == ["systemctl reboot"]


@pytest.mark.parametrize(("xid", "health"), [(13, "warning"), (109, "warning"), (48, "critical")])
def test_a_fault_stays_until_the_daemon_starts_anew(
    host: Any, ask: Ask, nvml: Any, xid: int, health: str
) -> None:
    probe = ask("daemon")
    host.xid(nvml.uuid(0), xid)
    for _ in range(3):
        assert [item["health"] for item in probe("value")["items"]] == [health, "healthy"]


def test_the_drivers_own_advice_is_what_is_told(host: Any, ask: Ask, nvml: Any) -> None:
    host.change(0, recovery_action=4)
    first, _ = ask("daemon")("value")["items"]
    assert first["detail"] == "the driver advises: end the programs on it, then reset the GPU"
    assert f"nvidia-smi --gpu-reset -i {nvml.uuid(0)}" in first["hint"]


def test_the_parts_of_a_divided_gpu_are_shown(host: Any, ask: Ask, nvml: Any) -> None:
    host.change(0, mig=1, mig_devices=[nvml.mig_device(0, 7)])
    first, _ = ask("daemon")("value")["items"]
    assert [(part["profile"], part["memory_used_mib"]) for part in first["mig_devices"]] == [("1g.10gb", 12)]
