"""The ledger's SQL: each function does one thing on an open connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from lotabotsd.foundation.chain import GENESIS
from lotabotsd.foundation.errors import Code, LotaBotsError

from .batch import Batch, Cursor, Finding, FindingKind, Pairing, RecordedFinding, Tally
from .reconciliation import Count, Passed
from .records import CHARGED, Close, Open
from .verification import Anchor, StoredRow
from .windows import Counted, Head, Kind, Meters, Row, Span, hour_of, row_hash

DIMENSIONS = ("organisation", "key", "model", "outcome")


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Usage of one combination of the asked dimensions; a dimension not asked for is ""."""

    organisation: str
    key: str
    model: str
    outcome: str
    charged: bool | None  # None where outcomes of both kinds are summed
    meters: Meters


def find_cursor(connection: sqlite3.Connection, worker: int, epoch: int) -> Cursor | None:
    """How far an epoch was counted; None for one never seen."""
    found = connection.execute(
        'SELECT segment, "offset", next_number, ended FROM streams WHERE worker = ? AND epoch = ?',
        (worker, epoch),
    ).fetchone()
    return None if found is None else Cursor(found[0], found[1], found[2], bool(found[3]))


def write_cursor(connection: sqlite3.Connection, batch: Batch, next_number: int) -> None:
    """Move an epoch's cursor behind a batch."""
    connection.execute(
        "INSERT INTO streams VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        'segment = excluded.segment, "offset" = excluded."offset", '
        "next_number = excluded.next_number, ended = excluded.ended",
        (batch.worker, batch.epoch, batch.boot_id, *batch.end, next_number, int(batch.ended)),
    )


def close_earlier(
    connection: sqlite3.Connection, batch: Batch, pairing: Pairing, tally: Tally
) -> list[Close]:
    """Pair CLOSEs with OPENs of earlier batches; returns those that have none."""
    orphans = []
    for number, closed in pairing.waiting:
        found = connection.execute(
            "DELETE FROM open_requests WHERE worker = ? AND epoch = ? AND number = ? "
            "RETURNING request_id, wall_ns, key, organisation, model, version, window_id, reserved",
            (batch.worker, batch.epoch, number),
        ).fetchall()
        if found:
            tally.close(Open(*found[0]), closed)
        else:
            orphans.append(closed)
    return orphans


def keep_open(connection: sqlite3.Connection, batch: Batch, pairing: Pairing, tally: Tally) -> None:
    """Remember what is open after a batch; of an ended epoch everything open was aborted."""
    if not batch.ended:
        connection.executemany(
            "INSERT INTO open_requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    batch.worker, batch.epoch, number, o.request_id, o.wall_ns, o.key_id, o.organisation_id,
                    o.model, o.version, o.window_id, o.reserved,
                )
                for number, o in pairing.opened.items()
            ],
        )  # fmt: skip
        return
    earlier = connection.execute(
        "DELETE FROM open_requests WHERE worker = ? AND epoch = ? "
        "RETURNING request_id, wall_ns, key, organisation, model, version, window_id, reserved",
        (batch.worker, batch.epoch),
    ).fetchall()
    for opened in (*(Open(*found) for found in earlier), *pairing.opened.values()):
        tally.abort(opened)


def write_tally(connection: sqlite3.Connection, tally: Tally) -> None:
    """Add a batch's counts to the open windows and to the quota months."""
    connection.executemany(
        "INSERT INTO accumulators VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "requests = requests + excluded.requests, inferences = inferences + excluded.inferences, "
        "input_bytes = input_bytes + excluded.input_bytes, "
        "output_bytes = output_bytes + excluded.output_bytes, gate_us = gate_us + excluded.gate_us",
        [
            (
                n.window_start, n.late_for, n.organisation, n.key, n.model, n.outcome.label,
                int(CHARGED[n.outcome]), *astuple(meters),
            )
            for n, meters in tally.counted.items()
        ],
    )  # fmt: skip
    connection.executemany(
        "INSERT INTO months VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "inferences = inferences + excluded.inferences",
        [(*month, inferences) for month, inferences in tally.months.items()],
    )
    connection.executemany(
        "INSERT INTO passed VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "answered_requests = answered_requests + excluded.answered_requests, "
        "answered_inferences = answered_inferences + excluded.answered_inferences, "
        "unanswered_requests = unanswered_requests + excluded.unanswered_requests, "
        "unanswered_inferences = unanswered_inferences + excluded.unanswered_inferences",
        [(model, *astuple(p.answered), *astuple(p.unanswered)) for model, p in tally.passed.items()],
    )


