"""Compact JWS under Ed25519 keys that a reader trusts, and JSON that can be read in one way only. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .verdict import Check, InvalidError, need

ALGORITHMS = ("EdDSA", "Ed25519")
_P = 2**255 - 19
_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# One signature under such a key fits every message.
SMALL_ORDER_Y = (0, 1, _P - 1, _ORDER_8, _P - _ORDER_8)
Claims = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """What keeps one kind of statement from being taken for another: its type and the role of its key."""

    media_type: str
    role: str
    max_characters: int


def open_jws(text: str, kind: Kind, jwks: object, checks: list[Check]) -> tuple[Claims, Claims]:
    """Header and payload, once the signature is good. Raises InvalidError at the first check that fails."""
    header, claims, signed, signature = _parse(text, kind, checks)
    _check_signature(header, signed, signature, jwks, kind.role, checks)
    return header, claims


def _parse(text: str, kind: Kind, checks: list[Check]) -> tuple[Claims, Claims, bytes, bytes]:
    size, most = len(text), kind.max_characters
    need(checks, "parse", "size", size <= most, f"{size} of at most {most} characters")
    try:
        protected, payload, last = text.split(".")
        header, claims = strict_json(unbase64(protected)), strict_json(unbase64(payload))
        signature = unbase64(last)
    except (ValueError, RecursionError) as error:
        checks.append(Check("parse", "form", False, f"not three parts of base64url and JSON: {error}"))
        raise InvalidError from error
    need(checks, "parse", "form", isinstance(header, dict) and isinstance(claims, dict), "two JSON objects")
    # An allow-list: with it jku, jwk, x5u, crit, zip, b64 and whatever else comes are refused.
    need(checks, "parse", "header", set(header) == {"alg", "kid", "typ"}, ", ".join(sorted(header)))
    need(checks, "parse", "type", header["typ"] == kind.media_type, repr(header["typ"]))
    need(checks, "parse", "algorithm", header["alg"] in ALGORITHMS, repr(header["alg"]))
    return header, claims, f"{protected}.{payload}".encode(), signature


def _check_signature(
    header: Claims, signed: bytes, signature: bytes, jwks: object, role: str, checks: list[Check]
) -> None:
    try:
        raw = read_jwks(jwks, role)[str(header["kid"])]
    except (ValueError, KeyError) as error:
        reason = "the signing key is not among them" if isinstance(error, KeyError) else str(error)
        checks.append(Check("cryptography", "trusted keys", False, reason))
        raise InvalidError from error
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, signed)
    except InvalidSignature as error:
        checks.append(Check("cryptography", "signature", False))
        raise InvalidError from error
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
        raw = unbase64(str(entry.get("x")))
        y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
        if len(raw) != 32 or y in SMALL_ORDER_Y or y >= _P:
            raise ValueError("a key has small order or is malformed")
        if "d" in entry:
            raise ValueError("a private key is among the public ones")
        canonical = f'{{"crv":"Ed25519","kty":"OKP","x":"{entry["x"]}"}}'  # RFC 7638
        thumbprint = to_base64(hashlib.sha256(canonical.encode()).digest())
        if entry.get("kid", thumbprint) != thumbprint:
            raise ValueError("a key id is not the key's thumbprint")
        fits = entry.get("use", "sig") == "sig" and entry.get("alg", "EdDSA") in ALGORITHMS
        if fits and entry.get("x-lotabots-role", role) == role:
            found[thumbprint] = raw
    return found


def strict_json(data: bytes) -> Any:
    """JSON in one reading. Raises ValueError, also for a key twice or a number not whole; RecursionError."""
    # int() refuses what is no whole number: 1.0, 1e3, NaN
    return json.loads(data.decode(), object_pairs_hook=_once, parse_float=int, parse_constant=int)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key appears twice")
    return dict(pairs)


def unbase64(text: str) -> bytes:
    """The bytes of unpadded base64url; raises ValueError for every other spelling of them."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) if text.isascii() else b""
    if to_base64(data) != text:
        raise ValueError("not base64url, or not in its one spelling")
    return data


def to_base64(data: bytes) -> str:
    """Base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
