"""Which reports the vendor acknowledged: judged against the reports made here, kept beside them."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from lotabotsd.foundation.envelope import PayloadType, parse_envelope, verify
from lotabotsd.foundation.errors import Code, LotaBotsError

from .acknowledgement import Acknowledgement, AckVerdict, OpenedAcknowledgement, read_acknowledgement
from .ledger import Ledger
from .report import Frozen, find_report

_KEPT = "SELECT report, verdict, issued_at, head, digest, envelope FROM acknowledgements"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One acknowledgement as it is kept; moments are Unix seconds."""

    report: int  # its sequence
    verdict: AckVerdict
    issued_at: int
    received_at: int

    @property
    def accepted(self) -> bool:
        """Whether the report is done with."""
        return self.verdict is not AckVerdict.REJECTED


@dataclass(frozen=True, slots=True)
class Judged:
    """An acknowledgement that fits: the report that it is about, and whether it was recorded before."""

    report: Frozen
    known: bool


def judge_acknowledgement(ledger: Ledger, opened: OpenedAcknowledgement, appliance_id: str) -> Judged:
    """Whether an acknowledgement belongs to a report that was made here; changes nothing.

    Raises ACKNOWLEDGEMENT_ELSEWHERE, ACKNOWLEDGEMENT_UNKNOWN, ACKNOWLEDGEMENT_MISMATCH,
    ACKNOWLEDGEMENT_OLDER.
    """
    with ledger.reading() as connection:
        return _judge(connection, opened, appliance_id)


def record_acknowledgement(
    ledger: Ledger, opened: OpenedAcknowledgement, appliance_id: str, now: int
) -> Judged:
    """Keep an acknowledgement; one kept already changes nothing. Raises as `judge_acknowledgement`."""
    with ledger.transaction() as connection:
        judged = _judge(connection, opened, appliance_id)
        if not judged.known:
            said = opened.acknowledgement
            connection.execute(
                "INSERT INTO acknowledgements VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)",
                (
                    opened.digest, said.sequence, said.verdict.value, said.issued_at, now, said.head,
                    opened.envelope,
                ),
            )  # fmt: skip
    return judged


def list_acknowledgements(ledger: Ledger) -> list[Recorded]:
    """Every acknowledgement, by report and then by the day of its issue."""
    with ledger.reading() as connection:
        found = connection.execute(
            "SELECT report, verdict, issued_at, received_at FROM acknowledgements ORDER BY report, issued_at"
        ).fetchall()
    return [Recorded(report, AckVerdict(verdict), *moments) for report, verdict, *moments in found]


def last_accepted_at(ledger: Ledger, keys: Mapping[str, bytes]) -> int:
    """Unix seconds: when the vendor last accepted a report, by its own clock; 0: never.

    `keys` (key id → raw public) are those that may ever have signed acknowledgements. A row whose envelope
    none of them signed does not count: whoever owns the disk can write rows, but no signature.
    """
    with ledger.reading() as connection:
        rows = connection.execute(f"{_KEPT} WHERE verdict <> 'rejected' ORDER BY issued_at DESC, id DESC")
        return next((row[2] for row in rows if _is_the_vendors(row, keys)), 0)


def first_forged(ledger: Ledger, keys: Mapping[str, bytes]) -> int | None:
    """The report of the first acknowledgement that is not as the vendor signed it; None where all are."""
    with ledger.reading() as connection:
        rows = connection.execute(f"{_KEPT} ORDER BY report, id")
        return next((int(row[0]) for row in rows if not _is_the_vendors(row, keys)), None)


def rate_cards(ledger: Ledger) -> list[bytes]:
    """The rate cards that came with acknowledgements, the newest first: the JSON of each one's envelope.

    Their own signatures are the caller's to verify. A row that was put in and cannot be read is passed over:
    a verification of the ledger names it.
    """
    found: list[bytes] = []
    with ledger.reading() as connection:
        envelopes = connection.execute(
            "SELECT envelope FROM acknowledgements ORDER BY issued_at DESC, id DESC"
        )
        for (envelope,) in envelopes:
            try:
                card = read_acknowledgement(parse_envelope(envelope).body).rate_card
            except LotaBotsError:
                continue
            if card is not None and card not in found:
                found.append(card)
    return found


def _is_the_vendors(row: tuple[int, str, int, bytes, bytes, bytes], keys: Mapping[str, bytes]) -> bool:
    """Whether a row of `_KEPT` says what its envelope says, and one of the keys signed that."""
    try:
        body = verify(parse_envelope(row[5]), PayloadType.ACKNOWLEDGEMENT, keys)
        said = read_acknowledgement(body)
    except LotaBotsError:
        return False
    signed = (said.sequence, said.verdict.value, said.issued_at, said.head, hashlib.sha256(body).digest())
    return row[:5] == signed


def _judge(connection: sqlite3.Connection, opened: OpenedAcknowledgement, appliance_id: str) -> Judged:
    said = opened.acknowledgement
    if said.appliance_id != appliance_id:
        detail = f"it is for {said.appliance_id}, this is {appliance_id}"
        raise LotaBotsError(Code.ACKNOWLEDGEMENT_ELSEWHERE, detail)
    report = find_report(connection, said.sequence)
    if report is None:
        raise LotaBotsError(Code.ACKNOWLEDGEMENT_UNKNOWN, f"there is no report {said.sequence}")
    _refuse_another(said, report)
    known = connection.execute("SELECT 1 FROM acknowledgements WHERE digest = ?", (opened.digest,)).fetchone()
    if known:
        return Judged(report, known=True)
    newer = connection.execute(
        "SELECT verdict FROM acknowledgements WHERE report = ? AND issued_at >= ? LIMIT 1",
        (said.sequence, said.issued_at),
    ).fetchone()
    if newer:
        detail = f"report {said.sequence} was {newer[0].replace('_', ' ')} later than this says"
        raise LotaBotsError(Code.ACKNOWLEDGEMENT_OLDER, detail)
    return Judged(report, known=False)


def _refuse_another(said: Acknowledgement, report: Frozen) -> None:
    fits = {
        "report hash": said.report_hash == report.report_hash,
        "head": said.head == report.head,
        "period": (said.period_from, said.period_until) == (report.period_from, report.period_until),
    }
    wrong = [name for name, good in fits.items() if not good]
    if wrong:
        detail = f"report {said.sequence} made here has another {' and '.join(wrong)}"
        raise LotaBotsError(Code.ACKNOWLEDGEMENT_MISMATCH, detail)