def read_passed(connection: sqlite3.Connection) -> dict[str, Passed]:
    """By model: the requests that may have reached Triton, those under way included."""
    found = {
        model: Passed(Count(*counts[:2]), Count(*counts[2:]))
        for model, *counts in connection.execute("SELECT * FROM passed")
    }
    for model, *counts in connection.execute(
        "SELECT model, count(*), sum(max(reserved, 1)) FROM open_requests GROUP BY model"
    ):
        found[model] = found.get(model, Passed()) + Passed(open=Count(*counts))
    return found


def write_findings(connection: sqlite3.Connection, at: int, findings: Iterable[Finding]) -> None:
    """Keep findings; the same kind at the same place is kept once."""
    connection.executemany(
        "INSERT OR IGNORE INTO findings VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (at, f.kind.value, f.worker, f.epoch, f.segment, f.offset, f.count, f.inferences, f.detail)
            for f in findings
        ],
    )


def read_findings(connection: sqlite3.Connection, after: int) -> list[RecordedFinding]:
    """Findings with an id above `after`, oldest first. Raises LEDGER_DAMAGED for a kind there is not."""
    found = connection.execute("SELECT * FROM findings WHERE id > ? ORDER BY id", (after,)).fetchall()
    try:
        return [RecordedFinding(f[0], f[1], Finding(FindingKind(f[2]), *f[3:])) for f in found]
    except ValueError as error:
        raise LotaBotsError(Code.LEDGER_DAMAGED, f"a finding holds what none can hold: {error}") from error


def take_counted(connection: sqlite3.Connection, span: Span) -> list[Counted]:
    """Move out of the accumulators what belongs to a window, or was meant for an earlier one."""
    found = connection.execute(
        "DELETE FROM accumulators WHERE window_start < ? "
        "RETURNING window_start, late_for, organisation, key, model, outcome, charged, requests, inferences, "
        "input_bytes, output_bytes, gate_us",
        (span.end,),
    ).fetchall()
    return [
        Counted(
            organisation, key, model, outcome, charged,
            late_for or (hour_of(start) if start < span.start else 0), Meters(*meters),
        )
        for start, late_for, organisation, key, model, outcome, charged, *meters in found
    ]  # fmt: skip


def read_head_row(connection: sqlite3.Connection) -> Head:
    """The newest row; sequence 0 and GENESIS in an empty ledger."""
    found = connection.execute(
        "SELECT sequence, row_hash FROM windows ORDER BY sequence DESC LIMIT 1"
    ).fetchone()
    return Head(*found) if found else read_anchor(connection).head


def read_anchor(connection: sqlite3.Connection) -> Anchor:
    """Where the chain begins."""
    found = connection.execute("SELECT last, head, until FROM purges ORDER BY last DESC LIMIT 1").fetchone()
    if found is None:
        return Anchor(Head(0, GENESIS), int(connection.execute("SELECT began FROM state").fetchone()[0]))
    return Anchor(Head(found[0], found[1]), found[2])


def was_accepted(connection: sqlite3.Connection, head: Head) -> bool:
    """Whether an accepted acknowledgement names this row as the last of its report."""
    found = connection.execute(
        "SELECT 1 FROM acknowledgements JOIN reports ON reports.sequence = acknowledgements.report "
        "WHERE verdict <> 'rejected' AND acknowledgements.head = ? AND reports.last = ? LIMIT 1",
        (head.hash, head.sequence),
    ).fetchone()
    return found is not None


