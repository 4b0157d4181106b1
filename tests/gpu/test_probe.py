"""The NVML probe, driven by an object that stands in for the module `pynvml`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from lotabotsd.gpu.facts import GpuFacts, XidEvent
from lotabotsd.gpu.health import Level, judge
from lotabotsd.gpu.probe import NoGpus, NvmlProbe, choose_probe

NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, TIMEOUT, LOST = 3, 4, 9, 10, 15


class FakeError(Exception):
    """NVMLError."""

    def __init__(self, value: int) -> None:
        self.value = value
        super().__init__(
            {LOST: "GPU is lost", DRIVER_NOT_LOADED: "Driver Not Loaded"}.get(value, f"error {value}")
        )


@dataclass
class Gpu:
    """One GPU of the fake; `fails` maps a function's name to the error that it raises for this GPU."""

    uuid: str
    answers: dict[str, Any] = field(default_factory=dict)
    fails: dict[str, int] = field(default_factory=dict)


ANSWERS: dict[str, Any] = {
    "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3",
    "nvmlDeviceGetVbiosVersion": "96.00.74.00.01",
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=80 << 30, used=3 << 30),
    "nvmlDeviceGetTemperature": 41,
    "nvmlDeviceGetTemperatureThreshold": 87,
    "nvmlDeviceGetPowerUsage": 71_500,
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=12, memory=3),
    "nvmlDeviceGetMigMode": [0, 0],
    "nvmlDeviceGetCurrentClocksEventReasons": 1,
    "nvmlDeviceGetTotalEccErrors": 0,
    "nvmlDeviceGetRemappedRows": (0, 0, 0, 0),
    "nvmlDeviceGetFieldValues": [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=0))],
}


class FakeNvml:
    """The part of `pynvml` that the probe uses."""

    NVMLError = FakeError
    NVML_SUCCESS = 0
    NVML_ERROR_INVALID_ARGUMENT = 2
    NVML_ERROR_NOT_SUPPORTED = NOT_SUPPORTED
    NVML_ERROR_NO_PERMISSION = NO_PERMISSION
    NVML_ERROR_FUNCTION_NOT_FOUND = 13
    NVML_TEMPERATURE_GPU = 0
    NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 1
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0
    NVML_DEVICE_MIG_ENABLE = 1
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION = 230
    nvmlEventTypeXidCriticalError = 8  # noqa: N815 - NVIDIA's name

    def __init__(self, *gpus: Gpu, fails: dict[str, int] | None = None) -> None:
        self.gpus = list(gpus)
        self.fails = fails or {}
        self.pending: list[SimpleNamespace] = []
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if name in self.fails:
                raise FakeError(self.fails[name])
            return self._answer(name, *arguments)

        return call

    def _answer(self, name: str, *arguments: Any) -> Any:
        match name, *arguments:
            case "nvmlInit" | "nvmlShutdown" | "nvmlEventSetFree", *_:
                return None
            case "nvmlDeviceGetCount", *_:
                return len(self.gpus)
            case "nvmlSystemGetDriverVersion", *_:
                return "580.95.05"
            case "nvmlEventSetCreate", *_:
                return object()
            case "nvmlDeviceGetHandleByIndex", int(index):
                gpu = self.gpus[index]
            case "nvmlEventSetWait_v2", _, int(milliseconds):
                assert milliseconds == 0, "the probe never waits"
                if not self.pending:
                    raise FakeError(TIMEOUT)
                return self.pending.pop(0)
            case _, Gpu() as gpu, *_:
                pass
            case _:
                raise AssertionError(f"{name} is not part of the fake")
        if name in gpu.fails:
            raise FakeError(gpu.fails[name])
        if name == "nvmlDeviceGetHandleByIndex":
            return gpu
        if name == "nvmlDeviceRegisterEvents":
            return None
        return gpu.uuid if name == "nvmlDeviceGetUUID" else {**ANSWERS, **gpu.answers}[name]

    def xid(self, gpu: Gpu, number: int, kind: int = 8) -> None:
        """Let the driver report a fault."""
        self.pending.append(SimpleNamespace(device=gpu, eventType=kind, eventData=number))


