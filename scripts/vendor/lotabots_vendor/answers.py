"""Decide what a verified report is answered with, and write the answer's body. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lotabotsd.foundation.clock import NANOSECONDS, to_ns
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.usage.acknowledgement import (
    MAX_REASON_CHARACTERS,
    MAX_REASONS,
    Acknowledgement,
    AckVerdict,
    compose_acknowledgement,
    read_acknowledgement,
)

from .history import Finding, Reported, Verdict


@dataclass(frozen=True, slots=True)
class Included:
    """Signed documents that travel with an acknowledgement: the JSON of each one's envelope."""

    licence: bytes | None = None
    rate_card: bytes | None = None


NOTHING = Included()


def acknowledgement_body(
    reported: Reported,
    verdict: Verdict,
    *,
    issued_at: datetime,
    included: Included = NOTHING,
    accept: bool = False,
    reject: tuple[str, ...] = (),
) -> bytes:
    """The body of the acknowledgement of a verified report, read back with the appliance's own rules.

    `accept` and `reject` are a person's decision; without one a report whose verification found errors is not
    answered. Raises CONFLICT, VALUE_INVALID.
    """
    said, reasons = _decide(verdict, accept, reject)
    body = compose_acknowledgement(
        Acknowledgement(
            appliance_id=reported.appliance_id,
            sequence=reported.sequence,
            report_hash=bytes.fromhex(reported.report_hash),
            head=bytes.fromhex(reported.head),
            period_from=reported.period_from,
            period_until=reported.period_until,
            verdict=said,
            reasons=reasons,
            issued_at=to_ns(issued_at) // NANOSECONDS,
            licence=included.licence,
            rate_card=included.rate_card,
        )
    )
    try:
        read_acknowledgement(body)
    except LotaBotsError as error:
        raise LotaBotsError(Code.VALUE_INVALID, error.detail) from error
    return body


def _decide(verdict: Verdict, accept: bool, reject: tuple[str, ...]) -> tuple[AckVerdict, tuple[str, ...]]:
    if reject:
        return AckVerdict.REJECTED, reject
    serious = [finding for finding in verdict.findings if finding.severity != "note"]
    errors = sorted({finding.code for finding in serious if finding.severity == "error"})
    if errors and not accept:
        raise LotaBotsError(
            Code.CONFLICT,
            f"a person must decide first: {', '.join(errors)}",
            hint="accept it with --accept, or reject it with --reject REASON",
        )
    if not serious:
        return AckVerdict.ACCEPTED, ()
    # The list is bounded; the vendor keeps all of them.
    return AckVerdict.ACCEPTED_WITH_FINDINGS, tuple(_line(finding) for finding in serious[:MAX_REASONS])


def _line(finding: Finding) -> str:
    text = f"{finding.code}: {finding.detail}{finding.span}"
    return "".join(c if c.isprintable() else "?" for c in text)[:MAX_REASON_CHARACTERS]
