"""Take the oldest, acknowledged windows out of the ledger; the hash of the last one stays as its anchor."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from . import tables
from .ledger import Ledger
from .windows import Head

DAY = 86_400


@dataclass(frozen=True, slots=True)
class Purge:
    """The rows `first` to `last`, up to `until` in Unix seconds; `head` is the last one's hash."""

    first: int
    last: int
    head: bytes
    until: int
    reports: int  # how many reports' rows they are

    @property
    def rows(self) -> int:
        """How many they are."""
        return self.last - self.first + 1


def plan_purge(ledger: Ledger, now: int, retention_days: int) -> Purge | None:
    """What `purge` would take out now; None where that is nothing."""
    with ledger.reading() as connection:
        return _plan(connection, now, retention_days)


def purge(ledger: Ledger, now: int, retention_days: int, who: str) -> Purge | None:
    """Take out every report's rows that ended `retention_days` ago, as far as all were acknowledged.

    One transaction: sums, anchor and removal, or nothing. The first report that is not accepted stops it,
    however old what follows is; the newest row always stays. Raises DISK_FULL, DATABASE_DAMAGED.
    """
    with ledger.transaction() as connection:
        plan = _plan(connection, now, retention_days)
        if plan is None:
            return None
        connection.execute(
            "INSERT INTO purges VALUES (NULL, ?, ?, ?, ?, ?)", (now, plan.last, plan.head, plan.until, who)
        )
        connection.execute(
            "INSERT INTO purged SELECT organisation, key, model, outcome, charged, sum(requests), "
            "sum(inferences), sum(input_bytes), sum(output_bytes), sum(gate_us) FROM windows "
            "WHERE kind = 'usage' AND sequence <= ? GROUP BY 1, 2, 3, 4, 5 "
            "ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, "
            "inferences = inferences + excluded.inferences, "
            "input_bytes = input_bytes + excluded.input_bytes, "
            "output_bytes = output_bytes + excluded.output_bytes, gate_us = gate_us + excluded.gate_us",
            (plan.last,),
        )
        connection.execute("DELETE FROM windows WHERE sequence <= ?", (plan.last,))
    return plan


def _plan(connection: sqlite3.Connection, now: int, retention_days: int) -> Purge | None:
    anchor = tables.read_anchor(connection).head
    newest = tables.read_head_row(connection).sequence
    before = now - retention_days * DAY
    reports = connection.execute(
        "SELECT last, head, period_until, sequence IN "
        "(SELECT report FROM acknowledgements WHERE verdict <> 'rejected') "
        "FROM reports WHERE last > ? ORDER BY sequence",
        (anchor.sequence,),
    )
    found: tuple[Head, int] | None = None
    count = 0
    for last, head, until, accepted in reports:
        if not accepted or until > before or last >= newest:
            break
        found, count = (Head(last, head), until), count + 1
    if found is None:
        return None
    return Purge(anchor.sequence + 1, found[0].sequence, found[0].hash, found[1], count)
