"""`seat list`: every appliance that is known, its last report, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.foundation.envelope import parse_envelope
from lotabotsd.licence.claims import Licence, parse_licence

from .authority import existing
from .desk import Desk, printable
from .history import Head
from .records import Records, Seat
from .root_command import vendor_directory
from .seats import Concern, concerns, moment, owed_by, worst


@dataclass(frozen=True, slots=True)
class Standing:
    """A seat with its licence, its newest report, and what is wrong with it."""

    seat: Seat
    licence: Licence | None
    last: Head | None
    concerns: tuple[Concern, ...]

    @property
    def customer(self) -> str:
        """Whose licence it uses; empty where that was not issued here."""
        return self.licence.customer if self.licence else ""

    @property
    def state(self) -> str:
        """One word for it."""
        return worst(self.concerns).value

    def value(self) -> dict[str, Any]:
        """As JSON takes it."""
        last = self.last
        return {
            "appliance": self.seat.appliance_id,
            "customer": self.customer or None,
            "licence": self.seat.licence_id,
            "report": last.sequence if last else None,
            "head": last.head if last else None,
            "period_until": moment(last.period_until) if last else None,
            "key": last.key_id if last else self.seat.key_id,
            "fingerprint": dict(self.seat.fingerprint) if self.seat.fingerprint is not None else None,
            "since": moment(self.seat.since_ns // NANOSECONDS),
            "state": self.state,
            "concerns": [
                {"state": c.state.value, "detail": c.detail, "since": c.since, "until": c.until}
                for c in self.concerns
            ],
        }

    def line(self) -> str:
        """As one line for people."""
        last = self.last
        number = str(last.sequence) if last else "-"
        until = moment(last.period_until)[:16] if last else "-"
        head = last.head[:12] if last else "-"
        key = (last.key_id if last else self.seat.key_id) or "-"
        return printable(
            f"{self.seat.appliance_id:<20}  {self.state:<10}  {number:>6}  {until:<16}  {head:<12}"
            f"  {key[:8]:<8}  {self.seat.licence_id or '-':<20}  {self.customer or '-'}"
        )


HEADING = (
    f"{'APPLIANCE':<20}  {'STATE':<10}  {'REPORT':>6}  {'UNTIL':<16}  {'HEAD':<12}  {'KEY':<8}"
    f"  {'LICENCE':<20}  CUSTOMER"
)


@click.group()
def seat() -> None:
    """Seats: the appliances, as their reports show them."""


@seat.command("list")
@vendor_directory
@click.pass_obj
def list_seats(desk: Desk, directory: Path) -> None:
    """List every appliance: its last report, head, licence and customer; up to date, overdue, gap or fork.

    Overdue: cadence and grace of its licence have passed since the last report, and the next one is not here.
    """
    records = Records(existing(directory))
    try:
        found = standings(records, desk.clock.wall_ns() // NANOSECONDS)
    finally:
        records.close()
    lines = [HEADING, *(one.line() for one in found)] if found else ["no appliance is known yet"]
    desk.answer([one.value() for one in found], lines)


def standings(records: Records, now: int) -> list[Standing]:
    """Every seat at a moment (Unix seconds), by appliance."""
    found = []
    for one in records.seats():
        heads = records.heads(one.appliance_id)
        licence = issued_licence(records, one.licence_id)
        wrong = concerns(heads, owed_by(licence) if licence else None, now)
        last = max(heads, key=lambda head: head.sequence, default=None)
        found.append(Standing(one, licence, last, tuple(wrong)))
    return found


def issued_licence(records: Records, licence_id: str | None) -> Licence | None:
    """A licence of the vendor's own books."""
    envelope = records.licence(licence_id) if licence_id else None
    return parse_licence(parse_envelope(envelope).body) if envelope else None
