"""Every changed byte of every signed golden artefact is refused, or is white space that changes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from corpus.world import GOLDEN, key, keyid

from lotabotsd.attestation.verify import verify_receipt, verify_token
from lotabotsd.foundation.envelope import PayloadType, parse_envelope, sign, verify
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.foundation.keys import raw_public
from lotabotsd.licence.activation import open_request
from lotabotsd.licence.document import open_licence
from lotabotsd.licence.keyring import Use, load_anchors
from lotabotsd.usage.records import (
    SEGMENT_HEADER_BYTES,
    decode_segment_header,
    record_is_whole,
)
from lotabotsd.usage.report import check_report
from lotabotsd.usage.report_facts import read_facts
from lotabotsd.usage.report_zip import companions, pack

Open = Callable[[bytes], bytes | None]  # the signed body; None where the artefact is refused
LARGE_BYTES = 2_500  # above it each position is changed in one of the two ways, in turn
NONCE, NOW = "golden-nonce-of-22-chr", 1_795_651_300
JWKS = json.loads((GOLDEN / "receipt" / "jwks.json").read_bytes())


def body_under(kind: PayloadType, *seeds: int) -> Open:
    """Opens an envelope of a type under keys of the tests."""
    keys = {keyid(key(seed)): raw_public(key(seed)) for seed in seeds}
    return lambda data: verify(parse_envelope(data), kind, keys)


DEVELOPMENT = load_anchors().keyring


def licence_body(data: bytes) -> bytes:
    return open_licence(data, DEVELOPMENT).envelope.body


def request_body(data: bytes) -> bytes:
    open_request(data)
    return parse_envelope(data).body


def card_body(data: bytes) -> bytes:
    return verify(parse_envelope(data), PayloadType.RATE_CARD, DEVELOPMENT.trusted_keys(Use.RATE_CARD))


def token_body(data: bytes) -> bytes | None:
    verdict = verify_token(_text(data), JWKS, audience="golden", now=NOW, nonce=NONCE)
    return json.dumps(verdict.claims).encode() if verdict.exit_code == 0 else None


def receipt_body(data: bytes) -> bytes | None:
    verdict = verify_receipt(_text(data), JWKS, now=NOW)
    return json.dumps(verdict.claims).encode() if verdict.exit_code == 0 else None


def _text(data: bytes) -> str:
    """As the command reads a file: what is no text becomes characters that are refused."""
    return data.decode(errors="replace").strip()


@dataclass(frozen=True, slots=True)
class Artefact:
    """A signed golden file, who opens it, and whether its spelling may be changed by mail programs."""

    path: str
    opened: Open
    mailed: bool = False


ARTEFACTS = (
    Artefact("envelope/hello.dsse.json", body_under(PayloadType.LICENCE, 1)),
    Artefact("envelope/hello.armour.txt", body_under(PayloadType.LICENCE, 1), mailed=True),
    Artefact("envelope/hello.line.txt", body_under(PayloadType.LICENCE, 1), mailed=True),
    Artefact("licence/pro.dsse.json", licence_body),
    Artefact("licence/pro.armour.txt", licence_body, mailed=True),
    Artefact("licence/pro.line.txt", licence_body, mailed=True),
    Artefact("acknowledgement/accepted.dsse.json", body_under(PayloadType.ACKNOWLEDGEMENT, 0)),
    Artefact("activation-request/request.dsse.json", request_body),
    Artefact("keyring/keyring.dsse.json", body_under(PayloadType.KEYRING, 1)),
    Artefact("usage-report/report.dsse.json", body_under(PayloadType.USAGE_REPORT, 0)),
    Artefact("revocations/revocations.dsse.json", body_under(PayloadType.REVOCATIONS, 2)),
    Artefact("rate-card/standard.armour.txt", card_body, mailed=True),
    Artefact("receipt/token.txt", token_body, mailed=True),
    Artefact("receipt/plain.txt", receipt_body, mailed=True),
    Artefact("receipt/salted.txt", receipt_body, mailed=True),
)
UNSIGNED = {  # bodies, numbers and forms without a signature of their own
    "anchors/anchors.json", "keyring/keyring.json", "usage-report-body-2.json",
    "acknowledgement/accepted.json", "activation-request/request.json", "container_specification.json",
    "licence/pro.json", "limits-layout.json", "policy-schema.sql", "rate-card/bill.csv",
    "rate-card/focus.csv", "rate-card/lines.jsonl", "rate-card/standard.json", "receipt/jwks.json",
    "receipt/request.json", "receipt/response.json", "revocations/revocations.json", "usage-outcomes.txt",
    "usage-record-close.hex", "usage-record-open.hex", "usage-record-receipt.hex", "usage-report-body.json",
    "usage-segment-header.hex",
}  # fmt: skip


def changes(whole: bytes) -> Iterator[tuple[int, bytes]]:
    """Every position with its lowest bit flipped, and with another printable character in its place."""
    for index, byte in enumerate(whole):
        printable = 33 + (byte + index * 7) % 94
        both = [byte ^ 1, printable if printable != byte else 33 + (printable - 32) % 94]
        for value in both if len(whole) <= LARGE_BYTES else [both[index % 2]]:
            assert value != byte
            yield index, whole[:index] + bytes([value]) + whole[index + 1 :]


def opened_or_none(opened: Open, data: bytes) -> bytes | None:
    try:
        return opened(data)
    except LotaBotsError:
        return None


def test_no_golden_file_is_forgotten() -> None:
    there = {str(path.relative_to(GOLDEN)) for path in GOLDEN.rglob("*") if path.is_file()}
    assert there == {artefact.path for artefact in ARTEFACTS} | UNSIGNED


# A second of processor time each, and tests/licence changes the licence's bytes too.
LONG = {"licence", "acknowledgement", "rate-card"}


@pytest.mark.parametrize(
    "artefact",
    [
        pytest.param(
            artefact,
            id=artefact.path,
            marks=[pytest.mark.thorough] if artefact.path.partition("/")[0] in LONG else [],
        )
        for artefact in ARTEFACTS
    ],
)
def test_each_changed_byte_is_refused_or_white_space(artefact: Artefact) -> None:
    whole = (GOLDEN / artefact.path).read_bytes()
    body = artefact.opened(whole)
    assert body
    harmless = []
    for index, changed in changes(whole):
        found = opened_or_none(artefact.opened, changed)
        if found is not None:
            assert found == body, f"byte {index} gives another body"
            harmless.append(index)
    assert all(artefact.mailed and whole[index : index + 1].isspace() for index in harmless), harmless


def golden_report() -> bytes:
    """The zip of the golden report body, signed by the key that it names."""
    body = (GOLDEN / "usage-report-body.json").read_bytes().rstrip(b"\n")
    envelope = sign(PayloadType.USAGE_REPORT, body, [key(0)])
    csv, readme = companions(read_facts(json.loads(body), hashlib.sha256(body).hexdigest()))
    return pack(envelope.to_json(), csv, readme)


def test_each_changed_byte_of_a_golden_reports_zip_is_refused() -> None:
    whole = golden_report()
    assert check_report(whole).verdict != "invalid"
    assert not [index for index, changed in changes(whole) if check_report(changed).verdict != "invalid"]


@pytest.mark.parametrize("name", ["open", "close", "receipt"])
def test_each_changed_byte_of_a_golden_journal_record_is_no_record(name: str) -> None:
    whole = bytes.fromhex((GOLDEN / f"usage-record-{name}.hex").read_text())
    assert record_is_whole(whole)
    for index in range(len(whole)):
        for bit in range(8):
            changed = whole[:index] + bytes([whole[index] ^ 1 << bit]) + whole[index + 1 :]
            assert not record_is_whole(changed), (index, bit)


def test_each_changed_byte_of_a_golden_segment_header_is_refused() -> None:
    whole = bytes.fromhex((GOLDEN / "usage-segment-header.hex").read_text())[:SEGMENT_HEADER_BYTES]
    decode_segment_header(whole)
    accepted = []
    for index in range(len(whole)):
        changed = whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :]
        try:
            decode_segment_header(changed)
        except ValueError:
            continue
        accepted.append(index)
    assert accepted == []
