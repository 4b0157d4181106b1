"""Check a usage report's zip as the vendor does: what it says, what is wrong with it, and a verdict. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from lotabotsd.foundation.canonical import canonical_json, strict_json
from lotabotsd.foundation.chain import GENESIS
from lotabotsd.foundation.envelope import PayloadType, parse_envelope, verify
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.foundation.keys import thumbprint

from .batch import FindingKind
from .records import CHARGED, Outcome
from .report_body import condition_of_rows, totals_of_rows
from .report_facts import ReportFacts, read_facts
from .report_fields import instant
from .report_reconciliation import LATE_SECONDS, Compared, Reconciliation, adds_up
from .report_zip import CSV, MAX_ZIP_BYTES, README, REPORT, companions, unpack
from .windows import CLOCK_TOLERANCE_SECONDS, Kind, Row, row_hash, tiling_defects

_CHARGED = {outcome.label: int(charged) for outcome, charged in CHARGED.items()}
_CLOCK_FINDINGS = {FindingKind.CLOCK_BACK.value}
_ABORTED = Outcome.ABORTED.label


class Severity(StrEnum):
    """What a finding means for the bill."""

    ERROR = "error"  # the report is not what an appliance wrote: nothing in it is to be believed
    WARNING = "warning"  # the report is genuine; a person should know this before billing
    NOTE = "note"


class ReportVerdict(StrEnum):
    """The sum of the findings."""

    VALID = "valid"
    VALID_WITH_FINDINGS = "valid_with_findings"  # there are warnings
    INVALID = "invalid"  # there are errors


@dataclass(frozen=True, slots=True)
class ReportFinding:
    """One thing found; `since` and `until` (RFC 3339, or "") where it concerns a part of the period."""

    code: str
    severity: Severity
    detail: str
    since: str = ""
    until: str = ""


@dataclass(frozen=True, slots=True)
class ReportCheck:
    """Everything that one file alone can tell. `facts` is None unless the signature is good."""

    facts: ReportFacts | None
    findings: tuple[ReportFinding, ...]
    verdict: ReportVerdict


def check_report(data: bytes) -> ReportCheck:
    """Judge a report's zip. Never raises: whatever the bytes are, the answer is a verdict.

    It proves that the holder of the key named inside wrote this, unchanged, over an unbroken chain. Whether
    the key is the appliance's, and whether the report follows the last one, needs what the vendor knows.
    """
    findings: list[ReportFinding] = []
    facts: ReportFacts | None = None
    try:
        contents = unpack(data)
        facts = _signed_facts(contents[REPORT])
    except LotaBotsError as error:
        findings.append(_error(error.code.value, error.detail or str(error)))
    except ValueError as error:
        findings.append(_error("body", str(error)))
    else:
        findings.extend(_judge(facts))
        csv, readme = companions(facts)
        for name, expected in ((CSV, csv), (README, readme)):
            if contents[name] != expected:
                findings.append(_warning("companion", f"{name} is not what the signed report says"))
    severities = {finding.severity for finding in findings}
    if Severity.ERROR in severities:
        verdict = ReportVerdict.INVALID
    elif Severity.WARNING in severities:
        verdict = ReportVerdict.VALID_WITH_FINDINGS
    else:
        verdict = ReportVerdict.VALID
    return ReportCheck(facts, tuple(findings), verdict)


def _signed_facts(data: bytes) -> ReportFacts:
    """The facts of a report whose signature is by the key that it names. Raises LotaBotsError, ValueError."""
    envelope = parse_envelope(data, limit_bytes=MAX_ZIP_BYTES)
    if envelope.to_json() != data or len(envelope.signatures) != 1:
        raise ValueError("the envelope is not spelled as an appliance spells it")
    if envelope.payload_type is not PayloadType.USAGE_REPORT:
        verify(envelope, PayloadType.USAGE_REPORT, {})  # says which types these are
    document = strict_json(envelope.body)
    if canonical_json(document) != envelope.body:
        raise ValueError("the body is not canonical JSON")
    facts = read_facts(document, hashlib.sha256(envelope.body).hexdigest())
    if thumbprint(facts.public_key) != facts.key_id:
        raise ValueError("the key id is not the thumbprint of the public key")
    verify(envelope, PayloadType.USAGE_REPORT, {facts.key_id: facts.public_key})
    return facts


def _judge(facts: ReportFacts) -> Iterator[ReportFinding]:
    yield from _judge_chain(facts)
    yield from _judge_rows(facts)
    yield from _judge_condition(facts)
    if facts.reconciliation is not None:
        yield from _judge_reconciliation(facts.reconciliation, facts)
    if facts.development:
        yield _warning("development", "made under the development root: not to be billed")


def _judge_chain(facts: ReportFacts) -> Iterator[ReportFinding]:
    beginning = (facts.sequence == 1, facts.first == 1, facts.previous_head == GENESIS)
    if len({*beginning, facts.previous_report_hash is None}) != 1:
        yield _error("range", "sequence, ledger range and predecessor do not agree on being the first")
    if not facts.rows or facts.last - facts.first + 1 != len(facts.rows):
        yield _error("range", f"rows {facts.first} to {facts.last} are {len(facts.rows)} rows")
        return
    head = facts.previous_head
    for row in facts.rows:
        head = row_hash(head, row)
    if head != facts.head:
        yield _error("chain", "the rows do not lead from previous_head to head")


def _judge_rows(facts: ReportFacts) -> Iterator[ReportFinding]:
    for row, detail in tiling_defects(facts.rows, facts.period_from):
        yield _error("tiling", f"row {row.sequence}: {detail}", row)
    if facts.rows and facts.rows[-1].end != facts.period_until:
        yield _error("tiling", f"the rows end at {instant(facts.rows[-1].end)}, not with the period")
    for row in facts.rows:
        names = (row.organisation, row.key, row.model, row.outcome)
        if row.kind is Kind.USAGE and _CHARGED.get(row.outcome) != row.charged:
            yield _error("charged", f"row {row.sequence}: {row.outcome!r} with charged {row.charged}", row)
        if row.kind is not Kind.USAGE and (any(names) or row.charged or row.late_for):
            yield _error("rows", f"row {row.sequence} is no usage row but has its fields", row)
        if row.late_for >= row.end:
            yield _error("rows", f"row {row.sequence} is late for a later window", row)
    # Compared as they are written: to Python true is 1, to every other reader it is not.
    if canonical_json(facts.totals) != canonical_json(totals_of_rows(facts.rows)):
        yield _error("totals", "the totals are not the sums of the rows")
    expected = condition_of_rows(facts.rows)
    if canonical_json({name: facts.data_condition[name] for name in expected}) != canonical_json(expected):
        yield _error("data_condition", "the data condition is not that of the rows")


def _judge_condition(facts: ReportFacts) -> Iterator[ReportFinding]:
    """What a person should know although the report is genuine."""
    for row in facts.rows:
        if row.kind is Kind.GAP:
            yield _warning("gap", "the appliance did not watch", row)
        if row.kind is Kind.APPLIANCE and row.clock_suspect:
            yield _warning("clock_suspect", "the clock was in doubt", row)
        if row.late_for:
            detail = f"row {row.sequence} came too late for the hour of {instant(row.late_for)}"
            yield ReportFinding("late", Severity.NOTE, detail, instant(row.start), instant(row.end))
    if facts.frozen_at + CLOCK_TOLERANCE_SECONDS < facts.period_until:
        yield _warning("clock_suspect", "it was made before the end of its period")
    for kind, number in sorted(facts.data_condition["findings"]["by_kind"].items()):
        yield _warning("clock_suspect" if kind in _CLOCK_FINDINGS else kind, f"{number} finding(s)")
    aborted = sum(row.meters.requests for row in facts.rows if row.outcome == _ABORTED)
    if aborted:
        yield ReportFinding("aborted", Severity.NOTE, f"{aborted} request(s) were cut by a restart")


def _judge_reconciliation(found: Reconciliation, facts: ReportFacts) -> Iterator[ReportFinding]:
    """Whether Triton counted more than the ledger holds; only what is certain is held against anybody."""
    if not adds_up(found) or not set(found.models) <= {row.model for row in facts.rows}:
        yield _error("data_condition", "the comparison with Triton's counters does not add up")
        return
    if found.since is None or found.until is None:
        detail = "Triton's counters were never read: nothing was compared"
        yield ReportFinding("not_compared", Severity.NOTE, detail)
        return
    since, until = instant(found.since), instant(found.until)
    if found.until + LATE_SECONDS < facts.period_until:
        detail = "Triton's counters were not read after the second of these moments"
        yield ReportFinding("not_compared", Severity.NOTE, detail, since, until)
    for name, one in found.differences():
        shown = name or f"{found.other_models} model(s) without usage in this report"
        if one.certain.any:
            detail = (
                f"{shown}: Triton ran at least {one.certain.requests} requests with {one.certain.inferences} "
                "inferences that the ledger does not hold"
            )
            yield ReportFinding("unaccounted", Severity.WARNING, detail, since, until)
        if one.compared is not Compared.ALL and not one.idle:
            part = "only its requests were" if one.compared is Compared.REQUESTS else "it was not"
            detail = f"{shown}: {part} compared with Triton's counters"
            yield ReportFinding("compared_in_part", Severity.NOTE, detail, since, until)


def _error(code: str, detail: str, row: Row | None = None) -> ReportFinding:
    since, until = (instant(row.start), instant(row.end)) if row else ("", "")
    return ReportFinding(code, Severity.ERROR, detail, since, until)


def _warning(code: str, detail: str, row: Row | None = None) -> ReportFinding:
    since, until = (instant(row.start), instant(row.end)) if row else ("", "")
    return ReportFinding(code, Severity.WARNING, detail, since, until)
