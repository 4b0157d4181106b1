"""What the vendor has rated: usage of verified reports by month, and every line that was ever billed.

In `billing.db` of the vendor's directory, beside `vendor.db`. Lines and the terms of a month only ever grow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import TYPE_CHECKING

from lotabotsd.foundation.database import IN_MEMORY, open_database, transaction
from lotabotsd.usage.bill_lines import Line, line_json, parse_line
from lotabotsd.usage.rating import Plan
from lotabotsd.usage.windows import Meters

if TYPE_CHECKING:
    import sqlite_utils

APPLICATION_ID = 0x4C424249  # "LBBI"
MIGRATIONS = [
    """
    CREATE TABLE reports (
        report_hash TEXT PRIMARY KEY,
        appliance TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        period_from INTEGER NOT NULL,          -- Unix seconds, half-open
        period_until INTEGER NOT NULL,
        licence_id TEXT NOT NULL,
        customer TEXT NOT NULL,
        organisation_names TEXT NOT NULL       -- JSON: by id
    ) STRICT;
    CREATE INDEX reports_of_an_appliance ON reports (appliance);
    CREATE TABLE usage (                       -- charged usage, in the month that it is for
        report_hash TEXT NOT NULL REFERENCES reports,
        month INTEGER NOT NULL,
        organisation TEXT NOT NULL,
        model TEXT NOT NULL,
        meters TEXT NOT NULL,                  -- JSON: five whole numbers of any size
        PRIMARY KEY (report_hash, month, organisation, model)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE months (                      -- the terms that a billed month keeps
        appliance TEXT NOT NULL,
        month INTEGER NOT NULL,
        card TEXT NOT NULL,                    -- canonical JSON
        tier TEXT NOT NULL,
        inferences_included INTEGER NOT NULL,
        PRIMARY KEY (appliance, month)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE lines (
        position INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        appliance TEXT NOT NULL,
        month INTEGER NOT NULL,
        line BLOB NOT NULL                     -- canonical JSON
    ) STRICT;
    CREATE INDEX lines_of_a_month ON lines (appliance, month);
    CREATE TRIGGER lines_stay_as_they_are BEFORE UPDATE ON lines
    BEGIN SELECT RAISE(ABORT, 'a billed line cannot be changed'); END;
    CREATE TRIGGER lines_stay BEFORE DELETE ON lines
    BEGIN SELECT RAISE(ABORT, 'a billed line cannot be removed'); END;
    CREATE TRIGGER months_stay_as_they_are BEFORE UPDATE ON months
    BEGIN SELECT RAISE(ABORT, 'the terms of a billed month cannot be changed'); END;
    CREATE TRIGGER months_stay BEFORE DELETE ON months
    BEGIN SELECT RAISE(ABORT, 'a billed month cannot be removed'); END;
    """
]


@dataclass(frozen=True, slots=True)
class RatedReport:
    """What billing remembers of a report; the period is half-open, in Unix seconds."""

    report_hash: str
    appliance: str
    sequence: int
    period_from: int
    period_until: int
    licence_id: str
    customer: str
    organisation_names: dict[str, str]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a month is rated with."""

    card: bytes
    plan: Plan


class Books:
    """`billing.db` of a directory, or a temporary one in memory."""

    def __init__(self, directory: Path | None) -> None:
        path = IN_MEMORY if directory is None else directory / "billing.db"
        self._db: sqlite_utils.Database = open_database(
            path, application_id=APPLICATION_ID, migrations=MIGRATIONS
        )

    def close(self) -> None:
        """Let go of the file."""
        self._db.conn.close()

    def writing(self) -> AbstractContextManager[Connection]:
        """One transaction: what happens in it is kept as a whole or not at all."""
        return transaction(self._db)

    def add_report(self, report: RatedReport, usage: dict[int, dict[tuple[str, str], Meters]]) -> None:
        """Take a report's usage in; one that is known already changes nothing."""
        connection = self._db.conn
        added = connection.execute(
            "INSERT OR IGNORE INTO reports VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                report.report_hash, report.appliance, report.sequence, report.period_from,
                report.period_until, report.licence_id, report.customer,
                json.dumps(report.organisation_names, sort_keys=True),
            ),
        ).rowcount  # fmt: skip
        if added:
            connection.executemany(
                "INSERT INTO usage VALUES (?, ?, ?, ?, ?)",
                [
                    (report.report_hash, month, organisation, model, json.dumps(astuple(meters)))
                    for month, used in usage.items()
                    for (organisation, model), meters in used.items()
                ],
            )

    def reports(self, appliance: str) -> list[RatedReport]:
        """The reports of an appliance that were taken in, the oldest first."""
        found = self._db.conn.execute(
            "SELECT * FROM reports WHERE appliance = ? ORDER BY sequence, report_hash", (appliance,)
        ).fetchall()
        return [RatedReport(*(*fields[:7], json.loads(fields[7]))) for fields in found]

    def usage(
        self, appliance: str, month: int, *, leaving_out: Set[str] = frozenset()
    ) -> dict[tuple[str, str], Meters]:
        """All that is known of a month, by organisation and model, but what reports `leaving_out` say."""
        found = self._db.conn.execute(
            "SELECT organisation, model, meters, report_hash FROM usage JOIN reports USING (report_hash) "
            "WHERE appliance = ? AND month = ?",
            (appliance, month),
        ).fetchall()
        sums: dict[tuple[str, str], Meters] = {}
        for organisation, model, meters, report_hash in found:
            if report_hash in leaving_out:
                continue
            name = (organisation, model)
            sums[name] = sums.get(name, Meters()) + Meters(*json.loads(meters))
        return sums

    def terms(self, appliance: str, month: int) -> Terms | None:
        """What a month was first billed with; None where it was not billed yet."""
        found = self._db.conn.execute(
            "SELECT card, tier, inferences_included FROM months WHERE appliance = ? AND month = ?",
            (appliance, month),
        ).fetchone()
        return Terms(found[0].encode(), Plan(found[1], found[2])) if found else None

    def keep_terms(self, appliance: str, month: int, terms: Terms) -> None:
        """Remember that a month is billed, and with what."""
        plan = terms.plan
        self._db.conn.execute(
            "INSERT INTO months VALUES (?, ?, ?, ?, ?)",
            (appliance, month, terms.card.decode(), plan.tier, plan.inferences_included),
        )

    def lines(self, appliance: str, month: int) -> list[Line]:
        """Every line billed for a month, in the order of billing."""
        found = self._db.conn.execute(
            "SELECT line FROM lines WHERE appliance = ? AND month = ? ORDER BY position", (appliance, month)
        ).fetchall()
        return [parse_line(data) for (data,) in found]

    def appliances(self) -> list[str]:
        """Every appliance of which a report was taken in."""
        query = "SELECT DISTINCT appliance FROM reports ORDER BY appliance"
        return [str(appliance) for (appliance,) in self._db.conn.execute(query).fetchall()]

    def lines_billed_in(self, appliance: str, billing_month: str) -> list[Line]:
        """Every line that is billed in a month (`2026-11`), corrections of others too, in their order."""
        found = self._db.conn.execute(
            "SELECT line FROM lines WHERE appliance = ?"
            " AND json_extract(CAST(line AS TEXT), '$.billing_month') = ? ORDER BY month, position",
            (appliance, billing_month),
        ).fetchall()
        return [parse_line(data) for (data,) in found]

    def add_lines(self, month: int, lines: Sequence[Line]) -> None:
        """Remember lines as billed."""
        self._db.conn.executemany(
            "INSERT INTO lines (id, appliance, month, line) VALUES (?, ?, ?, ?)",
            [(line.id, line.appliance, month, line_json(line)) for line in lines],
        )
