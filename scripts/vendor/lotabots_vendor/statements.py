"""Write what the vendor signs: keyring statements, anchors documents, licences. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.clock import rfc3339
from lotabotsd.foundation.envelope import Envelope
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.licence.claims import (
    TIERS,
    Fingerprint,
    Kind,
    Licence,
    Overage,
    Terms,
    Tier,
    parse_licence,
    to_claims,
)
from lotabotsd.licence.keyring import IssuingKey, Keyring
from lotabotsd.licence.revocations import Revocations, parse_revocations


@dataclass(frozen=True, slots=True)
class Order:
    """What a customer is to get; None leaves the tier's own value."""

    tier: Tier
    customer: str
    kind: Kind
    starts_at: datetime
    days: int
    grace_days: int = 14
    terminates_after_days: int | None = None  # after the days of grace; None: never
    report_cadence_days: int = 31
    report_grace_days: int = 14
    requests_per_minute: int | None = None
    gpus: int | None = None
    models: int | None = None
    organisations: int | None = None
    members: int | None = None
    priority_band: int | None = None
    features: tuple[str, ...] | None = None
    inferences_per_month: int | None = None
    overage: Overage | None = None
    ratio_percent: int = 0
    fingerprint: Fingerprint | None = None
    max_release_date: date | None = None
    rate_card: bytes | None = None  # canonical JSON, checked


def licence_body(order: Order, *, licence_id: str, sequence: int, issued_at: datetime) -> bytes:
    """The claims of an order, read back with the appliance's own rules. Raises VALUE_INVALID."""
    try:
        expires_at = order.starts_at + timedelta(days=order.days)
        licence = Licence(
            licence_id=licence_id,
            sequence=sequence,
            customer=order.customer,
            tier=order.tier,
            kind=order.kind,
            issued_at=issued_at,
            starts_at=order.starts_at,
            expires_at=expires_at,
            terminates_at=None,
            grace_days=order.grace_days,
            terms=_terms(order),
            report_cadence_days=order.report_cadence_days,
            report_grace_days=order.report_grace_days,
            fingerprint=order.fingerprint,
            rate_card=order.rate_card,
            max_release_date=order.max_release_date,
        )
        if order.terminates_after_days is not None:
            ends_at = licence.grace_ends_at + timedelta(days=order.terminates_after_days)
            licence = replace(licence, terminates_at=ends_at)
        body = canonical_json(to_claims(licence))
        parse_licence(body)
    except OverflowError as error:
        raise LotaBotsError(Code.VALUE_INVALID, "the licence would end too far in the future") from error
    except LotaBotsError as error:
        raise LotaBotsError(Code.VALUE_INVALID, error.detail) from error
    return body


def revocations_body(revocations: Revocations) -> bytes:
    """The list of revoked licences, read back with the appliance's own rules. Raises VALUE_INVALID."""
    body = canonical_json(
        {
            "version": revocations.version,
            "issued_at": rfc3339(revocations.issued_at),
            "licences": [
                {"licence_id": name, "reason": entry.reason, "revoked_at": rfc3339(entry.revoked_at)}
                for name, entry in sorted(revocations.licences.items())
            ],
        }
    )
    try:
        parse_revocations(body)
    except LotaBotsError as error:
        raise LotaBotsError(Code.VALUE_INVALID, error.detail) from error
    return body


def keyring_body(keyring: Keyring) -> bytes:
    """The statement that the roots sign."""
    return canonical_json(
        {
            "version": keyring.version,
            "issued_at": rfc3339(keyring.issued_at),
            "roots": _public_keys(keyring.roots),
            "threshold": keyring.threshold,
            "keys": [_issuing_key(key) for key in keyring.keys],
            "revoked": sorted(keyring.revoked),
        }
    )


def anchors_document(
    kind: str, roots: Mapping[str, bytes], threshold: int, keyring: Envelope, built_at: datetime | None = None
) -> bytes:
    """The file that `build-bundle --anchors` puts into a release; `built_at` is filled in there."""
    document: dict[str, Any] = {
        "kind": kind,
        "roots": _public_keys(roots),
        "threshold": threshold,
        "keyring": json.loads(keyring.to_json()),
        "built_at": rfc3339(built_at) if built_at else None,
    }
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def _terms(order: Order) -> Terms:
    tier = TIERS[order.tier]
    terms = replace(
        tier,
        requests_per_minute=_given(order.requests_per_minute, tier.requests_per_minute),
        gpus=_given(order.gpus, tier.gpus),
        models=_given(order.models, tier.models),
        organisations=_given(order.organisations, tier.organisations),
        members=_given(order.members, tier.members),
        priority_band=_given(order.priority_band, tier.priority_band),
        features=tier.features if order.features is None else tuple(sorted(set(order.features))),
    )
    overage = order.overage if order.overage is not None else terms.overage
    if order.inferences_per_month is None and order.overage is None and not order.ratio_percent:
        return terms
    known = terms.inferences_included or terms.inferences_refused
    rows = known if order.inferences_per_month is None else order.inferences_per_month
    included = 0 if overage is Overage.NONE else rows
    refused = {
        Overage.NONE: rows,
        Overage.BILLED: 0,
        Overage.CAPPED: rows * order.ratio_percent // 100,
    }[overage]
    return replace(
        terms,
        overage=overage,
        ratio_percent=order.ratio_percent,
        inferences_included=included,
        inferences_refused=refused,
    )


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def _issuing_key(key: IssuingKey) -> dict[str, Any]:
    return {
        "keyid": key.keyid,
        "public": b64url(key.public),
        "uses": sorted(key.uses),
        "not_before": rfc3339(key.not_before),
        "not_after": rfc3339(key.not_after),
    }


def _public_keys(keys: Mapping[str, bytes]) -> Sequence[dict[str, str]]:
    return [{"keyid": keyid, "public": b64url(raw)} for keyid, raw in sorted(keys.items())]
