"""Judge a GPU by its facts and its XID events. Pure.

Sources: NVIDIA's "XID Errors" and "GPU Memory Error Management"; the list of XIDs that an application can
cause is the one that NVIDIA's k8s-device-plugin ignores.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from .advice import advice_words
from .facts import GpuFacts, XidEvent

APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 109})
_THERMAL = 0x20 | 0x40  # nvmlClocksEventReasonSwThermalSlowdown, …HwThermalSlowdown
_POWER_BRAKE = 0x80  # nvmlClocksEventReasonHwPowerBrakeSlowdown


class Level(IntEnum):
    """How a GPU feels, the worst last."""

    HEALTHY = 0
    WARNING = 1
    CRITICAL = 2


@dataclass(frozen=True, slots=True)
class Health:
    """A verdict with its reasons, the worst first; a healthy GPU has none."""

    level: Level
    reasons: tuple[str, ...]


def judge(facts: GpuFacts, events: Iterable[XidEvent] = ()) -> Health:
    """The health of one GPU; `events` are all that were seen since it was last reset, of any GPU."""
    found = [*_from_events(facts, events), *_from_facts(facts)]
    found.sort(key=lambda reason: -reason[0])
    return Health(max((level for level, _ in found), default=Level.HEALTHY), tuple(text for _, text in found))


def _from_events(facts: GpuFacts, events: Iterable[XidEvent]) -> list[tuple[Level, str]]:
    # A fault without a name belongs to a GPU that no longer answers.
    own = {facts.uuid, ""} if facts.failure else {facts.uuid} - {""}
    xids = sorted({event.xid for event in events if event.uuid in own})
    return [
        (Level.WARNING, f"XID {xid}: an application failed on it")
        if xid in APPLICATION_XIDS
        else (Level.CRITICAL, f"XID {xid}: the GPU or its driver failed")
        for xid in xids
    ]


def _from_facts(facts: GpuFacts) -> list[tuple[Level, str]]:
    found: list[tuple[Level, str]] = []
    if facts.failure:
        found.append((Level.CRITICAL, f"it does not answer: {facts.failure}"))
    if facts.recovery_action:
        found.append((Level.CRITICAL, f"the driver advises: {advice_words(facts.recovery_action)}"))
    if facts.remap_failed:
        found.append((Level.CRITICAL, "damaged memory rows can no longer be replaced"))
    if facts.uncorrected_errors:
        found.append((Level.CRITICAL, f"{facts.uncorrected_errors} uncorrected memory errors"))
    if facts.remap_pending:
        found.append((Level.WARNING, "a damaged memory row is replaced at the next reset"))
    if facts.throttle_reasons & _THERMAL:
        found.append((Level.WARNING, "it slows down because it is hot"))
    elif _too_hot(facts):
        found.append((Level.WARNING, f"{facts.temperature_celsius} °C: about to slow down"))
    if facts.throttle_reasons & _POWER_BRAKE:
        found.append((Level.WARNING, "it slows down because the power supply says so"))
    return found


def _too_hot(facts: GpuFacts) -> bool:
    if facts.temperature_celsius is None or not facts.slowdown_celsius:
        return False
    return facts.temperature_celsius >= facts.slowdown_celsius
