"""Ask the vendor for a licence of this machine: facts of the appliance, signed with its report key."""

from __future__ import annotations

from typing import Any

from lotabotsd import __version__
from lotabotsd.foundation.clock import from_ns, rfc3339
from lotabotsd.foundation.envelope import PayloadType, armour, sign
from lotabotsd.foundation.keys import raw_public
from lotabotsd.licence.activation import ActivationRequest, request_body, short_code

from .appliance import Appliance


def licence_request(appliance: Appliance, note: str) -> dict[str, Any]:
    """An activation request of this moment: its armour, its short code, and what it says.

    Raises VALUE_INVALID for a note that is not one printable line of at most 200 characters, or when no
    component of the machine's fingerprint can be read.
    """
    request = ActivationRequest(
        appliance_id=appliance.appliance_id,
        public_key=raw_public(appliance.keyset.report),
        requested_at=from_ns(appliance.clock.wall_ns()).replace(microsecond=0),
        release=__version__,
        components=appliance.licence.components(),
        gpus=appliance.gpus.count,
        licence_id=appliance.licence.standing().licence_id,
        sequence=appliance.licence.highest_sequence(),
        note=note.strip(),
    )
    body = request_body(request)
    envelope = sign(PayloadType.ACTIVATION_REQUEST, body, [appliance.keyset.report])
    return {
        "text": armour(envelope),
        "short_code": short_code(body),
        "appliance_id": request.appliance_id,
        "key_id": request.key_id,
        "requested_at": rfc3339(request.requested_at),
        "components": sorted(request.components),
        "gpus": request.gpus,
        "licence_id": request.licence_id,
        "note": request.note,
    }
