"""When the gate's parent replaces a worker that still lives. Pure."""

from __future__ import annotations

from dataclasses import dataclass

STARTED, ALIVE = b"1", b"."  # what a worker says to its parent through its pipe
START_SECONDS = 60.0  # from its start until it accepts connections
SILENT_SECONDS = 10.0  # it speaks every 50 ms; a large JSON body may keep it busy for a second or two
BEHIND_SECONDS = 2.0  # somebody waits for a revocation to reach it
HOLDING_SECONDS = 1.0  # everybody waits for the lock that it holds


@dataclass(frozen=True, slots=True)
class Watched:
    """What the parent knows of one of its living workers."""

    started: bool  # it has accepted connections
    silent_seconds: float  # since it spoke last, or since its start
    behind: bool = False  # a newer policy is in force than the one it applied last
    holds_lock: bool = False  # of the limits table


def overdue(worker: Watched) -> str:
    """Why this worker is to be replaced; empty while it is not."""
    silent = worker.silent_seconds
    if not worker.started:
        return "it did not start" if silent > START_SECONDS else ""
    if worker.holds_lock and silent > HOLDING_SECONDS:
        return "it is silent and holds the lock of the limits"
    if worker.behind and silent > BEHIND_SECONDS:
        return "it is silent and has not applied the policy in force"
    return "it is silent" if silent > SILENT_SECONDS else ""
