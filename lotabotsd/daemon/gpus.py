"""The GPUs as status and attestation show them: looked at now and then, never while somebody waits."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from lotabotsd.attestation.evidence import GpuEvidence
from lotabotsd.gpu.facts import GpuFacts, MigDevice, XidEvent
from lotabotsd.gpu.health import judge
from lotabotsd.gpu.probe import Probe
from lotabotsd.gpu.recovery import in_use_by, recovery_of

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class GpusSeen:
    """What was seen last; `last_xid` is the newest fault of each GPU that had one, by its UUID."""

    facts: tuple[GpuFacts, ...]
    events: frozenset[XidEvent]
    last_xid: dict[str, int]


class Gpus:
    """What was seen last, and every fault since the start. May be used from several threads."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._lock = threading.Lock()
        self._seen = GpusSeen((), frozenset(), {})
        self.look()
        self.count = len(self._seen.facts)

    @property
    def source(self) -> str:
        """How the GPUs are looked for, or why there is nothing to look with."""
        return self._probe.source

    @property
    def seen(self) -> GpusSeen:
        """What was seen last."""
        return self._seen

    def look(self) -> None:
        """Ask the driver."""
        with self._lock:
            facts, events = self._probe.look(), self._probe.events()
            last = {event.uuid: event.xid for event in events}
            self._seen = GpusSeen(
                facts, self._seen.events | frozenset(events), {**self._seen.last_xid, **last}
            )

    def close(self) -> None:
        """Let go of the driver."""
        with self._lock:
            self._probe.close()

    def value(self) -> dict[str, Any]:
        """For status and the control API; `detail` says why there are none."""
        seen = self._seen
        detail = "the driver lists none" if self.source == "nvml" and not seen.facts else self.source
        return {"items": [gpu_value(facts, seen.events) for facts in seen.facts], "detail": detail}

    def evidence(self) -> tuple[GpuEvidence, ...]:
        """For tokens: what the driver says each GPU is."""
        return tuple(
            GpuEvidence(facts.index, facts.uuid, facts.name, facts.driver, vbios=facts.vbios, mig=facts.mig)
            for facts in self._seen.facts
            if not facts.failure
        )


def gpu_value(facts: GpuFacts, events: frozenset[XidEvent]) -> dict[str, Any]:
    """One GPU with its verdict and what to do."""
    health = judge(facts, events)
    recovery = recovery_of(facts, health.level)
    users = in_use_by(facts) if any("--gpu-reset" in command for command in recovery.commands) else ""
    return {
        "index": facts.index,
        "uuid": facts.uuid,
        "name": facts.name,
        "driver": facts.driver,
        "serial": facts.serial,
        "pci_bus_id": facts.pci_bus_id,
        "health": health.level.name.lower(),
        "detail": "; ".join(health.reasons),
        "hint": f"{recovery.text} (in use by {users}: all must have ended)" if users else recovery.text,
        "commands": list(recovery.commands),
        "temperature_celsius": facts.temperature_celsius,
        "memory_celsius": facts.memory_celsius,
        "power_watts": _watts(facts.power_milliwatts),
        "power_limit_watts": _watts(facts.power_limit_milliwatts),
        "utilisation_percent": facts.utilisation_percent,
        "memory_used_mib": _mebibytes(facts.memory_used_bytes),
        "memory_total_mib": _mebibytes(facts.memory_total_bytes),
        "sm_clock_mhz": facts.sm_clock_mhz,
        "memory_clock_mhz": facts.memory_clock_mhz,
        "uncorrected_errors": facts.uncorrected_errors,
        "confidential": facts.confidential,
        "mig": facts.mig,
        "mig_devices": [_mig_value(device) for device in facts.mig_devices],
        "processes": [
            {"pid": process.pid, "memory_mib": _mebibytes(process.memory_bytes)}
            for process in facts.processes
        ],
    }


def _mig_value(device: MigDevice) -> dict[str, Any]:
    return {
        "uuid": device.uuid,
        "profile": device.profile,
        "gpu_instance": device.gpu_instance,
        "compute_instance": device.compute_instance,
        "memory_used_mib": _mebibytes(device.memory_used_bytes),
        "memory_total_mib": _mebibytes(device.memory_total_bytes),
    }


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1_000


def _mebibytes(count: int | None) -> int | None:
    return None if count is None else count // MEBIBYTE
