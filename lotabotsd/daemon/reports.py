"""Usage reports of this appliance: by hand, on schedule, and beforehand as a preview."""

from __future__ import annotations

import hmac
import json
import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from apscheduler.triggers.cron import CronTrigger

from lotabotsd.attestation.keyset import Keyset
from lotabotsd.control.moments import parse_moment
from lotabotsd.foundation.clock import NANOSECONDS, Clock, from_ns, rfc3339
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.keys import raw_public
from lotabotsd.identity.store import IdentityStore
from lotabotsd.licence.store import LicenceStore
from lotabotsd.usage.acknowledged import list_acknowledgements
from lotabotsd.usage.ledger import Ledger
from lotabotsd.usage.outbox import Outbox
from lotabotsd.usage.report import (
    About,
    Frozen,
    LicenceFacts,
    export_report,
    latest_report,
    list_reports,
    preview,
)

from .reconciling import Reconciling
from .timetable import report_boundary

log = logging.getLogger("lotabots.daemon")

NOW = "now"
_NOTHING = (Code.REPORT_EMPTY, Code.REPORT_OVERLAP)


class Reports:
    """The one maker of usage reports. May be used from several threads; one report is made at a time."""

    def __init__(
        self,
        ledger: Ledger,
        reconciling: Reconciling,
        refuse_damage: Callable[[], None],
        seal: Callable[[bool], bool],
        outbox: Outbox,
        keyset: Keyset,
        identity: IdentityStore,
        licence: LicenceStore,
        clock: Clock,
        appliance_id: str,
        pseudonym_secret: bytes | None,
    ) -> None:
        """`refuse_damage` raises LEDGER_DAMAGED for a changed ledger.

        `seal` counts every journal and closes the hours that ended, with True the running one too.
        """
        self._ledger = ledger
        self._reconciling = reconciling
        self._refuse_damage = refuse_damage
        self._seal = seal
        self._outbox = outbox
        self._keyset = keyset
        self._identity = identity
        self._licence = licence
        self._clock = clock
        self._appliance_id = appliance_id
        self._pseudonym_secret = pseudonym_secret
        self._lock = threading.Lock()

    def export(self, until: str) -> list[dict[str, Any]]:
        """Write what was not reported yet, up to a moment (empty: the last whole hour; `now` cuts this one).

        Raises REPORT_EMPTY, REPORT_OVERLAP, REPORT_INVALID, VALUE_INVALID, LEDGER_DAMAGED, DISK_FULL,
        FILE_UNWRITABLE.
        """
        with self._lock:
            cut = until.strip().lower() == NOW
            end = None if cut or not until else parse_moment(until, self._clock.wall_ns())
            self._seal(cut)
            self._refuse_damage()
            if end is None:
                end = self._ledger.sealed_until
                self._refuse_nothing_new(end)
            return self._shapes(self._write(end))

    def write_due(self, rule: CronTrigger) -> list[dict[str, Any]]:
        """Write the report whose time has come, also one that was missed; nothing when there is none."""
        with self._lock:
            last = latest_report(self._ledger)
            boundary = report_boundary(
                rule,
                from_ns(self._clock.wall_ns()),
                reported_until=from_ns(last.period_until * NANOSECONDS) if last else None,
                recorded_from=self._recorded_from(),
            )
            if boundary is None:
                return []
            self._seal(False)
            self._refuse_damage()
            try:
                written = self._write(int(boundary.timestamp()))
            except LotaBotsError as error:
                if error.code in _NOTHING:
                    return []
                raise
        for frozen in written:
            log.info("usage report written", extra={"report": frozen.file_name})
        return self._shapes(written)

    def preview(self) -> dict[str, Any]:
        """Every part of the report that `export` would write now.

        Raises REPORT_EMPTY, REPORT_INVALID, LEDGER_DAMAGED.
        """
        self._refuse_damage()
        now = self._clock.wall_ns() // NANOSECONDS
        until = self._ledger.sealed_until
        self._refuse_nothing_new(until)
        found = preview(self._ledger, until, self._about(), now)
        return {
            "from": found.period_from,
            "until": found.period_until,
            "rows": found.rows,
            "body": json.loads(found.body),
            "csv": found.csv.decode(),
            "readme": found.readme.decode(),
        }

    def written(self) -> list[dict[str, Any]]:
        """Every report, oldest first."""
        return self._shapes(list_reports(self._ledger))

    def read(self, name: str) -> bytes:
        """A report's bytes. Raises NOT_FOUND, VALUE_INVALID."""
        return self._outbox.read(name)

    def _write(self, until: int) -> list[Frozen]:
        self._reconciling.look_once_more()  # so that the comparison reaches as far as the report
        return export_report(
            self._ledger,
            self._outbox,
            self._keyset.report,
            until=until,
            about=self._about(),
            now=self._clock.wall_ns() // NANOSECONDS,
        )

    def _refuse_nothing_new(self, sealed_until: int) -> None:
        """Raise REPORT_EMPTY when everything sealed was reported, or nothing was sealed yet.

        A report that was frozen and never reached the outbox is still to be written.
        """
        last = latest_report(self._ledger)
        if last is not None and not self._outbox.holds(last.file_name):
            return
        if last is None and self._recorded_from() is None:
            detail = "the first hour still runs and is not closed yet"
        elif last is not None and sealed_until <= last.period_until:
            reported = rfc3339(from_ns(last.period_until * NANOSECONDS))
            detail = f"all until {reported} is reported, and the running hour is not closed yet"
        else:
            return
        raise LotaBotsError(
            Code.REPORT_EMPTY,
            detail,
            hint="wait for its end, or close it now and report it: lotabotsctl usage export --cut",
        )

    def _about(self) -> About:
        standing = self._licence.standing()
        licence = LicenceFacts(standing.licence_id, standing.tier.value, standing.customer)
        return About(
            appliance_id=self._appliance_id,
            public_key=raw_public(self._keyset.report),
            licence=licence if standing.licence_id else None,
            development=standing.development,
            organisation_names={o.organisation_id: o.name for o in self._identity.list_organisations()},
            key_names={key.key_id: key.name for key in self._identity.list_keys()},
            pseudonym_secret=self._pseudonym_secret,
            compared=self._reconciling.state,
        )

    def _recorded_from(self) -> datetime | None:
        began = self._ledger.recorded_from
        return from_ns(began * NANOSECONDS) if began is not None else None

    def _shapes(self, reports: list[Frozen]) -> list[dict[str, Any]]:
        """Reports with what the vendor last said of each ("" where nothing)."""
        said = {found.report: found.verdict.value for found in list_acknowledgements(self._ledger)}
        return [self._shape(frozen, said.get(frozen.sequence, "")) for frozen in reports]

    def _shape(self, frozen: Frozen, verdict: str) -> dict[str, Any]:
        name = frozen.file_name
        path = self._outbox.path(name) if self._outbox.holds(name) else None
        return {
            "name": name,
            "sequence": frozen.sequence,
            "from": frozen.period_from,
            "until": frozen.period_until,
            "state": path.parent.name if path else "missing",
            "path": str(path) if path else "",
            "verdict": verdict,
        }


def pseudonym_secret(pepper: bytes) -> bytes:
    """The secret behind the pseudonyms of names in reports: the same as long as the pepper is."""
    return hmac.digest(pepper, b"lotabots report pseudonyms v1", "sha256")
