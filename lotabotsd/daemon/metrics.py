"""Collect what `/metrics` says: counts from the ledger and the limits table, and how everything is now."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from lotabotsd.gpu.health import judge
from lotabotsd.limits.counters import summed
from lotabotsd.usage.ledger import Ledger
from lotabotsd.usage.tables import UsageRow
from lotabotsd.usage.windows import Meters

from .appliance import Appliance
from .exposition import exposition
from .gpu_metrics import gpu_families
from .own_metrics import MAX_MODELS, Counts, own_families


class UsageSums:
    """Sums over the whole ledger that never go back. May be used from several threads.

    What was sealed does not change any more, so it is added up once; later calls read what came after.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._until = 0  # Unix seconds: windows that began before are in the sums
        self._sealed: dict[tuple[str, str, bool], Meters] = {}

    def now(self) -> dict[tuple[str, str, bool], Meters]:
        """Meters by outcome, model and whether they are charged. Raises DATABASE_DAMAGED."""
        with self._lock:
            until = self._ledger.sealed_until
            if until > self._until:
                _add(self._sealed, self._ledger.usage(self._until, until, by=("model", "outcome")))
                self._until = until
            sums = dict(self._sealed)
            _add(sums, self._ledger.usage(self._until, by=("model", "outcome")))
            return sums


def _add(sums: dict[tuple[str, str, bool], Meters], rows: list[UsageRow]) -> None:
    for row in rows:
        name = (row.outcome, row.model, bool(row.charged))
        sums[name] = sums.get(name, Meters()) + row.meters


class Metrics:
    """The text of `/metrics`. May be used from several threads."""

    def __init__(self, appliance: Appliance, status: Callable[[], dict[str, Any]]) -> None:
        self._appliance = appliance
        self._status = status
        self._sums = UsageSums(appliance.ledger)
        self._named: set[str] = set()  # models with a series of their own, for as long as the daemon runs

    def text(self) -> str:
        """Everything, in Prometheus' text format; takes some milliseconds. Raises DATABASE_DAMAGED."""
        status = self._status()
        seen = self._appliance.gpus.seen
        levels = {facts.uuid: judge(facts, seen.events).level for facts in seen.facts}
        return exposition(
            [
                *own_families(status, self._counts([model["name"] for model in status["models"]])),
                *gpu_families(seen.facts, levels, seen.last_xid),
            ]
        )

    def _counts(self, enabled: list[str]) -> Counts:
        by_outcome: dict[str, Meters] = {}
        # A model keeps its series when it is disabled: a counter must not end while it is looked at.
        self._named |= set(enabled[: MAX_MODELS - len(self._named)])
        by_model = dict.fromkeys(sorted(self._named), 0)
        for (outcome, model, charged), meters in self._sums.now().items():
            by_outcome[outcome] = by_outcome.get(outcome, Meters()) + meters
            if charged and model in by_model:
                by_model[model] += meters.inferences
        segments = sum(1 for _ in self._appliance.config.paths.journal.glob("*/*.seg"))
        publishing = self._appliance.publishing
        return Counts(by_outcome, by_model, publishing.in_flight(), summed(publishing.counters()), segments)