def hash_at(connection: sqlite3.Connection, sequence: int) -> bytes | None:
    """The stored hash of a row, GENESIS for row 0, None for one that was purged.

    Raises LEDGER_DAMAGED where there is no such row.
    """
    anchor = read_anchor(connection).head
    if sequence == anchor.sequence:
        return anchor.hash
    if sequence < anchor.sequence:
        return None
    found = connection.execute("SELECT row_hash FROM windows WHERE sequence = ?", (sequence,)).fetchone()
    if found is None:
        raise LotaBotsError(Code.LEDGER_DAMAGED, f"row {sequence} is missing")
    return bytes(found[0])


def append_rows(connection: sqlite3.Connection, rows: Sequence[Row], head: Head) -> Head:
    """Chain rows behind `head`; returns the new head."""
    for row in rows:
        previous = head.hash
        head = Head(row.sequence, row_hash(previous, row))
        connection.execute(
            "INSERT INTO windows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row.sequence, row.kind.value, row.start, row.end, row.organisation, row.key, row.model,
                row.outcome, row.charged, row.late_for, *astuple(row.meters), row.clock_suspect, previous,
                head.hash,
            ),
        )  # fmt: skip
    return head


def read_rows(connection: sqlite3.Connection, first: int, last: int, limit: int) -> list[StoredRow]:
    """At most `limit` rows from `first` to `last`. Raises LEDGER_DAMAGED for what no row can hold."""
    found = connection.execute(
        "SELECT * FROM windows WHERE sequence >= ? AND sequence <= ? ORDER BY sequence LIMIT ?",
        (first, last, limit),
    ).fetchall()
    return [_stored_row(fields) for fields in found]


def _stored_row(f: tuple[Any, ...]) -> StoredRow:
    texts, numbers = (f[1], *f[4:8]), (f[0], *f[2:4], *f[8:16])
    whole = all(isinstance(t, str) for t in texts) and all(isinstance(n, int) for n in numbers)
    if not whole or f[1] not in set(Kind) or not all(isinstance(h, bytes) for h in f[16:18]):
        raise LotaBotsError(Code.LEDGER_DAMAGED, f"row {f[0]!r} holds what no row can hold")
    meters = Meters(f[10], f[11], f[12], f[13], f[14])
    row = Row(f[0], Kind(f[1]), f[2], f[3], f[4], f[5], f[6], f[7], f[8], f[9], meters, f[15])
    return StoredRow(row, f[16], f[17])


def sum_usage(
    connection: sqlite3.Connection, since: int, until: int, organisation: str, by: Sequence[str]
) -> list[UsageRow]:
    """Sealed and open usage of windows that start in [since, until), summed by the dimensions `by`.

    What was purged is known only as one sum, which counts as of 1970.
    """
    found = connection.execute(
        "SELECT CASE WHEN ? THEN organisation ELSE '' END, CASE WHEN ? THEN key ELSE '' END, "
        "CASE WHEN ? THEN model ELSE '' END, CASE WHEN ? THEN outcome ELSE '' END, "
        "min(charged), max(charged), sum(requests), sum(inferences), sum(input_bytes), "
        "sum(output_bytes), sum(gate_us) FROM ("
        "SELECT start, organisation, key, model, outcome, charged, requests, inferences, input_bytes, "
        "output_bytes, gate_us FROM windows WHERE kind = 'usage' UNION ALL "
        "SELECT window_start, organisation, key, model, outcome, charged, requests, inferences, input_bytes, "
        "output_bytes, gate_us FROM accumulators UNION ALL "
        "SELECT 0, organisation, key, model, outcome, charged, requests, inferences, input_bytes, "
        "output_bytes, gate_us FROM purged"
        ") WHERE start >= ? AND start < ? AND (? = '' OR organisation = ?) "
        "GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4",
        (*(name in by for name in DIMENSIONS), since, until, organisation, organisation),
    ).fetchall()
    return [
        UsageRow(f[0], f[1], f[2], f[3], bool(f[4]) if f[4] == f[5] else None, Meters(*f[6:])) for f in found
    ]


def sum_month(connection: sqlite3.Connection, window_id: int) -> dict[tuple[str, str], int]:
    """Charged inferences of a quota month by (kind, id) of every scope."""
    found = connection.execute(
        "SELECT kind, id, inferences FROM months WHERE window_id = ?", (window_id,)
    ).fetchall()
    return {(kind, name): inferences for kind, name, inferences in found}
