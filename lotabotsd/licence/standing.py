"""Say what the licence allows at a moment: one table from what is found to state, code and effect. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import date, timedelta
from enum import StrEnum
from typing import Any

from lotabotsd.foundation.clock import NANOSECONDS, to_ns
from lotabotsd.foundation.errors import LotaBotsError

from .claims import TIERS, Licence, Tier, burst
from .reporting import NO_DUTY, Due, Duty

REMINDER_DAYS = (30, 14, 7, 1)
CLOCK_TOLERANCE_NS = 300 * NANOSECONDS  # a time server may set the clock back by a little


class State(StrEnum):
    """How the appliance stands; the words that the CLI, the console and the metrics use."""

    NONE = "none"
    VALID = "valid"
    EXPIRING = "expiring"
    GRACE = "grace"
    RESTRICTED = "restricted"
    TERMINATED = "terminated"


class Found(StrEnum):
    """What there is to say of the installed licence; the first that holds, in this order."""

    ABSENT = "absent"  # no licence is installed
    UNUSABLE = "unusable"  # there is one, and it cannot be read or trusted
    ENDED = "ended"  # terminates_at has passed
    REVOKED = "revoked"  # the vendor took it back
    ELSEWHERE = "elsewhere"  # the fingerprint is another machine's
    TOO_NEW = "too_new"  # this release came out after max_release_date
    EARLY = "early"  # starts_at has not come
    AFTER_GRACE = "after_grace"
    UNREPORTED = "unreported"  # no usage report was acknowledged for too long
    RUNNING = "running"
    NEAR_END = "near_end"  # within 30 days of expires_at
    OVER = "over"  # expired, within the days of grace


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: state, stable code, whether the licence's own limits hold, and the effect."""

    state: State
    code: str
    own_limits: bool
    effect: str


TABLE: dict[Found, Row] = {
    Found.ABSENT: Row(State.NONE, "licence_none", False, "no licence is installed: the free tier holds"),
    Found.UNUSABLE: Row(
        State.RESTRICTED,
        "licence_unusable",
        False,
        "the installed licence cannot be used: the free tier's limits hold until it is installed again",
    ),
    Found.ENDED: Row(
        State.TERMINATED,
        "licence_terminated",
        False,
        "the licence has ended: running requests finish, new ones are refused until it is renewed",
    ),
    Found.REVOKED: Row(
        State.RESTRICTED,
        "licence_revoked",
        False,
        "the vendor has revoked the licence: the free tier's limits hold until another one is installed",
    ),
    Found.ELSEWHERE: Row(
        State.RESTRICTED,
        "licence_fingerprint",
        False,
        "the licence belongs to another machine: the free tier's limits hold",
    ),
    Found.TOO_NEW: Row(
        State.RESTRICTED,
        "licence_release",
        False,
        "the licence does not cover this release: the free tier's limits hold until it is renewed",
    ),
    Found.EARLY: Row(
        State.RESTRICTED,
        "licence_not_yet_valid",
        False,
        "the licence does not start yet: the free tier's limits hold until its first day",
    ),
    Found.UNREPORTED: Row(
        State.RESTRICTED,
        "licence_unreported",
        False,
        "no usage report was acknowledged for too long: the free tier's limits hold until one is",
    ),
    Found.RUNNING: Row(State.VALID, "licence_valid", True, "everything that the licence allows"),
    Found.NEAR_END: Row(
        State.EXPIRING,
        "licence_expiring",
        True,
        "everything still works: renew the licence before it expires",
    ),
    Found.OVER: Row(
        State.GRACE,
        "licence_grace",
        True,
        "the licence has expired: everything still works until the days of grace end",
    ),
    Found.AFTER_GRACE: Row(
        State.RESTRICTED,
        "licence_restricted",
        False,
        "the licence has expired: the free tier's limits hold until it is renewed",
    ),
}


@dataclass(frozen=True, slots=True)
class Standing:
    """What the licence on this appliance allows now; 0 means unlimited, or for a moment: none."""

    state: State
    code: str
    effect: str
    detail: str  # what exactly is wrong, where the code alone does not say
    tier: Tier  # whose limits hold
    kind: str  # paid, trial, development; empty without a licence
    licence_id: str
    sequence: int
    customer: str
    development: bool
    clock_suspect: bool
    expires_at_ns: int
    changes_at_ns: int  # when the standing changes next if nothing is installed
    reminder_days: int  # 30, 14, 7 or 1: the last reminder that is due; 0 none
    requests_per_minute: int
    burst: int
    inferences_per_month: int  # rows; refused beyond it when quota_hard, else overage begins
    quota_hard: bool
    inferences_included: int
    gpus: int
    models_live: int
    organisations: int
    members: int
    features: frozenset[str]
    priority_band: int

    @property
    def admits(self) -> bool:
        """Whether new requests are admitted and models started at all."""
        return self.state is not State.TERMINATED

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**asdict(self), "features": sorted(self.features)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Standing:
        """What `to_dict` gave. Raises ValueError for anything else."""
        if set(value) != {field.name for field in fields(cls)}:
            raise ValueError("not a standing of this release")
        texts = {"state": State(value["state"]), "tier": Tier(value["tier"])}
        return cls(**{**value, **texts, "features": frozenset(value["features"])})


