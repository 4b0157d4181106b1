"""What the daemon does again and again: one round, a pause, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lotabotsd.foundation.errors import LotaBotsError

from .health import Health

log = logging.getLogger("lotabots.daemon")

LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Loop:
    """One kind of round; `bound_seconds` is how long a round may take before the daemon counts as stuck."""

    name: str
    period_seconds: float
    bound_seconds: float
    one_round: Callable[[], Awaitable[None]]


def pause_seconds(period_seconds: float, failures: int) -> float:
    """The pause after a round: the period, doubled with each failure in a row, to a minute at most."""
    longest = max(period_seconds, LONGEST_PAUSE_SECONDS)
    return min(longest, period_seconds * 2.0 ** min(failures, 16))


async def run_loop(loop: Loop, health: Health, stop: asyncio.Event) -> None:
    """Run rounds until `stop`. A failure of the catalogue is told and tried again; a bug ends the daemon."""
    health.watch(loop.name, loop.bound_seconds + max(loop.period_seconds, LONGEST_PAUSE_SECONDS))
    while not stop.is_set():
        failures = 0
        try:
            await loop.one_round()
        except LotaBotsError as failure:
            failures = health.failed(loop.name, failure)
            if failures == 1:  # the same failure again and again would flood the log
                log.error("%s: %s", loop.name, failure, extra={"code": failure.code.value})
        else:
            health.succeeded(loop.name)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), timeout=pause_seconds(loop.period_seconds, failures))
