"""The real probe over the stand-in for libnvidia-ml.so.1: what it tells, and what each failure becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lotabotsd.gpu.probe import NoGpus, choose_probe

pytestmark = pytest.mark.required
Ask = Callable[..., Any]

# Every question about a GPU that may be asked in vain, and what is then not known.
OPTIONAL = {
    "nvmlDeviceGetVbiosVersion": {"vbios": ""},
    "nvmlDeviceGetSerial": {"serial": ""},
    "nvmlDeviceGetPciInfo_v3": {"pci_bus_id": ""},
    "nvmlDeviceGetUtilizationRates": {"utilisation_percent": None, "memory_busy_percent": None},
    "nvmlDeviceGetTemperature": {"temperature_celsius": None},
    "nvmlDeviceGetTemperatureThreshold": {"slowdown_celsius": None},
    "nvmlDeviceGetPowerUsage": {"power_milliwatts": None},
    "nvmlDeviceGetEnforcedPowerLimit": {"power_limit_milliwatts": None},
    "nvmlDeviceGetTotalEnergyConsumption": {"energy_millijoules": None},
    "nvmlDeviceGetClockInfo": {"sm_clock_mhz": None, "memory_clock_mhz": None},
    "nvmlDeviceGetPcieReplayCounter": {"pcie_replays": None},
    "nvmlDeviceGetCurrentClocksEventReasons": {"throttle_reasons": 0},
    "nvmlDeviceGetTotalEccErrors": {"uncorrected_errors": None},
    "nvmlDeviceGetRemappedRows": {
        "remapped_corrected": None, "remapped_uncorrected": None, "remap_pending": None, "remap_failed": None
    },
    "nvmlDeviceGetFieldValues": {"memory_celsius": None, "recovery_action": None},
    "nvmlDeviceGetMigMode": {"mig": None},
    "nvmlDeviceGetComputeRunningProcesses_v3": {"processes": []},
}  # fmt: skip
NEEDED = ("nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID", "nvmlDeviceGetName")


def test_a_gpu_is_described_in_whole_numbers_with_their_units(host: Any, ask: Ask, nvml: Any) -> None:
    host.change(1, processes=[{"pid": 4_711, "memory": 300 << 20}, {"pid": 4_712}], clocks_event_reasons=0x44)
    probe = ask()
    assert probe("source") == "nvml"
    first, second = probe("look")
    assert first == {
        "index": 0,
        "uuid": nvml.uuid(0),
        "name": "NVIDIA H100 80GB HBM3",
        "driver": "580.95.05",
        "vbios": "96.00.74.00.01",
        "serial": "1650423000000",
        "pci_bus_id": "00000000:17:00.0",
        "memory_total_bytes": 80 << 30,
        "memory_used_bytes": 3 << 30,
        "memory_free_bytes": 76 << 30,
        "temperature_celsius": 41,
        "memory_celsius": 44,
        "slowdown_celsius": 87,
        "power_milliwatts": 71_500,
        "power_limit_milliwatts": 700_000,
        "energy_millijoules": 123_456_789_012,
        "utilisation_percent": 12,
        "memory_busy_percent": 3,
        "sm_clock_mhz": 1_980,
        "memory_clock_mhz": 2_619,
        "pcie_replays": 0,
        "mig": False,
        "mig_devices": [],
        "confidential": False,
        "throttle_reasons": 1,
        "uncorrected_errors": 0,
        "remapped_corrected": 0,
        "remapped_uncorrected": 0,
        "remap_pending": False,
        "remap_failed": False,
        "recovery_action": 0,
        "processes": [],
        "failure": "",
    }
    assert (second["index"], second["uuid"], second["throttle_reasons"]) == (1, nvml.uuid(1), 0x44)
    assert second["processes"] == [
        {"pid": 4_711, "memory_bytes": 300 << 20},
        {"pid": 4_712, "memory_bytes": None},
    ]


@pytest.mark.parametrize(
    "error", ["not_supported", "no_permission", "function_not_found", "invalid_argument"]
)
def test_what_a_gpu_does_not_have_is_unknown_and_no_failure(
    host: Any, ask: Ask, nvml: Any, error: str
) -> None:
    probe = ask()
    _, whole = probe("look")
    for question, unknown in OPTIONAL.items():
        host.change(1, fails={question: nvml.ERRORS[error]})
        assert probe("look")[1] == {**whole, **unknown}, question


def test_a_gpu_without_memory_of_its_own_is_no_failure(host: Any, ask: Ask) -> None:
    host.change(0, memory={})
    first, _ = ask()("look")
    assert (first["memory_total_bytes"], first["failure"]) == (None, "")


def test_an_old_driver_counts_its_own_share_as_used(host: Any, ask: Ask, nvml: Any) -> None:
    host.fail("nvmlDeviceGetMemoryInfo_v2", "function_not_found")
    first, _ = ask()("look")
    assert (first["memory_used_bytes"], first["memory_free_bytes"]) == (4 << 30, 76 << 30)


def test_a_gpu_that_is_lost_during_any_question_keeps_its_name_and_has_a_failure(
    host: Any, ask: Ask, nvml: Any
) -> None:
    probe = ask()
    before = probe("look")
    for question in (*NEEDED, "nvmlDeviceGetMemoryInfo_v2", *OPTIONAL):
        host.change(0, fails={question: nvml.ERRORS["gpu_is_lost"]})
        first, second = probe("look")
        assert first["failure"] == "GPU is lost", question
        assert (first["uuid"], first["name"]) == (nvml.uuid(0), before[0]["name"]), question
        assert first["temperature_celsius"] is None
        assert second == before[1]
    host.change(0, fails={})
    assert probe("look") == before, "a GPU that comes back is well again"


@pytest.mark.parametrize(("script", "says"), [("lost", "GPU is lost"), ("off_the_bus", "GPU is lost")])
def test_a_gpu_that_is_gone_is_told_by_its_name(
    host: Any, ask: Ask, nvml: Any, script: str, says: str
) -> None:
    probe = ask()
    probe("look")
    host.change(1, **{script: True})
    _, second = probe("look")
    assert (second["uuid"], second["failure"]) == (nvml.uuid(1), says)


def test_a_gpu_that_never_answered_is_listed_without_a_name(host: Any, ask: Ask) -> None:
    host.change(0, off_the_bus=True)
    first, _ = ask()("look")
    assert (first["index"], first["uuid"], first["name"]) == (0, "", "unknown GPU")
    assert first["failure"] == "GPU is lost"


@pytest.mark.parametrize("gone", [0, 1])
def test_a_gpu_that_the_driver_no_longer_lists_is_not_forgotten(
    host: Any, ask: Ask, nvml: Any, gone: int
) -> None:
    probe = ask()
    probe("look")
    host.gpus.pop(gone)
    host.write()
    found = {facts["uuid"]: facts["failure"] for facts in probe("look")}
    assert found == {nvml.uuid(gone): "the driver no longer lists it", nvml.uuid(1 - gone): ""}
    assert {facts["uuid"]: facts["failure"] for facts in probe("look")} == found


def test_a_driver_that_goes_away_fails_every_known_gpu_until_it_is_back(
    host: Any, ask: Ask, nvml: Any
) -> None:
    probe = ask()
    before = probe("look")
    host.fail("nvmlDeviceGetCount_v2", "driver_not_loaded")
    host.fail("nvmlInitWithFlags", "driver_not_loaded")
    assert [(facts["uuid"], facts["failure"]) for facts in probe("look")] == [
        (nvml.uuid(0), "Driver Not Loaded"),
        (nvml.uuid(1), "Driver Not Loaded"),
    ]
    host.state["fails"].clear()
    host.write()
    assert probe("look") == before
    host.xid(nvml.uuid(1), 48)
    assert probe("events") == [{"uuid": nvml.uuid(1), "xid": 48}], "events are registered anew"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("driver_not_loaded", "NVML: Driver Not Loaded (load it: modprobe nvidia; dmesg says why it is not)"),
        (
            "version_mismatch",
            "NVML: RM has detected an NVML/RM version mismatch. "
            "(the driver was upgraded underneath: reboot the host)",
        ),
        ("unknown", "NVML: Unknown Error"),
    ],
)
def test_a_driver_that_does_not_start_is_the_null_probe_with_the_reason(
    host: Any, ask: Ask, error: str, says: str
) -> None:
    host.fail("nvmlInitWithFlags", error)
    probe = ask()
    assert probe("source") == says
    assert probe("look") == []
    assert probe("events") == []
    assert probe("close") is None


def test_a_divided_gpu_lists_its_parts(host: Any, ask: Ask, nvml: Any) -> None:
    parts = [nvml.mig_device(0, 7), {**nvml.mig_device(0, 9), "name": "NVIDIA H100"}]
    host.change(0, mig=1, mig_devices=parts)
    probe = ask()
    first, second = probe("look")
    assert (first["mig"], second["mig"], second["mig_devices"]) == (True, False, [])
    assert first["mig_devices"][0] == {
        "uuid": parts[0]["uuid"],
        "profile": "1g.10gb",
        "gpu_instance": 7,
        "compute_instance": 0,
        "memory_total_bytes": 10 << 30,
        "memory_used_bytes": 12 << 20,
    }
    assert first["mig_devices"][1]["profile"] == "1g.10gb", "made from its slices where the name lacks it"


def test_confidential_computing_and_the_drivers_advice_are_reported(host: Any, ask: Ask) -> None:
    host.state["confidential_computing"]["feature"] = 1
    host.change(0, recovery_action=2)
    first, second = ask()("look")
    assert (first["confidential"], first["recovery_action"], second["recovery_action"]) == (True, 2, 0)


def test_faults_are_told_once_in_their_order(host: Any, ask: Ask, nvml: Any) -> None:
    probe = ask()
    host.xid(nvml.uuid(1), 48)
    host.xid(nvml.uuid(0), 13)
    host.xid(nvml.uuid(0), 1, kind=2)  # another kind of event
    assert probe("events") == [{"uuid": nvml.uuid(1), "xid": 48}, {"uuid": nvml.uuid(0), "xid": 13}]
    assert probe("events") == []


def test_the_fault_of_a_gpu_that_is_gone_is_kept_without_a_name(host: Any, ask: Ask, nvml: Any) -> None:
    probe = ask()
    probe("look")
    host.change(0, lost=True)
    host.xid(nvml.uuid(0), 79)
    assert probe("events") == [{"uuid": "", "xid": 79}]


def test_a_flood_of_faults_does_not_hold_the_caller(host: Any, ask: Ask, nvml: Any) -> None:
    probe = ask()
    for _ in range(100):
        host.xid(nvml.uuid(0), 31)
    assert len(probe("events")) == 64
    assert len(probe("events")) == 36


@pytest.mark.parametrize(
    "function", ["nvmlEventSetCreate", "nvmlDeviceRegisterEvents", "nvmlEventSetWait_v2"]
)
def test_gpus_that_report_no_faults_are_looked_at_all_the_same(host: Any, ask: Ask, function: str) -> None:
    host.fail(function, "not_supported")
    probe = ask()
    assert probe("events") == []
    assert [facts["failure"] for facts in probe("look")] == ["", ""]
    assert probe("close") is None


def test_a_driver_without_gpus_is_asked_all_the_same(host: Any, ask: Ask) -> None:
    host.gpus.clear()
    host.write()
    probe = ask()
    assert (probe("source"), probe("look"), probe("events")) == ("nvml", [], [])


def test_without_the_package_there_is_the_null_probe() -> None:
    def missing() -> Any:
        raise ImportError("pynvml")

    probe = choose_probe(missing)
    assert isinstance(probe, NoGpus)
    assert probe.source == "the package nvidia-ml-py is not installed"
    assert (probe.look(), probe.events()) == ((), ())
