"""What a licence says: its claims, checked one by one, and what each tier gives. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

from lotabotsd.foundation.canonical import strict_json
from lotabotsd.foundation.clock import rfc3339
from lotabotsd.foundation.errors import Code
from lotabotsd.foundation.fields import MAX_INTEGER, Fields

MAX_GRACE_DAYS = 365
MAX_RATE_CARD_BYTES = 256 * 1024
# Fingerprint components and the hex digits of each (see fingerprint: why the network card has so few).
COMPONENT_DIGITS = {"dmi-uuid": 64, "first-mac": 4, "gpus": 64, "machine-id": 64, "operator": 64}
_FEATURE = r"[a-z][a-z0-9_]{0,31}"


class Tier(StrEnum):
    """How much an appliance may do; the lowest first."""

    FREE = "free"
    PRO = "pro"
    ENTERPRISE = "enterprise"


class Kind(StrEnum):
    """Why the licence was given; only a paid one is billed."""

    PAID = "paid"
    TRIAL = "trial"
    DEVELOPMENT = "development"


class Overage(StrEnum):
    """What happens beyond the inferences included in a month."""

    NONE = "none"  # there is only the hard limit, or no limit
    BILLED = "billed"  # counted and billed, never refused
    CAPPED = "capped"  # counted and billed up to ratio_percent of what is included, then refused


class Match(StrEnum):
    """How many fingerprint components must be those of the licence."""

    MOST = "most"
    ALL = "all"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Terms:
    """The numbers that a tier gives and a licence may override; 0 means unlimited."""

    requests_per_minute: int
    inferences_included: int  # soft: beyond it overage begins; rows, calendar month in UTC
    inferences_refused: int  # hard: beyond it requests are refused
    gpus: int
    models: int
    organisations: int
    members: int
    features: tuple[str, ...]
    priority_band: int  # 1 is served first
    overage: Overage
    ratio_percent: int


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The machine that a licence is for: component name → HMAC in hex (see fingerprint)."""

    components: tuple[tuple[str, str], ...]
    match: Match


@dataclass(frozen=True, slots=True)
class Licence:
    """The claims of one licence."""

    licence_id: str
    sequence: int
    customer: str
    tier: Tier
    kind: Kind
    issued_at: datetime
    starts_at: datetime
    expires_at: datetime  # exclusive
    terminates_at: datetime | None  # exclusive; None: never
    grace_days: int
    terms: Terms
    report_cadence_days: int
    report_grace_days: int
    fingerprint: Fingerprint | None = None
    rate_card: bytes | None = None  # canonical JSON; whoever rates with it checks its content
    max_release_date: date | None = None

    @property
    def grace_ends_at(self) -> datetime:
        """When the licence's limits end: expiry and the days of grace (exclusive)."""
        return self.expires_at + timedelta(days=self.grace_days)


EVERY_FEATURE = ("audit_export", "ldap", "oidc", "receipts_by_default", "tpm")

# README, "Tiers". In order: requests per minute, inferences included and refused, GPUs, models,
# organisations, members, features, priority band, overage and its ratio.
TIERS: dict[Tier, Terms] = {
    Tier.FREE: Terms(600, 0, 100_000, 1, 2, 1, 5, (), 3, Overage.NONE, 0),
    Tier.PRO: Terms(60_000, 0, 0, 4, 20, 5, 100, EVERY_FEATURE, 2, Overage.BILLED, 0),
    Tier.ENTERPRISE: Terms(0, 0, 0, 0, 0, 0, 0, EVERY_FEATURE, 1, Overage.BILLED, 0),
}


