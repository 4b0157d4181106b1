"""Open a licence document: envelope, signer, claims, in this order. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from lotabotsd.foundation.envelope import Envelope, PayloadType, parse_envelope

from .claims import Licence, parse_licence
from .keyring import Keyring, Use, signer_of


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
    Raises ENVELOPE_MALFORMED, ENVELOPE_TYPE, SIGNER_REVOKED, SIGNER_UNKNOWN, SIGNER_NOT_VALID,
    SIGNATURE_INVALID, LICENCE_INVALID.
    """
    envelope = parse_envelope(data)
    body, signer = signer_of(
        envelope,
        PayloadType.LICENCE,
        keyring,
        Use.LICENCE,
        lambda signed: parse_licence(signed).issued_at,
    )
    return Opened(parse_licence(body), envelope, signer, hashlib.sha256(body).hexdigest())
