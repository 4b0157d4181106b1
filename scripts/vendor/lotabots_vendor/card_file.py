"""Read a rate card from a file: signed by the vendor, or plain JSON where it is about to be signed."""

from __future__ import annotations

import json
from pathlib import Path

from lotabotsd.foundation.canonical import canonical_json, strict_json
from lotabotsd.foundation.envelope import PayloadType, parse_envelope
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded
from lotabotsd.licence.claims import MAX_RATE_CARD_BYTES
from lotabotsd.licence.keyring import Keyring, Use
from lotabotsd.usage import rate_card
from lotabotsd.usage.rate_card import RateCard, parse_rate_card

_MAX_FILE_BYTES = 1024 * 1024


def read_rate_card(file: Path) -> bytes:
    """The canonical body of a card about to be signed, by itself or in a licence; signed before or not.

    Raises RATE_CARD_INVALID, FILE_UNREADABLE, ENVELOPE_MALFORMED, ENVELOPE_TYPE.
    """
    data = read_bounded(file, _MAX_FILE_BYTES)
    body = data if _is_plain(data) else _body_of(data)
    parse_rate_card(body)
    canonical = canonical_json(strict_json(body))
    if len(canonical) > MAX_RATE_CARD_BYTES:
        raise LotaBotsError(Code.RATE_CARD_INVALID, f"it has more than {MAX_RATE_CARD_BYTES} bytes")
    return canonical


def open_rate_card(file: Path, keyring: Keyring) -> tuple[RateCard, bytes]:
    """A card whose signature is good, and its body.

    The key need not be valid today: a card outlives it, as a licence does; a revoked one counts for nothing.
    Raises what is wrong with the file, SIGNER_UNKNOWN, SIGNATURE_INVALID, RATE_CARD_INVALID.
    """
    return rate_card.open_rate_card(read_bounded(file, _MAX_FILE_BYTES), keyring.trusted_keys(Use.RATE_CARD))


def signed_card(file: Path, keyring: Keyring) -> bytes:
    """The same as the JSON of its envelope. Raises as `open_rate_card`."""
    open_rate_card(file, keyring)
    return parse_envelope(read_bounded(file, _MAX_FILE_BYTES)).to_json()


def _is_plain(data: bytes) -> bool:
    try:
        value = json.loads(data)
    except ValueError:
        return False
    return isinstance(value, dict) and "payloadType" not in value


def _body_of(data: bytes) -> bytes:
    envelope = parse_envelope(data)
    if envelope.payload_type is not PayloadType.RATE_CARD:
        raise LotaBotsError(Code.ENVELOPE_TYPE, f"this is a {envelope.payload_type.short_name}")
    return envelope.body
