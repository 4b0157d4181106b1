"""The list of licences that the vendor has taken back: complete, numbered, and never shorter. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from lotabotsd.foundation.envelope import Envelope, PayloadType, parse_envelope
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.fields import Fields

from .keyring import Keyring, Use, signer_of

MAX_REVOKED = 2_000
_LICENCE = r"lic_[0-9A-Za-z]{16}"


@dataclass(frozen=True, slots=True)
class Revoked:
    """Why and when a licence was taken back."""

    reason: str
    revoked_at: datetime


@dataclass(frozen=True, slots=True)
class Revocations:
    """A verified list; the newest one is all that counts."""

    version: int
    issued_at: datetime
    licences: Mapping[str, Revoked]  # by licence id


@dataclass(frozen=True, slots=True)
class OpenedRevocations:
    """A list whose signature was verified, with the bytes that carry it."""

    revocations: Revocations
    envelope: Envelope
    signer: str
    digest: str  # SHA-256 of the signed body in hex


def parse_revocations(body: bytes) -> Revocations:
    """Read and check the verified body of a list. Raises REVOCATIONS_INVALID with every problem."""
    fields = Fields.of_body(body, Code.REVOCATIONS_INVALID)
    version = fields.integer("version", 1)
    issued_at = fields.moment("issued_at")
    names: list[str] = []
    licences: dict[str, Revoked] = {}
    for entry in fields.objects("licences", at_most=MAX_REVOKED):
        names.append(entry.text("licence_id", _LICENCE, "lic_ and 16 letters or digits"))
        licences[names[-1]] = Revoked(
            entry.text("reason", r"\S(.{0,98}\S)?", "1 to 100 printable characters"),
            entry.moment("revoked_at"),
        )
        entry.close()
    also = [] if sorted(set(names)) == names else ["licences must be sorted by licence_id, each once"]
    fields.finish(Code.REVOCATIONS_INVALID, *also)
    return Revocations(version, issued_at, licences)


def open_revocations(data: bytes, keyring: Keyring) -> OpenedRevocations:
    """Read a list in any of an envelope's three forms and verify it: who may issue licences may revoke them.

    Raises ENVELOPE_MALFORMED, ENVELOPE_TYPE, SIGNER_REVOKED, SIGNER_UNKNOWN, SIGNER_NOT_VALID,
    SIGNATURE_INVALID, REVOCATIONS_INVALID.
    """
    envelope = parse_envelope(data)
    body, signer = signer_of(
        envelope,
        PayloadType.REVOCATIONS,
        keyring,
        Use.LICENCE,
        lambda signed: parse_revocations(signed).issued_at,
    )
    return OpenedRevocations(parse_revocations(body), envelope, signer, hashlib.sha256(body).hexdigest())


def refuse_older(current: OpenedRevocations | None, following: OpenedRevocations) -> None:
    """Whether a list may take the place of the present one.

    Raises REVOCATIONS_OLDER for a lower version, or another list of the same one; REVOCATIONS_INVALID for
    one in which a revoked licence is missing.
    """
    if current is None or current.digest == following.digest:
        return
    old, new = current.revocations, following.revocations
    if new.version <= old.version:
        raise LotaBotsError(
            Code.REVOCATIONS_OLDER, f"version {new.version} does not come after version {old.version}"
        )
    missing = sorted(set(old.licences) - set(new.licences))
    if missing:
        raise LotaBotsError(Code.REVOCATIONS_INVALID, f"{missing[0]} was revoked before and is not in it")
