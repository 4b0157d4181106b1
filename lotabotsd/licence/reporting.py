"""Say how late the usage report is that the licence asks for: one table from state to effect. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from lotabotsd.foundation.clock import NANOSECONDS, to_ns

from .claims import Licence

DAY_NS = 86_400 * NANOSECONDS
SOON_DAYS = 7  # a quarter of the cadence where that is less


class Due(StrEnum):
    """How the duty to report stands; the words that the CLI, the API and the metrics use."""

    NONE = "none"  # nothing asks for reports: there is no licence
    NOT_DUE = "not_due"
    SOON = "soon"
    OVERDUE = "overdue"
    RESTRICTED = "restricted"


# What each state means; of the last four the lowest whose time has come.
EFFECTS: dict[Due, str] = {
    Due.NONE: "no licence asks for usage reports",
    Due.NOT_DUE: "nothing is to be done",
    Due.SOON: "the vendor expects a usage report within days",
    Due.OVERDUE: "the vendor has acknowledged no usage report in time: everything still works",
    Due.RESTRICTED: "no usage report was acknowledged for too long: the free tier's limits hold until one is",
}


@dataclass(frozen=True, slots=True)
class Duty:
    """The duty to report at one moment; moments are nanoseconds since 1970, 0 where there is none."""

    state: Due
    since_ns: int  # the last acknowledgement, or the licence's installation: whichever is later
    due_at_ns: int
    restricted_at_ns: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**asdict(self), "effect": EFFECTS[self.state]}


NO_DUTY = Duty(Due.NONE, 0, 0, 0)


def duty_of(licence: Licence | None, installed_ns: int, acknowledged_ns: int, moment_ns: int) -> Duty:
    """How the duty stands at `moment_ns`; every period is half-open, its end exclusive.

    It is due `report.cadence_days` after the last accepted acknowledgement (0: never) or the licence's
    installation, never before the licence's first day; `report.grace_days` later its limits end.
    """
    if licence is None:
        return NO_DUTY
    since = max(installed_ns, acknowledged_ns, to_ns(licence.starts_at))
    due = since + licence.report_cadence_days * DAY_NS
    restricted = due + licence.report_grace_days * DAY_NS
    soon = due - min(SOON_DAYS * DAY_NS, licence.report_cadence_days * DAY_NS // 4)
    if moment_ns < soon:
        state = Due.NOT_DUE
    elif moment_ns < due:
        state = Due.SOON
    else:
        state = Due.OVERDUE if moment_ns < restricted else Due.RESTRICTED
    return Duty(state, since, due, restricted)