def judge(
    licence: Licence | None,
    now_ns: int,
    floor_ns: int,
    *,
    development: bool,
    here: bool = True,
    released_on: date | None = None,
    unusable: LotaBotsError | None = None,
    duty: Duty = NO_DUTY,
    revoked: str | None = None,
) -> Standing:
    """The standing at `now_ns`, or at the clock's floor when the clock is below it.

    `here`: the fingerprint, if any, is this machine's. `released_on`: the day of this release, if known.
    `unusable`: why the installed licence could not be read. `development`: the anchors are published ones.
    `duty`: how the usage reports that it asks for stand at that moment. `revoked`: why the
    vendor took it back.
    """
    moment_ns = max(now_ns, floor_ns)
    if unusable is not None:
        licence, found = None, Found.UNUSABLE
    else:
        found = find(
            licence, moment_ns, here=here, released_on=released_on, duty=duty, revoked=revoked is not None
        )
    row = TABLE[found]
    tier = licence.tier if licence and row.own_limits else Tier.FREE
    terms = licence.terms if licence and row.own_limits else TIERS[Tier.FREE]
    hard = terms.inferences_refused > 0
    return Standing(
        state=row.state,
        code=row.code,
        effect=row.effect,
        detail=_detail(found, unusable, revoked),
        tier=tier,
        kind=licence.kind.value if licence else "",
        licence_id=licence.licence_id if licence else "",
        sequence=licence.sequence if licence else 0,
        customer=licence.customer if licence else "",
        development=development or (licence is not None and licence.kind == "development"),
        clock_suspect=now_ns < floor_ns - CLOCK_TOLERANCE_NS,
        expires_at_ns=to_ns(licence.expires_at) if licence else 0,
        changes_at_ns=_next_change(licence, duty, moment_ns) if licence else 0,
        reminder_days=_reminder(licence, moment_ns) if licence and found is Found.NEAR_END else 0,
        requests_per_minute=terms.requests_per_minute,
        burst=burst(terms.requests_per_minute),
        inferences_per_month=terms.inferences_refused if hard else terms.inferences_included,
        quota_hard=hard,
        inferences_included=terms.inferences_included,
        gpus=terms.gpus,
        models_live=terms.models,
        organisations=terms.organisations,
        members=terms.members,
        features=frozenset(terms.features),
        priority_band=terms.priority_band,
    )


def find(
    licence: Licence | None,
    moment_ns: int,
    *,
    here: bool,
    released_on: date | None,
    duty: Duty = NO_DUTY,
    revoked: bool = False,
) -> Found:
    """The first line of the table that holds; every period is half-open, its end exclusive."""
    if licence is None:
        return Found.ABSENT
    expires_ns = to_ns(licence.expires_at)
    if licence.terminates_at is not None and moment_ns >= to_ns(licence.terminates_at):
        return Found.ENDED
    if revoked:
        return Found.REVOKED
    if not here:
        return Found.ELSEWHERE
    if released_on and licence.max_release_date and released_on > licence.max_release_date:
        return Found.TOO_NEW
    if moment_ns < to_ns(licence.starts_at):
        return Found.EARLY
    if moment_ns >= to_ns(licence.grace_ends_at):
        return Found.AFTER_GRACE
    if duty.state is Due.RESTRICTED:
        return Found.UNREPORTED
    if moment_ns < expires_ns:
        return Found.NEAR_END if _reminder(licence, moment_ns) else Found.RUNNING
    return Found.OVER


def _detail(found: Found, unusable: LotaBotsError | None, revoked: str | None) -> str:
    if found is Found.REVOKED:
        return revoked or ""
    return str(unusable) if unusable is not None else ""


def _reminder(licence: Licence, moment_ns: int) -> int:
    """The shortest reminder whose time has come."""
    due = [d for d in REMINDER_DAYS if moment_ns >= to_ns(licence.expires_at - timedelta(days=d))]
    return min(due, default=0)


def _next_change(licence: Licence, duty: Duty, moment_ns: int) -> int:
    moments = [licence.starts_at, licence.expires_at, licence.grace_ends_at]
    moments += [licence.expires_at - timedelta(days=days) for days in REMINDER_DAYS]
    if licence.terminates_at is not None:
        moments.append(licence.terminates_at)
    known = [*(to_ns(moment) for moment in moments), duty.restricted_at_ns]
    return min((moment for moment in known if moment > moment_ns), default=0)
