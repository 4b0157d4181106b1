"""Lines of a bill: what each says, its id and one spelling, and the lines that correct others. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from decimal import Context, Decimal, Inexact, InvalidOperation
from enum import StrEnum
from typing import Any

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.chain import GENESIS, link
from lotabotsd.foundation.clock import NANOSECONDS, month_end_ns
from lotabotsd.foundation.errors import Code, LotaBotsError

_LINE_FORMAT = "lotabots.bill-line.1"
_MONTH = re.compile(r"(20[0-9]{2}|21[0-9]{2})-(0[1-9]|1[0-2])")
Key = tuple[str, str, str, str]  # component, step, organisation, model
# Nothing but an amount is ever rounded: anything else that is not exact is a bug and must not pass.
EXACT = Context(prec=150, traps=[Inexact, InvalidOperation])


class LineKind(StrEnum):
    """What a line is."""

    USAGE = "usage"  # of the month, as it was first rated
    CORRECTION = "correction"  # the difference that later knowledge makes to a month already rated


@dataclass(frozen=True, slots=True)
class Line:
    """One line. Quantities and amounts of a correction may be negative; moments are months in UTC."""

    id: str
    kind: LineKind
    revision: int  # 0 as first rated, then 1, 2, … for each correction of the month
    appliance: str
    month: str  # 2026-11: when it was used
    billing_month: str  # when it is billed: the same, but for corrections
    organisation: str  # "" in the line of the minimum, as is model
    model: str
    component: str
    description: str
    step: str  # free, included, or the number of the price's step
    meter: str  # "" in the line of the minimum
    per: int  # units that the prices are for
    raw_quantity: int  # units of the meter
    billed_quantity: Decimal  # units that cost something, divided by `per`
    list_unit_price: Decimal
    unit_price: Decimal  # after the tier's discount
    list_amount: Decimal
    amount: Decimal  # what is to be paid, rounded to the currency's minor unit
    currency: str
    card: str  # digest of the rate card

    @property
    def key(self) -> Key:
        """What the line is about, within its appliance and month."""
        return (self.component, self.step, self.organisation, self.model)


def line_id(appliance: str, month: str, key: Key, revision: int) -> str:
    """The same for the same subject and revision, for ever: rating again makes no new line."""
    return f"line_{link(GENESIS, (_LINE_FORMAT, appliance, month, *key, revision)).hex()[:32]}"


def line_json(line: Line) -> bytes:
    """A line in its one spelling: canonical JSON, decimals as text."""
    return canonical_json(line_value(line))


def line_value(line: Line) -> dict[str, Any]:
    """A line as JSON takes it."""
    values = {field.name: getattr(line, field.name) for field in fields(line)}
    return {
        name: value.value
        if isinstance(value, LineKind)
        else plain(value)
        if isinstance(value, Decimal)
        else value
        for name, value in values.items()
    }


def parse_line(data: bytes) -> Line:
    """What `line_json` wrote. For lines from one's own books: raises KeyError, TypeError or ValueError."""
    values = json.loads(data)
    for name in ("billed_quantity", "list_unit_price", "unit_price", "list_amount", "amount"):
        values[name] = Decimal(values[name])
    return Line(**{**values, "kind": LineKind(values["kind"])})


def plain(number: Decimal) -> str:
    """A decimal number without exponent, and 0 without a sign."""
    return format(abs(number) if number == 0 else number, "f")


def total_of(lines: Iterable[Line]) -> Decimal:
    """What the lines cost together; exact, since each is rounded already."""
    return exact_sum(line.amount for line in lines)


def exact_sum(numbers: Iterable[Decimal]) -> Decimal:
    """A sum of any length of digits."""
    total = Decimal(0)
    for number in numbers:
        total = EXACT.add(total, number)
    return total


def corrections(
    booked: Sequence[Line], rated: Sequence[Line], *, revision: int, billing_month: str
) -> tuple[Line, ...]:
    """The lines that bring what was booked for a month (corrections included) to what is rated now.

    One line for each subject whose quantity or amount differs; none at all when nothing does. Prices are
    those of the line as rated now, or as booked where it is gone.
    """
    before: dict[Key, list[Line]] = {}
    for line in booked:
        before.setdefault(line.key, []).append(line)
    now = {line.key: line for line in rated}
    found = []
    for key in dict.fromkeys((*now, *before)):
        earlier = before.get(key, [])
        line = now[key] if key in now else _emptied(earlier[-1])
        raw = line.raw_quantity - sum(one.raw_quantity for one in earlier)
        billed = _beyond(line.billed_quantity, [one.billed_quantity for one in earlier])
        listed = _beyond(line.list_amount, [one.list_amount for one in earlier])
        amount = _beyond(line.amount, [one.amount for one in earlier])
        if raw or billed or listed or amount:
            found.append(
                replace(
                    line,
                    id=line_id(line.appliance, line.month, key, revision),
                    kind=LineKind.CORRECTION,
                    revision=revision,
                    billing_month=billing_month,
                    raw_quantity=raw,
                    billed_quantity=billed,
                    list_amount=listed,
                    amount=amount,
                )
            )
    return tuple(found)


def _emptied(line: Line) -> Line:
    nothing = EXACT.subtract(line.amount, line.amount)
    return replace(line, raw_quantity=0, billed_quantity=Decimal(0), list_amount=nothing, amount=nothing)


def _beyond(now: Decimal, before: Sequence[Decimal]) -> Decimal:
    return EXACT.subtract(now, exact_sum(before))


def month_text(month: int) -> str:
    """`2026-11` of 202611."""
    return f"{month // 100:04d}-{month % 100:02d}"


def parse_month(text: str) -> int:
    """202611 of `2026-11`. Raises VALUE_INVALID."""
    if not _MONTH.fullmatch(text):
        raise LotaBotsError(Code.VALUE_INVALID, f"{text[:64]!r} is no month", hint="write it as in 2026-11")
    return int(text[:4]) * 100 + int(text[5:])


def month_span(month: int) -> tuple[int, int]:
    """The first second of a month in UTC, and the first after it, in Unix seconds."""
    before = month - 1 if month % 100 > 1 else month - 89
    return month_end_ns(before) // NANOSECONDS, month_end_ns(month) // NANOSECONDS
