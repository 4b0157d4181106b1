"""`customer list | show`: who has which licences and appliances, and which reports are missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from lotabotsd.foundation.clock import NANOSECONDS, rfc3339
from lotabotsd.licence.claims import Licence

from .authority import existing
from .customers import known_as
from .desk import Desk, pairs, printable
from .records import Records
from .root_command import vendor_directory
from .seat_command import HEADING, Standing, issued_licence, standings
from .seats import Concern, moment, overdue, owed_by, worst

REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Account:
    """A customer with licences and appliances."""

    name: str
    licences: tuple[Licence, ...]  # the newest last
    seats: tuple[Standing, ...]
    unused: tuple[tuple[Licence, Concern], ...]  # licences that no appliance has reported under in time
    revoked: frozenset[str]  # licence ids

    @property
    def state(self) -> str:
        """The worst of what is known; "revoked" where nothing is wrong and every licence was taken back."""
        found = [concern for seat in self.seats for concern in seat.concerns]
        found += [concern for _, concern in self.unused]
        if not found and self.licences and all(one.licence_id in self.revoked for one in self.licences):
            return REVOKED
        return worst(found).value

    def missing(self) -> list[str]:
        """What a person should ask for."""
        found = [
            f"{seat.seat.appliance_id}: {concern.state.value}: {concern.detail}{_span(concern)}"
            for seat in self.seats
            for concern in seat.concerns
        ]
        found += [
            f"{licence.licence_id}: {concern.state.value}: no appliance reports under it; {concern.detail}"
            for licence, concern in self.unused
        ]
        return found


@click.group()
def customer() -> None:
    """Customers, as the licences name them."""


@customer.command("list", short_help="List every customer and what is missing.")
@vendor_directory
@click.pass_obj
def list_customers(desk: Desk, directory: Path) -> None:
    """List every customer: how many licences and appliances, the last report, and the worst state."""
    records = Records(existing(directory))
    try:
        found = accounts(records, desk.clock.wall_ns() // NANOSECONDS)
    finally:
        records.close()
    value = [
        {
            "customer": one.name,
            "licences": len(one.licences),
            "revoked": len(one.revoked),
            "appliances": len(one.seats),
            "reported_until": _reported_until(one),
            "state": one.state,
        }
        for one in found
    ]
    lines = [f"{'STATE':<10}  {'LICENCES':>8}  {'APPLIANCES':>10}  {'REPORTED UNTIL':<20}  CUSTOMER"]
    lines += [
        printable(
            f"{one.state:<10}  {len(one.licences):>8}  {len(one.seats):>10}"
            f"  {_reported_until(one) or '-':<20}  {one.name}"
        )
        for one in found
    ]
    desk.answer(value, lines if found else ["no licence was issued yet"])


@customer.command("show")
@vendor_directory
@click.argument("name")
@click.pass_obj
def show(desk: Desk, directory: Path, name: str) -> None:
    """Show a customer's licences and appliances, and what is missing."""
    records = Records(existing(directory))
    try:
        wanted = known_as(name, records.customers())
        found = accounts(records, desk.clock.wall_ns() // NANOSECONDS, only=wanted)[0]
    finally:
        records.close()
    missing = found.missing()
    value: dict[str, Any] = {
        "customer": found.name,
        "state": found.state,
        "licences": [
            {
                "licence": one.licence_id,
                "sequence": one.sequence,
                "tier": one.tier.value,
                "kind": one.kind.value,
                "starts_at": rfc3339(one.starts_at),
                "expires_at": rfc3339(one.expires_at),
                "revoked": one.licence_id in found.revoked,
                "report_cadence_days": one.report_cadence_days,
                "report_grace_days": one.report_grace_days,
            }
            for one in found.licences
        ],
        "appliances": [one.value() for one in found.seats],
        "missing": missing,
    }
    lines = [*pairs([("customer", found.name), ("state", found.state)]), ""]
    lines += [
        f"{one.licence_id}  {one.tier.value:<10}  {one.kind.value:<11}  {one.starts_at:%Y-%m-%d} until"
        f" {one.expires_at:%Y-%m-%d}, "
        + (REVOKED if one.licence_id in found.revoked else f"a report every {one.report_cadence_days} days")
        for one in found.licences
    ]
    lines += ["", HEADING, *(one.line() for one in found.seats)] if found.seats else ["", "no appliance yet"]
    lines += (
        ["", "missing:", *(printable(f"  {line}") for line in missing)]
        if missing
        else ["", "nothing is missing"]
    )
    desk.answer(value, lines)


def accounts(records: Records, now: int, *, only: str | None = None) -> list[Account]:
    """Every customer, or one, at a moment (Unix seconds)."""
    seats = standings(records, now)
    # Nobody is to report under what was taken back; under the others somebody does.
    revoked = records.revoked().keys()
    settled = {*(seat.seat.licence_id for seat in seats), *revoked}
    by_customer: dict[str, list[str]] = {}
    for entry in records.licences():
        by_customer.setdefault(str(entry["customer"]), []).append(str(entry["licence_id"]))
    found = []
    for name in [only] if only else records.customers():
        known = [issued_licence(records, licence_id) for licence_id in by_customer.get(name, [])]
        licences = [licence for licence in known if licence is not None]
        late = [(one, overdue(0, owed_by(one), now)) for one in licences if one.licence_id not in settled]
        # What has ended without ever being reported under was replaced, or is lost: nobody will report now.
        unused = [
            (one, concern)
            for one, concern in late
            if concern is not None
            and now < owed_by(one).ends_at
            and not records.reported_under(one.licence_id)
        ]
        own = tuple(seat for seat in seats if seat.customer == name)
        taken_back = frozenset(one.licence_id for one in licences) & revoked
        found.append(Account(name, tuple(licences), own, tuple(unused), taken_back))
    return found


def _reported_until(account: Account) -> str:
    """The end of the newest report's period; empty where there is none."""
    ends = [seat.last.period_until for seat in account.seats if seat.last]
    return moment(max(ends)) if ends else ""


def _span(concern: Concern) -> str:
    if concern.since and concern.until:
        return f" ({concern.since} until {concern.until})"
    return f" (since {concern.since})" if concern.since else ""