def burst(requests_per_minute: int) -> int:
    """How many requests may come at once: ten seconds of the rate, at least 5; 0 where there is no rate."""
    return max(5, requests_per_minute // 6) if requests_per_minute else 0


def parse_licence(body: bytes) -> Licence:
    """Read and check the verified body of a licence. Raises LICENCE_INVALID with every problem."""
    fields = Fields.of_body(body, Code.LICENCE_INVALID)
    licence = Licence(
        licence_id=fields.text("licence_id", r"lic_[0-9A-Za-z]{16}", "lic_ and 16 letters or digits"),
        sequence=fields.integer("sequence", 1),
        customer=fields.text("customer", r"\S(.{0,198}\S)?", "1 to 200 printable characters"),
        tier=fields.choice("tier", Tier),
        kind=fields.choice("kind", Kind),
        issued_at=fields.moment("issued_at"),
        starts_at=fields.moment("starts_at"),
        expires_at=fields.moment("expires_at"),
        terminates_at=fields.optional_moment("terminates_at"),
        grace_days=fields.integer("grace_days", 0, MAX_GRACE_DAYS),
        terms=_terms(fields),
        **_report(fields),
        fingerprint=_fingerprint(fields),
        rate_card=fields.optional_document("rate_card", at_most_bytes=MAX_RATE_CARD_BYTES),
        max_release_date=fields.optional_day("max_release_date"),
    )
    fields.finish(Code.LICENCE_INVALID, *_contradictions(licence))
    return licence


def to_claims(licence: Licence) -> dict[str, Any]:
    """The claims as they are signed; `parse_licence` of their JSON gives the licence again."""
    terms, bound = licence.terms, licence.fingerprint
    return {
        "licence_id": licence.licence_id,
        "sequence": licence.sequence,
        "customer": licence.customer,
        "tier": licence.tier.value,
        "kind": licence.kind.value,
        "issued_at": rfc3339(licence.issued_at),
        "starts_at": rfc3339(licence.starts_at),
        "expires_at": rfc3339(licence.expires_at),
        "terminates_at": rfc3339(licence.terminates_at) if licence.terminates_at else None,
        "grace_days": licence.grace_days,
        "limits": {
            "requests_per_minute": {"soft": 0, "hard": terms.requests_per_minute},
            "inferences_per_month": {"soft": terms.inferences_included, "hard": terms.inferences_refused},
            "organisations": {"soft": 0, "hard": terms.organisations},
            "members": {"soft": 0, "hard": terms.members},
        },
        "gpus": terms.gpus,
        "models": terms.models,
        "features": list(terms.features),
        "priority_band": terms.priority_band,
        "overage": {"mode": terms.overage.value, "ratio_percent": terms.ratio_percent},
        "report": {"cadence_days": licence.report_cadence_days, "grace_days": licence.report_grace_days},
        "fingerprint": {"components": dict(bound.components), "match": bound.match.value} if bound else None,
        "rate_card": strict_json(licence.rate_card) if licence.rate_card else None,
        "max_release_date": licence.max_release_date.isoformat() if licence.max_release_date else None,
    }


def _terms(fields: Fields) -> Terms:
    limits = fields.inside("limits")
    soft: dict[str, int] = {}
    hard: dict[str, int] = {}
    for metric in ("requests_per_minute", "inferences_per_month", "organisations", "members"):
        limit = limits.inside(metric)
        soft[metric] = limit.integer("soft", 0, MAX_INTEGER if metric == "inferences_per_month" else 0)
        hard[metric] = limit.integer("hard")
        limit.close()
    limits.close()
    overage = fields.inside("overage")
    terms = Terms(
        requests_per_minute=hard["requests_per_minute"],
        inferences_included=soft["inferences_per_month"],
        inferences_refused=hard["inferences_per_month"],
        gpus=fields.integer("gpus"),
        models=fields.integer("models"),
        organisations=hard["organisations"],
        members=hard["members"],
        features=fields.texts("features", _FEATURE, "a feature's name"),
        priority_band=fields.integer("priority_band", 1, 9),
        overage=overage.choice("mode", Overage),
        ratio_percent=overage.integer("ratio_percent", 0, 10_000),
    )
    overage.close()
    return terms


def _report(fields: Fields) -> dict[str, int]:
    report = fields.inside("report")
    found = {
        "report_cadence_days": report.integer("cadence_days", 1, 366),
        "report_grace_days": report.integer("grace_days", 0, MAX_GRACE_DAYS),
    }
    report.close()
    return found


def _fingerprint(fields: Fields) -> Fingerprint | None:
    bound = fields.optional_inside("fingerprint")
    if bound is None:
        return None
    match = bound.choice("match", Match)
    components = bound.inside("components")
    found = {
        name: components.text(name, rf"[0-9a-f]{{{digits}}}", f"{digits} hex digits")
        for name, digits in COMPONENT_DIGITS.items()
        if name in components.names()
    }
    components.close()
    if not found:
        bound.wrong("components", "must name at least one component")
    elif match is Match.OPERATOR and set(found) != {"operator"}:
        bound.wrong("components", "must be just operator where match is operator")
    bound.close()
    return Fingerprint(tuple(sorted(found.items())), match)


def _contradictions(licence: Licence) -> list[str]:
    """Claims that are each well-formed and do not fit together."""
    found: list[str] = []
    terms = licence.terms
    if not licence.issued_at <= licence.expires_at:
        found.append("expires_at is before issued_at")
    if not licence.starts_at < licence.expires_at:
        found.append("expires_at is not after starts_at")
    if licence.terminates_at is not None and licence.terminates_at < licence.grace_ends_at:
        found.append("terminates_at is before the end of the grace days")
    if terms.overage is Overage.BILLED and terms.inferences_refused:
        found.append("overage billed has no hard limit of inferences")
    if terms.overage is not Overage.CAPPED and terms.ratio_percent:
        found.append("ratio_percent belongs to overage capped")
    if terms.overage is Overage.NONE and terms.inferences_included:
        found.append("overage none has no soft limit of inferences")
    if terms.overage is Overage.CAPPED:
        cap = terms.inferences_included * terms.ratio_percent // 100
        if not terms.inferences_included or terms.ratio_percent < 100 or terms.inferences_refused != cap:
            found.append("overage capped: hard must be soft x ratio_percent / 100, at least soft")
    return found
