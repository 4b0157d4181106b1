"""Judge a report against those that came before it: gaps, forks, rewinds, swapped keys, licences. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lotabotsd.foundation.clock import NANOSECONDS, from_ns, rfc3339


@dataclass(frozen=True, slots=True)
class Reported:
    """What is remembered of a verified report; moments are Unix seconds, periods half-open."""

    report_hash: str
    appliance_id: str
    key_id: str
    sequence: int
    previous_report_hash: str | None
    previous_head: str
    head: str
    first: int
    last: int
    period_from: int
    period_until: int
    licence_id: str  # empty: none
    customer: str
    tier: str
    development: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a person should know; `severity` is error, warning or note."""

    code: str
    severity: str
    detail: str
    since: str = ""
    until: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the vendor does with a report."""

    verdict: str  # valid, valid_with_findings
    billable: bool
    reason: str  # why it is not billed; empty when it is
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Issued:
    """What the vendor's books say of the licence that a report names."""

    customer: str
    tier: str
    kind: str


def judge(
    reported: Reported, before: Sequence[Reported], issued: Issued | None, own: Sequence[Finding]
) -> Verdict:
    """The verdict on a genuine report; `own` are the findings that its file alone gave.

    `before` holds the other verified reports of the same appliance, in any order.
    """
    # That a report is a development one is expected here and told as a note, not twice.
    expected = [finding for finding in own if finding.code != "development"]
    findings = (*expected, *_chain(reported, before), *_licence(reported, issued))
    serious = [finding for finding in findings if finding.severity != "note"]
    reason = _reason(reported, issued, findings)
    return Verdict("valid_with_findings" if serious else "valid", not reason, reason, findings)


def _reason(reported: Reported, issued: Issued | None, findings: Sequence[Finding]) -> str:
    """Why a report is not billed; the first reason that holds."""
    if reported.development:
        return "a development report is never billed"
    if not reported.licence_id:
        return "it was made without a licence: the free tier is not billed"
    if issued is None:
        return "its licence was not issued here"
    if issued.kind != "paid":
        return f"its licence is a {issued.kind} one"
    errors = [finding.code for finding in findings if finding.severity == "error"]
    return f"a person must decide first: {', '.join(errors)}" if errors else ""


def _chain(reported: Reported, before: Sequence[Reported]) -> list[Finding]:
    """How the report fits to the others of its appliance."""
    found: list[Finding] = []
    if any(other.key_id != reported.key_id for other in before):
        found.append(
            _finding("key_changed", "error", "earlier reports of this appliance have another key", reported)
        )
    twins = [
        other
        for other in before
        if other.previous_report_hash == reported.previous_report_hash or other.sequence == reported.sequence
    ]
    if twins:
        detail = f"report {twins[0].report_hash[:16]} follows the same report: a cloned or restored machine"
        found.append(_finding("forked", "error", detail, reported))
    previous = [other for other in before if other.report_hash == reported.previous_report_hash]
    if previous:
        found.extend(_follows(reported, previous[0]))
    elif reported.previous_report_hash is not None and not twins:
        found.append(_gap(reported, before))
    return found


def _follows(reported: Reported, previous: Reported) -> list[Finding]:
    """What is wrong between a report and the one that it names as the one before."""
    fits = (
        reported.sequence == previous.sequence + 1
        and reported.first == previous.last + 1
        and reported.previous_head == previous.head
    )
    detail = f"it does not go on where report {previous.sequence} ended: the ledger was rewound or replaced"
    return [] if fits else [_finding("rewound", "error", detail, reported)]


def _gap(reported: Reported, before: Sequence[Reported]) -> Finding:
    earlier = [other for other in before if other.sequence < reported.sequence]
    last = max(earlier, key=lambda other: other.sequence, default=None)
    since = last.period_until if last else 0
    first_missing = last.sequence + 1 if last else 1
    missing = f"report {first_missing}" + (
        f" to {reported.sequence - 1}" if first_missing < reported.sequence - 1 else ""
    )
    return Finding(
        "report_missing",
        "warning",
        f"{missing} of this appliance was not verified here",
        _moment(since) if last else "",
        _moment(reported.period_from),
    )


def _licence(reported: Reported, issued: Issued | None) -> list[Finding]:
    if reported.development:
        return [_finding("development", "note", "made under the published development root", reported)]
    if not reported.licence_id:
        return [_finding("no_licence", "note", "made in the free tier", reported)]
    if issued is None:
        return [
            _finding("licence_unknown", "warning", f"{reported.licence_id} was not issued here", reported)
        ]
    # An expired licence is reported with the free tier, whose limits hold then.
    if issued.customer != reported.customer or reported.tier not in {issued.tier, "free"}:
        detail = f"{reported.licence_id} was issued to {issued.customer} ({issued.tier})"
        return [_finding("licence_mismatch", "error", detail, reported)]
    return []


def _finding(code: str, severity: str, detail: str, reported: Reported) -> Finding:
    return Finding(code, severity, detail, _moment(reported.period_from), _moment(reported.period_until))


def _moment(second: int) -> str:
    return rfc3339(from_ns(second * NANOSECONDS))
