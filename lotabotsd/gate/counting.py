"""What a worker counts for the metrics: in memory while it serves, into the limits table every 50 ms."""

from __future__ import annotations

from lotabotsd.limits.counters import Counter
from lotabotsd.limits.layout import COUNTERS
from lotabotsd.limits.table import Table

_CLASSES = {2: int(Counter.ANSWERS_2XX), 4: int(Counter.ANSWERS_4XX), 5: int(Counter.ANSWERS_5XX)}


class Counts:
    """The numbers since the last `flush`, by `Counter`; one thread counts."""

    def __init__(self, worker: int = 0) -> None:
        self._worker = worker
        self._since = [0] * COUNTERS
        self._begun = False

    def add(self, counter: int, amount: int = 1) -> None:
        """Count something."""
        self._since[counter] += amount

    def answered(self, status: int) -> None:
        """Count an answer by its class."""
        index = _CLASSES.get(status // 100)
        if index is not None:
            self._since[index] += 1
        if status == 401:
            self._since[Counter.UNAUTHENTICATED] += 1

    def flush(self, table: Table) -> None:
        """Hand the numbers over to the table, where the worker's successors go on with them."""
        if not self._begun:
            self._begun = True
            if not table.counters()[self._worker][Counter.COUNTING]:
                table.count(Counter.COUNTING)
        for counter, amount in enumerate(self._since):
            if amount:
                table.count(counter, amount)
                self._since[counter] = 0
