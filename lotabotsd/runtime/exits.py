"""Read why Triton ended, and whether its CUDA context is lost, from codes and texts. Pure."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from .messages import ExitFacts, ExitKind

# Start-up errors that come back unchanged however often Triton is started (tritonserver 2.51).
_CONFIGURATION = (
    "Bad option:",
    "Invalid option value",
    "unrecognized option",
    "failed to stat file",
    "error while loading shared libraries",
    "lotabots-launch:",
    "lotabots-entry:",  # of the shell before Triton in a container: 2, 126 or 127
)
# After these the process answers errors for ever while it says "ready" (server issues 3627 and 7164).
_POISON = (
    "device-side assert",
    "an illegal memory access",
    "CUDNN_STATUS_",
    "cudaErrorECCUncorrectable",
    "CUDA error: unspecified launch failure",
)
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})


def explain_exit(code: int, last_lines: Sequence[str], *, requested: bool) -> ExitFacts:
    """Sort an exit code; the text names the signal, or Triton's own last complaint.

    `requested` is whether it was told to stop: then any end is the wanted one (Triton ends with 1 when its
    own exit timeout expires, and has been seen to end by SIGKILL).
    """
    complaint = _complaint(last_lines)
    if requested:
        return ExitFacts(code, ExitKind.STOPPED, "it was stopped")
    number = -code if code < 0 else code - 128 if code > 128 else 0
    if number == signal.SIGKILL:
        return ExitFacts(code, ExitKind.KILLED, "it was killed (out of memory, or by an administrator)")
    if number in _CRASHES:
        name = signal.Signals(number).name
        return ExitFacts(
            code, ExitKind.CRASHED, f"it crashed ({name})" + (f": {complaint}" if complaint else "")
        )
    text = f"it ended with {code}" + (f": {complaint}" if complaint else "")
    if code in (1, 2, 126, 127) and any(known in line for line in last_lines for known in _CONFIGURATION):
        return ExitFacts(code, ExitKind.CONFIGURATION, text)
    return ExitFacts(code, ExitKind.FAILED, text)


def is_poisoned(text: str) -> bool:
    """Whether an error text means that this process's CUDA context is lost: only a restart helps."""
    return any(known in text for known in _POISON)


def _complaint(lines: Sequence[str]) -> str:
    """The last line that is an error in Triton's log (`E1123 03:24:58.05 …`), or a known complaint."""
    for line in reversed(lines):
        if any(known in line for known in _CONFIGURATION):
            return line[:300]
        if line[:1] == "E" and line[1:5].isdigit():
            return line.partition("] ")[2].strip().strip('"')[:300] or line[:300]
    return ""
