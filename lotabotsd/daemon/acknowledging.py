"""What comes back from the vendor: acknowledgements of reports, and what may be purged after them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lotabotsd.control.rooms import Acknowledged
from lotabotsd.foundation.clock import NANOSECONDS, Clock, rfc3339
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.licence.keyring import Use
from lotabotsd.licence.store import LicenceStore
from lotabotsd.usage.acknowledged import (
    Judged,
    judge_acknowledgement,
    last_accepted_at,
    list_acknowledgements,
    record_acknowledgement,
)
from lotabotsd.usage.acknowledgement import OpenedAcknowledgement, open_acknowledgement
from lotabotsd.usage.ledger import Ledger
from lotabotsd.usage.outbox import Folder, Outbox
from lotabotsd.usage.purge import Purge, plan_purge, purge
from lotabotsd.usage.rate_card import open_rate_card
from lotabotsd.usage.report import list_reports

from .ledger_watch import LedgerWatch


class ReportedAt:
    """When the vendor last accepted a report; the licence's standing asks for it every second."""

    def __init__(self, ledger: Ledger, keys: Callable[[], Mapping[str, bytes]]) -> None:
        """`keys` are those that may ever have signed acknowledgements (`Trust.keys_ever`)."""
        self._ledger = ledger
        self._keys = keys
        self._known: Mapping[str, bytes] = {}
        self._moment_ns = 0

    def __call__(self) -> int:
        """Nanoseconds since 1970, by the vendor's clock; 0: never. Never raises: what was known stays so."""
        if self._keys() != self._known:
            with contextlib.suppress(LotaBotsError):
                self.look_again()
        return self._moment_ns

    def look_again(self) -> None:
        """After an acknowledgement. Raises DATABASE_DAMAGED."""
        keys = self._keys()
        self._moment_ns = last_accepted_at(self._ledger, keys) * NANOSECONDS
        self._known = keys


class Acknowledging:
    """The one taker of acknowledgements. May be used from several threads."""

    def __init__(
        self,
        ledger: Ledger,
        watch: LedgerWatch,
        outbox: Outbox,
        licence: LicenceStore,
        reported_at: ReportedAt,
        clock: Clock,
        appliance_id: str,
        retention_days: int,
    ) -> None:
        self._ledger = ledger
        self._watch = watch
        self._outbox = outbox
        self._licence = licence
        self._reported_at = reported_at
        self._clock = clock
        self._appliance_id = appliance_id
        self._retention_days = retention_days
        self._lock = threading.Lock()

    def look(self, data: bytes) -> Acknowledged:
        """Whether an acknowledgement fits, and what it would do; changes nothing. Raises as `accept`."""
        opened = self._open(data)
        return self._shape(opened, judge_acknowledgement(self._ledger, opened, self._appliance_id))

    def accept(self, data: bytes) -> Acknowledged:
        """Keep an acknowledgement, move the report's file, raise the clock's floor.

        The same one again changes nothing, and finishes what a crash left undone. The renewed licence in it
        is the caller's to install. Raises ENVELOPE_MALFORMED, ENVELOPE_TYPE, SIGNER_UNKNOWN,
        SIGNATURE_INVALID, ACKNOWLEDGEMENT_INVALID, _ELSEWHERE, _UNKNOWN, _MISMATCH, _OLDER, DISK_FULL,
        FILE_UNWRITABLE.
        """
        opened = self._open(data)
        with self._lock:
            now = self._clock.wall_ns() // NANOSECONDS
            judged = record_acknowledgement(self._ledger, opened, self._appliance_id, now)
            self._reported_at.look_again()
            self._licence.raise_floor(opened.acknowledgement.issued_at * NANOSECONDS)
            self.file_away()
        return self._shape(opened, judged)

    def file_away(self) -> None:
        """Move the files of accepted reports to where they belong. Raises FILE_UNWRITABLE."""
        accepted = {found.report for found in list_acknowledgements(self._ledger) if found.accepted}
        waiting = {e.name for e in self._outbox.entries() if e.folder is not Folder.ACKNOWLEDGED}
        for frozen in list_reports(self._ledger):
            if frozen.sequence in accepted and frozen.file_name in waiting:
                self._outbox.move(frozen.file_name, Folder.ACKNOWLEDGED)

    def purgeable(self) -> dict[str, Any] | None:
        """What a purge would take out of the ledger now."""
        found = plan_purge(self._ledger, self._clock.wall_ns() // NANOSECONDS, self._retention_days)
        return _shape_purge(found) if found else None

    def purge(self, who: str) -> dict[str, Any] | None:
        """Take acknowledged windows older than the retention out of the ledger; None where there are none.

        Raises LEDGER_DAMAGED for a ledger that was changed, or whose acknowledgements are not the vendor's:
        nothing is taken out of the evidence then.
        """
        with self._watch.nobody_walks():
            self._watch.refuse_damage()
            self._watch.refuse_forged()
            now = self._clock.wall_ns() // NANOSECONDS
            found = purge(self._ledger, now, self._retention_days, who)
        return _shape_purge(found) if found else None

    def _open(self, data: bytes) -> OpenedAcknowledgement:
        keyring = self._licence.trust.keyring()
        return open_acknowledgement(data, partial(keyring.trusted_keys, Use.ACKNOWLEDGEMENT), keyring.revoked)

    def _shape(self, opened: OpenedAcknowledgement, judged: Judged) -> Acknowledged:
        said = opened.acknowledgement
        value = {
            "report": judged.report.file_name,
            "sequence": said.sequence,
            "verdict": said.verdict.value,
            "reasons": list(said.reasons),
            "from": said.period_from,
            "until": said.period_until,
            "head": said.head.hex(),
            "issued_at": said.issued_at,
            "known": judged.known,
            "has_licence": said.licence is not None,
            "rate_card": self._card(said.rate_card),
        }
        return Acknowledged(value, said.licence)

    def _card(self, data: bytes | None) -> dict[str, Any] | None:
        """What is said of the rate card that came along; one that is not good does not undo the rest."""
        if data is None:
            return None
        try:
            card, _ = open_rate_card(data, self._licence.trust.keyring().trusted_keys(Use.RATE_CARD))
        except LotaBotsError as error:
            return {"refused": error.problem()}
        until = rfc3339(card.valid_until) if card.valid_until else None
        return {
            "refused": None,
            "card_id": card.card_id,
            "digest": card.digest,
            "valid_from": rfc3339(card.valid_from),
            "valid_until": until,
        }


def _shape_purge(found: Purge) -> dict[str, Any]:
    return {
        "first": found.first,
        "last": found.last,
        "rows": found.rows,
        "reports": found.reports,
        "until": found.until,
        "head": found.head.hex(),
    }
