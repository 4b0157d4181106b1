"""What an admin can do about a GPU that is not well, as words and commands. Pure.

LotaBots never resets a GPU: a reset takes it from every process that uses it, ours or not. The driver's own
advice (NVML, "GPU recovery action") comes first; without one the verdict's reasons decide.
"""

from __future__ import annotations

from dataclasses import dataclass

from .advice import WORDS, Advice, advice_words
from .facts import GpuFacts, GpuProcess
from .health import Level

MEBIBYTE = 1024 * 1024
MAX_PROCESSES = 8  # named in one sentence
STOP, START = "systemctl stop lotabots.target", "systemctl start lotabots.target"
REBOOT = "systemctl reboot"


@dataclass(frozen=True, slots=True)
class Recovery:
    """What to do, and the commands for it in their order; both empty for a GPU that is well."""

    words: str = ""
    commands: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """One sentence for a hint."""
        return f"{self.words}: {' && '.join(self.commands)}" if self.commands else self.words


def recovery_of(facts: GpuFacts, level: Level) -> Recovery:
    """What to do about a GPU with this verdict."""
    if facts.recovery_action:
        return Recovery(advice_words(facts.recovery_action), _commands(facts, facts.recovery_action))
    if level is Level.HEALTHY:
        return Recovery()
    if facts.remap_failed:
        return Recovery("have the GPU replaced: its memory has no spare rows left")
    if level is Level.WARNING and facts.remap_pending:
        return Recovery("reset the GPU when it is idle", _commands(facts, Advice.GPU_RESET))
    if level is Level.WARNING:
        return Recovery("nothing to do yet; if it stays", ("nvidia-smi -q",))
    action = Advice.NODE_REBOOT if facts.failure else Advice.DRAIN_AND_RESET
    return Recovery(WORDS[action], _commands(facts, action))


def in_use_by(facts: GpuFacts) -> str:
    """Who must have ended before a reset: `processes 12 (300 MiB), 13`; empty where nobody is known."""
    if not facts.processes:
        return ""
    named = [_process(process) for process in facts.processes[:MAX_PROCESSES]]
    if len(facts.processes) > MAX_PROCESSES:
        named.append(f"and {len(facts.processes) - MAX_PROCESSES} more")
    return f"process{'es' if len(facts.processes) > 1 else ''} {', '.join(named)}"


def _process(process: GpuProcess) -> str:
    if process.memory_bytes is None:
        return str(process.pid)
    return f"{process.pid} ({process.memory_bytes // MEBIBYTE} MiB)"


def _commands(facts: GpuFacts, action: int) -> tuple[str, ...]:
    """lotabotsd itself holds the GPU open through NVML, so that nothing can be reset while it runs."""
    if action in (Advice.GPU_RESET, Advice.DRAIN_AND_RESET):
        return STOP, f"nvidia-smi --gpu-reset -i {facts.uuid or facts.index}", START
    if action in (Advice.NODE_REBOOT, Advice.BUS_RESET):
        return (REBOOT,)
    if action == Advice.DRAIN_P2P:
        return "systemctl restart lotabots-runtime", "nvidia-smi -q"
    return ()
