"""Bill months: whole ones once, and then only what later reports change, as corrections."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.clock import NANOSECONDS, from_ns, month_window, rfc3339
from lotabotsd.foundation.envelope import parse_envelope
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.licence.claims import Licence, parse_licence
from lotabotsd.usage.acknowledgement import read_acknowledgement
from lotabotsd.usage.bill_lines import Line, corrections, month_span, month_text
from lotabotsd.usage.rate_card import parse_rate_card
from lotabotsd.usage.rating import Plan, choose_card, covered, rate_month
from lotabotsd.usage.report_facts import ReportFacts

from .billing_books import Books, RatedReport, Terms
from .records import Records


@dataclass(frozen=True, slots=True)
class Billed:
    """A month of an appliance after a run."""

    appliance: str
    month: int
    lines: tuple[Line, ...]  # all that were ever billed for it
    new: int  # how many of them this run added
    note: str = ""  # why nothing is billed


def rated_report(facts: ReportFacts) -> RatedReport:
    """What billing remembers of a report."""
    licence = facts.licence
    return RatedReport(
        report_hash=facts.report_hash,
        appliance=facts.appliance_id,
        sequence=facts.sequence,
        period_from=facts.period_from,
        period_until=facts.period_until,
        licence_id=licence.id if licence else "",
        customer=licence.customer if licence else "",
        organisation_names=facts.organisation_names,
    )


def months_of(report: RatedReport) -> set[int]:
    """The months that a report's period touches."""
    months = set()
    second = report.period_from
    while second < report.period_until:
        months.add(month_window(second * NANOSECONDS))
        second = month_span(month_window(second * NANOSECONDS))[1]
    return months


def newest_for(known: Sequence[RatedReport], month: int) -> RatedReport:
    """The report that a month's licence and customer are taken from: the newest one that reaches into it.

    `known` are all of an appliance, the oldest first, and at least one: use may come for a month too late.
    """
    return ([report for report in known if month in months_of(report)] or list(known))[-1]


def terms_of(licence: Licence, card: bytes | None) -> Terms:
    """What a licence says of its bills; `card` in the place of its own. Raises NOT_FOUND without any card."""
    body = card if card is not None else licence.rate_card
    if body is None:
        raise LotaBotsError(
            Code.NOT_FOUND,
            f"{licence.licence_id} carries no rate card",
            hint="give one: --card FILE",
        )
    return Terms(body, Plan(licence.tier.value, licence.terms.inferences_included))


def card_of(records: Records, appliance: str, licence: Licence, month: int) -> bytes | None:
    """The body of the card that an appliance's month is rated with: one sent to it, or its licence's own.

    Sent ones were signed here, so they are not verified. Raises RATE_CARD_INVALID.
    """
    said = [
        read_acknowledgement(parse_envelope(envelope).body)
        for envelope in records.acknowledgements(appliance)
    ]
    sent = [canonical_card(parse_envelope(a.rate_card).body) for a in said if a.rate_card is not None]
    return choose_card(sent, licence.rate_card, month)


