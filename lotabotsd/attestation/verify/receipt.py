"""Receipts: what the appliance says went into and came out of one call, and what that leaves open. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any

from .claims import (
    MAX_SKEW_SECONDS,
    NONCE,
    SHA_256,
    UEID,
    UUID_7,
    Fits,
    check_challenge,
    check_profile,
    check_types,
    matches,
    whole,
)
from .jose import Claims, Kind, open_jws, strict_json, to_base64, unbase64
from .verdict import SOFTWARE, Check, InvalidError, Policy, Verdict

RECEIPT_TYPE = "lotabots-receipt+jwt"
RECEIPT_PROFILE = "urn:lotabots:eat-profile:receipt:v1"
MAX_RECEIPT_CHARACTERS = 4096
RECEIPT_STATES = (
    "The key holder states: these request bytes, this loaded model, these response bytes. "
    "Not a proof of computation."
)
SERVED = "served"
SALT_BYTES = 16
_RECEIPT = Kind(RECEIPT_TYPE, "receipt", MAX_RECEIPT_CHARACTERS)
_MEMBER = "x-lotabots-receipt"
_NO_RECEIPT = ("anything: the receipt is not valid",)
# A saved header, or the last line of a stream of events.
_LINE = re.compile(
    r"^(?:lotabots-receipt:|: ?lotabots-receipt[: ])[ \t]*(\S+)[ \t\r]*$", re.IGNORECASE | re.MULTILINE
)


def verify_receipt(
    text: str,
    jwks: object,
    *,
    now: int,
    request: bytes | None = None,
    response: bytes | None = None,
    salt: str | None = None,
    nonce: str | None = None,
    issuer: str | None = None,
    token: str | None = None,
    policy: Policy | None = None,
) -> Verdict:
    """Judge a receipt; never raises for what the receipt or the JWK set holds.

    `jwks` is the JWK set of the appliance that the reader trusts, `now` is in seconds since 1970. `request`
    and `response` are the bodies as they were sent (content coding applied, transfer coding removed), `salt`
    is what the caller was given with a salted receipt, `token` the attestation token that was in force.
    What is not given is not compared, and the verdict says so. A receipt does not expire.
    """
    checks: list[Check] = []
    try:
        _, claims = open_jws(text, _RECEIPT, jwks, checks)
        check_types(claims, _RECEIPT_TYPES, _OPTIONAL_IN_RECEIPT, checks)
        check_profile(claims, RECEIPT_PROFILE, checks)
    except InvalidError:
        return Verdict(tuple(checks), not_established=_NO_RECEIPT)
    stated = claims[_MEMBER]
    asked = (
        _check_issuer(claims, issuer),
        _check_begun(claims, now),
        check_challenge(claims, nonce),
        _check_salt(stated, salt),
        _check_body("request bytes", stated["request"], request, salt),
        _check_body("response bytes", stated["response"], response, salt, text),
        _check_token_hash(stated, token),
    )
    checks += asked
    if any(check.passed is False for check in checks):
        return Verdict(tuple(checks), claims, not_established=_NO_RECEIPT)
    answers = {check.name: check for check in asked}
    checks += _check_receipt_policy(claims, policy or Policy(), answers["challenge"], now)
    return Verdict(tuple(checks), claims, "software", _receipt_limits(stated, answers))


def receipt_in(text: str) -> str:
    """The receipt in a file's text: alone, behind its header's name, or in the appliance's JSON answer.

    Of several header lines the last counts. Text that holds none of these comes back as it is.
    """
    text = text.strip()
    if text.startswith("{"):
        try:
            found = strict_json(text.encode())["receipt"]
        except (ValueError, LookupError, RecursionError):
            return text
        return found if isinstance(found, str) else text
    lines = _LINE.findall(text)
    return str(lines[-1]) if lines else text


def _check_issuer(claims: Claims, issuer: str | None) -> Check:
    passed = None if issuer is None else claims["iss"] == issuer
    return Check("claims", "issuer", passed, claims["iss"])


def _check_begun(claims: Claims, now: int) -> Check:
    ahead = claims["iat"] - now
    return Check("claims", "begun", ahead <= MAX_SKEW_SECONDS, f"{ahead:+} seconds from now")


def _check_salt(stated: Claims, salt: str | None) -> Check:
    salted = any(_is_salted(stated[body]) for body in ("request", "response"))
    if salt is not None and _salt_bytes(salt) is None:
        return Check("claims", "salt", False, f"not base64url of {SALT_BYTES} bytes")
    if salt is None or not salted:
        return Check("claims", "salt", None, "not given" if salted else "nothing is salted")
    return Check("claims", "salt", True)


def _salt_bytes(salt: str) -> bytes | None:
    try:
        data = unbase64(salt)
    except ValueError:
        return None
    return data if len(data) == SALT_BYTES else None


def _is_salted(part: Claims) -> bool:
    return bool(part["commitment"].startswith("hmac-"))


def _check_body(name: str, part: Claims, body: bytes | None, salt: str | None, receipt: str = "") -> Check:
    """Whether these are the bytes that the receipt means; None when that cannot be known."""
    if body is None:
        return Check("claims", name, None, "no file was given")
    # A stream of events ends with the receipt itself, which cannot have been hashed.
    bodies = {body, _without_receipt(body, receipt)} if receipt else {body}
    fitting = [one for one in bodies if len(one) == part["bytes"]]
    if not fitting:
        return Check("claims", name, False, f"{len(body)} bytes, the receipt says {part['bytes']}")
    key = _salt_bytes(salt) if salt is not None and _is_salted(part) else None
    if _is_salted(part) and key is None:
        return Check("claims", name, None, "only their number fits: they are salted, and no salt was given")
    if all(_commitment(one, key) != part["commitment"] for one in fitting):
        return Check("claims", name, False, "other bytes")
    return Check("claims", name, True, f"{part['bytes']} bytes{', salted' if key else ''}")


def _without_receipt(body: bytes, receipt: str) -> bytes:
    before, found, after = body.rpartition(b": lotabots-receipt " + receipt.encode())
    whole_line = before.endswith(b"\n") or not before
    return before if found and whole_line and not after.strip(b"\r\n") else body


def _commitment(body: bytes, salt: bytes | None) -> str:
    if salt is None:
        return f"sha256:{hashlib.sha256(body).hexdigest()}"
    return f"hmac-sha256:{hmac.digest(salt, body, 'sha256').hex()}"


def _check_token_hash(stated: Claims, token: str | None) -> Check:
    named = stated.get("att")
    if token is None:
        return Check("claims", "token", None, "no token was given" if named else "the receipt names no token")
    if named is None:
        return Check("claims", "token", False, "the receipt names no token")
    same = named == to_base64(hashlib.sha256(token.encode(errors="replace")).digest())
    return Check("claims", "token", same, "" if same else "another token was in force")


def _check_receipt_policy(claims: Claims, policy: Policy, challenge: Check, now: int) -> list[Check]:
    stated, age = claims[_MEMBER], now - claims["iat"]
    name, digest = stated["model"]["name"], stated["model"].get("digest")
    named = digest is not None and policy.models.get(name) == digest
    development = stated["development"]
    questions: dict[str, tuple[bool | None, str]] = {  # None: this policy does not ask
        "assurance": (policy.minimum_assurance == "software", "software is what was proven"),
        "age": (age <= policy.max_age_seconds if policy.max_age_seconds else None, f"{age} seconds"),
        "measurements": (None, "a receipt holds none: they are in the token"),
        "development": (None if policy.allow_development else not development, f"{development}".lower()),
        "challenge": (challenge.passed is True if policy.require_challenge else None, challenge.detail),
        "model": (named if policy.models else None, f"{name} {digest or 'without a digest'}"),
    }
    return [Check("policy", name, *answer) for name, answer in questions.items()]


def _receipt_limits(stated: Claims, answers: dict[str, Check]) -> tuple[str, ...]:
    """What a reader might take from a valid receipt and must not."""
    response, open_ones = stated["response"], {k: c.detail for k, c in answers.items() if c.passed is None}
    compared = "only its hash was compared, verify it by itself"
    limits = {
        f"that this model computed this answer: {RECEIPT_STATES}": True,
        f"more than its level, software: {SOFTWARE}": True,
        f"that the call was served: its outcome is {response['outcome']}, its status {response['status']}": (
            response["outcome"] != SERVED
        ),
        f"that it is about your request: {open_ones.get('request bytes')}": "request bytes" in open_ones,
        f"that it is about your response: {open_ones.get('response bytes')}": "response bytes" in open_ones,
        f"which GPU ran it: {'those named are candidates' if stated.get('gpus') else 'none is named'}": True,
        "which bytes the model had: no digest is named": "digest" not in stated["model"],
        "when it was made: the time is the appliance's own word": True,
        f"that it was made after you asked: {open_ones.get('challenge')}": "challenge" in open_ones,
        "anything about a production appliance: it is marked development": stated["development"],
        f"what state the appliance was in: {open_ones.get('token')}": "token" in open_ones,
        f"that the token given is valid: {compared}": "token" not in open_ones,
        "that the usage ledger holds the record that it names": True,
        "that the vendor issued the licence: the receipt only names it": True,
    }
    return tuple(line for line, applies in limits.items() if applies)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


_WORDS = matches(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,1024}")
_DIGEST = matches(r"sha256:[0-9a-f]{64}")
_COMMITMENT = matches(r"(hmac-)?sha256:[0-9a-f]{64}")
_STATED: dict[str, Fits] = {
    "att": matches(SHA_256),
    "development": _is_flag,
    **dict.fromkeys(("record", "request", "response", "model", "licence", "timing"), _is_object),
    "record.epoch": matches(r"[0-9a-f]{16}"),
    "record.number": whole(least=1, below=2**63),
    "record.worker": whole(),
    "request.bytes": whole(),
    "request.commitment": _COMMITMENT,
    "request.method": matches("POST"),
    "request.path": _WORDS,
    "response.bytes": whole(),
    "response.commitment": _COMMITMENT,
    "response.outcome": _WORDS,
    "response.status": whole(),
    "model.name": _WORDS,
    "model.version": _WORDS,
    "model.digest": _DIGEST,
    "licence.id": _WORDS,
    "licence.tier": _WORDS,
    "key": matches(SHA_256),
    "timing.gate_us": whole(),
    "timing.upstream_us": whole(),
    "image": _DIGEST,
    "gpus": lambda value: isinstance(value, list) and all(_WORDS(one) for one in value),
}
# What each claim must be. Claims that are not named here are ignored.
_RECEIPT_TYPES: dict[str, Fits] = {
    "iss": matches(f"urn:dev:ueid:{UEID}"),
    "iat": whole(),
    "jti": matches(UUID_7),
    "eat_profile": matches(r"[ -~]{1,512}"),
    "eat_nonce": matches(NONCE),
    _MEMBER: _is_object,
    **{f"{_MEMBER}.{path}": fits for path, fits in _STATED.items()},
}
_OPTIONAL_IN_RECEIPT = (
    "eat_nonce",
    *(
        f"{_MEMBER}.{path}"
        for path in (
            "att",
            "model.version",
            "model.digest",
            "licence.id",
            "timing.upstream_us",
            "image",
            "gpus",
        )
    ),
)
