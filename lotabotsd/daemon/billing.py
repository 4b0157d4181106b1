"""What a month costs, as far as it is known here: the ledger's usage under the licence's rate card."""

from __future__ import annotations

import contextlib

from lotabotsd.foundation.clock import NANOSECONDS, month_window
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.licence.claims import Licence
from lotabotsd.licence.keyring import Keyring, Use
from lotabotsd.usage.acknowledged import rate_cards
from lotabotsd.usage.bill import Bill, bill_of
from lotabotsd.usage.bill_export import Account
from lotabotsd.usage.bill_lines import month_span, month_text, parse_month
from lotabotsd.usage.ledger import Ledger
from lotabotsd.usage.month_usage import recorded_from, usage_of_month
from lotabotsd.usage.rate_card import open_rate_card
from lotabotsd.usage.rating import Plan, choose_card
from lotabotsd.usage.report import list_reports

from .appliance import Appliance


def preview_bill(appliance: Appliance, month: str) -> Bill:
    """The bill of a month (`2026-11`; empty: the running one), what is not reported yet included.

    Raises NOT_FOUND without a rate card, VALUE_INVALID, RATE_CARD_INVALID, CONFLICT for a month of another
    card, and what is wrong with the licence.
    """
    now_ns = appliance.clock.wall_ns()
    running = month_window(now_ns)
    asked = parse_month(month) if month else running
    if asked > running:
        raise LotaBotsError(
            Code.VALUE_INVALID, f"{month_text(asked)} has not begun", hint="name this month or one before"
        )
    licence = _licence_of(appliance, asked)
    sent = sent_cards(appliance.ledger, appliance.licence.trust.keyring())
    card = choose_card(sent, licence.rate_card, asked) if licence is not None else None
    if licence is None or card is None:
        raise LotaBotsError(
            Code.NOT_FOUND,
            "no rate card: " + ("the licence carries none" if licence else "there is no licence"),
            hint="ask the vendor for a licence with a rate card; lotabotsctl usage show has the quantities",
        )
    appliance.bookkeeping.drain_and_seal()
    since, until = month_span(asked)
    now = now_ns // NANOSECONDS
    begin = recorded_from(appliance.ledger)
    return bill_of(
        usage_of_month(appliance.ledger, asked),
        card,
        Plan(licence.tier.value, licence.terms.inferences_included),
        asked,
        appliance.appliance_id,
        account=Account(
            licence.customer, {o.organisation_id: o.name for o in appliance.identity.list_organisations()}
        ),
        development=appliance.licence.standing().development,
        counted=(since if begin is None else max(since, begin), min(until, now)),
    )


def _licence_of(appliance: Appliance, month: int) -> Licence | None:
    """The licence that a month YYYYMM is billed under, as the vendor chooses it.

    Once a report reaches the month's end it is the one in the newest report that reaches into the month;
    until then the one in force. Raises what is wrong with the installed one.
    """
    since, until = month_span(month)
    touching = [r for r in list_reports(appliance.ledger) if r.period_from < until and r.period_until > since]
    if touching and touching[-1].period_until >= until:
        named = touching[-1].context["licence"]
        kept = appliance.licence.kept(named["id"]) if named else None
        if kept is not None:
            return kept
    return appliance.licence.current()


def sent_cards(ledger: Ledger, keyring: Keyring) -> list[bytes]:
    """Bodies of the cards that came with acknowledgements, the newest first.

    Their own signatures count, not that of what they came with. A card that was not good was told when it
    came; one whose key was revoked since is left out.
    """
    keys = keyring.trusted_keys(Use.RATE_CARD)
    found: list[bytes] = []
    for data in rate_cards(ledger):
        with contextlib.suppress(LotaBotsError):
            found.append(open_rate_card(data, keys)[1])
    return found
