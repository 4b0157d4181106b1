"""Ask the NVIDIA driver about its GPUs through NVML."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .facts import GpuFacts, GpuProcess, MigDevice, XidEvent, without_answer

_MAX_EVENTS = 64  # taken in one look; more wait for the next
_MAX_MIG_DEVICES = 16  # of one GPU; the hardware has at most seven
_MAX_PROCESSES = 64  # of one GPU that are remembered


class NvmlProbe:
    """GPUs as NVML sees them. `nvml` is the module `pynvml`; raises its NVMLError when it cannot start.

    For one thread at a time, and every call may hang as long as the driver does: see `BoundedProbe`.
    """

    source = "nvml"

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        # A GPU that does not have a value, or an old driver that does not know the question.
        self._no_answer = {
            nvml.NVML_ERROR_NOT_SUPPORTED,
            nvml.NVML_ERROR_NO_PERMISSION,
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            nvml.NVML_ERROR_INVALID_ARGUMENT,
            nvml.NVML_ERROR_NOT_FOUND,
        }
        self._known: dict[str, GpuFacts] = {}  # by UUID, those that answered last at the end
        nvml.nvmlInit()
        self._event_set = self._register()

    def look(self) -> tuple[GpuFacts, ...]:
        try:
            return self._look()
        except self._nvml.NVMLError:
            pass
        try:  # the driver was loaded anew: NVML has to be started anew as well
            self._restart()
            return self._look()
        except self._nvml.NVMLError as error:
            lost = (without_answer(known, str(error)) for known in self._known.values())
            return tuple(sorted(lost, key=lambda facts: facts.index))

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

    def close(self) -> None:
        try:
            if self._event_set is not None:
                self._nvml.nvmlEventSetFree(self._event_set)
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError:  # the driver is gone, and with it what was open
            pass
        finally:
            self._event_set = None

    def _restart(self) -> None:
        self.close()
        self._nvml.nvmlInit()
        self._event_set = self._register()

    def _uuid(self, handle: Any) -> str:
        try:
            return str(self._nvml.nvmlDeviceGetUUID(handle))
        except self._nvml.NVMLError:  # it fell off the bus: the event is all that is left of it
            return ""

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

    def _look(self) -> tuple[GpuFacts, ...]:
        """Raises NVMLError where not one GPU, but the driver does not answer."""
        count = int(self._nvml.nvmlDeviceGetCount())
        driver = str(self._nvml.nvmlSystemGetDriverVersion())
        confidential = self._confidential()
        seen = [self._facts(index, driver, confidential) for index in range(count)]
        gone = [known for known in self._known.values() if known.uuid not in {facts.uuid for facts in seen}]
        self._known = {facts.uuid: facts for facts in (*gone, *seen) if facts.uuid}
        lost = [without_answer(known, "the driver no longer lists it") for known in gone]
        return tuple(sorted((*seen, *lost), key=lambda facts: facts.index))

    def _confidential(self) -> bool | None:
        state = self._ask(self._nvml.nvmlSystemGetConfComputeState)
        return None if state is None else bool(state.ccFeature)

    def _facts(self, index: int, driver: str, confidential: bool | None) -> GpuFacts:
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            pci = self._ask(nvml.nvmlDeviceGetPciInfo_v3, handle)
            return GpuFacts(
                index=index,
                uuid=str(nvml.nvmlDeviceGetUUID(handle)),
                name=str(nvml.nvmlDeviceGetName(handle)),
                driver=driver,
                vbios=str(self._ask(nvml.nvmlDeviceGetVbiosVersion, handle) or ""),
                serial=str(self._ask(nvml.nvmlDeviceGetSerial, handle) or ""),
                pci_bus_id="" if pci is None else _text(pci.busId),
                confidential=confidential,
                **self._memory(handle),
                **self._readings(handle),
                **self._troubles(handle),
                **self._parts(handle),
            )
        except nvml.NVMLError as error:
            return without_answer(self._known_at(index, driver), str(error))

    def _known_at(self, index: int, driver: str) -> GpuFacts:
        """Which GPU had this number last: numbers move down when a GPU goes away."""
        for known in reversed(self._known.values()):
            if known.index == index:
                return known
        return GpuFacts(index, "", "unknown GPU", driver)

    def _memory(self, handle: Any) -> dict[str, Any]:
        """The newer question leaves the driver's own share out of `used`; old drivers do not know it.

        A GPU that shares the host's memory has none of its own to tell of.
        """
        nvml = self._nvml
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo, handle, nvml.nvmlMemory_v2)
        if memory is None:
            memory = self._ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        if memory is None:
            return {}
        return {
            "memory_total_bytes": int(memory.total),
            "memory_used_bytes": int(memory.used),
            "memory_free_bytes": int(memory.free),
        }

    def _readings(self, handle: Any) -> dict[str, Any]:
        nvml = self._nvml
        ask = self._ask
        slowdown = nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
        utilisation = ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        return {
            "temperature_celsius": ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            "memory_celsius": self._field(handle, nvml.NVML_FI_DEV_MEMORY_TEMP),
            "slowdown_celsius": ask(nvml.nvmlDeviceGetTemperatureThreshold, handle, slowdown),
            "power_milliwatts": ask(nvml.nvmlDeviceGetPowerUsage, handle),
            "power_limit_milliwatts": ask(nvml.nvmlDeviceGetEnforcedPowerLimit, handle),
            "energy_millijoules": ask(nvml.nvmlDeviceGetTotalEnergyConsumption, handle),
            "utilisation_percent": None if utilisation is None else int(utilisation.gpu),
            "memory_busy_percent": None if utilisation is None else int(utilisation.memory),
            "sm_clock_mhz": ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            "memory_clock_mhz": ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
            "pcie_replays": ask(nvml.nvmlDeviceGetPcieReplayCounter, handle),
        }

    def _troubles(self, handle: Any) -> dict[str, Any]:
        nvml = self._nvml
        remapped = self._ask(nvml.nvmlDeviceGetRemappedRows, handle)
        found = {
            "throttle_reasons": self._ask(nvml.nvmlDeviceGetCurrentClocksEventReasons, handle) or 0,
            "uncorrected_errors": self._ask(
                nvml.nvmlDeviceGetTotalEccErrors,
                handle,
                nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                nvml.NVML_VOLATILE_ECC,
            ),
            "recovery_action": self._field(handle, nvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION),
        }
        if remapped is not None:
            found["remapped_corrected"], found["remapped_uncorrected"] = remapped[0], remapped[1]
            found["remap_pending"], found["remap_failed"] = bool(remapped[2]), bool(remapped[3])
        return found

    def _parts(self, handle: Any) -> dict[str, Any]:
        """How the GPU is divided, and who uses it."""
        nvml = self._nvml
        mig = self._ask(nvml.nvmlDeviceGetMigMode, handle)
        divided = mig is not None and mig[0] == nvml.NVML_DEVICE_MIG_ENABLE
        processes = self._ask(nvml.nvmlDeviceGetComputeRunningProcesses_v3, handle) or []
        return {
            "mig": None if mig is None else divided,
            "mig_devices": self._mig_devices(handle) if divided else (),
            "processes": tuple(
                GpuProcess(int(process.pid), process.usedGpuMemory) for process in processes[:_MAX_PROCESSES]
            ),
        }

    def _mig_devices(self, handle: Any) -> tuple[MigDevice, ...]:
        nvml = self._nvml
        count = min(int(self._ask(nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0), _MAX_MIG_DEVICES)
        found = (self._ask(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index) for index in range(count))
        parts = (self._mig_device(device) for device in found if device is not None)
        return tuple(part for part in parts if part is not None)

    def _mig_device(self, device: Any) -> MigDevice | None:
        """None for a part that was taken away while it was looked at."""
        nvml = self._nvml
        uuid = self._ask(nvml.nvmlDeviceGetUUID, device)
        if uuid is None:
            return None
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo, device)
        name = str(self._ask(nvml.nvmlDeviceGetName, device) or "")
        return MigDevice(
            uuid=str(uuid),
            profile=name.partition(" MIG ")[2] or self._profile(device),
            gpu_instance=int(self._ask(nvml.nvmlDeviceGetGpuInstanceId, device) or 0),
            compute_instance=int(self._ask(nvml.nvmlDeviceGetComputeInstanceId, device) or 0),
            memory_total_bytes=None if memory is None else int(memory.total),
            memory_used_bytes=None if memory is None else int(memory.used),
        )

    def _profile(self, device: Any) -> str:
        """The profile's name from its slices and memory, for drivers that do not say it in the name."""
        attributes = self._ask(self._nvml.nvmlDeviceGetAttributes_v2, device)
        if attributes is None:
            return ""
        gibibytes = round(attributes.memorySizeMB / 1024)
        name = f"{attributes.gpuInstanceSliceCount}g.{gibibytes}gb"
        if attributes.computeInstanceSliceCount == attributes.gpuInstanceSliceCount:
            return name
        return f"{attributes.computeInstanceSliceCount}c.{name}"

    def _field(self, handle: Any, number: int) -> int | None:
        """One of NVML's numbered values, where this GPU has it."""
        nvml = self._nvml
        values = self._ask(nvml.nvmlDeviceGetFieldValues, handle, [number])
        if values is None or values[0].nvmlReturn != nvml.NVML_SUCCESS:
            return None
        return int(values[0].value.uiVal)

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """The answer, or None where this GPU or driver has none. Raises NVMLError for a GPU in trouble."""
        try:
            return question(*arguments)
        except self._nvml.NVMLError as error:
            if error.value in self._no_answer:
                return None
            raise


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
