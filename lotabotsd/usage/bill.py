"""The bill of one month as the appliance shows it beforehand. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .bill_export import Account, Form, export
from .bill_lines import Line, exact_sum, line_value, month_span, month_text, plain, total_of
from .rate_card import RateCard, parse_rate_card
from .rating import Plan, Usage, rate_month


@dataclass(frozen=True, slots=True)
class Bill:
    """A month's lines, and what a reader of them should know."""

    month: int  # YYYYMM
    appliance: str
    card: RateCard
    plan: Plan
    lines: tuple[Line, ...]
    account: Account
    development: bool  # made under the development root: never billed
    counted_from: int  # Unix seconds; later than the month's start where the ledger begins later
    counted_until: int  # Unix seconds; before the month's end while it runs

    def to_dict(self) -> dict[str, Any]:
        """For answers."""
        since, until = month_span(self.month)
        return {
            "month": month_text(self.month),
            "since": since,
            "until": until,
            "counted_from": self.counted_from,
            "counted_until": self.counted_until,
            "complete": self.counted_from <= since and self.counted_until >= until,
            "customer": self.account.customer,
            "tier": self.plan.tier,
            "inferences_included": self.plan.inferences_included,
            "card": {"card_id": self.card.card_id, "digest": self.card.digest},
            "currency": self.card.currency,
            "list_total": plain(exact_sum(line.list_amount for line in self.lines)),
            "total": plain(total_of(self.lines)),
            "development": self.development,
            "lines": [line_value(line) for line in self.lines],
            "names": dict(self.account.organisation_names),
        }

    def export(self, form: Form) -> bytes:
        """The lines alone, the same bytes that the vendor's tool writes."""
        return export(self.lines, form, {self.appliance: self.account})


def bill_of(
    usage: Usage,
    card: bytes,
    plan: Plan,
    month: int,
    appliance: str,
    *,
    account: Account,
    development: bool,
    counted: tuple[int, int],
) -> Bill:
    """Rate a month with a licence's card. Raises RATE_CARD_INVALID; CONFLICT for another card's month."""
    parsed = parse_rate_card(card)
    lines = rate_month(usage, parsed, plan, month, appliance)
    return Bill(month, appliance, parsed, plan, lines, account, development, *counted)
