"""One customer's bill of a month over all appliances: sums, corrections, and what is not billed yet. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lotabotsd.usage.bill_lines import Line, LineKind, line_value, plain, total_of

from .desk import pairs, printable
from .history import Reported, Verdict
from .seats import Hole, moment


@dataclass(frozen=True, slots=True)
class Part:
    """What one appliance costs."""

    appliance: str
    usage: tuple[Line, ...]  # of the month itself
    corrections: tuple[Line, ...]  # billed in the month, of any month
    organisation_names: Mapping[str, str]

    @property
    def lines(self) -> tuple[Line, ...]:
        """All of it."""
        return (*self.usage, *self.corrections)


@dataclass(frozen=True, slots=True)
class Pending:
    """What is not on the invoice, and why; `subject` is an appliance or a licence."""

    subject: str
    why: str


@dataclass(frozen=True, slots=True)
class Invoice:
    """A month's bill; a view of lines that were billed before, never a bill of its own."""

    customer: str
    month: str
    parts: tuple[Part, ...]
    pending: tuple[Pending, ...]

    @property
    def lines(self) -> tuple[Line, ...]:
        """Every line, by appliance."""
        return tuple(line for part in self.parts for line in part.lines)


def part_of(appliance: str, lines: Sequence[Line], names: Mapping[str, str]) -> Part:
    """An appliance's lines, its corrections apart."""
    corrections = tuple(line for line in lines if line.kind is LineKind.CORRECTION)
    usage = tuple(line for line in lines if line.kind is not LineKind.CORRECTION)
    return Part(appliance, usage, corrections, names)


def totals(lines: Iterable[Line]) -> dict[str, str]:
    """What the lines cost together, by currency."""
    found = list(lines)
    currencies = sorted({line.currency for line in found})
    return {c: plain(total_of(line for line in found if line.currency == c)) for c in currencies}


def why_not_billed(
    reports: Sequence[tuple[Reported, Verdict]],
    rated: frozenset[str],
    missing: Sequence[Hole],
    span: tuple[int, int],
    *,
    billed: bool,
    card_problem: str,
) -> list[str]:
    """What of an appliance's month (`span`, half-open, Unix seconds) is not billed yet, and why.

    `reports` are all that were verified of the customer, `rated` the hashes that billing took in, `billed`
    whether the month was billed, `card_problem` why it cannot be.
    """
    since, until = span
    found = [
        f"{hole.detail} (until {moment(hole.until)})"
        for hole in missing
        if hole.since < until and hole.until > since
    ]
    touching = [(r, v) for r, v in reports if r.period_from < until and r.period_until > since]
    open_reports = False
    for reported, verdict in touching:
        if not verdict.billable:
            found.append(f"report {reported.sequence} is not billed: {verdict.reason}")
        elif reported.report_hash not in rated:
            open_reports = True
            found.append(f"report {reported.sequence} is verified and not rated: lotabots-vendor rate")
    end = max((reported.period_until for reported, _ in reports), default=0)
    if billed or end == 0:
        return found if billed else [*found, "no report of it was verified"]
    if end < until:
        found.append(f"its reports end at {moment(end)}, before the month does")
    elif not open_reports and any(verdict.billable for _, verdict in touching):
        found.append(card_problem or "its reports are rated and the month is not: lotabots-vendor rate")
    return found


def invoice_value(invoice: Invoice) -> dict[str, Any]:
    """The invoice as JSON takes it; amounts are decimal text."""
    return {
        "customer": invoice.customer,
        "month": invoice.month,
        "appliances": [
            {
                "appliance": part.appliance,
                "subtotals": totals(part.lines),
                "lines": [line_value(line) for line in part.usage],
                "corrections": [line_value(line) for line in part.corrections],
            }
            for part in invoice.parts
        ],
        "totals": totals(invoice.lines),
        "not_billed": [{"subject": one.subject, "why": one.why} for one in invoice.pending],
    }


def invoice_text(invoice: Invoice) -> list[str]:
    """The invoice as people read it."""
    lines = pairs([("invoice for", invoice.customer), ("month", f"{invoice.month} (UTC)")])
    for part in invoice.parts:
        lines += ["", printable(part.appliance)]
        lines += [_row(line, part.organisation_names) for line in part.usage]
        for line in part.corrections:
            lines.append(f"{_row(line, part.organisation_names)}  corrects {line.month}")
        lines += [_sum(f"subtotal of {part.appliance}", *entry) for entry in totals(part.lines).items()]
    lines.append("")
    lines += [_sum("total", *entry) for entry in totals(invoice.lines).items()] or ["nothing is billed"]
    if invoice.pending:
        lines += ["", "not billed yet:"]
        lines += [printable(f"  {one.subject}: {one.why}") for one in invoice.pending]
    return lines


def _row(line: Line, names: Mapping[str, str]) -> str:
    whose = names.get(line.organisation, line.organisation) or "-"
    what = f"{line.description} ({line.step})" if line.step else line.description
    return printable(
        f"  {what:<36}  {whose:<20}  {line.model or '-':<20}"
        f"  {line.raw_quantity:>14} {line.meter or 'month':<12}"
        f"  {plain(line.amount):>14} {line.currency}"
    )


def _sum(name: str, currency: str, amount: str) -> str:
    return printable(f"  {name:<109}  {amount:>14} {currency}")
