"""The offline verifier beyond a receipt's validity: a reader's policy, and the limits that it states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lotabotsd.attestation.verify import Policy, Verdict

DIGEST = f"sha256:{'ab' * 32}"
MEMBER = "x-lotabots-receipt"
STATED = (
    "that this model computed this answer: The key holder states: these request bytes, this loaded model, "
    "these response bytes. Not a proof of computation.",
    "more than its level, software: Tamper-evident to everyone who does not control the appliance. "
    "Its administrator could forge it.",
)
Judge = Callable[..., Verdict]
Sign = Callable[..., str]


def answers(verdict: Verdict) -> dict[str, bool | None]:
    return {check.name: check.passed for check in verdict.checks if check.level == "policy"}


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        (Policy(allow_development=False), "development"),
        (Policy(minimum_assurance="tpm"), "assurance"),
        (Policy(minimum_assurance="cc-gpu"), "assurance"),
        (Policy(models={"page_orientation": f"sha256:{'00' * 32}"}), "model"),
        (Policy(models={"page_orientation": ""}), "model"),
        (Policy(models={"another": DIGEST}), "model"),
    ],
    ids=str,
)
def test_each_demand_is_checked(judge_receipt: Judge, receipt: str, policy: Policy, name: str) -> None:
    verdict = judge_receipt(receipt, policy=policy)
    assert verdict.valid
    assert verdict.exit_code == 2
    assert [one for one, passed in answers(verdict).items() if passed is False] == [name]


def test_what_a_policy_does_not_ask_is_not_called_passed(judge_receipt: Judge, receipt: str) -> None:
    assert answers(judge_receipt(receipt)) == {
        "assurance": True,
        "age": None,
        "measurements": None,
        "development": None,
        "challenge": None,
        "model": None,
    }


def test_the_keys_about_measurements_are_said_not_to_apply(judge_receipt: Judge, receipt: str) -> None:
    for allowed in (False, True):
        verdict = judge_receipt(receipt, policy=Policy(allow_failed_measurements=allowed))
        detail = next(check.detail for check in verdict.checks if check.name == "measurements")
        assert detail == "a receipt holds none: they are in the token"


def test_the_model_must_be_one_of_those_named(judge_receipt: Judge, receipt: str) -> None:
    models = {"another": f"sha256:{'00' * 32}", "page_orientation": DIGEST}
    verdict = judge_receipt(receipt, policy=Policy(models=models))
    assert verdict.exit_code == 0
    assert answers(verdict)["model"] is True


@pytest.mark.parametrize("demanded", [DIGEST, "", "None"])
def test_a_receipt_without_a_digest_fits_no_demanded_model(
    judge_receipt: Judge, sign_receipt: Sign, receipt_claims: dict[str, Any], demanded: str
) -> None:
    del receipt_claims[MEMBER]["model"]["digest"]
    verdict = judge_receipt(
        sign_receipt(receipt_claims), policy=Policy(models={"page_orientation": demanded})
    )
    assert verdict.exit_code == 2
    assert answers(verdict)["model"] is False


def test_an_age_and_a_challenge_can_be_demanded(judge_receipt: Judge, receipt: str, now: int) -> None:
    young = Policy(max_age_seconds=30, require_challenge=True)
    assert judge_receipt(receipt, now=now + 30, policy=young).exit_code == 0
    assert answers(judge_receipt(receipt, now=now + 31, policy=young))["age"] is False
    assert answers(judge_receipt(receipt, nonce=None, policy=young))["challenge"] is False


def test_a_policy_is_not_put_to_an_invalid_receipt(judge_receipt: Judge, receipt: str) -> None:
    assert answers(judge_receipt(receipt, request=b"", policy=Policy(allow_development=False))) == {}


def test_the_limits_of_a_receipt_alone_are_said_in_the_agreed_words(
    judge_receipt: Judge, receipt: str
) -> None:
    assert judge_receipt(receipt, nonce=None).not_established == (
        *STATED,
        "that it is about your request: no file was given",
        "that it is about your response: no file was given",
        "which GPU ran it: those named are candidates",
        "when it was made: the time is the appliance's own word",
        "that it was made after you asked: it answers a challenge, yours was not given",
        "anything about a production appliance: it is marked development",
        "what state the appliance was in: no token was given",
        "that the usage ledger holds the record that it names",
        "that the vendor issued the licence: the receipt only names it",
    )


def test_what_was_compared_is_no_limit_any_more(
    judge_receipt: Judge,
    sign_receipt: Sign,
    receipt_claims: dict[str, Any],
    bodies: tuple[bytes, bytes],
    token: str,
) -> None:
    receipt_claims[MEMBER]["development"] = False
    verdict = judge_receipt(sign_receipt(receipt_claims), request=bodies[0], response=bodies[1], token=token)
    assert verdict.not_established == (
        *STATED,
        "which GPU ran it: those named are candidates",
        "when it was made: the time is the appliance's own word",
        "that the token given is valid: only its hash was compared, verify it by itself",
        "that the usage ledger holds the record that it names",
        "that the vendor issued the licence: the receipt only names it",
    )


@pytest.mark.parametrize(
    ("outcome", "status"), [("refused_rate", 429), ("client_gone", 200), ("Served", 200)]
)
def test_a_refusal_is_stated_as_one(
    judge_receipt: Judge, sign_receipt: Sign, receipt_claims: dict[str, Any], outcome: str, status: int
) -> None:
    receipt_claims[MEMBER]["response"] |= {"outcome": outcome, "status": status}
    verdict = judge_receipt(sign_receipt(receipt_claims))
    assert verdict.exit_code == 0
    expected = f"that the call was served: its outcome is {outcome}, its status {status}"
    assert expected in verdict.not_established


def test_what_the_receipt_leaves_out_is_a_limit(
    judge_receipt: Judge, sign_receipt: Sign, receipt_claims: dict[str, Any]
) -> None:
    del (
        receipt_claims[MEMBER]["model"]["digest"],
        receipt_claims[MEMBER]["gpus"],
        receipt_claims[MEMBER]["att"],
    )
    limits = judge_receipt(sign_receipt(receipt_claims)).not_established
    assert "which bytes the model had: no digest is named" in limits
    assert "which GPU ran it: none is named" in limits
    assert "what state the appliance was in: the receipt names no token" in limits
