"""What the vendor remembers: licences issued and usage reports verified, in one SQLite file per directory."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from sqlite3 import Connection
from typing import TYPE_CHECKING

from lotabotsd.foundation.clock import parse_rfc3339, rfc3339
from lotabotsd.foundation.database import open_database, transaction
from lotabotsd.licence.claims import Licence
from lotabotsd.licence.revocations import Revoked

from .history import Finding, Reported, Verdict

if TYPE_CHECKING:
    import sqlite_utils

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
]


class Records:
    """The file `vendor.db` of a directory, or a temporary one in memory."""

    def __init__(self, directory: Path | None) -> None:
        path = Path(":memory:") if directory is None else directory / "vendor.db"
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

    def reports(self, appliance_id: str) -> list[Reported]:
        """Every report of an appliance that was verified before."""
        rows = self._db.execute("SELECT reported FROM reports WHERE appliance_id = ?", [appliance_id])
        return [Reported(**json.loads(row[0])) for row in rows.fetchall()]

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
        """Remember a report and what was said of it."""
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
