"""Usage reports: freeze a range of the ledger, write its signed zip, show beforehand what would leave."""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.foundation.canonical import canonical_json, strict_json
from lotabotsd.foundation.chain import GENESIS
from lotabotsd.foundation.envelope import PayloadType, sign
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.keys import raw_public, thumbprint

from . import tables
from .ledger import Ledger
from .outbox import Outbox
from .report_body import About, Frozen, LicenceFacts, compose_body, context_of
from .report_check import ReportCheck, ReportFinding, ReportVerdict, Severity, check_report
from .report_facts import ReportFacts, read_facts
from .report_zip import companions, pack
from .windows import Row, row_hash

__all__ = [
    "About",
    "Frozen",
    "LicenceFacts",
    "ReportCheck",
    "ReportFacts",
    "ReportFinding",
    "ReportVerdict",
    "Severity",
    "build_report",
    "check_report",
    "export_report",
    "find_report",
    "freeze",
    "is_purged",
    "latest_report",
    "list_reports",
    "preview",
]

MAX_ROWS = 50_000  # per report; what does not fit is the next report's


@dataclass(frozen=True, slots=True)
class Preview:
    """Every byte that a report frozen now would carry out; the body is what would be signed."""

    body: bytes
    csv: bytes
    readme: bytes
    period_from: int  # Unix seconds
    period_until: int
    rows: int


def freeze(ledger: Ledger, until: int, about: About, now: int, *, max_rows: int = MAX_ROWS) -> Frozen:
    """Fix the next report: the sealed windows that end by `until` and were not reported before.

    Times are Unix seconds. Nothing is written out yet; `build_report` makes the same bytes from the frozen
    range as often as needed. A range of more than `max_rows` rows is cut at a window: freeze again.
    Raises REPORT_EMPTY, REPORT_OVERLAP, LEDGER_DAMAGED, REPORT_INVALID; nothing is frozen then.
    """
    with ledger.transaction() as connection:
        frozen, _rows = _draft(connection, until, about, now, max_rows)
        connection.execute(
            "INSERT INTO reports VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                frozen.sequence, frozen.frozen_at, frozen.first, frozen.last, frozen.previous_head,
                frozen.head, frozen.period_from, frozen.period_until, frozen.previous_report_hash,
                frozen.report_hash, frozen.last_finding, canonical_json(dict(frozen.context)).decode(),
            ),
        )  # fmt: skip
    return frozen


def preview(ledger: Ledger, until: int, about: About, now: int, *, max_rows: int = MAX_ROWS) -> Preview:
    """What `freeze` and `build_report` would let out of the building; changes nothing.

    Raises REPORT_EMPTY, REPORT_OVERLAP, LEDGER_DAMAGED, REPORT_INVALID.
    """
    with ledger.reading() as connection:
        frozen, rows = _draft(connection, until, about, now, max_rows)
    body = compose_body(frozen, rows)
    csv, readme = companions(_facts(body))
    return Preview(body, csv, readme, frozen.period_from, frozen.period_until, len(rows))


def build_report(ledger: Ledger, frozen: Frozen, key: Ed25519PrivateKey) -> bytes:
    """The zip of a frozen report, the same bytes every time.

    Raises CONFLICT when `key` is not the one that the report names, REPORT_PURGED when its rows were purged,
    LEDGER_DAMAGED when the ledger's rows are not those that were frozen, REPORT_INVALID when nobody could
    read it (frozen by a release that did not look).
    """
    if thumbprint(raw_public(key)) != frozen.context["appliance"]["key_id"]:
        raise LotaBotsError(
            Code.CONFLICT,
            f"report {frozen.sequence} was frozen for another key",
            hint="put your own copy of keys/report.key in its place",
        )
    if is_purged(ledger, frozen):
        raise LotaBotsError(Code.REPORT_PURGED, f"report {frozen.sequence}")
    rows = [stored.row for stored in ledger.rows(frozen.first, frozen.last)]
    body = compose_body(frozen, rows)
    if hashlib.sha256(body).digest() != frozen.report_hash:
        raise LotaBotsError(Code.LEDGER_DAMAGED, f"the rows of report {frozen.sequence} were changed")
    csv, readme = companions(_facts(body))
    return pack(sign(PayloadType.USAGE_REPORT, body, [key]).to_json(), csv, readme)


