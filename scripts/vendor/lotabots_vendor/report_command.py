"""`report verify`: what a usage report says, whether it is genuine, and whether it is billed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lotabotsd.foundation.clock import NANOSECONDS, from_ns, rfc3339, to_ns
from lotabotsd.foundation.errors import Code, Exit, LotaBotsError
from lotabotsd.foundation.files import read_bounded

from .authority import existing
from .desk import Desk, pairs, printable
from .history import Finding, Issued, Reported, Verdict, judge
from .licence_command import development_option, directory_option, issued_claims, one_of_both
from .records import Records

if TYPE_CHECKING:
    from lotabotsd.usage.report import ReportCheck, ReportFacts

MAX_REPORT_BYTES = 128 * 1024 * 1024


@click.group()
def report() -> None:
    """Usage reports: what customers send."""


@report.command("verify", short_help="Verify the usage report in FILE and remember it.")
@directory_option
@development_option
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def verify(desk: Desk, /, directory: Path | None, development: bool, file: Path) -> int:
    """Verify the usage report in FILE and remember it; a second time says what was said before.

    With --development and no --dir nothing is remembered. Exits 0 for a valid report, 4 for a valid one with
    findings, 6 for one that is not what an appliance wrote.
    """
    # Here, because no other command needs the usage rules.
    from lotabotsd.usage.report import check_report

    if directory is None and not development:
        raise one_of_both()
    records = Records(directory if directory is None or development else existing(directory))
    try:
        check = check_report(read_bounded(file, MAX_REPORT_BYTES))
        if check.facts is None or check.verdict.value == "invalid":
            return _refused(desk, check)
        verdict, before_ns = remember(desk, records, check, check.facts)
        acknowledged = records.acknowledgement(check.facts.report_hash) is not None
        return _answer(desk, check.facts, verdict, before_ns, acknowledged=acknowledged)
    finally:
        records.close()


@report.command("list", short_help="List the verified reports and their answers.")
@directory_option
@click.pass_obj
def list_verified(desk: Desk, directory: Path | None) -> None:
    """List the reports that were verified in a directory, and which were acknowledged."""
    if directory is None:
        raise LotaBotsError(Code.USAGE, "which directory?", hint="give --dir DIR")
    records = Records(existing(directory))
    found = records.history()
    records.close()
    value = [
        {
            **asdict(reported),
            "verdict": verdict,
            "verified_at": rfc3339(from_ns(verified_ns)),
            "acknowledged": acknowledged or None,
        }
        for reported, verdict, verified_ns, acknowledged in found
    ]
    lines = [
        printable(
            f"{reported.appliance_id}  {reported.sequence:>6}  {reported.report_hash[:16]}"
            f"  until {rfc3339(from_ns(reported.period_until * NANOSECONDS))[:10]}"
            f"  {verdict:<19}  {acknowledged or 'not acknowledged':<22}  {reported.customer or '-'}"
        )
        for reported, verdict, _, acknowledged in found
    ]
    desk.answer(value, lines or ["no report was verified yet"])


def remember(
    desk: Desk, records: Records, check: ReportCheck, facts: ReportFacts
) -> tuple[Verdict, int | None]:
    """The verdict, and when it was given if that was before now; remembered where it was not."""
    reported = _reported(facts)
    with records.writing():
        known = records.verdict(reported.report_hash)
        stands = records.decided(reported.report_hash)
        if known is not None and stands is not None:
            return stands, known[1]
        claims = issued_claims(records, reported.licence_id)
        revoked = records.revoked().get(reported.licence_id)
        revoked_at = to_ns(revoked.revoked_at) // NANOSECONDS if revoked else None
        issued = Issued(claims["customer"], claims["tier"], claims["kind"], revoked_at) if claims else None
        own = [Finding(f.code, f.severity.value, f.detail, f.since, f.until) for f in check.findings]
        seat = records.seat(reported.appliance_id)
        verdict = judge(
            reported,
            records.heads(reported.appliance_id),
            issued,
            own,
            asked_with=seat.key_id if seat else None,
            rejected=records.rejected(),
        )
        records.add_report(reported, verdict, desk.clock.wall_ns())
    return verdict, None


def _reported(facts: ReportFacts) -> Reported:
    licence = facts.licence
    return Reported(
        report_hash=facts.report_hash,
        appliance_id=facts.appliance_id,
        key_id=facts.key_id,
        sequence=facts.sequence,
        previous_report_hash=facts.previous_report_hash.hex() if facts.previous_report_hash else None,
        previous_head=facts.previous_head.hex(),
        head=facts.head.hex(),
        first=facts.first,
        last=facts.last,
        period_from=facts.period_from,
        period_until=facts.period_until,
        licence_id=licence.id if licence else "",
        customer=licence.customer if licence else "",
        tier=licence.tier if licence else "",
        development=facts.development,
    )


def _answer(
    desk: Desk, facts: ReportFacts, verdict: Verdict, verified_before_ns: int | None, *, acknowledged: bool
) -> int:
    """Print a genuine report's facts and verdict. Returns the exit code."""
    before = rfc3339(from_ns(verified_before_ns)) if verified_before_ns is not None else None
    period = [rfc3339(from_ns(s * NANOSECONDS)) for s in (facts.period_from, facts.period_until)]
    value: dict[str, Any] = {
        **asdict(verdict),
        "already_verified": before,
        "acknowledged": acknowledged,
        "report": facts.report_hash,
        "appliance": facts.appliance_id,
        "appliance_key": facts.key_id,
        "sequence": facts.sequence,
        "licence": asdict(facts.licence) if facts.licence else None,
        "period": {"from": period[0], "until": period[1]},
        "totals": facts.totals,
    }
    charged = facts.totals["charged"]
    entries: list[tuple[str, object]] = [
        (
            "verdict",
            verdict.verdict.replace("_", " ") + (f" (already verified on {before})" if before else ""),
        ),
        ("billable", "yes" if verdict.billable else f"no: {verdict.reason}"),
        ("answered", "yes" if acknowledged else "not yet: lotabots-vendor ack issue"),
        ("report", facts.report_hash),
        ("appliance", f"{facts.appliance_id}, report {facts.sequence}, key {facts.key_id}"),
        ("licence", f"{facts.licence.id} ({facts.licence.tier})" if facts.licence else "none"),
        ("customer", facts.licence.customer if facts.licence else "-"),
        ("period", f"{period[0]} until {period[1]}"),
        ("ledger", f"rows {facts.first} to {facts.last}, head {facts.head.hex()}"),
        ("charged", f"{charged['inferences']} inferences in {charged['requests']} requests"),
    ]
    desk.answer(value, [*pairs(entries), *(_line(finding) for finding in verdict.findings)])
    return Exit.OK if verdict.verdict == "valid" else Exit.WARNINGS


def _refused(desk: Desk, check: ReportCheck) -> int:
    """Print why a file is no report of an appliance. Returns the exit code."""
    findings = [Finding(f.code, f.severity.value, f.detail, f.since, f.until) for f in check.findings]
    reason = "it is not what an appliance wrote"
    value = {
        "verdict": "invalid",
        "billable": False,
        "reason": reason,
        "findings": [asdict(finding) for finding in findings],
    }
    lines = pairs([("verdict", "invalid"), ("billable", f"no: {reason}")])
    lines += [_line(finding) for finding in findings]
    desk.answer(value, [*lines, "hint: ask for the report again, unchanged"])
    return Exit.SIGNATURE


def _line(finding: Finding) -> str:
    return printable(f"{finding.severity}: {finding.code}: {finding.detail}{finding.span}")
