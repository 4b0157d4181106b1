"""What a rate card says: prices, free amounts, discounts, rounding; every problem is told at once. Pure.

Every amount is decimal text, never a floating-point number. The same body is signed alone or embedded in a
licence. Its form is frozen (ARCHITECTURE.md, "Rate card"); docs/formats/rate-card.schema.json is its schema.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from enum import StrEnum

from lotabotsd.foundation.canonical import canonical_json, strict_json
from lotabotsd.foundation.envelope import PayloadType, parse_envelope, verify
from lotabotsd.foundation.errors import Code
from lotabotsd.foundation.fields import Fields

FORMAT = 1
TIERS = ("free", "pro", "enterprise")  # those of licences; the names of discounts
MAX_COMPONENTS = 64
MAX_STEPS = 16
MAX_MODELS = 64
MAX_DECIMAL_PLACES = 4
# Units that a price is for. Each divides without a rest in decimals, so that only the line is ever rounded.
PER = (*(10**n for n in range(13)), 2**10, 2**20, 2**30, 2**40)
DECIMAL = r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,12})?"
PERCENT = r"(100|[1-9]?[0-9](\.[0-9]{1,4})?)"
CURRENCY = r"(?!XXX|XTS)[A-Z]{3}"  # ISO 4217; those two are no currency and the code for tests
NAME = r"[a-z0-9][a-z0-9_-]{0,31}"
MODEL = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}"
RESERVED = "minimum"  # the component of the line that fills up to the minimum


class Meter(StrEnum):
    """What is priced; the names are those of the ledger's meters."""

    REQUESTS = "requests"
    INFERENCES = "inferences"
    INPUT_BYTES = "input_bytes"
    OUTPUT_BYTES = "output_bytes"
    GATE_US = "gate_us"


class Basis(StrEnum):
    """What of a month's quantity a component charges for."""

    USAGE = "usage"  # all of it beyond the component's free amount
    OVERAGE = "overage"  # what is above the licence's included inferences


class PriceKind(StrEnum):
    """How a price depends on the quantity."""

    PER_UNIT = "per-unit"
    GRADUATED = "graduated"  # each step has its own price, and a unit has the price of its step


class Rounding(StrEnum):
    """What becomes of an exact half; anything else goes to the nearer amount."""

    HALF_EVEN = "half-even"
    HALF_UP = "half-up"

    @property
    def mode(self) -> str:
        """The name that `decimal` knows it by."""
        return ROUND_HALF_EVEN if self is Rounding.HALF_EVEN else ROUND_HALF_UP


@dataclass(frozen=True, slots=True)
class Step:
    """A price for `per` units, up to and with unit number `up_to` of the month; None: all that follow."""

    up_to: int | None
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Component:
    """One priced thing."""

    id: str
    description: str
    meter: Meter
    models: tuple[str, ...]  # empty: every model that no other component of this meter and basis names
    basis: Basis
    per: int
    free: int  # units a calendar month in UTC and appliance
    kind: PriceKind
    steps: tuple[Step, ...]  # one where the price is per unit


@dataclass(frozen=True, slots=True)
class RateCard:
    """The prices of calendar months in UTC, from `valid_from` until before `valid_until` (None: open)."""

    card_id: str
    currency: str
    decimal_places: int
    rounding: Rounding
    valid_from: datetime
    valid_until: datetime | None
    components: tuple[Component, ...]
    discounts: tuple[tuple[str, Decimal], ...]  # percent by tier
    minimum: Decimal  # a month, after discounts; 0: none
    digest: str  # SHA-256 of the canonical body, hex: which card this is

    def discount(self, tier: str) -> Decimal:
        """Percent off for a tier; 0 where the card names none."""
        return dict(self.discounts).get(tier, Decimal(0))

    @property
    def prices_overage(self) -> bool:
        """Whether it needs to know what the licence includes."""
        return any(component.basis is Basis.OVERAGE for component in self.components)

    def covers(self, start: datetime) -> bool:
        """Whether the month that starts then is rated with this card."""
        return self.valid_from <= start and (self.valid_until is None or start < self.valid_until)


def parse_rate_card(body: bytes) -> RateCard:
    """Read and check a card's JSON. Raises RATE_CARD_INVALID with every problem."""
    fields = Fields.of_body(body, Code.RATE_CARD_INVALID)
    fields.integer("format", FORMAT, FORMAT)
    rounding = fields.inside("rounding")
    places = rounding.integer("decimal_places", 0, MAX_DECIMAL_PLACES)
    mode = rounding.choice("mode", Rounding)
    rounding.close()
    card = RateCard(
        card_id=fields.text("card_id", NAME, "1 to 32 of a-z 0-9 _ -"),
        currency=fields.text("currency", CURRENCY, "a currency of ISO 4217 as in EUR"),
        decimal_places=places,
        rounding=mode,
        valid_from=fields.moment("valid_from"),
        valid_until=fields.optional_moment("valid_until"),
        components=tuple(_component(c) for c in fields.objects("components", at_most=MAX_COMPONENTS)),
        discounts=_discounts(fields.inside("discount_percent")),
        minimum=_decimal(fields, "minimum"),
        digest="",
    )
    fields.finish(Code.RATE_CARD_INVALID, *([] if fields.problems else _contradictions(card)))
    return _with_digest(card, hashlib.sha256(canonical_json(strict_json(body))).hexdigest())


