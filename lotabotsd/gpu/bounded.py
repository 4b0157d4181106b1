"""Ask another probe in a thread of its own, so that a driver that hangs holds nobody else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue

from .facts import GpuFacts, XidEvent, without_answer
from .probe import NoGpus, Probe

BOUND_SECONDS = 10.0  # without persistence mode a driver needs some seconds for its first answers
SILENT = f"the driver has not answered within {BOUND_SECONDS:g} s"
MAX_KEPT_EVENTS = 1_024


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one look brought."""

    source: str
    facts: tuple[GpuFacts, ...]
    events: tuple[XidEvent, ...]


class BoundedProbe:
    """A probe whose every call returns within `bound_seconds`. May be used from several threads.

    There is one question under way at a time, so that at most one thread is ever stuck in the driver. While
    it is, every GPU counts as one that does not answer; its answer is taken when it comes. A driver that was
    not there is looked for again each time. What hangs inside the kernel cannot be ended: such a thread is
    left behind when the daemon stops.
    """

    def __init__(self, open_probe: Callable[[], Probe], bound_seconds: float = BOUND_SECONDS) -> None:
        self._open = open_probe
        self._bound_seconds = bound_seconds
        self._lock = threading.Lock()
        self._questions: SimpleQueue[Future[_Seen] | None] = SimpleQueue()
        self._under_way: Future[_Seen] | None = None
        self._last = _Seen("NVML has not answered yet", (), ())
        self._events: list[XidEvent] = []
        self._thread = threading.Thread(target=self._answer, name="gpu probe", daemon=True)
        self._thread.start()

    @property
    def source(self) -> str:
        return self._last.source

    def look(self) -> tuple[GpuFacts, ...]:
        with self._lock:
            if self._under_way is None:
                self._under_way = Future()
                self._questions.put(self._under_way)
            try:
                seen = self._under_way.result(self._bound_seconds)
            except TimeoutError:
                return tuple(without_answer(known, SILENT) for known in self._last.facts)
            self._under_way = None
            self._last = seen
            self._events = [*self._events, *seen.events][-MAX_KEPT_EVENTS:]
            return seen.facts

    def events(self) -> tuple[XidEvent, ...]:
        with self._lock:
            found, self._events = tuple(self._events), []
            return found

    def close(self) -> None:
        self._questions.put(None)
        self._thread.join(self._bound_seconds)

    def _answer(self) -> None:
        """The thread: the only one that ever calls the driver."""
        probe: Probe = NoGpus("")
        while (question := self._questions.get()) is not None:
            try:
                if isinstance(probe, NoGpus):
                    probe = self._open()
                facts = probe.look()
                question.set_result(_Seen(probe.source, facts, probe.events()))
            except BaseException as bug:
                question.set_exception(bug)  # to whoever asked: a bug ends the daemon, not this thread
                raise
        probe.close()
