"""The golden documents: read by the product's readers, and made again byte for byte by its writers."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from lotabots_vendor.authority import development_authority
from lotabots_vendor.statements import anchors_document, keyring_body, revocations_body

from lotabotsd.attestation.token import sign_jws
from lotabotsd.foundation.canonical import canonical_json, strict_json
from lotabotsd.foundation.envelope import Envelope, PayloadType, armour, one_line, parse_envelope, sign
from lotabotsd.foundation.keys import raw_public
from lotabotsd.licence.activation import parse_request, request_body
from lotabotsd.licence.claims import parse_licence, to_claims
from lotabotsd.licence.keyring import IssuingKey, Keyring, Use, parse_keyring
from lotabotsd.licence.revocations import parse_revocations
from lotabotsd.usage.acknowledgement import compose_acknowledgement, read_acknowledgement
from lotabotsd.usage.report import ReportVerdict, check_report

from .documents import (
    GONE,
    ISSUING,
    READERS,
    REPORT_KEY,
    REQUESTER,
    ROOT_KEY,
    SECOND,
    SIGNED,
    TOKEN_KEY,
    anchors,
    golden,
    judged_report,
    key_id,
    payload,
    zipped,
)

BEGUN = datetime(2025, 6, 1, tzinfo=UTC)
ISSUED = datetime(2026, 1, 1, tzinfo=UTC)
KEYRING = Keyring(
    version=1,
    issued_at=BEGUN,
    roots={key_id(ROOT_KEY): raw_public(ROOT_KEY)},
    threshold=1,
    keys=(
        IssuingKey(
            key_id(ISSUING), raw_public(ISSUING), frozenset(Use), BEGUN, datetime(2028, 6, 1, tzinfo=UTC)
        ),
        IssuingKey(
            key_id(SECOND),
            raw_public(SECOND),
            frozenset({Use.ACKNOWLEDGEMENT}),
            BEGUN,
            datetime(2027, 6, 1, tzinfo=UTC),
        ),
    ),
    revoked=frozenset({key_id(GONE)}),
)


def _licence() -> Envelope:
    body = canonical_json(to_claims(parse_licence(golden("licence/pro.json"))))
    return development_authority().sign_licence(body, ISSUED)


def _keyring() -> Envelope:
    return sign(PayloadType.KEYRING, keyring_body(KEYRING), [ROOT_KEY])


def _revocations() -> Envelope:
    body = revocations_body(parse_revocations(golden("revocations/revocations.json")))
    return sign(PayloadType.REVOCATIONS, body, [ISSUING])


def _request() -> Envelope:
    body = request_body(parse_request(golden("activation-request/request.json")))
    return sign(PayloadType.ACTIVATION_REQUEST, body, [REQUESTER])


def _report() -> Envelope:
    # That the ledger gives this body: tests/usage/test_report.py.
    return sign(PayloadType.USAGE_REPORT, golden("usage-report-body.json").rstrip(b"\n"), [REPORT_KEY])


def _acknowledgement() -> Envelope:
    body = compose_acknowledgement(read_acknowledgement(golden("acknowledgement/accepted.json")))
    return sign(PayloadType.ACKNOWLEDGEMENT, body, [REPORT_KEY])


def _card() -> Envelope:
    body = canonical_json(strict_json(golden("rate-card/standard.json")))
    return development_authority().sign_rate_card(body, ISSUED)


WRITERS: dict[str, Callable[[], Envelope]] = {
    "licence": _licence,
    "keyring": _keyring,
    "revocations": _revocations,
    "activation-request": _request,
    "usage-report": _report,
    "acknowledgement": _acknowledgement,
    "rate-card": _card,
}
FILES = {
    "licence/pro.dsse.json": "licence",
    "licence/pro.armour.txt": "licence",
    "licence/pro.line.txt": "licence",
    "keyring/keyring.dsse.json": "keyring",
    "revocations/revocations.dsse.json": "revocations",
    "activation-request/request.dsse.json": "activation-request",
    "usage-report/report.dsse.json": "usage-report",
    "acknowledgement/accepted.dsse.json": "acknowledgement",
    "rate-card/standard.armour.txt": "rate-card",
}
BODIES = {
    "licence/pro.json": "licence",
    "keyring/keyring.json": "keyring",
    "revocations/revocations.json": "revocations",
    "activation-request/request.json": "activation-request",
    "acknowledgement/accepted.json": "acknowledgement",
}


def test_every_kind_of_document_has_its_golden_file() -> None:
    assert set(FILES.values()) == set(WRITERS) == {kind.short_name for kind in PayloadType}


@pytest.mark.parametrize("file", FILES)
def test_a_golden_envelope_is_written_again(file: str) -> None:
    envelope = WRITERS[FILES[file]]()
    written = {
        "json": envelope.to_json().decode(),
        "armour": armour(envelope),
        "line": one_line(envelope) + "\n",
    }["json" if file.endswith(".dsse.json") else file.split(".")[-2]]
    assert written.encode() == golden(file)


@pytest.mark.parametrize("file", BODIES)
def test_a_golden_body_is_what_its_envelope_carries(file: str) -> None:
    assert SIGNED[BODIES[file]].envelope.body == golden(file)


@pytest.mark.parametrize("file", FILES)
def test_a_golden_envelope_is_opened(file: str) -> None:
    assert parse_envelope(golden(file)) == SIGNED[FILES[file]].envelope
    assert SIGNED[FILES[file]].open(golden(file)) is not None


def test_the_golden_keyring_says_what_it_was_made_of() -> None:
    assert parse_keyring(golden("keyring/keyring.json")) == KEYRING


def test_the_golden_anchors_are_written_again_and_read() -> None:
    built_at = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    document = anchors_document("production", KEYRING.roots, 1, _keyring(), built_at)
    assert document == golden("anchors/anchors.json")
    assert anchors().keyring == KEYRING
    assert (anchors().built_at, anchors().development) == (built_at, False)


def test_the_golden_report_is_genuine_in_its_zip() -> None:
    data = zipped(parse_envelope(golden("usage-report/report.dsse.json")))
    assert judged_report(data) == []
    assert check_report(data).verdict is ReportVerdict.VALID_WITH_FINDINGS


def test_the_golden_token_is_signed_again() -> None:
    assert sign_jws(payload("receipt/token.txt"), TOKEN_KEY) + "\n" == golden("receipt/token.txt").decode()


def test_white_space_in_a_body_makes_no_difference_where_it_need_not_be_canonical() -> None:
    for name in ("licence", "keyring", "revocations", "activation-request"):
        file = next(file for file, one in BODIES.items() if one == name)
        assert READERS[name](json.dumps(json.loads(golden(file)), indent=1).encode()) is not None
