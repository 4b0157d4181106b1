"""The newest verdict on the whole ledger: asked for in the background and before each report."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from lotabotsd.foundation.clock import Clock
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.usage.ledger import Ledger
from lotabotsd.usage.verification import Check, Fault, Verdict


@dataclass(frozen=True, slots=True)
class Looked:
    """A verdict and when it was given."""

    at_ns: int  # wall time
    verdict: Verdict


class LedgerWatch:
    """Verifies the ledger and remembers what was found. May be used from several threads."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._lock = threading.Lock()  # two walks at once would only take twice as long
        self._last: Looked | None = None

    @property
    def last(self) -> Looked | None:
        """What was found last; None until the first walk has ended."""
        return self._last

    def look(self) -> Verdict:
        """Walk the whole chain, in constant memory. Raises DATABASE_DAMAGED, FILE_UNREADABLE."""
        with self._lock:
            verdict = self._verdict()
            self._last = Looked(self._clock.wall_ns(), verdict)
            return verdict

    def refuse_damage(self) -> None:
        """Walk the chain; raise LEDGER_DAMAGED when a row was changed or removed.

        A ledger that is only incomplete may be reported: the report's data condition tells of it.
        """
        check = self.look().integrity
        if not check.ok:
            raise LotaBotsError(Code.LEDGER_DAMAGED, check.text)

    def _verdict(self) -> Verdict:
        try:
            return self._ledger.verify()
        except LotaBotsError as error:
            if error.code is not Code.LEDGER_DAMAGED:
                raise
            head = self._ledger.head()  # a row that holds what no row can hold
            changed = Check(Fault.ROW_HASH_MISMATCH, 0, error.detail)
            return Verdict(changed, Check(), head.sequence, head)