class Biller:
    """Bills the months of one appliance after another; to be used inside `Books.writing`."""

    def __init__(
        self, books: Books, records: Records, *, card: bytes | None, billing_month: str, incomplete: bool
    ) -> None:
        """`card` is a canonical body in the place of the licence's; `incomplete` bills months still open."""
        self._books = books
        self._records = records
        self._card = card
        self._billing_month = billing_month
        self._incomplete = incomplete
        self._rejected = records.rejected()  # also after they were rated: the next run takes them out again

    def bill(self, appliance: str, month: int) -> Billed:
        """Bill a month, or correct it. Raises CONFLICT, NOT_FOUND, RATE_CARD_INVALID."""
        known = [
            report for report in self._books.reports(appliance) if report.report_hash not in self._rejected
        ]
        booked = self._books.lines(appliance, month)
        terms = self._books.terms(appliance, month)
        if terms is None:
            until = max(report.period_until for report in known)
            if until < month_span(month)[1] and not self._incomplete:
                ended = rfc3339(from_ns(until * NANOSECONDS))
                return Billed(appliance, month, (), 0, note=f"not billed yet: its reports end at {ended}")
            self._refuse_left_out(appliance, month, known)
            hole = None if self._incomplete else _hole(month, known)
            if hole is not None:
                since, until_text = (rfc3339(from_ns(second * NANOSECONDS)) for second in hole)
                note = f"not billed yet: nothing is reported from {since} until {until_text}"
                return Billed(appliance, month, (), 0, note=note)
            terms = self._new_terms(appliance, month, known)
            card = parse_rate_card(terms.card)
            if not covered(card, month):
                return Billed(
                    appliance, month, (), 0, note=f"not billed: rate card {card.card_id} is not for it"
                )
            self._books.keep_terms(appliance, month, terms)
            new = self._rated(appliance, month, terms)
        else:
            self._refuse_another_card(terms, month)
            new = corrections(
                booked,
                self._rated(appliance, month, terms),
                revision=1 + max((line.revision for line in booked), default=0),
                billing_month=self._billing_month,
            )
        self._books.add_lines(month, new)
        return Billed(appliance, month, (*booked, *new), len(new))

    def _rated(self, appliance: str, month: int, terms: Terms) -> tuple[Line, ...]:
        usage = self._books.usage(appliance, month, leaving_out=self._rejected)
        return rate_month(usage, parse_rate_card(terms.card), terms.plan, month, appliance)

    def _new_terms(self, appliance: str, month: int, known: Sequence[RatedReport]) -> Terms:
        """Those of the licence in the newest report that reaches into the month.

        Its card gives way to a newer one that was sent with an acknowledgement, as on the appliance.
        """
        licence_id = newest_for(known, month).licence_id
        envelope = self._records.licence(licence_id)
        if envelope is None:
            raise LotaBotsError(Code.NOT_FOUND, f"{licence_id} was not issued here")
        licence = parse_licence(parse_envelope(envelope).body)
        card = self._card
        if card is None:
            card = card_of(self._records, appliance, licence, month)
        return terms_of(licence, card)

    def _refuse_left_out(self, appliance: str, month: int, known: Sequence[RatedReport]) -> None:
        rated = {report.report_hash for report in known}
        since, until = month_span(month)
        for reported in self._records.reports(appliance):
            said = self._records.decided(reported.report_hash)
            touches = reported.period_from < until and reported.period_until > since
            if touches and reported.report_hash not in rated and said is not None and said.billable:
                raise LotaBotsError(
                    Code.CONFLICT,
                    f"report {reported.sequence} of {appliance} also is about {month_text(month)}",
                    hint="give it too: a month is billed once, and as a whole",
                )

    def _refuse_another_card(self, terms: Terms, month: int) -> None:
        if self._card is not None and self._card != terms.card:
            raise LotaBotsError(
                Code.CONFLICT,
                f"{month_text(month)} was billed with another rate card",
                hint="leave --card out: a month keeps the card that it was first billed with",
            )


def _hole(month: int, known: Sequence[RatedReport]) -> tuple[int, int] | None:
    """The first part of a month that the reports leave out, in Unix seconds; None where there is none.

    What lies before an appliance's first report is no hole: it was not there.
    """
    since, until = month_span(month)
    if any(report.sequence == 1 and report.period_from >= until for report in known):
        return None  # late rows may name it all the same
    touching = [report for report in known if report.period_from < until and report.period_until > since]
    reached = since
    for report in sorted(touching, key=lambda report: report.period_from):
        if report.period_from > reached and not (report.sequence == 1 and reached == since):
            return reached, report.period_from
        reached = max(reached, report.period_until)
    return (reached, until) if reached < until else None


def notes(billed: Sequence[Billed]) -> Iterator[str]:
    """What a person should know beside the lines."""
    for one in billed:
        if one.note:
            yield f"{month_text(one.month)} of {one.appliance}: {one.note}"


def canonical_card(body: bytes) -> bytes:
    """A card's body in its one spelling, so that two can be compared."""
    return canonical_json(json.loads(body))
