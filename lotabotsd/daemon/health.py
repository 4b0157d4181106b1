"""How the daemon's own loops fare: the last success of each, and the failure that stands since."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from lotabotsd.foundation.clock import NANOSECONDS, Clock
from lotabotsd.foundation.errors import LotaBotsError


@dataclass(frozen=True, slots=True)
class Pulse:
    """One loop: when its last round ended, and what failed then."""

    name: str
    bound_ns: int  # a round that has not ended for so long is stuck
    ended_ns: int  # monotonic
    succeeded_wall_ns: int = 0  # 0: never
    failure: LotaBotsError | None = None
    failures: int = 0  # in a row


class Health:
    """Written by the loops, read by status and by the watchdog; safe to use from several threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pulses: dict[str, Pulse] = {}

    def watch(self, name: str, bound_seconds: float) -> None:
        """Expect rounds of this name from now on."""
        bound_ns = int(bound_seconds * NANOSECONDS)
        with self._lock:
            self._pulses[name] = Pulse(name, bound_ns, self._clock.monotonic_ns())

    def succeeded(self, name: str) -> None:
        """A round ended well."""
        with self._lock:
            self._pulses[name] = replace(
                self._pulses[name],
                ended_ns=self._clock.monotonic_ns(),
                succeeded_wall_ns=self._clock.wall_ns(),
                failure=None,
                failures=0,
            )

    def failed(self, name: str, failure: LotaBotsError) -> int:
        """A round ended with a failure of the catalogue; how many in a row that makes."""
        with self._lock:
            pulse = self._pulses[name]
            self._pulses[name] = replace(
                pulse,
                ended_ns=self._clock.monotonic_ns(),
                failure=failure,
                failures=pulse.failures + 1,
            )
            return pulse.failures + 1

    def pulses(self) -> dict[str, Pulse]:
        """All loops by name."""
        with self._lock:
            return dict(self._pulses)

    def stuck(self) -> list[str]:
        """Loops whose round takes longer than it may; the watchdog is fed only while there are none."""
        now_ns = self._clock.monotonic_ns()
        return [pulse.name for pulse in self.pulses().values() if now_ns - pulse.ended_ns > pulse.bound_ns]
