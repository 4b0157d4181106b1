"""The format of acknowledgements: its frozen bytes, and that nothing else passes for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.envelope import PayloadType, armour, one_line, parse_envelope, sign
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.keys import raw_public, thumbprint
from lotabotsd.usage.acknowledgement import (
    MAX_DOCUMENT_BYTES,
    MAX_REASONS,
    Acknowledgement,
    AckVerdict,
    compose_acknowledgement,
    open_acknowledgement,
    read_acknowledgement,
)

GOLDEN = Path(__file__).parent.parent / "golden"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
KEY_ID = thumbprint(raw_public(KEY))
LICENCE = (GOLDEN / "licence" / "pro.dsse.json").read_bytes()
SAID = Acknowledgement(
    appliance_id="apl_0123456789ABCDEF",
    sequence=7,
    report_hash=bytes(range(32)),
    head=bytes(range(32, 64)),
    period_from=1_772_323_200,
    period_until=1_775_001_600,
    verdict=AckVerdict.ACCEPTED_WITH_FINDINGS,
    reasons=("report_missing: report 6 of this appliance was not verified here",),
    issued_at=1_775_200_000,
    licence=LICENCE,
)


def trusted(_: datetime | None) -> dict[str, bytes]:
    return {KEY_ID: raw_public(KEY)}


def opened(data: bytes, revoked: frozenset[str] = frozenset()) -> Acknowledgement:
    return open_acknowledgement(data, trusted, revoked).acknowledgement


def code_of(call: Callable[[], Any]) -> Code:
    with pytest.raises(LotaBotsError) as caught:
        call()
    return caught.value.code


def test_body_and_envelope_have_their_frozen_bytes() -> None:
    body = compose_acknowledgement(SAID)
    assert body == (GOLDEN / "acknowledgement" / "accepted.json").read_bytes()
    envelope = sign(PayloadType.ACKNOWLEDGEMENT, body, [KEY])
    assert envelope.to_json() == (GOLDEN / "acknowledgement" / "accepted.dsse.json").read_bytes()


def test_every_spelling_opens_to_the_same() -> None:
    envelope = sign(PayloadType.ACKNOWLEDGEMENT, compose_acknowledgement(SAID), [KEY])
    assert armour(envelope).startswith("-----BEGIN LOTABOTS ACKNOWLEDGEMENT-----")
    assert one_line(envelope).startswith("lotabots-acknowledgement:")
    for data in (envelope.to_json(), armour(envelope).encode(), one_line(envelope).encode()):
        assert opened(data) == SAID


def test_what_the_fields_are_is_what_is_read() -> None:
    for said in (
        SAID,
        replace(SAID, verdict=AckVerdict.ACCEPTED, reasons=(), licence=None),
        replace(SAID, verdict=AckVerdict.REJECTED, reasons=("a", "b")),
    ):
        assert read_acknowledgement(compose_acknowledgement(said)) == said
        assert said.accepted == (said.verdict is not AckVerdict.REJECTED)


def changed(**changes: Any) -> bytes:
    return canonical_json({**json.loads(compose_acknowledgement(SAID)), **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"more": 1},
        {"appliance_id": ""},
        {"appliance_id": "apl-1"},
        {"appliance_id": 7},
        {"report": {"hash": "00" * 32, "head": "00" * 32}},
        {"report": {"hash": "00" * 32, "head": "00" * 32, "sequence": 0}},
        {"report": {"hash": "00" * 32, "head": "00" * 32, "sequence": True}},
        {"report": {"hash": "00" * 32, "head": "00" * 32, "sequence": "7"}},
        {"report": {"hash": "00" * 31, "head": "00" * 32, "sequence": 7}},
        {"report": {"hash": "0A" * 32, "head": "00" * 32, "sequence": 7}},
        {"report": {"hash": "00" * 32, "head": "00" * 32, "sequence": 7, "last": 9}},
        {"report": []},
        {"period": {"from": "2026-04-01T00:00:00Z", "until": "2026-04-01T00:00:00Z"}},
        {"period": {"from": "2026-03-01T00:00:00Z", "until": "2026-04-01T00:00:00+00:00"}},
        {"period": {"from": "1899-03-01T00:00:00Z", "until": "2026-04-01T00:00:00Z"}},
        {"issued_at": 1_775_200_000},
        {"issued_at": "yesterday"},
        {"verdict": "maybe"},
        {"verdict": "accepted"},
        {"reasons": []},
        {"reasons": ["a\nb"]},
        {"reasons": [""]},
        {"reasons": ["x" * 301]},
        {"reasons": ["x"] * (MAX_REASONS + 1)},
        {"reasons": "x"},
        {"licence": "x"},
        {"licence": {}},
        {"rate_card": json.loads(LICENCE)},
        {"licence": {"x": "y" * MAX_DOCUMENT_BYTES}},
    ],
    ids=repr,
)
def test_a_wrong_field_is_refused(changes: dict[str, Any]) -> None:
    assert code_of(lambda: read_acknowledgement(changed(**changes))) is Code.ACKNOWLEDGEMENT_INVALID


@pytest.mark.parametrize(
    "name",
    ["appliance_id", "issued_at", "licence", "period", "rate_card", "reasons", "report", "verdict"],
)
def test_a_missing_field_is_named(name: str) -> None:
    document = json.loads(compose_acknowledgement(SAID))
    del document[name]
    with pytest.raises(LotaBotsError, match=f"{name} is missing"):
        read_acknowledgement(canonical_json(document))


def test_another_spelling_of_the_same_is_refused() -> None:
    loose = json.dumps(json.loads(compose_acknowledgement(SAID)), indent=1).encode()
    for body in (loose, b"", b"[]", b"{", b"\xff", b"[" * 99):
        assert code_of(lambda body=body: read_acknowledgement(body)) is Code.ACKNOWLEDGEMENT_INVALID


@given(st.data())
def test_no_changed_byte_passes(data: st.DataObject) -> None:
    whole = (GOLDEN / "acknowledgement" / "accepted.dsse.json").read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    assert code_of(lambda: opened(flipped)) in {
        Code.ENVELOPE_MALFORMED,
        Code.ENVELOPE_TYPE,
        Code.SIGNATURE_INVALID,
        Code.SIGNER_UNKNOWN,
    }


def test_other_documents_and_other_signers_are_told_apart() -> None:
    body = compose_acknowledgement(SAID)
    other = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
    as_licence = sign(PayloadType.LICENCE, body, [KEY]).to_json()
    assert code_of(lambda: opened(as_licence)) is Code.ENVELOPE_TYPE
    assert code_of(lambda: opened(LICENCE)) is Code.ENVELOPE_TYPE
    by_another = sign(PayloadType.ACKNOWLEDGEMENT, body, [other]).to_json()
    assert code_of(lambda: opened(by_another)) is Code.SIGNER_UNKNOWN
    good = sign(PayloadType.ACKNOWLEDGEMENT, body, [KEY]).to_json()
    with pytest.raises(LotaBotsError, match="was revoked") as caught:
        opened(good, frozenset({KEY_ID}))
    assert caught.value.code is Code.SIGNER_REVOKED


def test_the_key_must_have_been_valid_on_the_day_of_issue() -> None:
    asked: list[datetime | None] = []

    def until_april(at: datetime | None) -> dict[str, bytes]:
        asked.append(at)
        return trusted(at) if at is None or at < datetime(2026, 4, 1, tzinfo=UTC) else {}

    late = sign(PayloadType.ACKNOWLEDGEMENT, compose_acknowledgement(SAID), [KEY]).to_json()
    with pytest.raises(LotaBotsError, match="day of issue") as caught:
        open_acknowledgement(late, until_april, frozenset())
    assert caught.value.code is Code.SIGNER_NOT_VALID
    assert asked == [None, datetime(2026, 4, 3, 7, 6, 40, tzinfo=UTC)]


def test_the_largest_documents_still_fit_into_an_envelope() -> None:
    def document(kind: PayloadType) -> bytes:
        size = MAX_DOCUMENT_BYTES * 3 // 4 - 300
        made = sign(kind, b"x" * size, [KEY]).to_json()
        assert MAX_DOCUMENT_BYTES - 200 < len(made) <= MAX_DOCUMENT_BYTES
        return made

    said = replace(
        SAID,
        licence=document(PayloadType.LICENCE),
        rate_card=document(PayloadType.RATE_CARD),
        reasons=("x" * 300,) * MAX_REASONS,
    )
    data = sign(PayloadType.ACKNOWLEDGEMENT, compose_acknowledgement(said), [KEY]).to_json()
    assert parse_envelope(data).payload_type is PayloadType.ACKNOWLEDGEMENT
    assert opened(data) == said
