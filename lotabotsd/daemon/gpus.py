"""The GPUs as status and attestation show them: looked at now and then, never while somebody waits."""

from __future__ import annotations

import threading
from typing import Any

from lotabotsd.attestation.evidence import GpuEvidence
from lotabotsd.gpu.facts import GpuFacts, XidEvent
from lotabotsd.gpu.health import Level, judge
from lotabotsd.gpu.probe import Probe

MEBIBYTE = 1024 * 1024
_HINTS = {
    Level.WARNING: "nothing to do yet; if it stays, look at nvidia-smi -q",
    Level.CRITICAL: "stop the load, then reset the GPU or reboot the host: nvidia-smi -q says which",
}


class Gpus:
    """What was seen last, and every fault since the start. May be used from several threads."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._lock = threading.Lock()
        self._facts: tuple[GpuFacts, ...] = ()
        self._events: frozenset[XidEvent] = frozenset()
        self.look()
        self.count = len(self._facts)

    @property
    def source(self) -> str:
        """How the GPUs are looked for, or why there is nothing to look with."""
        return self._probe.source

    def look(self) -> None:
        """Ask the driver."""
        with self._lock:
            self._facts = self._probe.look()
            self._events |= frozenset(self._probe.events())

    def close(self) -> None:
        """Let go of the driver."""
        with self._lock:
            self._probe.close()

    def value(self) -> dict[str, Any]:
        """For status and the control API; `detail` says why there are none."""
        return {"items": [gpu_value(facts, self._events) for facts in self._facts], "detail": self.source}

    def evidence(self) -> tuple[GpuEvidence, ...]:
        """For tokens: what the driver says each GPU is."""
        return tuple(
            GpuEvidence(facts.index, facts.uuid, facts.name, facts.driver, vbios=facts.vbios, mig=facts.mig)
            for facts in self._facts
            if not facts.failure
        )


def gpu_value(facts: GpuFacts, events: frozenset[XidEvent]) -> dict[str, Any]:
    """One GPU with its verdict."""
    health = judge(facts, events)
    return {
        "index": facts.index,
        "uuid": facts.uuid,
        "name": facts.name,
        "driver": facts.driver,
        "health": health.level.name.lower(),
        "detail": "; ".join(health.reasons),
        "hint": _HINTS.get(health.level, ""),
        "temperature_celsius": facts.temperature_celsius,
        "power_watts": None if facts.power_milliwatts is None else facts.power_milliwatts / 1_000,
        "utilisation_percent": facts.utilisation_percent,
        "memory_used_mib": _mebibytes(facts.memory_used_bytes),
        "memory_total_mib": _mebibytes(facts.memory_total_bytes),
        "mig": facts.mig,
    }


def _mebibytes(count: int | None) -> int | None:
    return None if count is None else count // MEBIBYTE
