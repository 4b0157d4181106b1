"""The duty to report at its edges, and what it does to the standing, with the clock moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lotabotsd.foundation.clock import FixedClock, to_ns
from lotabotsd.licence.claims import Licence, parse_licence
from lotabotsd.licence.document import open_licence
from lotabotsd.licence.reporting import DAY_NS, EFFECTS, NO_DUTY, Due, Duty, duty_of
from lotabotsd.licence.standing import Found, State, find, judge
from lotabotsd.licence.store import LicenceStore

INSTALLED = to_ns(datetime(2026, 2, 1, tzinfo=UTC))


@pytest.fixture
def licence(vendor: Any) -> Licence:
    """Every 31 days, 14 days of grace; from 2026-01-01 to the end of the year."""
    opened = open_licence(vendor.licence(terminates_at=None), vendor.anchors().keyring)
    assert (opened.licence.report_cadence_days, opened.licence.report_grace_days) == (31, 14)
    return opened.licence


@pytest.mark.parametrize(
    ("day", "seconds", "state"),
    [
        (0, 0, Due.NOT_DUE),
        (24, -1, Due.NOT_DUE),
        (24, 0, Due.SOON),
        (31, -1, Due.SOON),
        (31, 0, Due.OVERDUE),
        (45, -1, Due.OVERDUE),
        (45, 0, Due.RESTRICTED),
        (9_000, 0, Due.RESTRICTED),
    ],
)
def test_the_states_begin_to_the_second(licence: Licence, day: int, seconds: int, state: Due) -> None:
    duty = duty_of(licence, INSTALLED, 0, INSTALLED + day * DAY_NS + seconds * 10**9)
    assert duty.state is state
    assert (duty.since_ns, duty.due_at_ns) == (INSTALLED, INSTALLED + 31 * DAY_NS)
    assert duty.restricted_at_ns == INSTALLED + 45 * DAY_NS
    assert duty.to_dict()["effect"] == EFFECTS[state]


def test_every_state_has_its_effect() -> None:
    assert set(EFFECTS) == set(Due)
    assert len(set(EFFECTS.values())) == len(Due)


def test_without_a_licence_there_is_no_duty() -> None:
    assert duty_of(None, 0, 0, 10**19) == NO_DUTY


@pytest.mark.parametrize(
    ("installed", "acknowledged", "since"),
    [(INSTALLED, 0, INSTALLED), (INSTALLED, INSTALLED + 5, INSTALLED + 5), (INSTALLED, 5, INSTALLED)],
)
def test_it_counts_from_the_later_of_installation_and_acknowledgement(
    licence: Licence, installed: int, acknowledged: int, since: int
) -> None:
    assert duty_of(licence, installed, acknowledged, since).since_ns == since


def test_a_licence_that_nobody_remembers_installing_counts_from_its_first_day(licence: Licence) -> None:
    assert duty_of(licence, 0, 0, INSTALLED).since_ns == to_ns(licence.starts_at)


def test_a_daily_duty_is_soon_for_a_quarter_of_its_day(licence: Licence) -> None:
    daily = replace(licence, report_cadence_days=1, report_grace_days=0)
    parts = [duty_of(daily, INSTALLED, 0, INSTALLED + n * DAY_NS // 4).state for n in range(5)]
    assert parts == [Due.NOT_DUE, Due.NOT_DUE, Due.NOT_DUE, Due.SOON, Due.RESTRICTED]


def test_only_a_licence_that_would_count_is_restricted_for_its_reports(licence: Licence) -> None:
    late = Duty(Due.RESTRICTED, 1, 2, 3)
    day = to_ns(datetime(2026, 6, 1, tzinfo=UTC))

    def found(moment_ns: int, duty: Duty = late, here: bool = True) -> Found:
        return find(licence, moment_ns, here=here, released_on=None, duty=duty)

    assert found(day) is Found.UNREPORTED
    assert found(day, replace(late, state=Due.OVERDUE)) is Found.RUNNING
    assert found(day, here=False) is Found.ELSEWHERE
    assert found(to_ns(licence.expires_at)) is Found.UNREPORTED
    assert found(to_ns(licence.grace_ends_at)) is Found.AFTER_GRACE
    assert find(None, day, here=True, released_on=None, duty=late) is Found.ABSENT


def test_the_next_change_may_be_that_of_the_duty(licence: Licence) -> None:
    duty = duty_of(licence, INSTALLED, 0, INSTALLED)
    assert judge(licence, INSTALLED, 0, development=False, duty=duty).changes_at_ns == duty.restricted_at_ns
    parsed = judge(licence, INSTALLED, 0, development=False)
    assert parsed.changes_at_ns > duty.restricted_at_ns


class Year:
    """A store whose acknowledgements come when a test says so."""

    def __init__(self, open_store: Callable[..., LicenceStore], vendor: Any, clock: FixedClock) -> None:
        self.acknowledged_ns = 0
        self.clock = clock
        self.open = lambda: open_store(reported_ns=lambda: self.acknowledged_ns)
        self.store = self.open()
        self.renewals = iter(
            vendor.licence(terminates_at=None, sequence=sequence) for sequence in range(8, 99)
        )
        self.first = vendor.licence(terminates_at=None, sequence=7)

    def after(self, days: float) -> tuple[Due, State, str]:
        self.clock.advance(timedelta(days=days).total_seconds())
        standing = self.store.standing()
        assert (standing.state, standing.code) == (self.open().standing().state, self.open().standing().code)
        return self.store.duty().state, standing.state, standing.code


@pytest.fixture
def year(open_store: Callable[..., LicenceStore], vendor: Any, clock: FixedClock) -> Year:
    return Year(open_store, vendor, clock)


def test_a_licence_without_reports_is_restricted_in_time_and_freed_by_an_acknowledgement(year: Year) -> None:
    assert year.store.duty().state is Due.NONE
    change = year.store.install(year.first)
    assert change.after.state is State.VALID
    assert year.after(20) == (Due.NOT_DUE, State.VALID, "licence_valid")
    assert year.after(5) == (Due.SOON, State.VALID, "licence_valid")
    assert year.after(7) == (Due.OVERDUE, State.VALID, "licence_valid")
    assert year.after(13) == (Due.RESTRICTED, State.RESTRICTED, "licence_unreported")
    standing = year.store.standing()
    assert (standing.tier, standing.admits, standing.requests_per_minute) == ("free", True, 600)
    year.acknowledged_ns = year.clock.wall_ns()
    assert year.after(0) == (Due.NOT_DUE, State.VALID, "licence_valid")
    assert year.after(45) == (Due.RESTRICTED, State.RESTRICTED, "licence_unreported")


def test_a_renewed_licence_begins_anew_and_the_same_one_again_does_not(year: Year) -> None:
    year.store.install(year.first)
    assert year.after(46)[1] is State.RESTRICTED
    again = year.store.install(year.first)
    assert again.after.code == "licence_unreported"
    assert year.after(0)[1] is State.RESTRICTED
    renewed = next(year.renewals)
    assert year.store.install(renewed, check_only=True).after.state is State.VALID
    assert year.after(0)[1] is State.RESTRICTED
    assert year.store.install(renewed).after.state is State.VALID
    assert year.after(30)[0] is Due.SOON
    year.store.install(renewed)
    assert year.after(1)[0] is Due.OVERDUE


def test_setting_the_clock_back_does_not_help(year: Year) -> None:
    year.store.install(year.first)
    assert year.after(46)[1] is State.RESTRICTED
    year.store.raise_floor()
    assert year.after(-40)[1:] == (State.RESTRICTED, "licence_unreported")


def test_an_unusable_licence_has_no_duty(year: Year, tmp_path: Any) -> None:
    year.store.install(year.first)
    (tmp_path / "current.dsse.json").write_bytes(b"{}")
    assert year.store.duty() == NO_DUTY
    assert year.store.standing().code == "licence_unusable"


def test_claims_of_the_golden_licence_ask_for_reports(golden: Any) -> None:
    assert parse_licence((golden / "pro.json").read_bytes()).report_cadence_days >= 1