def export_report(
    ledger: Ledger,
    outbox: Outbox,
    key: Ed25519PrivateKey,
    *,
    until: int,
    about: About,
    now: int,
    max_rows: int = MAX_ROWS,
) -> list[Frozen]:
    """Write everything sealed by `until` into the outbox; returns the reports written, oldest first.

    A report frozen earlier whose file is in no folder of the outbox (a crash came between) is written first,
    with the bytes it would have had. Raises REPORT_EMPTY when there was nothing at all to write, and what
    `freeze`, `build_report` and `Outbox.put` raise.
    """
    written = []
    pending = latest_report(ledger)
    if pending is not None and not outbox.holds(pending.file_name) and not is_purged(ledger, pending):
        outbox.put(pending.file_name, build_report(ledger, pending, key))
        written.append(pending)
    while True:
        try:
            frozen = freeze(ledger, until, about, now, max_rows=max_rows)
        except LotaBotsError as error:
            if written and error.code in (Code.REPORT_EMPTY, Code.REPORT_OVERLAP):
                return written
            raise
        outbox.put(frozen.file_name, build_report(ledger, frozen, key))
        written.append(frozen)


def latest_report(ledger: Ledger) -> Frozen | None:
    """The report frozen last, or None."""
    with ledger.reading() as connection:
        return _newest(connection)


def is_purged(ledger: Ledger, frozen: Frozen) -> bool:
    """Whether a report's rows are gone, so that its file cannot be written again."""
    with ledger.reading() as connection:
        return frozen.first <= tables.read_anchor(connection).head.sequence


def find_report(connection: sqlite3.Connection, sequence: int) -> Frozen | None:
    """One report by its number, or None."""
    fields = connection.execute("SELECT * FROM reports WHERE sequence = ?", (sequence,)).fetchone()
    return _frozen(fields) if fields else None


def list_reports(ledger: Ledger) -> list[Frozen]:
    """Every report, oldest first."""
    with ledger.reading() as connection:
        found = connection.execute("SELECT * FROM reports ORDER BY sequence").fetchall()
    return [_frozen(fields) for fields in found]


def _draft(
    connection: sqlite3.Connection, until: int, about: About, now: int, max_rows: int
) -> tuple[Frozen, list[Row]]:
    """The report that would be next, and its rows, with their chain checked and its body read back."""
    last_report = _newest(connection)
    if last_report is not None and until <= last_report.period_until:
        raise LotaBotsError(Code.REPORT_OVERLAP, f"report {last_report.sequence} reaches that far")
    first = last_report.last + 1 if last_report else 1
    previous_head = last_report.head if last_report else GENESIS
    last = _last_row(connection, first, until, max_rows)
    if last is None:
        raise LotaBotsError(Code.REPORT_EMPTY, "no window was sealed since the last report")
    stored = tables.read_rows(connection, first, last, last - first + 1)
    head = previous_head
    for number, one in enumerate(stored, start=first):
        head = row_hash(head, one.row)
        if one.row.sequence != number or one.hash != head:
            raise LotaBotsError(Code.LEDGER_DAMAGED, f"row {number} does not follow the row before it")
    rows = [one.row for one in stored]
    after = last_report.last_finding if last_report else 0
    findings = tables.read_findings(connection, after)
    sums = last_report.context.get("reconciled_sums") if last_report else None
    draft = Frozen(
        sequence=last_report.sequence + 1 if last_report else 1,
        frozen_at=now,
        first=first,
        last=last,
        previous_head=previous_head,
        head=head,
        period_from=rows[0].start,
        period_until=rows[-1].end,
        previous_report_hash=last_report.report_hash if last_report else None,
        report_hash=b"",
        last_finding=findings[-1].id if findings else after,
        context=context_of(about, rows, findings, sums),
    )
    facts = _facts(compose_body(draft, rows))  # what is frozen could never become another body
    return replace(draft, report_hash=bytes.fromhex(facts.report_hash)), rows


def _last_row(connection: sqlite3.Connection, first: int, until: int, max_rows: int) -> int | None:
    """The last row of the last whole window that fits; one window alone may be larger."""
    fits = connection.execute(
        "SELECT max(sequence) FROM windows "
        "WHERE sequence >= ? AND sequence < ? AND kind <> 'usage' AND \"end\" <= ?",
        (first, first + max_rows, until),
    ).fetchone()[0]
    if fits is not None:
        return int(fits)
    larger = connection.execute(
        "SELECT min(sequence) FROM windows WHERE sequence >= ? AND kind <> 'usage' AND \"end\" <= ?",
        (first, until),
    ).fetchone()[0]
    return None if larger is None else int(larger)


def _newest(connection: sqlite3.Connection) -> Frozen | None:
    fields = connection.execute("SELECT * FROM reports ORDER BY sequence DESC LIMIT 1").fetchone()
    return _frozen(fields) if fields else None


def _frozen(fields: tuple[Any, ...]) -> Frozen:
    return Frozen(*(*fields[:-1], strict_json(fields[-1])))


def _facts(body: bytes) -> ReportFacts:
    """The body as whoever gets it reads it. Raises REPORT_INVALID."""
    try:
        return read_facts(strict_json(body), hashlib.sha256(body).hexdigest())
    except ValueError as error:
        raise LotaBotsError(
            Code.REPORT_INVALID,
            f"nobody could read it, so it is not made: {error}",
            hint="tell the vendor what is named here; the ledger keeps every row",
        ) from error