def test_the_fake_has_the_names_and_numbers_of_the_real_module() -> None:
    constants = {
        name: value
        for name, value in vars(FakeNvml).items()
        if name.startswith("NVML_") or name == "nvmlEventTypeXidCriticalError"
    }
    assert constants == {name: getattr(pynvml, name) for name in constants}
    assert (NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, TIMEOUT, LOST) == (
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_TIMEOUT,
        pynvml.NVML_ERROR_GPU_IS_LOST,
    )
    nvml = FakeNvml(Gpu("GPU-1"))
    probe = NvmlProbe(nvml)
    probe.look()
    nvml.xid(nvml.gpus[0], 79)
    probe.events()
    probe.close()
    assert {name for name in nvml.calls if not callable(getattr(pynvml, name, None))} == set()
    assert set(nvml.calls) >= set(ANSWERS), "every answer of the fake is asked for"


def test_a_gpu_is_described_in_whole_numbers_with_their_units() -> None:
    assert NvmlProbe(FakeNvml(Gpu("GPU-1"))).look() == (
        GpuFacts(
            index=0,
            uuid="GPU-1",
            name="NVIDIA H100 80GB HBM3",
            driver="580.95.05",
            vbios="96.00.74.00.01",
            memory_total_bytes=80 << 30,
            memory_used_bytes=3 << 30,
            temperature_celsius=41,
            slowdown_celsius=87,
            power_milliwatts=71_500,
            utilisation_percent=12,
            mig=False,
            throttle_reasons=1,
            uncorrected_errors=0,
            remap_pending=False,
            remap_failed=False,
            recovery_action="none",
        ),
    )


OPTIONAL = sorted(set(ANSWERS) - {"nvmlDeviceGetName", "nvmlDeviceGetMemoryInfo"})


@pytest.mark.parametrize("error", [NOT_SUPPORTED, NO_PERMISSION, 13, 2])
def test_what_a_gpu_does_not_have_is_unknown_and_no_failure(error: int) -> None:
    (facts,) = NvmlProbe(FakeNvml(Gpu("GPU-1", fails=dict.fromkeys(OPTIONAL, error)))).look()
    assert facts == GpuFacts(
        index=0,
        uuid="GPU-1",
        name="NVIDIA H100 80GB HBM3",
        driver="580.95.05",
        memory_total_bytes=80 << 30,
        memory_used_bytes=3 << 30,
    )
    assert judge(facts).level is Level.HEALTHY


@pytest.mark.parametrize("question", ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID", *sorted(ANSWERS)])
def test_a_gpu_that_is_lost_during_any_question_keeps_its_name_and_has_a_failure(question: str) -> None:
    lost, well = Gpu("GPU-1"), Gpu("GPU-2")
    probe = NvmlProbe(FakeNvml(lost, well))
    probe.look()
    lost.fails[question] = LOST
    first, second = probe.look()
    assert (first.uuid, first.name, first.failure) == ("GPU-1", "NVIDIA H100 80GB HBM3", "GPU is lost")
    assert first.temperature_celsius is None
    assert (second.uuid, second.failure) == ("GPU-2", "")


def test_a_gpu_that_never_answered_is_listed_without_a_name() -> None:
    (facts,) = NvmlProbe(FakeNvml(Gpu("GPU-1", fails={"nvmlDeviceGetHandleByIndex": LOST}))).look()
    assert (facts.index, facts.uuid, facts.name) == (0, "", "unknown GPU")
    assert facts.failure == "GPU is lost"


def test_a_gpu_that_the_driver_no_longer_lists_is_not_forgotten() -> None:
    nvml = FakeNvml(Gpu("GPU-1"), Gpu("GPU-2"))
    probe = NvmlProbe(nvml)
    probe.look()
    nvml.gpus.pop()
    first, second = probe.look()
    assert (first.uuid, first.failure) == ("GPU-1", "")
    assert (second.uuid, second.failure) == ("GPU-2", "the driver no longer lists it")


def test_a_gpu_that_comes_back_is_well_again() -> None:
    gpu = Gpu("GPU-1")
    probe = NvmlProbe(FakeNvml(gpu))
    gpu.fails["nvmlDeviceGetName"] = LOST
    assert probe.look()[0].failure
    gpu.fails.clear()
    assert not probe.look()[0].failure


def test_a_driver_that_goes_away_fails_every_known_gpu() -> None:
    nvml = FakeNvml(Gpu("GPU-1"), Gpu("GPU-2"))
    probe = NvmlProbe(nvml)
    probe.look()
    nvml.fails["nvmlDeviceGetCount"] = DRIVER_NOT_LOADED
    assert [(facts.uuid, facts.failure) for facts in probe.look()] == [
        ("GPU-1", "Driver Not Loaded"),
        ("GPU-2", "Driver Not Loaded"),
    ]


def test_mig_and_the_drivers_advice_are_reported() -> None:
    advice = [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=2))]
    gpu = Gpu("GPU-1", {"nvmlDeviceGetMigMode": [1, 1], "nvmlDeviceGetFieldValues": advice})
    (facts,) = NvmlProbe(FakeNvml(gpu)).look()
    assert (facts.mig, facts.recovery_action) == (True, "reboot the host")


