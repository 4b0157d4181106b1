"""Attestation tokens: what an appliance says of itself now, and what that leaves open. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
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
from .verdict import LEVELS, SOFTWARE, Check, InvalidError, Policy, Verdict

TOKEN_TYPE = "eat+jwt"  # noqa: S105 - a media type, no password
PROFILE = "urn:lotabots:eat-profile:appliance:v1"
MAX_TOKEN_BYTES = 16 * 1024
LONGEST_SECONDS = {"challenged": 600, "unchallenged": 86_400}
SOURCES = ("hardware_proven", "verifier_derived", "operator_asserted")
RESULTS = ("success", "fail", "not-run", "absent")
_TOKEN = Kind(TOKEN_TYPE, "attestation", MAX_TOKEN_BYTES)


def verify_token(
    text: str,
    jwks: object,
    *,
    audience: str,
    now: int,
    nonce: str | None = None,
    issuer: str | None = None,
    policy: Policy | None = None,
    detached: Mapping[str, str] | None = None,
) -> Verdict:
    """Judge a token; never raises for what the token or the JWK set holds.

    `jwks` is the JWK set of the appliance that the reader trusts, `now` is in seconds since 1970, and
    `detached` maps the names of submodules that are only a digest to base64url of their JSON.
    """
    checks: list[Check] = []
    try:
        header, claims = open_jws(text, _TOKEN, jwks, checks)
        # RFC 9711, section 4.1: it is eat_nonce or nothing
        check_types(claims, _TOKEN_TYPES, _OPTIONAL_IN_TOKEN, checks, unwanted=("nonce",))
        check_profile(claims, PROFILE, checks)
    except InvalidError:
        return Verdict(tuple(checks))
    challenge = check_challenge(claims, nonce)
    submodules, found = _open_submodules(claims["submods"], detached or {})
    checks += [*_check_token_claims(claims, header["kid"], audience, issuer, now), challenge, *found]
    if any(check.passed is False for check in checks):
        return Verdict(tuple(checks), claims)
    checks += _check_token_policy(claims, submodules, policy or Policy(), challenge, now)
    return Verdict(tuple(checks), claims, "software", _token_limits(claims, challenge))


def _check_token_claims(claims: Claims, kid: str, audience: str, issuer: str | None, now: int) -> list[Check]:
    subject = f"urn:dev:ueid:{claims['ueid']}"
    ids = {role: [key["kid"] for key in keys] for role, keys in claims["x-lotabots-keyset"].items()}
    everyone = [one for role in ids.values() for one in role]
    own = kid in ids.get("attestation", []) and claims["cnf"]["jkt"] in ids.get("receipt", [])
    longest = LONGEST_SECONDS["challenged" if "eat_nonce" in claims else "unchallenged"]
    lifetime = claims["exp"] - claims["iat"]
    begun = max(claims["iat"], claims["nbf"]) <= now + MAX_SKEW_SECONDS
    questions = {
        "issuer": (claims["iss"] == (issuer or subject), claims["iss"]),
        "subject": (claims["sub"] == subject, claims["sub"]),
        "audience": (claims["aud"] == audience, claims["aud"]),
        "keyset": (own and len(set(everyone)) == len(everyone), "roles share no key"),
        "begun": (begun, f"{claims['iat'] - now:+} seconds from now"),
        "not expired": (now < claims["exp"] + MAX_SKEW_SECONDS, f"{claims['exp'] - now:+} seconds from now"),
        "lifetime": (0 < lifetime <= longest, f"{lifetime} of at most {longest} seconds"),
    }
    return [Check("claims", name, *answer) for name, answer in questions.items()]


def _open_submodules(found: Claims, detached: Mapping[str, str]) -> tuple[dict[str, Claims], list[Check]]:
    """The submodules that can be read; one that is only a digest needs its detached content."""
    opened: dict[str, Claims] = {}
    checks: list[Check] = []
    for name, content in found.items():
        if isinstance(content, list) and name not in detached:
            checks.append(Check("claims", f"submodule {name}", None, "only its digest is inside"))
            continue
        try:
            if isinstance(content, list):
                data = unbase64(detached[name])
                if content != ["DIGEST", ["SHA-256", to_base64(hashlib.sha256(data).digest())]]:
                    raise ValueError("the detached content has another digest")
                content = strict_json(data)
            if content["x-lotabots-source"] not in SOURCES or not _is_results(content.get("measres", [])):
                raise ValueError("no known source, or no known results")
            _live_models(content)
            opened[name] = content
            checks.append(Check("claims", f"submodule {name}", True, content["x-lotabots-source"]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            checks.append(Check("claims", f"submodule {name}", False, str(error)))
    return opened, checks


def _check_token_policy(
    claims: Claims, submodules: dict[str, Claims], policy: Policy, challenge: Check, now: int
) -> list[Check]:
    measured = [part["measres"] for part in (claims, *submodules.values()) if "measres" in part]
    failed = [name for one in measured for _, group in one for name, result in group if result == "fail"]
    live = _live_models(submodules.get("models", {}))
    age, development = now - claims["iat"], claims["x-lotabots-development"]
    questions: dict[str, tuple[bool | None, str]] = {  # None: this policy does not ask
        "assurance": (policy.minimum_assurance == "software", "software is what was proven"),
        "age": (age <= policy.max_age_seconds if policy.max_age_seconds else None, f"{age} seconds"),
        "measurements": (None if policy.allow_failed_measurements else not failed, ", ".join(failed)),
        "development": (None if policy.allow_development else not development, f"{development}".lower()),
        "challenge": (challenge.passed is True if policy.require_challenge else None, challenge.detail),
    }
    for name, digest in policy.models.items():
        questions[f"model {name}"] = (live.get(name) == digest, f"{live.get(name, 'not live')}")
    return [Check("policy", name, *answer) for name, answer in questions.items()]


def _live_models(submodule: Claims) -> dict[str, object]:
    return {one["name"]: one["digest"] for one in submodule.get("x-lotabots-models", [])}


def _token_limits(claims: Claims, challenge: Check) -> tuple[str, ...]:
    """What a reader might take from a valid token and must not."""
    level, said = claims["x-lotabots-assurance"], ", ".join(sorted(claims["submods"]))
    limits = {
        f"more than its level, software: {SOFTWARE}": True,
        f"the level {level} that it claims: not appraised here": level != "software",
        f"that it was made just now: {challenge.detail}": challenge.passed is None,
        "anything about a production appliance: it is marked development": claims["x-lotabots-development"],
        f"that what the appliance says of itself is so: {said}": True,
        "that the vendor issued the licence: the signature on it is not checked here": True,
        "what went into or came out of any call: that takes a receipt": True,
    }
    return tuple(line for line, applies in limits.items() if applies)


def _is_results(value: Any) -> bool:
    """Whether this is [[system, [[name, result], …]], …]; raises TypeError or ValueError for other shapes."""
    return all(isinstance(name, str) and result in RESULTS for _, group in value for name, result in group)


_OPTIONAL_IN_TOKEN = ("eat_nonce", "bootcount", "x-lotabots-prev", "swversion")
# What each claim must be; a function may also raise. Claims that are not named here are ignored.
_TOKEN_TYPES: dict[str, Fits] = {
    **dict.fromkeys(("iss", "sub", "aud", "eat_profile", "swname"), matches(r"[ -~]{1,512}")),
    **dict.fromkeys(("iat", "nbf", "exp", "uptime", "bootcount"), whole()),
    **dict.fromkeys(("bootseed", "x-lotabots-prev"), matches(SHA_256)),
    "jti": matches(UUID_7),
    "eat_nonce": matches(NONCE),
    "ueid": matches(UEID),
    "swversion": lambda value: [type(one) for one in value] in ([str], [str, int]),
    "dbgstat": matches("enabled|disabled(-since-boot|-permanently|-fully-and-permanently)?"),
    "measres": _is_results,
    "cnf": lambda value: matches(SHA_256)(value["jkt"]),
    "submods": lambda value: bool(value.keys()),
    "x-lotabots-keyset": lambda value: all(key["kid"].isascii() for keys in value.values() for key in keys),
    "x-lotabots-assurance": lambda value: value in LEVELS,
    "x-lotabots-development": lambda value: isinstance(value, bool),
}
