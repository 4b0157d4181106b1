"""Make the lines of a bill from usage rows and a rate card, with exact decimals. Pure.

A calendar month in UTC of one appliance is rated as a whole, so that it makes no difference how its rows were
split into reports or in which order they came. The rules are a table in ARCHITECTURE.md, "Rating", and an
example to follow in docs/billing.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation

from lotabotsd.foundation.clock import NANOSECONDS, from_ns, month_window
from lotabotsd.foundation.errors import Code, LotaBotsError

from .bill_lines import EXACT, Line, LineKind, line_id, month_span, month_text, total_of
from .rate_card import RESERVED, Basis, Component, Meter, RateCard, parse_rate_card
from .windows import Kind, Meters, Row

Usage = Mapping[tuple[str, str], Meters]  # charged usage of one month by (organisation, model)
_ROUNDING = Context(prec=150, traps=[InvalidOperation])


@dataclass(frozen=True, slots=True)
class Plan:
    """What of the licence the bill depends on."""

    tier: str
    inferences_included: int  # a month; 0: no number is named, so nothing is above it


def usage_by_month(rows: Iterable[Row]) -> dict[int, dict[tuple[str, str], Meters]]:
    """Charged usage by month YYYYMM; what came too late counts in the month that it is late for."""
    months: dict[int, dict[tuple[str, str], Meters]] = {}
    for row in rows:
        if row.kind is Kind.USAGE and row.charged:
            used = months.setdefault(month_window((row.late_for or row.start) * NANOSECONDS), {})
            name = (row.organisation, row.model)
            used[name] = used.get(name, Meters()) + row.meters
    return months


def rate(
    rows: Iterable[Row], card: RateCard, plan: Plan, months: Sequence[int], appliance: str
) -> tuple[Line, ...]:
    """The lines of these months YYYYMM, in their order; rows of other months do not matter.

    Raises CONFLICT for a month that the card is not for.
    """
    used = usage_by_month(rows)
    return tuple(
        line for month in months for line in rate_month(used.get(month, {}), card, plan, month, appliance)
    )


def rate_month(usage: Usage, card: RateCard, plan: Plan, month: int, appliance: str) -> tuple[Line, ...]:
    """The lines of one month: by component, step, organisation and model; then that of the minimum.

    Raises CONFLICT for a month that the card is not for.
    """
    if not covered(card, month):
        until = f" until {card.valid_until:%Y-%m-%d}" if card.valid_until else ""
        raise LotaBotsError(
            Code.CONFLICT,
            f"rate card {card.card_id} is not for {month_text(month)}, "
            f"but from {card.valid_from:%Y-%m-%d}{until}",
            hint="use the rate card of that month",
        )
    pricing = _Pricing(card, plan, month_text(month), appliance)
    lines = [line for component in card.components for line in pricing.lines(component, usage)]
    return (*lines, *pricing.fill_up(lines))


def covered(card: RateCard, month: int) -> bool:
    """Whether the month YYYYMM is rated with this card."""
    return card.covers(from_ns(month_span(month)[0] * NANOSECONDS))


def choose_card(sent: Sequence[bytes], own: bytes | None, month: int) -> bytes | None:
    """The body of the card for a month YYYYMM; both sides ask here. Raises RATE_CARD_INVALID.

    It is the newest one sent with an acknowledgement that is for that month, else the licence's `own`; None
    where there is neither. `sent` holds bodies, the newest first. One that is for other months is still
    better than nothing: it says which months it is for.
    """
    for body in sent:
        if covered(parse_rate_card(body), month):
            return body
    if own is not None:
        return own
    return sent[0] if sent else None


@dataclass(frozen=True, slots=True)
class _Pricing:
    """What all lines of a month have in common."""

    card: RateCard
    plan: Plan
    month: str
    appliance: str

    def lines(self, component: Component, usage: Usage) -> Iterator[Line]:
        used = _quantities(component, self.card, usage)
        total = sum(used.values())
        steps = _steps(component, self.plan, total)
        shares = share([size for _, size, _ in steps], list(used.values()))
        for number, (step, _, price) in enumerate(steps):
            lower = self._discounted(price)
            before = 0
            for (organisation, model), shared in zip(used, shares, strict=True):
                after = before + shared[number]
                if shared[number]:
                    yield Line(
                        id=line_id(self.appliance, self.month, (component.id, step, organisation, model), 0),
                        kind=LineKind.USAGE,
                        revision=0,
                        appliance=self.appliance,
                        month=self.month,
                        billing_month=self.month,
                        organisation=organisation,
                        model=model,
                        component=component.id,
                        description=component.description,
                        step=step,
                        meter=component.meter.value,
                        per=component.per,
                        raw_quantity=shared[number],
                        billed_quantity=_per(shared[number] if step.isdecimal() else 0, component.per),
                        list_unit_price=price,
                        unit_price=lower,
                        list_amount=self._between(before, after, price, component.per),
                        amount=self._between(before, after, lower, component.per),
                        currency=self.card.currency,
                        card=self.card.digest,
                    )
                before = after

    def fill_up(self, lines: Sequence[Line]) -> Iterator[Line]:
        """The line that brings the month up to the minimum; none where it is reached."""
        missing = EXACT.subtract(self._rounded(self.card.minimum), total_of(lines))
        if missing <= 0:
            return
        yield Line(
            id=line_id(self.appliance, self.month, (RESERVED, "1", "", ""), 0),
            kind=LineKind.USAGE,
            revision=0,
            appliance=self.appliance,
            month=self.month,
            billing_month=self.month,
            organisation="",
            model="",
            component=RESERVED,
            description="Up to the minimum of the month",
            step="1",
            meter="",
            per=1,
            raw_quantity=0,
            billed_quantity=Decimal(1),
            list_unit_price=missing,
            unit_price=missing,
            list_amount=missing,
            amount=missing,
            currency=self.card.currency,
            card=self.card.digest,
        )

    def _discounted(self, price: Decimal) -> Decimal:
        rest = EXACT.subtract(Decimal(100), self.card.discount(self.plan.tier))
        return _short(EXACT.divide(EXACT.multiply(price, rest), Decimal(100)))

    def _between(self, before: int, after: int, price: Decimal, per: int) -> Decimal:
        """The amount of the units after `before` up to `after` of a step.

        The running sum is rounded, not the part: so the lines of a step add up to its rounded price.
        """
        upper, lower = (self._rounded(EXACT.multiply(_per(units, per), price)) for units in (after, before))
        return EXACT.subtract(upper, lower)

    def _rounded(self, amount: Decimal) -> Decimal:
        unit = Decimal(1).scaleb(-self.card.decimal_places)
        return amount.quantize(unit, rounding=self.card.rounding.mode, context=_ROUNDING)


def share(sizes: Sequence[int], weights: Sequence[int]) -> list[list[int]]:
    """Divide steps among users in proportion: for each weight, how many units of each step are its.

    `sizes` and `weights` are whole, not negative, and have the same sum. Every user gets as many units as
    its weight, every step gives as many as its size. What does not divide comes from the first step with
    units left.
    """
    left = list(sizes)
    total = sum(left)
    shares = []
    for weight in weights:
        taken = [size * weight // total if total else 0 for size in left]
        rest = weight - sum(taken)
        for number, size in enumerate(left):
            more = min(rest, size - taken[number])
            taken[number] += more
            rest -= more
        left = [size - units for size, units in zip(left, taken, strict=True)]
        total -= weight
        shares.append(taken)
    return shares


def _quantities(component: Component, card: RateCard, usage: Usage) -> dict[tuple[str, str], int]:
    """What a component charges for, by (organisation, model), sorted; nothing that is 0."""
    elsewhere = {
        model
        for other in card.components
        if (other.meter, other.basis) == (component.meter, component.basis)
        for model in other.models
    }
    return {
        name: quantity
        for name, meters in sorted(usage.items())
        if (name[1] in component.models if component.models else name[1] not in elsewhere)
        and (quantity := _meter(meters, component.meter))
    }


def _meter(meters: Meters, meter: Meter) -> int:
    return int(getattr(meters, meter.value))


def _steps(component: Component, plan: Plan, total: int) -> list[tuple[str, int, Decimal]]:
    """The steps that a month's total fills: name, size in units, price."""
    if component.basis is Basis.OVERAGE:
        name, free = "included", plan.inferences_included or total
    else:
        name, free = "free", component.free
    sizes = [(name, min(free, total), Decimal(0))]
    beyond, filled = total - sizes[0][1], 0
    for number, step in enumerate(component.steps, start=1):
        up_to = beyond if step.up_to is None else min(step.up_to, beyond)
        sizes.append((str(number), up_to - filled, _short(step.amount)))
        filled = up_to
    return sizes


def _per(units: int, per: int) -> Decimal:
    return _short(EXACT.divide(Decimal(units), Decimal(per)))


def _short(number: Decimal) -> Decimal:
    """The same number without closing zeros and without exponent, so that it has one spelling."""
    normal = number.normalize(EXACT)
    return normal.quantize(Decimal(1), context=EXACT) if normal == normal.to_integral_value() else normal
