"""What the vendor remembers, in one SQLite file per directory: customers, licences, seats, reports, heads.

A seat is one appliance. It begins with the first thing that is known of it, as its first verified report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from sqlite3 import Connection
from typing import TYPE_CHECKING

from lotabotsd.foundation.clock import parse_rfc3339, rfc3339
from lotabotsd.foundation.database import open_database, transaction
from lotabotsd.licence.claims import Licence
from lotabotsd.licence.revocations import Revoked

from .history import Finding, Head, Reported, Verdict, decided

if TYPE_CHECKING:
    import sqlite_utils

BOOK = "vendor.db"
APPLICATION_ID = 0x4C42564E  # "LBVN"
MIGRATIONS = [
    """
    CREATE TABLE licences (
        sequence INTEGER PRIMARY KEY,
        licence_id TEXT NOT NULL UNIQUE,
        customer TEXT NOT NULL,
        tier TEXT NOT NULL,
        kind TEXT NOT NULL,
        issued_at TEXT NOT NULL,
        expires_at TEXT NOT NULL,
        envelope BLOB NOT NULL
    ) STRICT;
    CREATE TABLE reports (
        report_hash TEXT PRIMARY KEY,
        appliance_id TEXT NOT NULL,
        reported TEXT NOT NULL,
        verdict TEXT NOT NULL,
        verified_at_ns INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX reports_of_an_appliance ON reports (appliance_id);
    """,
    """
    CREATE TABLE acknowledgements (
        report_hash TEXT PRIMARY KEY REFERENCES reports (report_hash),
        verdict TEXT NOT NULL,
        issued_at_ns INTEGER NOT NULL,
        envelope BLOB NOT NULL
    ) STRICT;
    """,
    """
    CREATE TABLE revoked (
        licence_id TEXT PRIMARY KEY REFERENCES licences (licence_id),
        reason TEXT NOT NULL,
        revoked_at TEXT NOT NULL
    ) STRICT;
    CREATE TABLE revocations (
        version INTEGER PRIMARY KEY,
        envelope BLOB NOT NULL
    ) STRICT;
    """,
    """
    CREATE TABLE customers (
        name TEXT PRIMARY KEY,                 -- as the licences say it
        since TEXT NOT NULL
    ) STRICT;
    INSERT INTO customers SELECT customer, min(issued_at) FROM licences GROUP BY customer;
    CREATE TABLE seats (
        appliance_id TEXT PRIMARY KEY,
        key_id TEXT,                           -- of its first report; null until then
        licence_id TEXT,                       -- issued here, named by its newest report
        fingerprint TEXT,                      -- JSON: component name to hex digits; null: not known
        since_ns INTEGER NOT NULL
    ) STRICT;
    INSERT INTO seats
    SELECT
        appliance_id,
        (
            SELECT json_extract(reported, '$.key_id') FROM reports AS earliest
            WHERE earliest.appliance_id = reports.appliance_id ORDER BY verified_at_ns LIMIT 1
        ),
        (
            SELECT licences.licence_id FROM reports AS latest
            JOIN licences ON licences.licence_id = json_extract(latest.reported, '$.licence_id')
            WHERE latest.appliance_id = reports.appliance_id
            ORDER BY json_extract(latest.reported, '$.sequence') DESC LIMIT 1
        ),
        NULL,
        min(verified_at_ns)
    FROM reports GROUP BY appliance_id;
    CREATE TABLE heads (                       -- where each verified report begins and ends
        report_hash TEXT PRIMARY KEY REFERENCES reports (report_hash),
        appliance_id TEXT NOT NULL REFERENCES seats (appliance_id),
        key_id TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        previous_report_hash TEXT,
        previous_head TEXT NOT NULL,
        head TEXT NOT NULL,
        first_row INTEGER NOT NULL,            -- inclusive, both
        last_row INTEGER NOT NULL,
        period_from INTEGER NOT NULL,          -- Unix seconds, half-open
        period_until INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX heads_of_a_seat ON heads (appliance_id, sequence);
    INSERT INTO heads
    SELECT
        report_hash, appliance_id,
        json_extract(reported, '$.key_id'), json_extract(reported, '$.sequence'),
        json_extract(reported, '$.previous_report_hash'), json_extract(reported, '$.previous_head'),
        json_extract(reported, '$.head'), json_extract(reported, '$.first'), json_extract(reported, '$.last'),
        json_extract(reported, '$.period_from'), json_extract(reported, '$.period_until')
    FROM reports;
    """,
]


@dataclass(frozen=True, slots=True)
class Seat:
    """One appliance, as far as it is known."""

    appliance_id: str
    since_ns: int  # nanoseconds since 1970
    key_id: str | None = None
    licence_id: str | None = None  # one that was issued here
    fingerprint: Mapping[str, str] | None = None  # component name to hex digits


class Records:
    """The file `vendor.db` of a directory, or a temporary one in memory."""

    def __init__(self, directory: Path | None) -> None:
        path = Path(":memory:") if directory is None else directory / BOOK
        self._db: sqlite_utils.Database = open_database(
            path, application_id=APPLICATION_ID, migrations=MIGRATIONS
        )

    def close(self) -> None:
        """Let go of the file."""
        self._db.conn.close()

    def writing(self) -> AbstractContextManager[Connection]:
        """One transaction: what happens in it is kept as a whole or not at all."""
        return transaction(self._db)

    def next_sequence(self, at_least: int) -> int:
        """A sequence above every other one; call it inside `writing`."""
        (highest,) = self._db.execute("SELECT coalesce(max(sequence), 0) FROM licences").fetchone()
        return max(int(highest) + 1, at_least)

    def add_licence(self, licence: Licence, envelope: bytes) -> None:
        """Remember an issued licence."""
        self._db.execute(
            "INSERT INTO licences"
            " (sequence, licence_id, customer, tier, kind, issued_at, expires_at, envelope)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                licence.sequence,
                licence.licence_id,
                licence.customer,
                licence.tier.value,
                licence.kind.value,
                licence.issued_at.isoformat(),
                licence.expires_at.isoformat(),
                envelope,
            ],
        )

    def licences(self) -> list[dict[str, str | int]]:
        """Every issued licence, the newest last."""
        columns = ("sequence", "licence_id", "customer", "tier", "kind", "issued_at", "expires_at")
        rows = self._db.execute(f"SELECT {', '.join(columns)} FROM licences ORDER BY sequence").fetchall()  # noqa: S608 - fixed names
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def licence(self, licence_id: str) -> bytes | None:
        """The envelope of an issued licence."""
        row = self._db.execute("SELECT envelope FROM licences WHERE licence_id = ?", [licence_id]).fetchone()
        return bytes(row[0]) if row else None

    def revoke(self, licence_id: str, revoked: Revoked) -> bool:
        """Note that a licence is taken back; False where it was before."""
        return bool(
            self._db.conn.execute(
                "INSERT OR IGNORE INTO revoked VALUES (?, ?, ?)",
                [licence_id, revoked.reason, rfc3339(revoked.revoked_at)],
            ).rowcount
        )

    def revoked(self) -> dict[str, Revoked]:
        """Every licence that was taken back, by id."""
        rows = self._db.execute("SELECT licence_id, reason, revoked_at FROM revoked").fetchall()
        return {str(row[0]): Revoked(str(row[1]), parse_rfc3339(row[2])) for row in rows}

    def add_revocations(self, version: int, envelope: bytes) -> None:
        """Remember a list as it was sent."""
        self._db.execute("INSERT INTO revocations VALUES (?, ?)", [version, envelope])

    def newest_revocations(self) -> tuple[int, bytes] | None:
        """The newest list and its number."""
        row = self._db.execute(
            "SELECT version, envelope FROM revocations ORDER BY version DESC LIMIT 1"
        ).fetchone()
        return (int(row[0]), bytes(row[1])) if row else None

    def customers(self) -> list[str]:
        """The name of every customer, sorted."""
        return [
            str(row[0]) for row in self._db.execute("SELECT name FROM customers ORDER BY name").fetchall()
        ]

    def add_customer(self, name: str, since: datetime) -> None:
        """Remember a customer; one that is known stays as it is."""
        self._db.execute(
            "INSERT INTO customers (name, since) VALUES (?, ?) ON CONFLICT DO NOTHING",
            [name, since.isoformat()],
        )

    def seats(self, appliance_id: str | None = None) -> list[Seat]:
        """Every seat, by appliance, or just that of one."""
        rows = self._db.execute(
            "SELECT appliance_id, since_ns, key_id, licence_id, fingerprint FROM seats"
            " WHERE ?1 IS NULL OR appliance_id = ?1 ORDER BY appliance_id",
            [appliance_id],
        ).fetchall()
        return [
            Seat(appliance, since, key, licence, json.loads(components) if components else None)
            for appliance, since, key, licence, components in rows
        ]

    def seat(self, appliance_id: str) -> Seat | None:
        """What is known of one appliance."""
        return next(iter(self.seats(appliance_id)), None)

    def move_seat(self, seat: Seat) -> None:
        """An appliance is another machine from now on, as somebody decided: its key is the new one's."""
        self.add_seat(seat)
        self._db.execute(
            "UPDATE seats SET key_id = ? WHERE appliance_id = ?", [seat.key_id, seat.appliance_id]
        )

    def add_seat(self, seat: Seat) -> None:
        """Remember a seat, or what is new of one: its beginning and its first key stay."""
        self._db.execute(
            "INSERT INTO seats (appliance_id, since_ns, key_id, licence_id, fingerprint)"
            " VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (appliance_id) DO UPDATE SET"
            " key_id = coalesce(key_id, excluded.key_id),"
            " licence_id = coalesce(excluded.licence_id, licence_id),"
            " fingerprint = coalesce(excluded.fingerprint, fingerprint)",
            [
                seat.appliance_id,
                seat.since_ns,
                seat.key_id,
                seat.licence_id,
                json.dumps(dict(seat.fingerprint), sort_keys=True) if seat.fingerprint is not None else None,
            ],
        )

    def heads(self, appliance_id: str) -> list[Head]:
        """Where the verified reports of a seat begin and end, by number, without the rejected ones."""
        rows = self._db.execute(
            "SELECT heads.* FROM heads LEFT JOIN acknowledgements USING (report_hash)"
            " WHERE appliance_id = ? AND coalesce(verdict, '') <> 'rejected' ORDER BY sequence, report_hash",
            [appliance_id],
        ).fetchall()
        return [Head(*row) for row in rows]

    def reports(self, appliance_id: str) -> list[Reported]:
        """Every report of an appliance that was verified before."""
        rows = self._db.execute("SELECT reported FROM reports WHERE appliance_id = ?", [appliance_id])
        return [Reported(**json.loads(row[0])) for row in rows.fetchall()]

    def reported_under(self, licence_id: str) -> bool:
        """Whether any verified report names this licence."""
        query = "SELECT 1 FROM reports WHERE json_extract(reported, '$.licence_id') = ? LIMIT 1"
        return self._db.execute(query, [licence_id]).fetchone() is not None

    def decided(self, report_hash: str) -> Verdict | None:
        """The verdict on a report as it stands after its answer, if it was verified."""
        known = self.verdict(report_hash)
        if known is None:
            return None
        row = self._db.execute(
            "SELECT verdict FROM acknowledgements WHERE report_hash = ?", [report_hash]
        ).fetchone()
        return decided(known[0], str(row[0]) if row else "")

    def verdict(self, report_hash: str) -> tuple[Verdict, int] | None:
        """What was said of a report when it was first verified, and when (nanoseconds since 1970)."""
        row = self._db.execute(
            "SELECT verdict, verified_at_ns FROM reports WHERE report_hash = ?", [report_hash]
        ).fetchone()
        if row is None:
            return None
        value = json.loads(row[0])
        findings = tuple(Finding(**finding) for finding in value.pop("findings"))
        return Verdict(**value, findings=findings), int(row[1])

    def add_report(self, reported: Reported, verdict: Verdict, now_ns: int) -> None:
        """Remember a report, what was said of it, its head, and the seat that it comes from."""
        self._db.execute(
            "INSERT INTO reports (report_hash, appliance_id, reported, verdict, verified_at_ns)"
            " VALUES (?, ?, ?, ?, ?)",
            [
                reported.report_hash,
                reported.appliance_id,
                json.dumps(asdict(reported)),
                json.dumps(asdict(verdict)),
                now_ns,
            ],
        )
        newest = all(head.sequence <= reported.sequence for head in self.heads(reported.appliance_id))
        known = newest and self.licence(reported.licence_id) is not None
        self.add_seat(
            Seat(reported.appliance_id, now_ns, reported.key_id, reported.licence_id if known else None)
        )
        values = [getattr(reported, field.name) for field in fields(Head)]
        self._db.execute(f"INSERT INTO heads VALUES ({', '.join('?' * len(values))})", values)  # noqa: S608 - question marks

    def report(self, report_id: str) -> Reported | None:
        """A verified report by its hash, or by a beginning of it that no other report has."""
        rows = self._db.execute(
            "SELECT reported FROM reports WHERE substr(report_hash, 1, ?) = ? LIMIT 2",
            [len(report_id), report_id],
        ).fetchall()
        return Reported(**json.loads(rows[0][0])) if len(rows) == 1 else None

    def acknowledgement(self, report_hash: str) -> bytes | None:
        """The envelope of the acknowledgement that was issued for a report."""
        row = self._db.execute(
            "SELECT envelope FROM acknowledgements WHERE report_hash = ?", [report_hash]
        ).fetchone()
        return bytes(row[0]) if row else None

    def rejected(self) -> frozenset[str]:
        """The hashes of the reports that were answered with a rejection."""
        rows = self._db.execute("SELECT report_hash FROM acknowledgements WHERE verdict = 'rejected'")
        return frozenset(str(row[0]) for row in rows.fetchall())

    def acknowledgements(self, appliance_id: str) -> list[bytes]:
        """The envelopes of every acknowledgement for an appliance, the newest first."""
        rows = self._db.execute(
            "SELECT envelope FROM acknowledgements JOIN reports USING (report_hash)"
            " WHERE appliance_id = ? ORDER BY issued_at_ns DESC, acknowledgements.rowid DESC",
            [appliance_id],
        ).fetchall()
        return [bytes(row[0]) for row in rows]

    def add_acknowledgement(self, report_hash: str, verdict: str, now_ns: int, envelope: bytes) -> None:
        """Remember an issued acknowledgement."""
        self._db.execute(
            "INSERT INTO acknowledgements (report_hash, verdict, issued_at_ns, envelope) VALUES (?, ?, ?, ?)",
            [report_hash, verdict, now_ns, envelope],
        )

    def history(self) -> list[tuple[Reported, str, int, str]]:
        """Every verified report by appliance and number, with verdict, time and answer ("": none yet)."""
        rows = self._db.execute(
            "SELECT reported, json_extract(reports.verdict, '$.verdict'), verified_at_ns,"
            " coalesce(acknowledgements.verdict, '') FROM reports"
            " LEFT JOIN acknowledgements USING (report_hash)"
            " ORDER BY appliance_id, json_extract(reported, '$.sequence'), verified_at_ns"
        ).fetchall()
        return [(Reported(**json.loads(row[0])), str(row[1]), int(row[2]), str(row[3])) for row in rows]
