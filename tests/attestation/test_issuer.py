"""Issuing: each token names the one before it, and none is made that could not be remembered."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.attestation.evidence import Evidence
from lotabotsd.attestation.issuer import Issuer
from lotabotsd.attestation.keyset import Keyset
from lotabotsd.attestation.token import token_hash
from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.identifiers import unb64url

NONCE = "AAAAAAAAAAAAAAAAAAAAAA"


def claims_of(token: str) -> dict[str, Any]:
    return dict(json.loads(unb64url(token.split(".")[1])))


def test_a_challenged_token_lives_ten_minutes_and_an_unchallenged_one_a_day(
    issuer: Issuer, evidence: Evidence, now: int
) -> None:
    challenged = claims_of(issuer.issue(evidence, NONCE).token)
    unchallenged = claims_of(issuer.issue(evidence).token)
    assert (challenged["iat"], challenged["exp"], challenged["eat_nonce"]) == (now, now + 600, NONCE)
    assert unchallenged["exp"] == now + 86_400
    assert "eat_nonce" not in unchallenged
    assert unchallenged["aud"] == "lotabots:any"


def test_the_configured_lifetime_and_algorithm_are_used(
    keyset: Keyset, clock: FixedClock, directory: Path, evidence: Evidence, now: int
) -> None:
    token = (
        Issuer(keyset, clock, directory, algorithm="Ed25519", token_seconds=10).issue(evidence, NONCE).token
    )
    assert claims_of(token)["exp"] == now + 10
    assert json.loads(unb64url(token.split(".")[0]))["alg"] == "Ed25519"


def test_each_token_names_the_one_before_it_also_after_a_restart(
    issuer: Issuer, keyset: Keyset, clock: FixedClock, directory: Path, evidence: Evidence
) -> None:
    first = issuer.issue(evidence, NONCE).token
    second = issuer.issue(evidence).token
    third = Issuer(keyset, clock, directory).issue(evidence).token
    assert "x-lotabots-prev" not in claims_of(first)
    assert claims_of(second)["x-lotabots-prev"] == token_hash(first)
    assert claims_of(third)["x-lotabots-prev"] == token_hash(second)


def test_no_two_tokens_have_the_same_id(issuer: Issuer, evidence: Evidence) -> None:
    tokens = [claims_of(issuer.issue(evidence).token) for _ in range(20)]
    assert len({token["jti"] for token in tokens}) == 20


def test_threads_make_one_chain(issuer: Issuer, evidence: Evidence) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(issuer.issue(evidence).token)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    named = {claims_of(token).get("x-lotabots-prev") for token in made}
    assert len(made) == len(named) == 8
    assert named - {None} <= {token_hash(token) for token in made}


@pytest.mark.parametrize(
    "nonce", ["", "A" * 21, "A" * 89, "A" * 21 + " ", "A" * 22 + "\n", "ä" * 22, "A" * 21 + "+"]
)
def test_a_nonce_of_another_shape_is_refused(issuer: Issuer, evidence: Evidence, nonce: str) -> None:
    with pytest.raises(LotaBotsError) as failure:
        issuer.issue(evidence, nonce)
    assert failure.value.code is Code.NONCE_INVALID


@pytest.mark.parametrize("nonce", ["A" * 22, "-_" * 44, "0" * 64])
def test_a_nonce_is_repeated_as_it_came(issuer: Issuer, evidence: Evidence, nonce: str) -> None:
    assert claims_of(issuer.issue(evidence, nonce).token)["eat_nonce"] == nonce


@pytest.mark.parametrize("audience", ["", "a b", "ä", "a\n", "a" * 256])
def test_an_audience_that_could_confuse_is_refused(issuer: Issuer, evidence: Evidence, audience: str) -> None:
    with pytest.raises(LotaBotsError) as failure:
        issuer.issue(evidence, NONCE, audience)
    assert failure.value.code is Code.VALUE_INVALID


def test_a_token_that_cannot_be_remembered_is_not_given_out(
    issuer: Issuer, evidence: Evidence, directory: Path
) -> None:
    first = issuer.issue(evidence).token
    (directory / "previous_token").unlink()
    (directory / "previous_token").mkdir()
    with pytest.raises(LotaBotsError) as failure:
        issuer.issue(evidence)
    assert failure.value.code is Code.FILE_UNWRITABLE
    (directory / "previous_token").rmdir()
    assert claims_of(issuer.issue(evidence).token)["x-lotabots-prev"] == token_hash(first)


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 43, b"A" * 44, b"A" * 100])
def test_a_damaged_memory_starts_a_new_chain_and_says_so(
    keyset: Keyset,
    clock: FixedClock,
    directory: Path,
    evidence: Evidence,
    content: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (directory / "previous_token").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        issuer = Issuer(keyset, clock, directory)
    assert "x-lotabots-prev" not in claims_of(issuer.issue(evidence).token)
    assert "starts anew" in caplog.text
