"""Verify an attestation token offline: this file and the package `cryptography`, no network, nothing else.

    python verify.py token FILE --jwks FILE --audience TEXT [--nonce TEXT] [--policy FILE.toml]

Exit codes: 0 valid, 1 invalid, 2 valid but refused by policy, 3 usage. ARCHITECTURE.md, "Attestation", says
how this narrows RFC 7515, 8037, 8725, 9711 and 9864.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ALGORITHMS = ("EdDSA", "Ed25519")
TOKEN_TYPE = "eat+jwt"  # noqa: S105 - a media type, no password
PROFILE = "urn:lotabots:eat-profile:appliance:v1"
MAX_TOKEN_BYTES = 16 * 1024
MAX_SKEW_SECONDS = 60
LONGEST_SECONDS = {"challenged": 600, "unchallenged": 86_400}
LEVELS = ("software", "tpm", "cc-gpu")
SOURCES = ("hardware_proven", "verifier_derived", "operator_asserted")
RESULTS = ("success", "fail", "not-run", "absent")
SOFTWARE = "Tamper-evident to everyone who does not control the appliance. Its administrator could forge it."
_P = 2**255 - 19
_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER_Y = (0, 1, _P - 1, _ORDER_8, _P - _ORDER_8)  # one signature under such a key fits every message
_Claims = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """One question put to the token, at the level parse, cryptography, claims or policy."""

    level: str
    name: str
    passed: bool | None  # None: the question could not be put
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a reader demands beyond validity."""

    minimum_assurance: str = "software"
    allow_development: bool = True
    allow_failed_measurements: bool = False
    require_challenge: bool = False
    max_age_seconds: int = 0  # 0: as old as the token allows
    models: Mapping[str, str] = field(default_factory=dict)  # name → "sha256:…" that must be live


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer. `claims` is empty unless the signature is good; `assurance` is what was proven here."""

    checks: tuple[Check, ...]
    claims: Mapping[str, Any] = field(default_factory=dict)
    assurance: str = "none"
    not_established: tuple[str, ...] = ("anything: the token is not valid",)

    @property
    def exit_code(self) -> int:
        """0 valid, 1 invalid, 2 valid but refused by policy."""
        failed = {check.level for check in self.checks if check.passed is False}
        return 0 if not failed else 2 if failed == {"policy"} else 1

    @property
    def valid(self) -> bool:
        """Whether the token is what it says it is, whatever a policy thinks of it."""
        return self.exit_code != 1


class _InvalidError(Exception):
    """A check failed after which no other makes sense."""


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
        header, claims, signed, signature = _parse(text, checks)
        _check_signature(header, signed, signature, jwks, checks)
        _check_types(claims, checks)
    except _InvalidError:
        return Verdict(tuple(checks))
    challenge = _check_challenge(claims, nonce)
    submodules, found = _open_submodules(claims["submods"], detached or {})
    checks += [*_check_claims(claims, header["kid"], audience, issuer, now), challenge, *found]
    if any(check.passed is False for check in checks):
        return Verdict(tuple(checks), claims)
    checks += _check_policy(claims, submodules, policy or Policy(), challenge, now)
    return Verdict(tuple(checks), claims, "software", _limits(claims, challenge))


def _need(checks: list[Check], level: str, name: str, passed: bool, detail: str = "") -> None:
    checks.append(Check(level, name, passed, detail))
    if not passed:
        raise _InvalidError


def _parse(text: str, checks: list[Check]) -> tuple[_Claims, _Claims, bytes, bytes]:
    size = len(text)
    _need(checks, "parse", "size", size <= MAX_TOKEN_BYTES, f"{size} of at most {MAX_TOKEN_BYTES} characters")
    try:
        protected, payload, last = text.split(".")
        header, claims = _strict_json(_unbase64(protected)), _strict_json(_unbase64(payload))
        signature = _unbase64(last)
    except (ValueError, RecursionError) as error:
        checks.append(Check("parse", "form", False, f"not three parts of base64url and JSON: {error}"))
        raise _InvalidError from error
    _need(checks, "parse", "form", isinstance(header, dict) and isinstance(claims, dict), "two JSON objects")
    # An allow-list: with it jku, jwk, x5u, crit, zip, b64 and whatever else comes are refused.
    _need(checks, "parse", "header", set(header) == {"alg", "kid", "typ"}, ", ".join(sorted(header)))
    _need(checks, "parse", "type", header["typ"] == TOKEN_TYPE, repr(header["typ"]))
    _need(checks, "parse", "algorithm", header["alg"] in ALGORITHMS, repr(header["alg"]))
    return header, claims, f"{protected}.{payload}".encode(), signature


def _check_signature(header: _Claims, signed: bytes, sig: bytes, jwks: object, checks: list[Check]) -> None:
    try:
        raw = read_jwks(jwks, role="attestation")[str(header["kid"])]
    except (ValueError, KeyError) as error:
        reason = "the signing key is not among them" if isinstance(error, KeyError) else str(error)
        checks.append(Check("cryptography", "trusted keys", False, reason))
        raise _InvalidError from error
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(sig, signed)
    except InvalidSignature as error:
        checks.append(Check("cryptography", "signature", False))
        raise _InvalidError from error
    checks += [Check("cryptography", "trusted keys", True), Check("cryptography", "signature", True)]


def read_jwks(jwks: object, role: str) -> dict[str, bytes]:
    """Thumbprint → raw key, of the Ed25519 signing keys in a JWK set that have this role or state none.

    Raises ValueError for a set that is none, for a weak key, a private key, or a kid that is no thumbprint.
    """
    listed = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(listed, list):
        raise ValueError("this is no JWK set")
    found: dict[str, bytes] = {}
    for entry in listed:
        if not isinstance(entry, dict) or entry.get("kty") != "OKP" or entry.get("crv") != "Ed25519":
            continue
        raw = _unbase64(str(entry.get("x")))
        y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
        if len(raw) != 32 or y in _SMALL_ORDER_Y or y >= _P:
            raise ValueError("a key has small order or is malformed")
        if "d" in entry:
            raise ValueError("a private key is among the public ones")
        canonical = f'{{"crv":"Ed25519","kty":"OKP","x":"{entry["x"]}"}}'  # RFC 7638
        thumbprint = _base64(hashlib.sha256(canonical.encode()).digest())
        if entry.get("kid", thumbprint) != thumbprint:
            raise ValueError("a key id is not the key's thumbprint")
        fits = entry.get("use", "sig") == "sig" and entry.get("alg", "EdDSA") in ALGORITHMS
        if fits and entry.get("x-lotabots-role", role) == role:
            found[thumbprint] = raw
    return found


def _check_types(claims: _Claims, checks: list[Check]) -> None:
    wrong = ["nonce"] if "nonce" in claims else []  # RFC 9711, section 4.1: it is eat_nonce or nothing
    for name, fits in _TYPES.items():
        try:
            good = fits(claims[name]) if name in claims else name in _OPTIONAL
        except (ValueError, TypeError, LookupError, AttributeError):
            good = False
        wrong += [] if good else [name]
    _need(checks, "claims", "types", not wrong, f"missing or malformed: {', '.join(wrong)}" if wrong else "")
    _need(checks, "claims", "profile", claims["eat_profile"] == PROFILE, claims["eat_profile"])


def _check_claims(claims: _Claims, kid: str, audience: str, issuer: str | None, now: int) -> list[Check]:
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


def _check_challenge(claims: _Claims, nonce: str | None) -> Check:
    answered = claims.get("eat_nonce")
    if nonce is None or answered is None:
        unknown = "unchallenged" if answered is None else "it answers a challenge, yours was not given"
        return Check("claims", "challenge", None if nonce is None else False, unknown)
    return Check("claims", "challenge", answered == nonce, "" if answered == nonce else "another nonce")


def _open_submodules(found: _Claims, detached: Mapping[str, str]) -> tuple[dict[str, _Claims], list[Check]]:
    """The submodules that can be read; one that is only a digest needs its detached content."""
    opened: dict[str, _Claims] = {}
    checks: list[Check] = []
    for name, content in found.items():
        if isinstance(content, list) and name not in detached:
            checks.append(Check("claims", f"submodule {name}", None, "only its digest is inside"))
            continue
        try:
            if isinstance(content, list):
                data = _unbase64(detached[name])
                if content != ["DIGEST", ["SHA-256", _base64(hashlib.sha256(data).digest())]]:
                    raise ValueError("the detached content has another digest")
                content = _strict_json(data)
            if content["x-lotabots-source"] not in SOURCES or not _is_results(content.get("measres", [])):
                raise ValueError("no known source, or no known results")
            _live_models(content)
            opened[name] = content
            checks.append(Check("claims", f"submodule {name}", True, content["x-lotabots-source"]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            checks.append(Check("claims", f"submodule {name}", False, str(error)))
    return opened, checks


def read_policy(data: bytes) -> Policy:
    """The policy in a TOML file. Raises ValueError for an unknown key or a value of another type."""
    found = tomllib.loads(data.decode())
    kinds = {one.name: type(getattr(Policy(), one.name)) for one in fields(Policy)}
    wrong = [name for name, value in found.items() if type(value) is not kinds.get(name)]
    if wrong or found.get("minimum_assurance", "software") not in LEVELS:
        raise ValueError(f"a key or value is not usable: {', '.join(wrong or ['minimum_assurance'])}")
    return Policy(**found)


def _check_policy(
    claims: _Claims, submodules: dict[str, _Claims], policy: Policy, challenge: Check, now: int
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


def _live_models(submodule: _Claims) -> dict[str, object]:
    return {one["name"]: one["digest"] for one in submodule.get("x-lotabots-models", [])}


def _limits(claims: _Claims, challenge: Check) -> tuple[str, ...]:
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


def _strict_json(data: bytes) -> Any:
    # int() refuses what is no whole number: 1.0, 1e3, NaN
    return json.loads(data.decode(), object_pairs_hook=_once, parse_float=int, parse_constant=int)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key appears twice")
    return dict(pairs)


def _unbase64(text: str) -> bytes:
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) if text.isascii() else b""
    if _base64(data) != text:
        raise ValueError("not base64url, or not in its one spelling")
    return data


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _text(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**40  # True is no number


def _is_results(value: Any) -> bool:
    """Whether this is [[system, [[name, result], …]], …]; raises TypeError or ValueError for other shapes."""
    return all(isinstance(name, str) and result in RESULTS for _, group in value for name, result in group)


_OPTIONAL = ("eat_nonce", "bootcount", "x-lotabots-prev", "swversion")
_SHA_256 = r"[A-Za-z0-9_-]{43}"
# What each claim must be; a function may also raise. Claims that are not named here are ignored.
_TYPES: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("iss", "sub", "aud", "eat_profile", "swname"), _text(r"[ -~]{1,512}")),
    **dict.fromkeys(("iat", "nbf", "exp", "uptime", "bootcount"), _is_count),
    **dict.fromkeys(("bootseed", "x-lotabots-prev"), _text(_SHA_256)),
    "jti": _text(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"),
    "eat_nonce": _text(r"[A-Za-z0-9_-]{22,88}"),
    "ueid": _text(r"A[Q-Za-f][A-Za-z0-9_-]{42}"),
    "swversion": lambda value: [type(one) for one in value] in ([str], [str, int]),
    "dbgstat": _text("enabled|disabled(-since-boot|-permanently|-fully-and-permanently)?"),
    "measres": _is_results,
    "cnf": lambda value: _text(_SHA_256)(value["jkt"]),
    "submods": lambda value: bool(value.keys()),
    "x-lotabots-keyset": lambda value: all(key["kid"].isascii() for keys in value.values() for key in keys),
    "x-lotabots-assurance": lambda value: value in LEVELS,
    "x-lotabots-development": lambda value: isinstance(value, bool),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(3, f"{self.format_usage()}{self.prog}: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code, except for usage errors and --help, which raise SystemExit."""
    parser = _Parser(prog="lotabots-verify", description="Verify an attestation token offline.")
    parser.add_argument("kind", choices=["token"])
    parser.add_argument("file", type=Path, help="the token")
    parser.add_argument("--jwks", type=Path, required=True, help="the appliance's public keys (JWK set)")
    parser.add_argument("--audience", required=True, help="whom the token must be meant for")
    parser.add_argument("--nonce", help="your challenge")
    parser.add_argument("--issuer", help="the appliance it must come from: urn:dev:ueid:…")
    parser.add_argument("--policy", type=Path, help="TOML: what you demand beyond validity")
    parser.add_argument("--detached", type=Path, help="JSON: submodules given as digests")
    parser.add_argument("--at", type=int, default=int(time.time()), help="judge as of this Unix time")
    given = parser.parse_args(arguments)
    try:
        text = given.file.read_bytes().decode(errors="replace").strip()
        jwks = _strict_json(given.jwks.read_bytes())
        policy = read_policy(given.policy.read_bytes() if given.policy else b"")
        detached = dict(_strict_json(given.detached.read_bytes() if given.detached else b"{}"))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        parser.error(str(error))
    options = {"audience": given.audience, "nonce": given.nonce, "issuer": given.issuer, "now": given.at}
    verdict = verify_token(text, jwks, policy=policy, detached=detached, **options)
    for check in verdict.checks:
        mark = {True: "ok", False: "FAILED", None: "not run"}[check.passed]
        _say(f"{check.level:<13} {mark:<8} {check.name}{': ' if check.detail else ''}{check.detail}")
    for line in verdict.not_established:
        _say(f"does NOT establish: {line}")
    _say(("valid", "invalid", "valid, but refused by policy")[verdict.exit_code])
    return verdict.exit_code


def _say(line: str) -> None:
    sys.stdout.write(ascii(line)[1:-1] + "\n")  # a token cannot write control characters to a terminal


if __name__ == "__main__":
    sys.exit(main())
