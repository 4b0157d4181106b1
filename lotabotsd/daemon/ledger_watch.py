"""The newest verdict on the whole ledger: asked for in the background and before each report."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from lotabotsd.control.rooms import Walking
from lotabotsd.foundation.clock import Clock
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.usage.acknowledged import first_forged
from lotabotsd.usage.ledger import Ledger
from lotabotsd.usage.verification import Check, Fault, Verdict

_FORGED = "the acknowledgement of report {} is not as the vendor signed it"


@dataclass(frozen=True, slots=True)
class Looked:
    """A verdict and when it was given."""

    at_ns: int  # wall time
    verdict: Verdict


class LedgerWatch:
    """Verifies the ledger and remembers what was found. May be used from several threads."""

    def __init__(self, ledger: Ledger, clock: Clock, keys: Callable[[], Mapping[str, bytes]]) -> None:
        """`keys` are those that may ever have signed acknowledgements (`Trust.keys_ever`)."""
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self._lock = threading.RLock()  # two walks at once would only take twice as long
        self._last: Looked | None = None
        self._stopping = threading.Event()
        self._asking = threading.Lock()
        self._walker: threading.Thread | None = None
        self._walking = Walking()

    @property
    def last(self) -> Looked | None:
        """What was found last; None until the first walk has ended."""
        return self._last

    def look(self) -> Verdict:
        """Walk the whole chain, in constant memory. Raises DATABASE_DAMAGED, FILE_UNREADABLE, DRAINING."""
        with self._lock:
            verdict = self._verdict()
            self._last = Looked(self._clock.wall_ns(), verdict)
            return verdict

    def begin(self) -> Walking:
        """Walk in the background, where that is not under way; `walking` says how far it is."""
        with self._asking:
            if not self._walking.running:
                self._walking = Walking(running=True)
                self._walker = threading.Thread(target=self._walk, name="ledger-walk", daemon=True)
                self._walker.start()
            return self._walking

    def walking(self) -> Walking:
        """How far the walk of `begin` is, or how it ended."""
        return self._walking

    @contextmanager
    def nobody_walks(self) -> Iterator[None]:
        """While rows are taken out of the ledger: no walk runs, and none begins."""
        with self._lock:
            yield

    def stop(self) -> None:
        """End walks that are under way, and wait for them: the ledger is closed next."""
        self._stopping.set()
        with self._asking:
            walker = self._walker
        if walker is not None:
            walker.join()

    def refuse_damage(self) -> None:
        """Walk the chain; raise LEDGER_DAMAGED when a row was changed or removed.

        A ledger that is only incomplete may be reported: the report's data condition tells of it.
        """
        check = self.look().integrity
        if not check.ok:
            raise LotaBotsError(Code.LEDGER_DAMAGED, check.text)

    def refuse_forged(self) -> None:
        """Raise LEDGER_DAMAGED when an acknowledgement that is kept is not as the vendor signed it."""
        report = first_forged(self._ledger, self._keys())
        if report is not None:
            raise LotaBotsError(Code.LEDGER_DAMAGED, _FORGED.format(report))

    def _walk(self) -> None:
        try:
            verdict = self.look()
        except LotaBotsError as failure:
            self._walking = Walking(failure=failure)
        else:
            self._walking = Walking(row=verdict.rows, last=verdict.rows, verdict=verdict)

    def _tell(self, row: int, last: int) -> None:
        """Called once a page of rows, by whoever walks."""
        if self._stopping.is_set():
            raise LotaBotsError(Code.DRAINING, "the walk along the ledger was given up")
        if threading.current_thread() is self._walker:
            self._walking = Walking(running=True, row=row, last=last)

    def _verdict(self) -> Verdict:
        try:
            verdict = self._ledger.verify(self._tell)
            forged = first_forged(self._ledger, self._keys())
            if forged is None or not verdict.completeness.ok:
                return verdict
            # No matter of integrity: a keyring that cannot be read must not keep reports from being written.
            return replace(verdict, completeness=Check(Fault.FORKED, 0, _FORGED.format(forged)))
        except LotaBotsError as error:
            if error.code is not Code.LEDGER_DAMAGED:
                raise
            head = self._ledger.head()  # a row that holds what no row can hold
            changed = Check(Fault.ROW_HASH_MISMATCH, 0, error.detail)
            return Verdict(changed, Check(), head.sequence, head)
