"""The frozen receipts of tests/golden/receipt: signed again they are the same bytes, and still verify."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.attestation.verify import Policy, Verdict, main, verify_receipt, verify_token
from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.foundation.keys import raw_public, thumbprint

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "receipt"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SALT = "AAECAwQFBgcICQoLDA0ODw"
NONCE = "golden-nonce-of-22-chr"
DIGEST = f"sha256:{'ab' * 32}"
NOW = 1_795_737_600  # 2026-11-27


def body(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def claims(request: str, response: str, **of_receipt: Any) -> dict[str, Any]:
    """What the golden receipts say, under these two commitments."""
    return {
        "iss": "urn:dev:ueid:AQEB" + "AQEB" * 10,
        "iat": 1_795_651_200,
        "jti": "019abcde-f012-7345-8678-9abcdef01234",
        "eat_profile": "urn:lotabots:eat-profile:receipt:v1",
        "x-lotabots-receipt": {
            "att": b64url(hashlib.sha256(body("token.txt").strip()).digest()),
            "development": True,
            "record": {"epoch": "0123456789abcdef", "number": 42, "worker": 1},
            "request": {
                "bytes": len(body("request.json")),
                "commitment": request,
                "method": "POST",
                "path": "/v1/models/page_orientation/predict",
            },
            "response": {
                "bytes": len(body("response.json")),
                "commitment": response,
                "outcome": "served",
                "status": 200,
            },
            "model": {"digest": DIGEST, "name": "page_orientation", "version": "1"},
            "licence": {"tier": "free"},
            "key": b64url(hashlib.sha256(b"lotabots key v1\0key_golden").digest()),
            "timing": {"gate_us": 812, "upstream_us": 9_401},
            **of_receipt,
        },
    }


PLAIN = (
    "sha256:dee8faa504981849d014f74caaf9188c9b96ba8d75b42ad6d0a7e27287dddaf3",
    "sha256:598c05475aec9da2fb04da09e89ba8792a635433f11425ce6f6f5568cccb040a",
)
SALTED = (
    "hmac-sha256:dd90140ea0098b007665b05ee9da4959c90efad63c4e70e5845b10886628c42a",
    "hmac-sha256:e068f9e8d671e46f23e9520aa5f597d47d55f79d7fc973f1e7dc601defe57c01",
)


def signed(payload: dict[str, Any], algorithm: str) -> str:
    header = {"alg": algorithm, "kid": thumbprint(raw_public(KEY)), "typ": "lotabots-receipt+jwt"}
    text = f"{b64url(canonical_json(header))}.{b64url(canonical_json(payload))}"
    return f"{text}.{b64url(KEY.sign(text.encode()))}"


def made() -> dict[str, str]:
    """The two receipts by file name."""
    salted = claims(*SALTED, gpus=["GPU-aaaa", "GPU-bbbb"], image=f"sha256:{'cd' * 32}")
    return {
        "plain.txt": signed(claims(*PLAIN), "EdDSA"),
        "salted.txt": signed({**salted, "eat_nonce": NONCE}, "Ed25519"),
    }


@pytest.mark.parametrize("name", ["plain.txt", "salted.txt"])
def test_signed_again_a_receipt_is_the_same_bytes(name: str) -> None:
    assert body(name).decode() == made()[name] + "\n"


def judged(name: str, **options: Any) -> Verdict:
    jwks = json.loads(body("jwks.json"))
    bodies = {"request": body("request.json"), "response": body("response.json")}
    options |= {**bodies, "token": body("token.txt").decode().strip()}
    return verify_receipt(body(name).decode().strip(), jwks, now=NOW, **options)


def unanswered(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if check.level == "claims" and check.passed is not True]


def test_the_golden_receipts_verify_with_their_bodies_token_and_salt() -> None:
    issuer = claims(*PLAIN)["iss"]
    policy = Policy(models={"page_orientation": DIGEST})
    plain = judged("plain.txt", issuer=issuer, policy=policy)
    assert (plain.exit_code, unanswered(plain)) == (0, ["challenge", "salt"])
    salted = judged("salted.txt", issuer=issuer, policy=policy, nonce=NONCE, salt=SALT)
    assert (salted.exit_code, unanswered(salted)) == (0, [])


def test_the_token_that_they_name_verifies_too() -> None:
    token, jwks = body("token.txt").decode().strip(), json.loads(body("jwks.json"))
    verdict = verify_token(token, jwks, audience="golden", now=1_795_651_200, nonce=NONCE)
    assert verdict.exit_code == 0
    assert verdict.claims["cnf"] == {"jkt": thumbprint(raw_public(KEY))}


def test_the_command_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: str(GOLDEN / file) for name, file in
             (("jwks", "jwks.json"), ("request", "request.json"), ("response", "response.json"),
              ("token", "token.txt"))}  # fmt: skip
    options = [word for name, file in files.items() for word in (f"--{name}", file)]
    command = ["receipt", str(GOLDEN / "salted.txt"), *options, "--salt", SALT, "--nonce", NONCE]
    assert main([*command, "--at", str(NOW)]) == 0
    assert capsys.readouterr().out.endswith("\nvalid\n")
