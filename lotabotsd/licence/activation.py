"""The request for a licence of one machine: what it says, in one spelling, and the short code of it. Pure.

The appliance signs it with its report key, whose public half is inside: whoever reads it knows that
the sender holds that key, and that the usage reports signed by it come from the same appliance.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.clock import rfc3339
from lotabotsd.foundation.envelope import PayloadType, parse_envelope, verify
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.fields import Fields
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.foundation.keys import public_key, thumbprint

from .claims import COMPONENT_DIGITS

MAX_NOTE_CHARACTERS = 200
_APPLIANCE = r"[A-Za-z0-9_]{1,64}"
_LICENCE = r"lic_[0-9A-Za-z]{16}"
_CODE_BYTES, _CODE_GROUP = 10, 4  # 80 bits: nobody finds a second request with the same code
# Crockford's base32: no I, L, O or U, so that nothing is misheard or misread.
_SPOKEN = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "0123456789ABCDEFGHJKMNPQRSTVWXYZ")


@dataclass(frozen=True, slots=True)
class ActivationRequest:
    """What an appliance says of itself when it asks for a licence."""

    appliance_id: str
    public_key: bytes  # raw, of the key that signs its usage reports
    requested_at: datetime
    release: str
    components: Mapping[str, str]  # the fingerprint: name → HMAC in hex (see fingerprint)
    gpus: int
    licence_id: str  # installed now; empty: none
    sequence: int  # the highest that was ever installed; 0: none
    note: str = ""  # from the administrator, as in an order number

    @property
    def key_id(self) -> str:
        """Thumbprint of the report key."""
        return thumbprint(self.public_key)


@dataclass(frozen=True, slots=True)
class OpenedRequest:
    """A request whose signature fits the key that it names."""

    request: ActivationRequest
    short_code: str  # as `lotabotsctl licence request` prints it: the same on both sides for the same bytes
    digest: str  # SHA-256 of the signed body in hex: which request this is


def request_body(request: ActivationRequest) -> bytes:
    """The canonical JSON that is signed, read back with the rules of its reader. Raises VALUE_INVALID."""
    body = canonical_json(
        {
            "appliance_id": request.appliance_id,
            "components": dict(request.components),
            "gpus": request.gpus,
            "key": {"keyid": request.key_id, "public": b64url(request.public_key)},
            "licence_id": request.licence_id or None,
            "note": request.note or None,
            "release": request.release,
            "requested_at": rfc3339(request.requested_at),
            "sequence": request.sequence,
        }
    )
    try:
        parse_request(body)
    except LotaBotsError as error:
        raise LotaBotsError(Code.VALUE_INVALID, error.detail) from error
    return body


def parse_request(body: bytes) -> ActivationRequest:
    """Read and check a body. Raises ACTIVATION_INVALID with every problem, KEY_WEAK."""
    fields = Fields.of_body(body, Code.ACTIVATION_INVALID)
    signer = fields.inside("key")
    _, raw = signer.key()
    signer.close()
    request = ActivationRequest(
        appliance_id=fields.text("appliance_id", _APPLIANCE, "an appliance's id"),
        public_key=raw,
        requested_at=fields.moment("requested_at"),
        release=fields.text("release", r"[0-9A-Za-z.+-]{1,64}", "a release as in 1.2.3"),
        components=_components(fields),
        gpus=fields.integer("gpus", 0, 1024),
        licence_id=fields.optional_text("licence_id", _LICENCE, "lic_ and 16 letters or digits") or "",
        sequence=fields.integer("sequence"),
        note=fields.optional_text("note", rf".{{1,{MAX_NOTE_CHARACTERS}}}", "1 to 200 printable characters")
        or "",
    )
    fields.finish(Code.ACTIVATION_INVALID)
    public_key(request.public_key)
    return request


def open_request(data: bytes) -> OpenedRequest:
    """Read a request in any of an envelope's three forms, signed by the key that it names.

    Raises ENVELOPE_MALFORMED, ENVELOPE_TYPE, ACTIVATION_INVALID, KEY_WEAK, SIGNER_UNKNOWN, SIGNATURE_INVALID.
    """
    envelope = parse_envelope(data)
    if envelope.payload_type is not PayloadType.ACTIVATION_REQUEST:
        verify(envelope, PayloadType.ACTIVATION_REQUEST, {})  # says which types these are
    request = parse_request(envelope.body)
    body = verify(envelope, PayloadType.ACTIVATION_REQUEST, {request.key_id: request.public_key})
    return OpenedRequest(request, short_code(body), hashlib.sha256(body).hexdigest())


def short_code(body: bytes) -> str:
    """`7K3M-…`: four groups of four to compare by telephone; SHA-256 of the body, its first 80 bits."""
    digest = hashlib.sha256(body).digest()[:_CODE_BYTES]
    text = base64.b32encode(digest).decode().translate(_SPOKEN)
    return "-".join(text[i : i + _CODE_GROUP] for i in range(0, len(text), _CODE_GROUP))


def _components(fields: Fields) -> dict[str, str]:
    inside = fields.inside("components")
    found = {
        name: inside.text(name, rf"[0-9a-f]{{{digits}}}", f"{digits} hex digits")
        for name, digits in COMPONENT_DIGITS.items()
        if name in inside.names()
    }
    inside.close()
    if not found:
        fields.wrong("components", "must name at least one component")
    return found
