"""Ask the NVIDIA driver about its GPUs through NVML, or say why there is nothing to ask.

NVML is NVIDIA's management library; the package nvidia-ml-py wraps it as the module `pynvml`, which is
loaded only here and only when a probe is chosen.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

from .facts import GpuFacts, XidEvent

_MAX_EVENTS = 64  # taken in one look; more wait for the next
_RECOVERY_ACTIONS = {  # NVML_GPU_RECOVERY_ACTION_*
    0: "none",
    1: "reset the GPU",
    2: "reboot the host",
    3: "drain peer-to-peer traffic",
    4: "drain and reset the GPU",
    5: "recover the IMEX domain",
    6: "reset the bus",
    7: "reboot the whole system",
}


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


class NvmlProbe:
    """GPUs as NVML sees them. `nvml` is the module `pynvml`; raises its NVMLError when it cannot start."""

    source = "nvml"

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        # A GPU that does not have a value, or an old driver that does not know the question.
        self._no_answer = {
            nvml.NVML_ERROR_NOT_SUPPORTED,
            nvml.NVML_ERROR_NO_PERMISSION,
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            nvml.NVML_ERROR_INVALID_ARGUMENT,
        }
        self._known: dict[int, GpuFacts] = {}
        nvml.nvmlInit()
        self._event_set = self._register()

    def look(self) -> tuple[GpuFacts, ...]:
        try:
            count = int(self._nvml.nvmlDeviceGetCount())
            driver = str(self._nvml.nvmlSystemGetDriverVersion())
        except self._nvml.NVMLError as error:
            return tuple(_failed(known, str(error)) for known in self._known.values())
        seen = [self._facts(index, driver) for index in range(count)]
        self._known |= {facts.index: facts for facts in seen if not facts.failure}
        gone = [known for index, known in sorted(self._known.items()) if index >= count]
        return (*seen, *(_failed(known, "the driver no longer lists it") for known in gone))

    def events(self) -> tuple[XidEvent, ...]:
        found: list[XidEvent] = []
        while self._event_set is not None and len(found) < _MAX_EVENTS:
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._event_set, 0)
            except self._nvml.NVMLError:  # a time-out: nothing more has happened
                break
            if event.eventType == self._nvml.nvmlEventTypeXidCriticalError:
                found.append(XidEvent(self._uuid(event.device), int(event.eventData)))
        return tuple(found)

    def _uuid(self, handle: Any) -> str:
        try:
            return str(self._nvml.nvmlDeviceGetUUID(handle))
        except self._nvml.NVMLError:  # it fell off the bus: the event is all that is left of it
            return ""

    def close(self) -> None:
        if self._event_set is not None:
            self._nvml.nvmlEventSetFree(self._event_set)
            self._event_set = None
        self._nvml.nvmlShutdown()

    def _register(self) -> Any:
        """The event set with every GPU that can report faults, or None where none can."""
        registered = False
        try:
            event_set = self._nvml.nvmlEventSetCreate()
            for index in range(self._nvml.nvmlDeviceGetCount()):
                registered |= self._register_one(index, event_set)
        except self._nvml.NVMLError:
            return None
        if not registered:
            self._nvml.nvmlEventSetFree(event_set)
            return None
        return event_set

    def _register_one(self, index: int, event_set: Any) -> bool:
        nvml = self._nvml
        try:
            nvml.nvmlDeviceRegisterEvents(
                nvml.nvmlDeviceGetHandleByIndex(index), nvml.nvmlEventTypeXidCriticalError, event_set
            )
        except nvml.NVMLError:
            return False
        return True

    def _facts(self, index: int, driver: str) -> GpuFacts:
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            return GpuFacts(
                index=index,
                uuid=str(nvml.nvmlDeviceGetUUID(handle)),
                name=str(nvml.nvmlDeviceGetName(handle)),
                driver=driver,
                vbios=str(self._ask(nvml.nvmlDeviceGetVbiosVersion, handle) or ""),
                memory_total_bytes=int(memory.total),
                memory_used_bytes=int(memory.used),
                **self._readings(handle),
                **self._troubles(handle),
            )
        except nvml.NVMLError as error:
            known = self._known.get(index, GpuFacts(index, "", "unknown GPU", driver))
            return _failed(known, str(error))

    def _readings(self, handle: Any) -> dict[str, Any]:
        nvml = self._nvml
        slowdown = nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
        utilisation = self._ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        mig = self._ask(nvml.nvmlDeviceGetMigMode, handle)
        return {
            "temperature_celsius": self._ask(
                nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU
            ),
            "slowdown_celsius": self._ask(nvml.nvmlDeviceGetTemperatureThreshold, handle, slowdown),
            "power_milliwatts": self._ask(nvml.nvmlDeviceGetPowerUsage, handle),
            "utilisation_percent": None if utilisation is None else int(utilisation.gpu),
            "mig": None if mig is None else mig[0] == nvml.NVML_DEVICE_MIG_ENABLE,
        }

    def _troubles(self, handle: Any) -> dict[str, Any]:
        nvml = self._nvml
        remapped = self._ask(nvml.nvmlDeviceGetRemappedRows, handle)
        return {
            "throttle_reasons": self._ask(nvml.nvmlDeviceGetCurrentClocksEventReasons, handle) or 0,
            "uncorrected_errors": self._ask(
                nvml.nvmlDeviceGetTotalEccErrors,
                handle,
                nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                nvml.NVML_VOLATILE_ECC,
            ),
            "remap_pending": None if remapped is None else bool(remapped[2]),
            "remap_failed": None if remapped is None else bool(remapped[3]),
            "recovery_action": self._recovery_action(handle),
        }

    def _recovery_action(self, handle: Any) -> str:
        nvml = self._nvml
        values = self._ask(nvml.nvmlDeviceGetFieldValues, handle, [nvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
        if values is None or values[0].nvmlReturn != nvml.NVML_SUCCESS:
            return ""
        return _RECOVERY_ACTIONS.get(int(values[0].value.uiVal), "see the driver's documentation")

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """The answer, or None where this GPU or driver has none. Raises NVMLError for a GPU in trouble."""
        try:
            return question(*arguments)
        except self._nvml.NVMLError as error:
            if error.value in self._no_answer:
                return None
            raise


def _failed(known: GpuFacts, reason: str) -> GpuFacts:
    """What is left of a GPU that does not answer: its name, and why."""
    return GpuFacts(known.index, known.uuid, known.name, known.driver, vbios=known.vbios, failure=reason)


def choose_probe(load: Callable[[], Any] = lambda: importlib.import_module("pynvml")) -> Probe:
    """NVML where the driver is installed and answers; otherwise the null probe, which says why."""
    try:
        nvml = load()
    except ImportError:
        return NoGpus("the package nvidia-ml-py is not installed")
    try:
        probe = NvmlProbe(nvml)
    except nvml.NVMLError as error:
        return NoGpus(f"NVML: {error}")
    return probe
