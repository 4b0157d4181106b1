"""What the driver advises to do about a GPU, in words. Pure.

Source: nvml.h, nvmlDeviceGpuRecoveryAction_t.
"""

from __future__ import annotations

from enum import IntEnum


class Advice(IntEnum):
    """NVML_GPU_RECOVERY_ACTION_*."""

    NONE = 0
    GPU_RESET = 1
    NODE_REBOOT = 2
    DRAIN_P2P = 3
    DRAIN_AND_RESET = 4
    RECOVER_IMEX_DOMAIN = 5
    BUS_RESET = 6
    SYSTEM_REBOOT = 7


WORDS = {
    Advice.GPU_RESET: "reset the GPU",
    Advice.NODE_REBOOT: "reboot the host",
    Advice.DRAIN_P2P: "end the programs that exchange data between GPUs",
    Advice.DRAIN_AND_RESET: "end the programs on it, then reset the GPU",
    Advice.RECOVER_IMEX_DOMAIN: "recover the IMEX domain",
    Advice.BUS_RESET: "reset the bus it is on: reboot the host",
    Advice.SYSTEM_REBOOT: "reboot the whole system, with everything that shares its GPUs",
}
UNKNOWN_WORDS = "see the driver's documentation"


def advice_words(action: int) -> str:
    """What the driver advises."""
    return WORDS.get(Advice(action), UNKNOWN_WORDS) if action in set(Advice) else UNKNOWN_WORDS
