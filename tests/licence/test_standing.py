"""The standing table at its edges: the second before, the second of, and every line with its code."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.clock import from_ns, to_ns
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.licence.claims import TIERS, Kind, Licence, Overage, Tier
from lotabotsd.licence.standing import CLOCK_TOLERANCE_NS, TABLE, Found, Standing, State, judge

EXPIRES = datetime(2027, 1, 1, tzinfo=UTC)
TERMINATES = datetime(2027, 3, 16, tzinfo=UTC)
LICENCE = Licence(
    licence_id="lic_0123456789ABCDEF",
    sequence=7,
    customer="Example Works GmbH",
    tier=Tier.PRO,
    kind=Kind.PAID,
    issued_at=datetime(2025, 12, 1, tzinfo=UTC),
    starts_at=datetime(2026, 1, 1, tzinfo=UTC),
    expires_at=EXPIRES,
    terminates_at=TERMINATES,
    grace_days=14,
    terms=TIERS[Tier.PRO],
    report_cadence_days=31,
    report_grace_days=14,
)


def at(
    moment: datetime, licence: Licence | None = LICENCE, *, floor: datetime | None = None, **rest: Any
) -> Standing:
    return judge(
        licence,
        to_ns(moment),
        to_ns(floor) if floor else 0,
        development=rest.pop("development", False),
        **rest,
    )


@pytest.mark.parametrize(
    ("moment", "state", "code", "reminder"),
    [
        ("2025-12-31T23:59:59", State.RESTRICTED, "licence_not_yet_valid", 0),
        ("2026-01-01T00:00:00", State.VALID, "licence_valid", 0),
        ("2026-12-01T23:59:59", State.VALID, "licence_valid", 0),
        ("2026-12-02T00:00:00", State.EXPIRING, "licence_expiring", 30),
        ("2026-12-18T00:00:00", State.EXPIRING, "licence_expiring", 14),
        ("2026-12-25T00:00:00", State.EXPIRING, "licence_expiring", 7),
        ("2026-12-31T00:00:00", State.EXPIRING, "licence_expiring", 1),
        ("2026-12-31T23:59:59", State.EXPIRING, "licence_expiring", 1),
        ("2027-01-01T00:00:00", State.GRACE, "licence_grace", 0),
        ("2027-01-14T23:59:59", State.GRACE, "licence_grace", 0),
        ("2027-01-15T00:00:00", State.RESTRICTED, "licence_restricted", 0),
        ("2027-03-15T23:59:59", State.RESTRICTED, "licence_restricted", 0),
        ("2027-03-16T00:00:00", State.TERMINATED, "licence_terminated", 0),
        ("2099-01-01T00:00:00", State.TERMINATED, "licence_terminated", 0),
    ],
)
def test_the_year_of_a_licence(moment: str, state: State, code: str, reminder: int) -> None:
    standing = at(datetime.fromisoformat(moment).replace(tzinfo=UTC))
    assert (standing.state, standing.code, standing.reminder_days) == (state, code, reminder)
    assert standing.admits == (state is not State.TERMINATED)
    assert standing.customer == "Example Works GmbH"
    full = state in {State.VALID, State.EXPIRING, State.GRACE}
    assert standing.tier is (Tier.PRO if full else Tier.FREE)
    assert standing.requests_per_minute == (60_000 if full else 600)


def test_every_state_is_reached_and_every_line_has_its_own_code_and_effect() -> None:
    assert set(TABLE) == set(Found)
    assert {row.state for row in TABLE.values()} == set(State)
    assert (
        len({row.code for row in TABLE.values()}) == len({row.effect for row in TABLE.values()}) == len(TABLE)
    )
    for row in TABLE.values():
        assert row.own_limits == (row.state in {State.VALID, State.EXPIRING, State.GRACE})


def test_no_licence_is_the_free_tier() -> None:
    standing = at(EXPIRES, None)
    assert (standing.state, standing.code, standing.tier) == (State.NONE, "licence_none", Tier.FREE)
    assert (standing.requests_per_minute, standing.burst) == (600, 100)
    assert (standing.inferences_per_month, standing.quota_hard) == (100_000, True)
    assert (standing.gpus, standing.models_live, standing.organisations, standing.members) == (1, 2, 1, 5)
    assert (standing.licence_id, standing.customer, standing.kind) == ("", "", "")
    assert (standing.expires_at_ns, standing.changes_at_ns, standing.sequence) == (0, 0, 0)
    assert standing.admits


def test_a_licence_without_grace_or_end() -> None:
    plain = replace(LICENCE, grace_days=0, terminates_at=None)
    assert at(EXPIRES, plain).state is State.RESTRICTED
    assert at(datetime(2199, 1, 1, tzinfo=UTC), plain).state is State.RESTRICTED
    assert at(EXPIRES, plain).changes_at_ns == 0


def test_a_short_trial_begins_with_its_reminder() -> None:
    trial = replace(LICENCE, kind=Kind.TRIAL, expires_at=LICENCE.starts_at + timedelta(days=10))
    standing = at(LICENCE.starts_at, trial)
    assert (standing.state, standing.reminder_days, standing.kind) == (State.EXPIRING, 14, "trial")


@pytest.mark.parametrize(
    ("included", "refused", "overage", "quota", "hard"),
    [
        (0, 0, Overage.BILLED, 0, False),
        (1000, 0, Overage.BILLED, 1000, False),
        (1000, 1500, Overage.CAPPED, 1500, True),
        (0, 500, Overage.NONE, 500, True),
    ],
)
def test_the_quota_is_the_hard_limit_where_there_is_one(
    included: int, refused: int, overage: Overage, quota: int, hard: bool
) -> None:
    terms = replace(LICENCE.terms, inferences_included=included, inferences_refused=refused, overage=overage)
    standing = at(LICENCE.starts_at, replace(LICENCE, terms=terms))
    assert (standing.inferences_per_month, standing.quota_hard) == (quota, hard)
    assert standing.inferences_included == included


def test_another_machine_or_a_later_release_leaves_the_free_tier() -> None:
    elsewhere = at(LICENCE.starts_at, here=False)
    assert (elsewhere.state, elsewhere.code) == (State.RESTRICTED, "licence_fingerprint")
    limited = replace(LICENCE, max_release_date=date(2026, 6, 30))
    assert at(LICENCE.starts_at, limited, released_on=date(2026, 6, 30)).state is State.VALID
    assert at(LICENCE.starts_at, limited).state is State.VALID
    later = at(LICENCE.starts_at, limited, released_on=date(2026, 7, 1))
    assert (later.state, later.code) == (State.RESTRICTED, "licence_release")
    assert at(TERMINATES, here=False).state is State.TERMINATED


def test_a_licence_that_cannot_be_used_says_why() -> None:
    error = LotaBotsError(Code.SIGNATURE_INVALID, "key abc")
    standing = at(LICENCE.starts_at, None, unusable=error)
    assert (standing.state, standing.code) == (State.RESTRICTED, "licence_unusable")
    assert "key abc" in standing.detail
    assert standing.requests_per_minute == 600
    assert at(LICENCE.starts_at, LICENCE, unusable=error).licence_id == ""


def test_a_clock_set_back_revives_nothing_and_is_flagged() -> None:
    standing = at(LICENCE.starts_at, floor=TERMINATES)
    assert (standing.state, standing.clock_suspect) == (State.TERMINATED, True)
    assert at(EXPIRES, floor=EXPIRES - timedelta(days=1)).state is State.GRACE


def test_a_small_step_back_is_no_suspicion() -> None:
    floor_ns = to_ns(EXPIRES)
    for behind, suspect in [(0, False), (CLOCK_TOLERANCE_NS, False), (CLOCK_TOLERANCE_NS + 1, True)]:
        standing = judge(LICENCE, floor_ns - behind, floor_ns, development=False)
        assert standing.clock_suspect is suspect
        assert standing.state is State.GRACE


def test_development_is_marked_whatever_the_state() -> None:
    for licence in (None, LICENCE):
        assert at(EXPIRES, licence, development=True).development
        assert not at(EXPIRES, licence).development
    assert at(EXPIRES, replace(LICENCE, kind=Kind.DEVELOPMENT)).development


@pytest.mark.parametrize("licence", [None, LICENCE])
def test_a_standing_goes_through_json_unchanged(licence: Licence | None) -> None:
    standing = at(LICENCE.starts_at, licence)
    again = Standing.from_dict(json.loads(canonical_json(standing.to_dict())))
    assert again == standing
    assert type(again.state) is State
    assert isinstance(again.features, frozenset)


@pytest.mark.parametrize(
    "change", [{"state": "great"}, {"tier": "gold"}, {"extra": 1}, {"code": None}], ids=str
)
def test_what_is_no_standing_is_refused(change: dict[str, Any]) -> None:
    value = {**at(EXPIRES).to_dict(), **change}
    if change == {"code": None}:
        del value["code"]
    with pytest.raises(ValueError):
        Standing.from_dict(value)


@given(st.integers(0, 900 * 86_400), st.integers(0, 60), st.integers(0, 60) | st.none())
def test_nothing_changes_before_the_moment_that_the_standing_names(
    seconds: int, grace_days: int, rest_days: int | None
) -> None:
    licence = replace(LICENCE, grace_days=grace_days, terminates_at=None)
    if rest_days is not None:
        licence = replace(licence, terminates_at=licence.grace_ends_at + timedelta(days=rest_days))
    now = LICENCE.issued_at + timedelta(seconds=seconds)
    standing = at(now, licence)
    if not standing.changes_at_ns:
        assert at(datetime(2190, 1, 1, tzinfo=UTC), licence) == standing
        return
    change = from_ns(standing.changes_at_ns)
    assert change > now
    before, after = at(change - timedelta(microseconds=1), licence), at(change, licence)
    assert replace(before, changes_at_ns=0) == replace(standing, changes_at_ns=0)
    assert after != before
