"""The vendor's acknowledgement of a usage report: its fields, its one spelling, and who signs it. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from lotabotsd.foundation.canonical import canonical_json, strict_json
from lotabotsd.foundation.clock import NANOSECONDS, from_ns, parse_rfc3339, to_ns
from lotabotsd.foundation.envelope import PayloadType, parse_envelope, verify_issued
from lotabotsd.foundation.errors import Code, LotaBotsError

from .report_fields import instant

MAX_REASONS = 100
MAX_REASON_CHARACTERS = 300
MAX_DOCUMENT_BYTES = 352 * 1024  # of each included document: both still fit into an envelope of 1 MiB
_APPLIANCE = re.compile(r"[A-Za-z0-9_]{1,64}")
_HASH = re.compile(r"[0-9a-f]{64}")
_MAX_SEQUENCE = 10**15
_YEARS = range(2000, 2201)


class AckVerdict(StrEnum):
    """What the vendor says of a report."""

    ACCEPTED = "accepted"
    ACCEPTED_WITH_FINDINGS = (
        "accepted_with_findings"  # billed or not, it is done with; `reasons` are findings
    )
    REJECTED = "rejected"  # it counts as not delivered


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What one acknowledgement says; moments are Unix seconds."""

    appliance_id: str
    sequence: int  # of the report
    report_hash: bytes  # SHA-256 of the report's body
    head: bytes  # hash of the report's last ledger row: everything up to it is acknowledged
    period_from: int
    period_until: int
    verdict: AckVerdict
    reasons: tuple[str, ...]  # empty exactly when accepted without findings
    issued_at: int  # by the vendor's clock
    licence: bytes | None = None  # a renewed licence: the canonical JSON of its envelope
    rate_card: bytes | None = None  # the same of a rate card; whoever rates with it checks it

    @property
    def accepted(self) -> bool:
        """Whether the report is done with."""
        return self.verdict is not AckVerdict.REJECTED


@dataclass(frozen=True, slots=True)
class OpenedAcknowledgement:
    """An acknowledgement whose signature was verified, and the bytes that carry it."""

    acknowledgement: Acknowledgement
    envelope: bytes  # DSSE JSON
    signer: str  # the issuing key's id
    digest: bytes  # SHA-256 of the signed body: which acknowledgement this is


def compose_acknowledgement(acknowledgement: Acknowledgement) -> bytes:
    """The canonical JSON that is signed. The same fields give the same bytes, for ever."""
    a = acknowledgement
    return canonical_json(
        {
            "appliance_id": a.appliance_id,
            "issued_at": instant(a.issued_at),
            "licence": json.loads(a.licence) if a.licence is not None else None,
            "period": {"from": instant(a.period_from), "until": instant(a.period_until)},
            "rate_card": json.loads(a.rate_card) if a.rate_card is not None else None,
            "reasons": list(a.reasons),
            "report": {"hash": a.report_hash.hex(), "head": a.head.hex(), "sequence": a.sequence},
            "verdict": a.verdict.value,
        }
    )


def read_acknowledgement(body: bytes) -> Acknowledgement:
    """The fields of a verified body. Raises ACKNOWLEDGEMENT_INVALID naming the first wrong one.

    The body must be just what `compose_acknowledgement` gives: no field more, less or spelled otherwise.
    """
    try:
        document = strict_json(body, max_depth=8)
        found = _read(document)
        if compose_acknowledgement(found) != body:
            raise ValueError("it has fields that are not known to this release, or is spelled otherwise")
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise LotaBotsError(Code.ACKNOWLEDGEMENT_INVALID, what) from error
    return found


def open_acknowledgement(
    data: bytes, trusted: Callable[[datetime | None], Mapping[str, bytes]], revoked: frozenset[str]
) -> OpenedAcknowledgement:
    """Read an acknowledgement in any of an envelope's three forms and verify it.

    `trusted(at)` gives the keys that may sign acknowledgements at a moment (None: at any), `revoked` the key
    ids trusted no longer. The key must have been valid when the acknowledgement was issued, not now.
    Raises ENVELOPE_MALFORMED, ENVELOPE_TYPE, SIGNER_REVOKED, SIGNER_UNKNOWN, SIGNER_NOT_VALID,
    SIGNATURE_INVALID, ACKNOWLEDGEMENT_INVALID.
    """
    envelope = parse_envelope(data)
    body, signer = verify_issued(envelope, PayloadType.ACKNOWLEDGEMENT, trusted, revoked, _issued_at)
    found = read_acknowledgement(body)
    return OpenedAcknowledgement(found, envelope.to_json(), signer, hashlib.sha256(body).digest())


def _issued_at(body: bytes) -> datetime:
    return from_ns(read_acknowledgement(body).issued_at * NANOSECONDS)


def _read(document: Any) -> Acknowledgement:
    if not isinstance(document, dict):
        raise ValueError("it is no object")
    report, period = document["report"], document["period"]
    verdict = AckVerdict(_text(document["verdict"], "verdict", 64))
    found = Acknowledgement(
        appliance_id=_text(document["appliance_id"], "appliance_id", 64),
        sequence=report["sequence"],
        report_hash=_hash(report["hash"], "report.hash"),
        head=_hash(report["head"], "report.head"),
        period_from=_second(period["from"], "period.from"),
        period_until=_second(period["until"], "period.until"),
        verdict=verdict,
        reasons=_reasons(document["reasons"]),
        issued_at=_second(document["issued_at"], "issued_at"),
        licence=_document(document["licence"], "licence", PayloadType.LICENCE),
        rate_card=_document(document["rate_card"], "rate_card", PayloadType.RATE_CARD),
    )
    if not _APPLIANCE.fullmatch(found.appliance_id):
        raise ValueError("appliance_id is not an id")
    if type(found.sequence) is not int or not 1 <= found.sequence <= _MAX_SEQUENCE:
        raise ValueError("report.sequence is no number of a report")
    if not found.period_from < found.period_until:
        raise ValueError("period.until is not after period.from")
    if (verdict is AckVerdict.ACCEPTED) != (not found.reasons):
        raise ValueError("reasons are given exactly where it is not just accepted")
    return found


def _reasons(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_REASONS:
        raise ValueError(f"reasons is no list of at most {MAX_REASONS}")
    return tuple(_text(reason, "reasons", MAX_REASON_CHARACTERS) for reason in value)


def _document(value: Any, name: str, expected: PayloadType) -> bytes | None:
    """The bytes of an included envelope of the expected type; its signatures are verified by its own room."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no object")
    data = canonical_json(value)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"{name} has {len(data)} bytes, more than {MAX_DOCUMENT_BYTES}")
    try:
        envelope = parse_envelope(data)
    except LotaBotsError as error:
        raise ValueError(f"{name}: {error}") from error
    if envelope.payload_type is not expected:
        raise ValueError(f"{name} is of another type: {envelope.payload_type.label.lower()}")
    return data


def _text(value: Any, name: str, limit: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= limit or not value.isprintable():
        raise ValueError(f"{name} is no printable text of 1 to {limit} characters")
    return value


def _hash(value: Any, name: str) -> bytes:
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise ValueError(f"{name} is no SHA-256")
    return bytes.fromhex(value)


def _second(value: Any, name: str) -> int:
    moment = parse_rfc3339(_text(value, name, 32))
    second = to_ns(moment) // NANOSECONDS
    if moment.year not in _YEARS or instant(second) != value:
        raise ValueError(f"{name} is not written as 2026-11-23T04:05:06Z")
    return second
