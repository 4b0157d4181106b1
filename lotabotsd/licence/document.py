"""Open a licence document: envelope, signer, claims, in this order. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from lotabotsd.foundation.envelope import Envelope, PayloadType, parse_envelope, verify
from lotabotsd.foundation.errors import Code, LotaBotsError

from .claims import Licence, parse_licence
from .keyring import Keyring, Use


@dataclass(frozen=True, slots=True)
class Opened:
    """A licence whose signature was verified, with the bytes that carry it."""

    licence: Licence
    envelope: Envelope
    signer: str  # the issuing key's id
    digest: str  # SHA-256 of the signed body in hex: which licence this is


def open_licence(data: bytes, keyring: Keyring) -> Opened:
    """Read a licence in any of the three forms and verify it under the keyring.

    The issuing key must have been valid when the licence was issued, not now: a licence outlives its key.
    Raises ENVELOPE_MALFORMED, ENVELOPE_TYPE, SIGNER_UNKNOWN, SIGNATURE_INVALID, LICENCE_INVALID.
    """
    envelope = parse_envelope(data)
    revoked = [s.keyid for s in envelope.signatures if s.keyid in keyring.revoked]
    if revoked:
        raise LotaBotsError(
            Code.SIGNER_UNKNOWN, f"the key {revoked[0]} was revoked", hint="ask the vendor for a new licence"
        )
    body = verify(envelope, PayloadType.LICENCE, keyring.trusted_keys(Use.LICENCE))
    licence = parse_licence(body)
    trusted = keyring.trusted_keys(Use.LICENCE, licence.issued_at)
    signers = [s.keyid for s in envelope.signatures if s.keyid in trusted]
    if not signers:
        raise LotaBotsError(Code.SIGNER_UNKNOWN, "the signing key was not valid on the day of issue")
    return Opened(licence, envelope, signers[0], hashlib.sha256(body).hexdigest())
