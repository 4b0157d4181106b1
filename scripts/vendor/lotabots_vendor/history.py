"""Judge a report against the others of its appliance: gaps, overlaps, forks, rewinds, keys, licences. Pure.

What is the same report again is not judged here: it is known by its hash and gets its first answer.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from lotabotsd.foundation.clock import NANOSECONDS, from_ns, rfc3339


@dataclass(frozen=True, slots=True)
class Head:
    """Where a verified report begins and ends; moments in Unix seconds, periods half-open, rows inclusive."""

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


@dataclass(frozen=True, slots=True)
class Reported(Head):
    """What is remembered of a verified report."""

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

    @property
    def span(self) -> str:
        """When, for people; empty where it is not known."""
        if self.since and self.until:
            return f" ({self.since} until {self.until})"
        return f" (until {self.until})" if self.until else ""


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
    revoked_at: int | None = None  # Unix seconds


UNDECIDED = "a person must decide first"
REJECTED = "rejected"  # as in an acknowledgement


def decided(verdict: Verdict, answer: str) -> Verdict:
    """A verdict as it stands after the report's answer (an acknowledgement's verdict; empty: none yet).

    Who accepts a report with errors has decided that it is billed, and who rejects one that it is not.
    """
    if answer == REJECTED:
        return replace(verdict, billable=False, reason="it was rejected")
    if answer and verdict.reason.startswith(UNDECIDED):
        return replace(verdict, billable=True, reason="")
    return verdict


def judge(
    reported: Reported,
    before: Sequence[Head],
    issued: Issued | None,
    own: Sequence[Finding],
    *,
    asked_with: str | None = None,
    rejected: Set[str] = frozenset(),
) -> Verdict:
    """The verdict on a genuine report; `own` are the findings that its file alone gave.

    `before` holds the other verified reports of the same appliance, in any order, without those that were
    `rejected` (their hashes); `asked_with` is the key of its activation request.
    """
    # That a report is a development one is expected here and told as a note, not twice.
    expected = [finding for finding in own if finding.code != "development"]
    stranger = asked_with is not None and asked_with != reported.key_id and not before
    detail = "its licence was asked for with another key"
    key = [_finding("key_changed", "error", detail, reported)] if stranger else []
    outcast = []
    if reported.previous_report_hash in rejected:
        detail = f"it follows report {(reported.previous_report_hash or '')[:16]}, which was rejected"
        outcast = [_finding("forked", "error", detail, reported)]
    chain = _chain(reported, before, follows_rejected=bool(outcast))
    findings = (*expected, *key, *outcast, *chain, *_licence(reported, issued))
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
    return f"{UNDECIDED}: {', '.join(dict.fromkeys(errors))}" if errors else ""


def _chain(reported: Head, before: Sequence[Head], *, follows_rejected: bool = False) -> list[Finding]:
    """How the report fits to the others of its appliance."""
    found: list[Finding] = []
    if any(other.key_id != reported.key_id for other in before):
        found.append(
            _finding("key_changed", "error", "earlier reports of this appliance have another key", reported)
        )
    forks = [other for other in before if forked(reported, other)]
    if forks and not follows_rejected:
        how = _forked_how(reported, forks[0])
        detail = f"report {forks[0].report_hash[:16]} {how}: a cloned or restored machine"
        found.append(_finding("forked", "error", detail, reported))
    neighbours = [(other, reported) for other in before if other.report_hash == reported.previous_report_hash]
    if not neighbours and reported.previous_report_hash is not None and not forks and not follows_rejected:
        found.append(_gap(reported, before))
    # A report that was missing may come after the one that follows it.
    neighbours += [
        (reported, other) for other in before if other.previous_report_hash == reported.report_hash
    ]
    for earlier, later in neighbours:
        found.extend(_follows(earlier, later, reported))
    told = [*forks, *(one for pair in neighbours for one in pair if rewound(*pair))]
    found.extend(_overlap(reported, [other for other in before if other not in told]))
    return found


def forked(one: Head, other: Head) -> bool:
    """Whether two reports of an appliance cannot both belong to one history."""
    if one.sequence == other.sequence or one.previous_report_hash == other.previous_report_hash:
        return True
    earlier, later = sorted((one, other), key=lambda head: head.sequence)
    return later.sequence == earlier.sequence + 1 and later.previous_report_hash != earlier.report_hash


def rewound(earlier: Head, later: Head) -> bool:
    """Whether a report does not go on where the one that it names as the one before ended."""
    return not (
        later.sequence == earlier.sequence + 1
        and later.first == earlier.last + 1
        and later.previous_head == earlier.head
    )


def overlap(one: Head, other: Head) -> tuple[int, int] | None:
    """The time that two reports both are about, half-open; where they share rows only, that of `one`."""
    since, until = max(one.period_from, other.period_from), min(one.period_until, other.period_until)
    if since < until:
        return since, until
    return (
        (one.period_from, one.period_until)
        if max(one.first, other.first) <= min(one.last, other.last)
        else None
    )


def _forked_how(reported: Head, other: Head) -> str:
    """What the other one does that it cannot do beside this one."""
    if reported.previous_report_hash == other.previous_report_hash:
        return "follows the same report"
    if reported.sequence == other.sequence:
        return "has the same number"
    return (
        "is the next one and follows another"
        if other.sequence > reported.sequence
        else "is the one before and is not named"
    )


def _overlap(reported: Head, others: Sequence[Head]) -> list[Finding]:
    """One finding for all reports whose time or rows this one shares."""
    shared = [(other, span) for other in others if (span := overlap(reported, other)) is not None]
    if not shared:
        return []
    more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
    detail = f"report {shared[0][0].sequence}{more} is about the same time or rows: it would be billed twice"
    since, until = min(span[0] for _, span in shared), max(span[1] for _, span in shared)
    return [Finding("overlap", "error", detail, _moment(since), _moment(until))]


def _follows(earlier: Head, later: Head, reported: Head) -> list[Finding]:
    """What is wrong between a report and the one that names it as the one before."""
    if rewound(earlier, later):
        detail = (
            f"it does not go on where report {earlier.sequence} ended: the ledger was rewound or replaced"
        )
        if reported is earlier:
            detail = (
                f"report {later.sequence} does not go on where it ended: the ledger was rewound or replaced"
            )
        return [_finding("rewound", "error", detail, reported)]
    if later.period_from > earlier.period_until:
        detail = f"nothing is recorded between report {earlier.sequence} and report {later.sequence}"
        since, until = _moment(earlier.period_until), _moment(later.period_from)
        return [Finding("time_missing", "warning", detail, since, until)]
    return []


def _gap(reported: Head, before: Sequence[Head]) -> Finding:
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
    if issued.revoked_at is not None and issued.revoked_at < reported.period_until:
        since = max(issued.revoked_at, reported.period_from)
        detail = f"{reported.licence_id} was revoked: from then on the free tier's limits hold"
        return [Finding("licence_revoked", "warning", detail, _moment(since), _moment(reported.period_until))]
    return []


def _finding(code: str, severity: str, detail: str, reported: Head) -> Finding:
    return Finding(code, severity, detail, _moment(reported.period_from), _moment(reported.period_until))


def _moment(second: int) -> str:
    return rfc3339(from_ns(second * NANOSECONDS))
