"""Where the comparison with Triton's counters is kept: beside the ledger's own numbers.

One backup holds both, and so brings both back to the same moment.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lotabotsd.foundation.canonical import canonical_json, strict_json

from . import tables
from .ledger import Ledger
from .reconciliation import Passed, State, read_state, state_value

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Held:
    """What the ledger holds at one moment."""

    passed: Mapping[str, Passed]  # by model
    own: Mapping[str, Mapping[str, int]]  # our own requests by run of Triton and model


def read_held(ledger: Ledger) -> Held:
    """The requests that may have reached Triton, and our own. Raises DATABASE_DAMAGED."""
    own: dict[str, dict[str, int]] = {}
    with ledger.reading() as connection:
        passed = tables.read_passed(connection)
        for run, model, requests in connection.execute("SELECT * FROM own_requests"):
            own.setdefault(run, {})[model] = requests
    return Held(passed, own)


def note_own(ledger: Ledger, run: str, model: str, requests: int) -> None:
    """Keep that so many requests of our own are about to be sent. Raises DISK_FULL, DATABASE_DAMAGED."""
    with ledger.transaction() as connection:
        connection.execute(
            "INSERT INTO own_requests VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET requests = requests + excluded.requests",
            (run, model, requests),
        )


def load_state(ledger: Ledger) -> State:
    """What was compared so far; one that cannot be read begins anew, which the next report shows."""
    with ledger.reading() as connection:
        found = connection.execute("SELECT state FROM reconciliation").fetchone()
    if found is None:
        return State()
    try:
        return read_state(strict_json(found[0]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.error("the comparison with Triton's counters cannot be read, it begins anew: %s", error)
        return State()


def keep_state(ledger: Ledger, state: State, runs: Collection[str]) -> None:
    """Keep what was compared, and forget our own requests to other runs than these.

    Raises DISK_FULL, DATABASE_DAMAGED.
    """
    kept = canonical_json(state_value(state)).decode()
    with ledger.transaction() as connection:
        connection.execute(
            "INSERT INTO reconciliation VALUES (1, ?) ON CONFLICT DO UPDATE SET state = excluded.state",
            (kept,),
        )
        gone = {row[0] for row in connection.execute("SELECT DISTINCT run FROM own_requests")} - set(runs)
        connection.executemany("DELETE FROM own_requests WHERE run = ?", [(run,) for run in gone])
