"""The offline verifier on claims: types, parties, time, the challenge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lotabotsd.attestation import token as made
from lotabotsd.attestation.evidence import Evidence
from lotabotsd.attestation.issuer import Issuer
from lotabotsd.attestation.keyset import Keyset
from lotabotsd.attestation.verify import Verdict

NONCE = "AAAAAAAAAAAAAAAAAAAAAA"
OTHER_NONCE = "BBBBBBBBBBBBBBBBBBBBBB"
Judge = Callable[..., Verdict]


def failed(verdict: Verdict) -> list[tuple[str, str]]:
    return [(check.level, check.name) for check in verdict.checks if check.passed is False]


def refused(verdict: Verdict, level: str, name: str) -> None:
    assert failed(verdict) == [(level, name)]
    assert not verdict.valid
    assert verdict.exit_code == 1
    assert verdict.assurance == "none"
    assert verdict.not_established == ("anything: the token is not valid",)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"aud": "another-app"}, "audience"),
        ({"aud": "AN-APP"}, "audience"),
        ({"iss": "urn:dev:ueid:other"}, "issuer"),
        ({"sub": "urn:dev:ueid:other"}, "subject"),
        ({"eat_nonce": OTHER_NONCE}, "challenge"),
        ({"cnf": {"jkt": "x" * 43}}, "keyset"),
        ({"x-lotabots-keyset": {}}, "keyset"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_a_wrong_value_is_named(
    judge: Judge, keyset: Keyset, claims: dict[str, Any], change: dict[str, Any], name: str
) -> None:
    refused(judge(made.sign_jws({**claims, **change}, keyset.attestation)), "claims", name)


def test_another_profile_is_refused(judge: Judge, keyset: Keyset, claims: dict[str, Any]) -> None:
    token = made.sign_jws(
        {**claims, "eat_profile": "urn:lotabots:eat-profile:receipt:v1"}, keyset.attestation
    )
    refused(judge(token), "claims", "profile")


def test_a_keyset_whose_roles_share_a_key_is_refused(
    judge: Judge, keyset: Keyset, claims: dict[str, Any]
) -> None:
    shared = keyset.public()
    shared["receipt"] = shared["attestation"]
    change = {"x-lotabots-keyset": shared, "cnf": {"jkt": shared["receipt"][0]["kid"]}}
    refused(judge(made.sign_jws({**claims, **change}, keyset.attestation)), "claims", "keyset")


def test_an_issuer_that_was_pinned_must_be_the_one(judge: Judge, token: str, keyset: Keyset) -> None:
    assert judge(token, issuer=f"urn:dev:ueid:{keyset.ueid}").valid
    refused(judge(token, issuer="urn:dev:ueid:another"), "claims", "issuer")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iat", "1"), ("iat", True), ("iat", -1), ("iat", None), ("iat", 2**40), ("exp", [1]), ("nbf", {}),
        ("aud", ["an-app"]), ("aud", ""), ("iss", 1), ("iss", "a\nb"), ("sub", None),
        ("jti", "1"), ("jti", "019ab0c0-0000-4000-8000-000000000000"), ("jti", 7),
        ("eat_nonce", "short"), ("eat_nonce", ["A" * 22, "B" * 22]), ("eat_nonce", "A" * 89),
        ("eat_nonce", None),
        ("nonce", "A" * 22), ("ueid", "AA"), ("ueid", 1), ("swname", 1), ("swversion", "0.1.0"),
        ("swversion", []),
        ("swversion", ["0.1.0", 16384, 1]), ("dbgstat", "off"), ("dbgstat", False), ("uptime", -1),
        ("bootcount", "x"), ("bootseed", "AA"), ("measres", 1), ("measres", "success"), ("measres", [["a"]]),
        ("measres", [["a", [["b", "maybe"]]]]), ("measres", [["a", [["b"]]]]), ("cnf", {}), ("cnf", []),
        ("submods", {}), ("submods", []), ("submods", None), ("x-lotabots-keyset", []),
        ("x-lotabots-keyset", {"attestation": [{}]}), ("x-lotabots-keyset", {"attestation": [1]}),
        ("x-lotabots-keyset", {"attestation": 1}), ("x-lotabots-assurance", "high"),
        ("x-lotabots-assurance", []),
        ("x-lotabots-development", 1), ("x-lotabots-development", None), ("x-lotabots-prev", "x"),
    ],
)  # fmt: skip
def test_a_claim_of_another_type_is_refused(
    judge: Judge, keyset: Keyset, claims: dict[str, Any], name: str, value: Any
) -> None:
    verdict = judge(made.sign_jws({**claims, name: value}, keyset.attestation))
    refused(verdict, "claims", "types")
    assert name in verdict.checks[-1].detail


OPTIONAL = {"eat_nonce", "swversion"}


def test_no_claim_of_the_profile_may_be_missing(judge: Judge, keyset: Keyset, claims: dict[str, Any]) -> None:
    for name in set(claims) - OPTIONAL:
        without = {other: value for other, value in claims.items() if other != name}
        refused(judge(made.sign_jws(without, keyset.attestation)), "claims", "types")


@pytest.mark.parametrize(
    ("seconds", "name"),
    [(-61, "begun"), (-60, ""), (0, ""), (599, ""), (659, ""), (660, "not expired"), (10**6, "not expired")],
)
def test_a_token_is_valid_from_its_issue_to_its_expiry_and_a_minute_around(
    judge: Judge, token: str, now: int, seconds: int, name: str
) -> None:
    assert failed(judge(token, now=now + seconds)) == ([("claims", name)] if name else [])


def test_a_token_may_begin_later_than_it_was_issued(
    judge: Judge, keyset: Keyset, claims: dict[str, Any], now: int
) -> None:
    later = made.sign_jws({**claims, "nbf": now + 100}, keyset.attestation)
    refused(judge(later), "claims", "begun")
    assert judge(later, now=now + 40).valid


@pytest.mark.parametrize(("nonce", "longest"), [(NONCE, 600), (None, 86_400)])
def test_a_token_that_lives_longer_than_its_kind_may_is_refused(
    judge: Judge, keyset: Keyset, claims: dict[str, Any], now: int, nonce: str | None, longest: int
) -> None:
    if nonce is None:
        del claims["eat_nonce"]
    for lifetime, expected in (
        (longest, []),
        (longest + 1, [("claims", "lifetime")]),
        (0, [("claims", "lifetime")]),
    ):
        token = made.sign_jws({**claims, "exp": now + lifetime}, keyset.attestation)
        assert failed(judge(token, nonce=nonce)) == expected


def challenge_of(verdict: Verdict) -> tuple[bool | None, str]:
    return next((check.passed, check.detail) for check in verdict.checks if check.name == "challenge")


def test_a_token_without_a_nonce_is_unchallenged_and_never_fresh(
    judge: Judge, issuer: Issuer, evidence: Evidence
) -> None:
    token = issuer.issue(evidence, None, "an-app").token
    verdict = judge(token, nonce=None)
    assert verdict.valid
    assert challenge_of(verdict) == (None, "unchallenged")
    assert "that it was made just now: unchallenged" in verdict.not_established
    expected = judge(token, nonce=NONCE)
    refused(expected, "claims", "challenge")
    assert challenge_of(expected) == (False, "unchallenged")


def test_another_nonce_is_refused(judge: Judge, token: str) -> None:
    verdict = judge(token, nonce=OTHER_NONCE)
    refused(verdict, "claims", "challenge")
    assert challenge_of(verdict) == (False, "another nonce")


def test_an_answer_to_somebody_elses_challenge_is_not_called_fresh(judge: Judge, token: str) -> None:
    verdict = judge(token, nonce=None)
    assert verdict.valid
    assert challenge_of(verdict)[0] is None
    assert any(line.startswith("that it was made just now") for line in verdict.not_established)


def test_an_answered_challenge_is_not_among_the_limits(judge: Judge, token: str) -> None:
    assert not any("just now" in line for line in judge(token).not_established)
