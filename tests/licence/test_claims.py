"""Claims: every field checked, every problem told together, and the tiers of the product's table."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.licence.claims import (
    TIERS,
    Fingerprint,
    Kind,
    Licence,
    Match,
    Overage,
    Tier,
    burst,
    parse_licence,
    to_claims,
)


def refusal(body: bytes) -> LotaBotsError:
    with pytest.raises(LotaBotsError) as caught:
        parse_licence(body)
    assert caught.value.code is Code.LICENCE_INVALID
    return caught.value


def changed(vendor: Any, path: str, value: Any) -> bytes:
    """The base claims with one value, named by dots, replaced."""
    claims = json.loads(json.dumps(vendor.claims()))
    *parents, last = path.split(".")
    place = claims
    for name in parents:
        place = place[name]
    place[last] = value
    return json.dumps(claims).encode()


def test_the_golden_claims_are_read(golden: Path) -> None:
    licence = parse_licence((golden / "pro.json").read_bytes())
    assert licence.licence_id == "lic_0123456789ABCDEF"
    assert (licence.sequence, licence.customer, licence.tier, licence.kind) == (
        7,
        "Example Works GmbH",
        Tier.PRO,
        Kind.DEVELOPMENT,
    )
    assert licence.expires_at == datetime(2027, 1, 1, tzinfo=UTC)
    assert licence.grace_ends_at == datetime(2027, 1, 15, tzinfo=UTC)
    assert licence.terminates_at == datetime(2027, 3, 16, tzinfo=UTC)
    assert licence.terms.inferences_included == 1_000_000
    assert (licence.report_cadence_days, licence.report_grace_days) == (31, 14)


def test_reading_and_writing_are_inverse(vendor: Any, golden: Path) -> None:
    body = (golden / "pro.json").read_bytes()
    assert canonical_json(to_claims(parse_licence(body))) == body
    full = vendor.claims(
        fingerprint={"match": "most", "components": {"first-mac": "00ff", "machine-id": "a" * 64}},
        rate_card={"lines": [{"meter": "inferences", "price": "0.001"}]},
        max_release_date="2027-06-30",
        terminates_at=None,
        features=[],
    )
    licence = parse_licence(canonical_json(full))
    assert to_claims(licence) == full
    assert licence.max_release_date == date(2027, 6, 30)
    assert licence.fingerprint == Fingerprint((("first-mac", "00ff"), ("machine-id", "a" * 64)), Match.MOST)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (
            "licence_id",
            [None, 1, "", "lic_", "lic_0123456789ABCDE", "org_0123456789ABCDEF", "lic_é123456789ABCDE"],
        ),
        ("sequence", [None, 0, -1, 1.0, True, "7", 10**15 + 1, 1e3]),
        ("customer", [None, "", " ", " x", "x ", "a\nb", "a\u0000b", "x" * 201, ["x"], "\ud800", "a\u202eb"]),
        ("tier", [None, "", "gold", "PRO", 1, ["pro"]]),
        ("kind", [None, "free", "Paid"]),
        (
            "issued_at",
            [None, "", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00:00+00:00", 1767225600],
        ),
        ("starts_at", ["2026-01-01t00:00:00Z", "2026-01-01T00:00:00.5Z", "2026-13-01T00:00:00Z"]),
        ("expires_at", ["9999-12-31T23:59:59Z", "1999-12-31T23:59:59Z", "2026-01-01T00:00:00Z", "x"]),
        ("terminates_at", ["never", 0, False, "2027-01-14T23:59:59Z"]),
        ("grace_days", [-1, 366, 1.5, None, "14"]),
        ("limits", [None, [], {}]),
        ("limits.requests_per_minute", [None, 60000, {"hard": 1}, {"soft": 0, "hard": 1, "window": "m"}]),
        ("limits.requests_per_minute.soft", [1]),
        ("limits.members.hard", [-1, 0.5, False, None]),
        ("limits.inferences_per_month.soft", [-1, 1e6]),
        ("limits.inferences_per_month.hard", [5]),
        ("gpus", [-1, "4", 4.0, None]),
        ("models", [-1, True]),
        (
            "features",
            [None, "oidc", ["ldap", "ldap"], ["oidc", "ldap"], ["OIDC"], [1], ["x" * 33], ["a"] * 65],
        ),
        ("priority_band", [0, 10, None]),
        ("overage", [None, "billed", {"mode": "billed"}]),
        ("overage.mode", ["free", None, "none"]),
        ("overage.ratio_percent", [-1, 1.25, 125, 10_001]),
        ("report", [None, {"cadence_days": 31}]),
        ("report.cadence_days", [0, 367, "monthly"]),
        ("report.grace_days", [-1, 366]),
        ("fingerprint", [{}, [], "x", {"match": "most", "components": {}}, {"match": "most"}]),
        ("rate_card", [[], "x", {"price": 0.5}, {"x": "y" * 300_000}]),
        ("max_release_date", ["2027-06-31", "30.6.2027", 20270630, "20270630", ""]),
        ("unheard_of", [1]),
    ],
)
def test_every_field_is_checked(vendor: Any, path: str, values: list[Any]) -> None:
    for value in values:
        problem = refusal(changed(vendor, path, value))
        if path.split(".")[0] not in {"terminates_at", "expires_at", "overage", "limits"}:
            assert path.split(".")[0] in problem.detail, (value, problem.detail)


@pytest.mark.parametrize(
    "components",
    [
        {"machine-id": "a" * 63},
        {"machine-id": "A" * 64},
        {"first-mac": "a" * 64},
        {"serial": "a" * 64},
        {"machine-id": "a" * 64, "serial": "a" * 64},
        {"machine-id": None},
        {"machine-id": 1},
    ],
)
def test_every_fingerprint_component_is_checked(vendor: Any, components: dict[str, Any]) -> None:
    refusal(changed(vendor, "fingerprint", {"match": "all", "components": components}))


def test_an_operator_set_fingerprint_has_just_that_component(vendor: Any) -> None:
    parse_licence(changed(vendor, "fingerprint", {"match": "operator", "components": {"operator": "b" * 64}}))
    both = {"operator": "b" * 64, "machine-id": "a" * 64}
    refusal(changed(vendor, "fingerprint", {"match": "operator", "components": both}))
    refusal(changed(vendor, "fingerprint", {"match": "operator", "components": {"machine-id": "a" * 64}}))


def test_each_field_is_needed(vendor: Any) -> None:
    for name in vendor.claims():
        claims = vendor.claims()
        del claims[name]
        assert f"{name} is missing" in refusal(canonical_json(claims)).detail


def test_all_problems_are_told_together(vendor: Any) -> None:
    problems = refusal(canonical_json(vendor.claims(gpus=-1, tier="gold", colour="red"))).extra["problems"]
    assert [problem.split()[0] for problem in problems] == ["tier", "gpus", "colour"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"1",
        b'"x"',
        b"{",
        b"\xff",
        b'{"a":NaN}',
        b"[" * 1000,
        b'{"a":' + b"[" * 20 + b"]" * 20 + b"}",
    ],
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    refusal(body)


def test_a_key_that_comes_twice_is_refused(vendor: Any) -> None:
    body = canonical_json(vendor.claims())
    assert "twice" in refusal(body[:-1] + b',"gpus":4}').detail
    assert "twice" in refusal(body.replace(b'"hard":5', b'"hard":5,"hard":5')).detail


@pytest.mark.parametrize(
    ("overage", "soft", "hard", "good"),
    [
        ({"mode": "none", "ratio_percent": 0}, 0, 0, True),
        ({"mode": "none", "ratio_percent": 0}, 0, 100, True),
        ({"mode": "none", "ratio_percent": 0}, 100, 100, False),
        ({"mode": "none", "ratio_percent": 100}, 0, 100, False),
        ({"mode": "billed", "ratio_percent": 0}, 0, 0, True),
        ({"mode": "billed", "ratio_percent": 0}, 100, 0, True),
        ({"mode": "billed", "ratio_percent": 0}, 100, 200, False),
        ({"mode": "capped", "ratio_percent": 150}, 100, 150, True),
        ({"mode": "capped", "ratio_percent": 100}, 100, 100, True),
        ({"mode": "capped", "ratio_percent": 150}, 100, 151, False),
        ({"mode": "capped", "ratio_percent": 99}, 100, 99, False),
        ({"mode": "capped", "ratio_percent": 150}, 0, 0, False),
        ({"mode": "capped", "ratio_percent": 0}, 100, 0, False),
    ],
)
def test_overage_and_the_limit_of_inferences_agree(
    vendor: Any, overage: dict[str, Any], soft: int, hard: int, good: bool
) -> None:
    limits = {**vendor.claims()["limits"], "inferences_per_month": {"soft": soft, "hard": hard}}
    body = canonical_json(vendor.claims(overage=overage, limits=limits))
    if good:
        terms = parse_licence(body).terms
        assert (terms.inferences_included, terms.inferences_refused) == (soft, hard)
    else:
        assert "overage" in refusal(body).detail


def test_the_tiers_are_those_of_the_product() -> None:
    free, pro, enterprise = (TIERS[tier] for tier in Tier)
    assert (free.gpus, free.models, free.organisations, free.members) == (1, 2, 1, 5)
    assert (free.requests_per_minute, free.inferences_refused, free.overage) == (600, 100_000, Overage.NONE)
    assert (pro.gpus, pro.models, pro.organisations, pro.members) == (4, 20, 5, 100)
    assert (pro.requests_per_minute, pro.inferences_refused, pro.overage) == (60_000, 0, Overage.BILLED)
    assert (enterprise.gpus, enterprise.models, enterprise.organisations, enterprise.members) == (0, 0, 0, 0)
    assert (enterprise.requests_per_minute, enterprise.inferences_refused) == (0, 0)
    assert [terms.priority_band for terms in (free, pro, enterprise)] == [3, 2, 1]
    assert free.features == ()
    assert pro.features == enterprise.features != ()


@pytest.mark.parametrize(
    ("rate", "expected"), [(0, 0), (1, 5), (30, 5), (35, 5), (36, 6), (600, 100), (60_000, 10_000)]
)
def test_a_burst_is_ten_seconds_of_the_rate_and_at_least_five(rate: int, expected: int) -> None:
    assert burst(rate) == expected


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5)
)
def test_any_value_in_any_field_gives_a_licence_or_a_refusal(value: Any) -> None:
    golden = Path(__file__).resolve().parents[1] / "golden" / "licence" / "pro.json"
    claims = json.loads(golden.read_bytes())
    for name in claims:
        try:
            licence = parse_licence(json.dumps({**claims, name: value}).encode())
        except LotaBotsError as error:
            assert error.code is Code.LICENCE_INVALID  # noqa: PT017 - both ways out are right
        else:
            assert isinstance(licence, Licence)