def open_rate_card(data: bytes, trusted: Mapping[str, bytes]) -> tuple[RateCard, bytes]:
    """A signed card in any of an envelope's three forms, and its body.

    `trusted` are the keys that may sign cards (key id → raw public), valid today or not: a card outlives its
    key, as a licence does. Raises ENVELOPE_MALFORMED, ENVELOPE_TYPE, SIGNER_UNKNOWN, SIGNATURE_INVALID,
    RATE_CARD_INVALID.
    """
    body = verify(parse_envelope(data), PayloadType.RATE_CARD, trusted)
    return parse_rate_card(body), body


def _with_digest(card: RateCard, digest: str) -> RateCard:
    return RateCard(
        card.card_id, card.currency, card.decimal_places, card.rounding, card.valid_from, card.valid_until,
        card.components, card.discounts, card.minimum, digest,
    )  # fmt: skip


def _component(fields: Fields) -> Component:
    price = fields.inside("price")
    kind = price.choice("kind", PriceKind)
    steps = (Step(None, _decimal(price, "amount")),) if kind is PriceKind.PER_UNIT else _steps(price)
    price.close()
    component = Component(
        id=fields.text("id", NAME, "1 to 32 of a-z 0-9 _ -"),
        description=fields.text("description", r"\S(.{0,98}\S)?", "1 to 100 printable characters"),
        meter=fields.choice("meter", Meter),
        models=fields.texts("models", MODEL, "a model's name", at_most=MAX_MODELS),
        basis=fields.choice("basis", Basis),
        per=fields.integer("per", 1, 2**40),
        free=fields.integer("free"),
        kind=kind,
        steps=steps,
    )
    if component.per not in PER:
        fields.wrong("per", "must be a power of ten up to 10^12, or 2^10, 2^20, 2^30 or 2^40")
    if component.id == RESERVED:
        fields.wrong("id", f"must not be {RESERVED}")
    if component.basis is Basis.OVERAGE:
        if component.meter is not Meter.INFERENCES:
            fields.wrong("meter", "must be inferences where basis is overage")
        if component.models:
            fields.wrong("models", "must be empty where basis is overage: what is included is for all models")
        if component.free:
            fields.wrong("free", "must be 0 where basis is overage: the licence says what is included")
    fields.close()
    return component


def _steps(price: Fields) -> tuple[Step, ...]:
    tiers = price.objects("tiers", at_most=MAX_STEPS)
    steps: list[Step] = []
    for number, tier in enumerate(tiers, start=1):
        up_to = tier.optional_integer("up_to", 1)
        if (up_to is None) is not (number == len(tiers)):
            tier.wrong("up_to", "must be null in the last tier and in no other")
        elif up_to is not None and steps and up_to <= (steps[-1].up_to or 0):
            tier.wrong("up_to", "must be above that of the tier before")
        steps.append(Step(up_to, _decimal(tier, "amount")))
        tier.close()
    if not steps:
        price.wrong("tiers", "must hold at least one tier")
    return tuple(steps)


def _discounts(fields: Fields) -> tuple[tuple[str, Decimal], ...]:
    found = tuple(
        (tier, Decimal(fields.text(tier, PERCENT, "a percentage as in 12.5, in text") or 0))
        for tier in TIERS
        if tier in fields.names()
    )
    fields.close()
    return found


def _decimal(fields: Fields, name: str) -> Decimal:
    return Decimal(fields.text(name, DECIMAL, "a decimal number as in 0.0025, in text") or 0)


def _contradictions(card: RateCard) -> list[str]:
    """What is well-formed and does not fit together."""
    found: list[str] = []
    ends = {"valid_from": card.valid_from, "valid_until": card.valid_until}
    for name, moment in ends.items():
        if moment is not None and (moment.day, moment.hour, moment.minute, moment.second) != (1, 0, 0, 0):
            found.append(f"{name} must be the first second of a month in UTC: a month has one card")
    if card.valid_until is not None and card.valid_until <= card.valid_from:
        found.append("valid_until is not after valid_from")
    if not card.components and not card.minimum:
        found.append("there is neither a component nor a minimum")
    exponent = card.minimum.as_tuple().exponent
    if isinstance(exponent, int) and -exponent > card.decimal_places:
        found.append(f"minimum has more than {card.decimal_places} decimal places")
    return [*found, *_overlaps(card.components)]


def _overlaps(components: Sequence[Component]) -> list[str]:
    """Components that share an id, or would charge for the same usage twice."""
    found: list[str] = []
    ids = [component.id for component in components]
    found.extend(f"components has the id {id_} twice" for id_ in sorted({i for i in ids if ids.count(i) > 1}))
    seen: set[tuple[str, str, str]] = set()
    for component in components:
        for model in component.models or ("",):
            name = (component.basis.value, component.meter.value, model)
            if name in seen:
                what = f"model {model}" if model else "all other models"
                found.append(f"components price {component.meter.value} ({component.basis}) of {what} twice")
            seen.add(name)
    return found
