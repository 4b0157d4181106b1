"""The offline verifier beyond validity: submodules, a reader's policy, and the limits that it states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.attestation import token as made
from lotabotsd.attestation import verify
from lotabotsd.attestation.evidence import Evidence, LicenceEvidence, Measurement, ModelEvidence
from lotabotsd.attestation.issuer import Issuer
from lotabotsd.attestation.keyset import Keyset
from lotabotsd.attestation.verify import Policy, Verdict

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
    "content",
    [{}, {"x-lotabots-source": "trust me"}, {"x-lotabots-source": ["operator_asserted"]}, None, 1, "text", [],
     ["DIGEST"], ["JWT", "a.b.c"],
     {"x-lotabots-source": "operator_asserted", "measres": [["a", [["b", "ok"]]]]},
     {"x-lotabots-source": "operator_asserted", "measres": 1},
     {"x-lotabots-source": "operator_asserted", "x-lotabots-models": 1},
     {"x-lotabots-source": "operator_asserted", "x-lotabots-models": [1]},
     {"x-lotabots-source": "operator_asserted", "x-lotabots-models": [{"name": [], "digest": ""}]},
     {"x-lotabots-source": "operator_asserted", "x-lotabots-models": [{}]}],
    ids=str,
)  # fmt: skip
def test_a_submodule_without_a_known_shape_is_refused(
    judge: Judge, keyset: Keyset, claims: dict[str, Any], content: Any
) -> None:
    submods = {**claims["submods"], "models": content}
    verdict = judge(
        made.sign_jws({**claims, "submods": submods}, keyset.attestation), detached={"models": ""}
    )
    refused(verdict, "claims", "submodule models")


@pytest.fixture
def large(issuer: Issuer, evidence: Evidence) -> tuple[str, dict[str, str]]:
    models = tuple(
        ModelEvidence(f"model_{number:03d}", ("1",), f"{number:064x}", Measurement.SUCCESS)
        for number in range(200)
    )
    issued = issuer.issue(replace(evidence, models=models), NONCE, "an-app")
    return issued.token, dict(issued.detached)


def test_a_submodule_that_is_only_a_digest_is_said_to_be_unread(
    judge: Judge, large: tuple[str, dict[str, str]]
) -> None:
    verdict = judge(large[0])
    assert verdict.valid
    unread = [check for check in verdict.checks if check.name == "submodule models"]
    assert [(check.passed, check.detail) for check in unread] == [(None, "only its digest is inside")]


def test_its_detached_content_is_read_when_the_digest_fits(
    judge: Judge, large: tuple[str, dict[str, str]]
) -> None:
    token, detached = large
    policy = Policy(models={"model_007": f"sha256:{7:064x}"})
    assert judge(token, detached=detached, policy=policy).exit_code == 0
    assert judge(token, policy=policy).exit_code == 2, "what was not read was not proven"


@pytest.mark.parametrize("content", ["", "e30", "!", 7, None])
def test_another_detached_content_is_refused(
    judge: Judge, large: tuple[str, dict[str, str]], content: Any
) -> None:
    refused(judge(large[0], detached={"models": content}), "claims", "submodule models")


def test_valid_but_refused_by_policy_is_its_own_answer(judge: Judge, token: str) -> None:
    verdict = judge(token, policy=Policy(minimum_assurance="tpm"))
    assert verdict.valid
    assert verdict.exit_code == 2
    assert failed(verdict) == [("policy", "assurance")]


@pytest.mark.parametrize("level", ["tpm", "cc-gpu"])
def test_a_claimed_level_is_not_believed(
    judge: Judge, keyset: Keyset, claims: dict[str, Any], level: str
) -> None:
    token = made.sign_jws({**claims, "x-lotabots-assurance": level}, keyset.attestation)
    verdict = judge(token, policy=Policy(minimum_assurance=level))
    assert verdict.assurance == "software"
    assert verdict.exit_code == 2
    assert f"the level {level} that it claims: not appraised here" in verdict.not_established


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        (Policy(allow_development=False), "development"),
        (Policy(models={"page_orientation": "sha256:00"}), "model page_orientation"),
        (Policy(models={"absent": "sha256:00"}), "model absent"),
    ],
)
def test_each_demand_is_checked(judge: Judge, token: str, policy: Policy, name: str) -> None:
    verdict = judge(token, policy=policy)
    assert failed(verdict) == [("policy", name)]
    assert verdict.exit_code == 2


def test_the_demanded_model_is_found(judge: Judge, token: str) -> None:
    assert judge(token, policy=Policy(models={"page_orientation": "sha256:" + "ab" * 32})).exit_code == 0


def test_an_age_can_be_demanded(judge: Judge, token: str, now: int) -> None:
    assert judge(token, now=now + 30, policy=Policy(max_age_seconds=30)).exit_code == 0
    assert failed(judge(token, now=now + 31, policy=Policy(max_age_seconds=30))) == [("policy", "age")]


def test_a_challenge_can_be_demanded(judge: Judge, token: str) -> None:
    assert judge(token, policy=Policy(require_challenge=True)).exit_code == 0
    verdict = judge(token, nonce=None, policy=Policy(require_challenge=True))
    assert failed(verdict) == [("policy", "challenge")]


def test_a_production_appliance_passes_a_policy_against_development(
    judge: Judge, issuer: Issuer, evidence: Evidence
) -> None:
    token = issuer.issue(replace(evidence, development=False), NONCE, "an-app").token
    verdict = judge(token, policy=Policy(allow_development=False))
    assert verdict.exit_code == 0
    assert not any("development" in line for line in verdict.not_established)


def test_drifted_models_are_refused_unless_the_policy_allows_them(
    judge: Judge, issuer: Issuer, evidence: Evidence
) -> None:
    drifted = (replace(evidence.models[0], measurement=Measurement.FAIL),)
    token = issuer.issue(replace(evidence, models=drifted), NONCE, "an-app").token
    verdict = judge(token)
    assert failed(verdict) == [("policy", "measurements")]
    assert "page_orientation" in next(c.detail for c in verdict.checks if c.name == "measurements")
    assert judge(token, policy=Policy(allow_failed_measurements=True)).exit_code == 0


def test_what_a_policy_does_not_ask_is_not_called_passed(judge: Judge, token: str) -> None:
    answers = {check.name: check.passed for check in judge(token).checks if check.level == "policy"}
    assert answers == {
        "assurance": True,
        "age": None,
        "measurements": True,
        "development": None,
        "challenge": None,
    }


def test_the_limits_are_said_in_the_agreed_words(judge: Judge, token: str) -> None:
    assert judge(token).not_established == (
        "more than its level, software: Tamper-evident to everyone who does not control the appliance. "
        "Its administrator could forge it.",
        "anything about a production appliance: it is marked development",
        "that what the appliance says of itself is so: gpu, licence, models, runtime",
        "that the vendor issued the licence: the signature on it is not checked here",
        "what went into or came out of any call: that takes a receipt",
    )


def test_the_verifier_never_claims_too_much() -> None:
    text = "".join(path.read_text() for path in sorted(Path(verify.__file__).parent.glob("*.py")))
    assert "Not a proof of computation" in text
    assert "unforgeable" not in text
    assert "cryptographic proof" not in text


def test_a_vendor_signed_licence_inside_does_not_disturb(
    judge: Judge, issuer: Issuer, evidence: Evidence
) -> None:
    licence = LicenceEvidence("valid", "pro", "lic_1", envelope=b'{"payload":"e30="}')
    assert judge(issuer.issue(replace(evidence, licence=licence), NONCE, "an-app").token).valid