@pytest.mark.parametrize(
    ("returned", "number", "action"),
    [(0, 1, "reset the GPU"), (0, 99, "see the driver's documentation"), (NOT_SUPPORTED, 2, "")],
)
def test_the_advice_is_known_unknown_or_absent(returned: int, number: int, action: str) -> None:
    advice = [SimpleNamespace(nvmlReturn=returned, value=SimpleNamespace(uiVal=number))]
    (facts,) = NvmlProbe(FakeNvml(Gpu("GPU-1", {"nvmlDeviceGetFieldValues": advice}))).look()
    assert facts.recovery_action == action


def test_faults_are_told_once_in_their_order() -> None:
    nvml = FakeNvml(Gpu("GPU-1"), Gpu("GPU-2"))
    probe = NvmlProbe(nvml)
    nvml.xid(nvml.gpus[1], 48)
    nvml.xid(nvml.gpus[0], 13)
    nvml.xid(nvml.gpus[0], 1, kind=2)  # another kind of event
    assert probe.events() == (XidEvent("GPU-2", 48), XidEvent("GPU-1", 13))
    assert probe.events() == ()


def test_the_fault_of_a_gpu_that_is_gone_is_kept_without_a_name() -> None:
    gpu = Gpu("GPU-1")
    nvml = FakeNvml(gpu)
    probe = NvmlProbe(nvml)
    probe.look()
    gpu.fails["nvmlDeviceGetUUID"] = LOST
    nvml.xid(gpu, 79)
    events = probe.events()
    assert events == (XidEvent("", 79),)
    assert "XID 79: the GPU or its driver failed" in judge(probe.look()[0], events).reasons


def test_a_flood_of_faults_does_not_hold_the_caller() -> None:
    nvml = FakeNvml(Gpu("GPU-1"))
    probe = NvmlProbe(nvml)
    for _ in range(100):
        nvml.xid(nvml.gpus[0], 31)
    assert len(probe.events()) == 64
    assert len(probe.events()) == 36


@pytest.mark.parametrize(
    "nvml",
    [
        FakeNvml(),
        FakeNvml(Gpu("GPU-1", fails={"nvmlDeviceRegisterEvents": NOT_SUPPORTED})),
        FakeNvml(Gpu("GPU-1"), fails={"nvmlEventSetCreate": NOT_SUPPORTED}),
    ],
    ids=["no GPU", "not this GPU", "not this driver"],
)
def test_where_faults_cannot_be_reported_there_are_none(nvml: FakeNvml) -> None:
    probe = NvmlProbe(nvml)
    assert probe.events() == ()
    assert "nvmlEventSetWait_v2" not in nvml.calls
    assert len(probe.look()) == len(nvml.gpus)
    probe.close()


def test_closing_gives_everything_back_once() -> None:
    nvml = FakeNvml(Gpu("GPU-1"))
    probe = NvmlProbe(nvml)
    probe.close()
    assert nvml.calls[-2:] == ["nvmlEventSetFree", "nvmlShutdown"]
    assert probe.events() == ()


def test_a_host_with_a_driver_gets_the_real_probe() -> None:
    probe = choose_probe(lambda: FakeNvml(Gpu("GPU-1")))
    assert isinstance(probe, NvmlProbe)
    assert probe.source == "nvml"


def test_a_host_without_a_driver_gets_the_null_probe_that_says_why() -> None:
    probe = choose_probe(lambda: FakeNvml(fails={"nvmlInit": DRIVER_NOT_LOADED}))
    assert isinstance(probe, NoGpus)
    assert probe.source == "NVML: Driver Not Loaded"
    assert (probe.look(), probe.events()) == ((), ())
    probe.close()


def test_a_host_without_the_package_gets_the_null_probe_that_says_why() -> None:
    def absent() -> Any:
        raise ModuleNotFoundError("No module named 'pynvml'")

    assert choose_probe(absent).source == "the package nvidia-ml-py is not installed"


def test_on_this_machine_a_probe_is_chosen_and_answers() -> None:
    probe = choose_probe()
    assert all(facts.uuid or facts.failure for facts in probe.look())
    assert probe.source
    probe.close()
