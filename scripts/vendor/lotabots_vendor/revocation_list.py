"""The list of revoked licences as appliances take it, and what is to be issued again once a key is revoked.

A list is stored as it was sent. It counts for nothing once the key that signed it is revoked: then the next
version is written, with the same licences.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lotabotsd.foundation.envelope import parse_envelope
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.licence.claims import Licence, parse_licence
from lotabotsd.licence.keyring import Keyring
from lotabotsd.licence.revocations import Revocations, open_revocations

from .authority import Authority
from .desk import printable
from .records import Records
from .statements import revocations_body

_MOST_SHOWN = 20  # lines


def needs_writing(records: Records, keyring: Keyring) -> bool:
    """Whether appliances that know this keyring would refuse the newest list; not where there is none."""
    newest = records.newest_revocations()
    if newest is None:
        return False
    try:
        open_revocations(newest[1], keyring)
    except LotaBotsError:
        return True
    return False


def write_next(records: Records, authority: Authority, now: datetime) -> tuple[int, bytes]:
    """Sign the list of all that were ever revoked as the next version, and remember it; call it in `writing`.

    Raises SIGNER_UNKNOWN.
    """
    newest = records.newest_revocations()
    version = (newest[0] if newest else 0) + 1
    body = revocations_body(Revocations(version, now, records.revoked()))
    envelope = authority.sign_revocations(body, now).to_json()
    records.add_revocations(version, envelope)
    return version, envelope


@dataclass(frozen=True, slots=True)
class Left:
    """What is to be written again after keys were revoked."""

    keys: tuple[str, ...]  # key ids that were revoked with this keyring
    revocations: bool  # the list of revoked licences
    licences: tuple[Licence, ...]

    def value(self) -> dict[str, Any]:
        """For programs."""
        return {
            "write_revocations_again": self.revocations,
            "issue_again": [licence.licence_id for licence in self.licences],
        }

    def lines(self, directory: Path) -> list[str]:
        """For people; none where nothing is left to do."""
        lines = []
        if self.revocations:
            lines.append(
                "The list of revoked licences counts for nothing now. Write it again and send it too:"
                f" lotabots-vendor licence revocations --dir {directory}"
            )
        if self.keys:
            number = len(self.licences)
            what = "1 unexpired licence" if number == 1 else f"{number or 'no'} unexpired licences"
            again = ", to be issued again:" if number else "."
            lines.append(f"What was revoked had signed {what}{again}")
        shown = self.licences[:_MOST_SHOWN]
        lines += [printable(f"  {licence.licence_id}  {licence.customer}") for licence in shown]
        if len(self.licences) > len(shown):
            lines.append(f"  and {len(self.licences) - len(shown)} more: --json names them all")
        return lines


def left_by(records: Records, before: Keyring, after: Keyring, now: datetime) -> Left:
    """What a keyring that revokes keys leaves to do; a list that was refused before is named again."""
    keys = after.revoked - before.revoked
    return Left(
        tuple(sorted(keys)),
        needs_writing(records, after),
        tuple(_signed_by(records, keys, now)) if keys else (),
    )


def _signed_by(records: Records, keyids: Collection[str], now: datetime) -> list[Licence]:
    """The licences that these keys signed and that are neither revoked nor at their end, the oldest first."""
    revoked = records.revoked()
    found = []
    for entry in records.licences():
        licence_id = str(entry["licence_id"])
        data = records.licence(licence_id) if licence_id not in revoked else None
        if data is None:
            continue
        envelope = parse_envelope(data)
        licence = parse_licence(envelope.body)
        if licence.expires_at > now and any(s.keyid in keyids for s in envelope.signatures):
            found.append(licence)
    return found
