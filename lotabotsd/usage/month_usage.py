"""Read a month's charged usage out of the ledger: sealed windows, and what is not sealed yet."""

from __future__ import annotations

from .bill_lines import month_span
from .ledger import Ledger
from .windows import Meters


def usage_of_month(ledger: Ledger, month: int) -> dict[tuple[str, str], Meters]:
    """Charged usage of month YYYYMM in UTC by (organisation, model), the running hour included.

    Late rows belong to the month that they are late for, as in `rating.usage_by_month`.
    """
    since, until = month_span(month)
    with ledger.reading() as connection:
        found = connection.execute(
            "SELECT organisation, model, sum(requests), sum(inferences), sum(input_bytes), "
            "sum(output_bytes), sum(gate_us) FROM ("
            "SELECT start, late_for, organisation, model, requests, inferences, input_bytes, output_bytes, "
            "gate_us FROM windows WHERE start >= ? AND kind = 'usage' AND charged = 1 UNION ALL "
            "SELECT window_start, late_for, organisation, model, requests, inferences, input_bytes, "
            "output_bytes, gate_us FROM accumulators WHERE charged = 1"
            ") WHERE CASE WHEN late_for > 0 THEN late_for ELSE start END BETWEEN ? AND ? "
            "GROUP BY organisation, model ORDER BY organisation, model",
            (since, since, until - 1),
        ).fetchall()
    return {(organisation, model): Meters(*meters) for organisation, model, *meters in found}


def recorded_from(ledger: Ledger) -> int | None:
    """The start of the oldest window that is still there, in Unix seconds; None in an empty ledger."""
    with ledger.reading() as connection:
        found = connection.execute("SELECT min(start) FROM windows").fetchone()[0]
    return None if found is None else int(found)
