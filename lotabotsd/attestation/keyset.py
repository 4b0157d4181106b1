"""The appliance's signing keys, one per role, and its identity: made at the first start, then kept."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded, write_atomically
from lotabotsd.foundation.identifiers import b64url, unb64url
from lotabotsd.foundation.keys import jwk, load_or_create_key, raw_public, thumbprint

ROLES = ("attestation", "receipt", "report")
_PUBLISHED = ("attestation", "receipt")  # reports go to the vendor, who learns their key from the report
_UEID_RANDOM = 0x01  # RFC 9711, section 4.2.1.1: type RAND, here with 32 random bytes


@dataclass(frozen=True, slots=True)
class Keyset:
    """Three private keys that never stand in for each other, and the appliance's permanent name."""

    attestation: Ed25519PrivateKey = field(repr=False)
    receipt: Ed25519PrivateKey = field(repr=False)
    report: Ed25519PrivateKey = field(repr=False)
    ueid: str

    @classmethod
    def load_or_create(cls, directory: Path, receipt_key: Path) -> Keyset:
        """Read the keys and the ueid in `directory`, making what is missing.

        `receipt_key` is the file of the one key that the gate reads too; its group may read it.
        Raises FILE_UNREADABLE for a damaged or unprotected file, CONFLICT when two roles share a key.
        """
        files = {role: directory / f"{role}.key" for role in ROLES} | {"receipt": receipt_key}
        keys = {role: load_or_create_key(path, shared=role == "receipt") for role, path in files.items()}
        seen: dict[bytes, str] = {}
        for role, key in keys.items():
            other = seen.setdefault(raw_public(key), role)
            if other != role:
                raise LotaBotsError(
                    Code.CONFLICT,
                    f"{files[role]} is a copy of {files[other]}",
                    hint=f"put your own copy of {role}.key in its place, or remove it: a new one is made",
                )
        return cls(**keys, ueid=_load_or_create_ueid(directory / "ueid"))

    def key(self, role: str) -> Ed25519PrivateKey:
        """The private key of a role."""
        return {"attestation": self.attestation, "receipt": self.receipt, "report": self.report}[role]

    def public(self) -> dict[str, list[dict[str, str]]]:
        """The public keys by role, as a token states them (`x-lotabots-keyset`)."""
        return {role: [_named_jwk(self.key(role))] for role in ROLES}

    @property
    def digest(self) -> str:
        """`sha256:…` over the canonical JSON of `public()`."""
        return f"sha256:{hashlib.sha256(canonical_json(self.public())).hexdigest()}"

    @property
    def receipt_thumbprint(self) -> str:
        """The key id of the receipt key."""
        return thumbprint(raw_public(self.receipt))

    def jwks(self, algorithm: str = "EdDSA") -> dict[str, Any]:
        """The JWK set to publish (RFC 7517): the keys that sign tokens and receipts, each with its role."""
        return {
            "keys": [
                {**_named_jwk(self.key(role)), "alg": algorithm, "use": "sig", "x-lotabots-role": role}
                for role in _PUBLISHED
            ]
        }


def _named_jwk(key: Ed25519PrivateKey) -> dict[str, str]:
    raw = raw_public(key)
    return {**jwk(raw), "kid": thumbprint(raw)}


def _load_or_create_ueid(path: Path) -> str:
    if not path.exists():
        made = b64url(bytes([_UEID_RANDOM]) + secrets.token_bytes(32))
        write_atomically(path, made.encode() + b"\n", mode=0o600)
        return made
    try:
        text = read_bounded(path, 128).decode("ascii").strip()
        data = unb64url(text)
    except ValueError as error:
        raise LotaBotsError(Code.FILE_UNREADABLE, f"{path} holds no ueid") from error
    if len(data) != 33 or data[0] != _UEID_RANDOM:
        raise LotaBotsError(Code.FILE_UNREADABLE, f"{path} holds no ueid")
    return text
