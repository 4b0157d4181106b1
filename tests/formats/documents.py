"""Every document that crosses the air gap: its schema, its golden bytes, its reader and its writer."""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.attestation.token import TOKEN_TYPE
from lotabotsd.attestation.verify import Verdict, verify_receipt, verify_token
from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.chain import GENESIS
from lotabotsd.foundation.envelope import Envelope, PayloadType, parse_envelope, sign, verify
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.foundation.keys import raw_public, thumbprint
from lotabotsd.licence.activation import open_request, parse_request
from lotabotsd.licence.claims import parse_licence
from lotabotsd.licence.document import open_licence
from lotabotsd.licence.keyring import Anchors, Keyring, Use, parse_anchors, parse_keyring
from lotabotsd.licence.revocations import open_revocations, parse_revocations
from lotabotsd.usage.acknowledgement import open_acknowledgement, read_acknowledgement
from lotabotsd.usage.rate_card import parse_rate_card
from lotabotsd.usage.report import Severity, check_report
from lotabotsd.usage.report_body import condition_of_rows, instant, totals_of_rows
from lotabotsd.usage.report_facts import read_facts
from lotabotsd.usage.report_zip import companions, pack
from lotabotsd.usage.windows import row_hash

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
FORMATS = ROOT / "docs" / "formats"
NOW = 1_795_651_260  # one minute after the golden token and receipts
sys.path.insert(0, str(ROOT / "scripts" / "vendor"))


def load(path: str) -> ModuleType:
    """A module of this checkout that is in no package, loaded once."""
    name = Path(path).stem
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


json_schema = load("tests/simulators/json_schema.py")
SCHEMAS: dict[str, Any] = {
    path.name.removesuffix(".schema.json"): json.loads(path.read_text())
    for path in sorted(FORMATS.glob("*.schema.json"))
}
VALIDATORS = {
    name: json_schema.Validator(schema, {one["$id"]: one for one in SCHEMAS.values()})
    for name, schema in SCHEMAS.items()
}


def key(seed: int) -> Ed25519PrivateKey:
    """A key of a fixed seed, as in tests/licence/conftest.py."""
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


def key_id(private: Ed25519PrivateKey) -> str:
    return thumbprint(raw_public(private))


REPORT_KEY = key(0)
ROOT_KEY, ISSUING, SECOND, GONE = (key(seed) for seed in (1, 2, 3, 4))
REQUESTER = key(7)
TOKEN_KEY, RECEIPT_KEY = (
    Ed25519PrivateKey.from_private_bytes(bytes(range(start, start + 32))) for start in (32, 0)
)


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def anchors() -> Anchors:
    return parse_anchors(golden("anchors/anchors.json"))


def keyring() -> Keyring:
    return anchors().keyring


def development_keyring() -> Keyring:
    return parse_anchors((ROOT / "lotabotsd/licence/anchors/development.json").read_bytes()).keyring


Problems = list[tuple[str, str]]  # code and detail of each; empty: it was read


def refused(read: Callable[[bytes], object]) -> Callable[[Any], Problems]:
    """Read a value's canonical JSON with a reader that raises."""

    def problems(value: Any) -> Problems:
        try:
            read(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
        except LotaBotsError as error:
            told = error.extra.get("problems", [error.detail])
            return [(error.code.value, one) for one in told]
        return []

    return problems


_REPORT = parse_envelope(golden("usage-report/report.dsse.json"))
_COMPANIONS = companions(read_facts(json.loads(_REPORT.body), "0" * 64))


def zipped(envelope: Envelope) -> bytes:
    """A report's zip; CSV and README are the golden report's, whatever the envelope says."""
    return pack(envelope.to_json(), *_COMPANIONS)


def judged_report(data: bytes) -> Problems:
    """The errors that the vendor's check finds."""
    found = check_report(data).findings
    return [(one.code, one.detail) for one in found if one.severity is Severity.ERROR]


def _report(value: Any) -> Problems:
    """The same as `judged_report` of the whole zip; what is no report at all does not need one."""
    try:
        canonical_json(value)
        read_facts(value, "0" * 64)
    except ValueError as error:
        return [("body", str(error))]
    body = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return judged_report(zipped(sign(PayloadType.USAGE_REPORT, body, [REPORT_KEY])))


def short_report() -> Any:
    """The golden report's second window alone, as a second report: a late row, a sum, a predecessor."""
    value = json.loads(golden("usage-report-body.json"))
    rows = read_facts(value, "0" * 64).rows
    heads = [GENESIS]
    for row in rows:
        heads.append(row_hash(heads[-1], row))
    part = rows[4:6]
    ledger = {"first": 5, "last": 6, "previous_head": heads[4].hex(), "head": heads[6].hex()}
    period = {"from": instant(part[0].start), "until": instant(part[1].end)}
    return value | {
        "sequence": 2, "previous_report_hash": "0f" * 32, "ledger": ledger, "period": period,
        "rows": value["rows"][4:6], "totals": totals_of_rows(part),
        "data_condition": value["data_condition"] | condition_of_rows(part),
    }  # fmt: skip


def failed(verdict: Verdict) -> Problems:
    return [(check.name, check.detail) for check in verdict.checks if check.passed is False]


def payload(name: str) -> Any:
    """The claims of a golden JWS."""
    part = golden(name).decode().split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def jwk_set(private: Ed25519PrivateKey) -> dict[str, Any]:
    """A reader's trusted keys: this one, for every role."""
    x = base64.urlsafe_b64encode(raw_public(private)).rstrip(b"=").decode()
    return {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": key_id(private)}]}


def _token(value: Any) -> Problems:
    text = jws(value, TOKEN_KEY, TOKEN_TYPE)
    return failed(verify_token(text, jwk_set(TOKEN_KEY), audience="golden", now=NOW))


def _receipt(value: Any) -> Problems:
    text = jws(value, RECEIPT_KEY, "lotabots-receipt+jwt")
    return failed(verify_receipt(text, jwk_set(RECEIPT_KEY), now=NOW))


def jws(value: Any, private: Ed25519PrivateKey, kind: str) -> str:
    """A compact JWS over any JSON at all, floats and lists too."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    header = {"alg": "EdDSA", "kid": key_id(private), "typ": kind}
    signed = ".".join(part(json.dumps(one, sort_keys=True).encode()) for one in (header, value))
    return f"{signed}.{part(private.sign(signed.encode()))}"


@dataclass(frozen=True)
class Document:
    """One document: `value` is its golden content, `problems` its reader, `codes` what the reader may say."""

    name: str
    value: Any
    problems: Callable[[Any], Problems]
    codes: frozenset[str]

    def conforms(self, value: Any) -> bool:
        return bool(VALIDATORS[self.name].conforms(value))


def _document(name: str, value: Any, problems: Callable[[Any], Problems], *codes: str) -> Document:
    return Document(name, value, problems, frozenset(codes))


ENVELOPE_CODES = ("envelope_malformed", "envelope_type")
READERS: Mapping[str, Callable[[bytes], object]] = {
    "envelope": parse_envelope,
    "licence": parse_licence,
    "keyring": parse_keyring,
    "anchors": parse_anchors,
    "revocations": parse_revocations,
    "activation-request": parse_request,
    "acknowledgement": read_acknowledgement,
    "rate-card": parse_rate_card,
}
_CODES: Mapping[str, tuple[str, ...]] = {
    "envelope": ENVELOPE_CODES,
    "licence": ("licence_invalid",),
    "keyring": ("keyring_invalid", "key_weak"),
    "anchors": ("keyring_invalid", "signer_unknown", "signature_invalid", "key_weak", *ENVELOPE_CODES),
    "revocations": ("revocations_invalid",),
    "activation-request": ("activation_invalid", "key_weak"),
    "acknowledgement": ("acknowledgement_invalid",),
    "rate-card": ("rate_card_invalid",),
}
_FILES = {
    "envelope": "keyring/keyring.dsse.json",
    "licence": "licence/pro.json",
    "keyring": "keyring/keyring.json",
    "anchors": "anchors/anchors.json",
    "revocations": "revocations/revocations.json",
    "activation-request": "activation-request/request.json",
    "acknowledgement": "acknowledgement/accepted.json",
    "rate-card": "rate-card/standard.json",
}
_JUDGED = ("range", "chain", "tiling", "charged", "rows", "totals", "data_condition")
_REPORT_CODES = ("body", *_JUDGED, "signer_unknown", "key_weak")
# Those whose reader takes nothing that the schema refuses.
STRICT: Mapping[str, Document] = {
    **{
        name: _document(name, json.loads(golden(file)), refused(READERS[name]), *_CODES[name])
        for name, file in _FILES.items()
    },
    "usage-report": _document("usage-report", short_report(), _report, *_REPORT_CODES),
}
# Format 2 of the report, which has one object more.
RECONCILED = _document(
    "usage-report", json.loads(golden("usage-report-body-2.json")), _report, *_REPORT_CODES
)
# Those whose reader passes over what it does not know.
STATEMENTS: Mapping[str, Document] = {
    one.name: one
    for one in (
        _document("attestation-token", payload("receipt/token.txt"), _token),
        _document("receipt", payload("receipt/salted.txt"), _receipt),
    )
}


@dataclass(frozen=True)
class Signed:
    """A golden envelope, and the reader that opens it with the keys it needs; it gives the body back."""

    envelope: Envelope
    open: Callable[[bytes], object]


def _trusted(_: datetime | None) -> dict[str, bytes]:
    return {key_id(REPORT_KEY): raw_public(REPORT_KEY)}


def _open_report(data: bytes) -> object:
    return verify(parse_envelope(data), PayloadType.USAGE_REPORT, _trusted(None))


def _open_keyring(data: bytes) -> object:
    return parse_keyring(verify(parse_envelope(data), PayloadType.KEYRING, anchors().roots))


def _open_card(data: bytes) -> object:
    return parse_rate_card(
        verify(parse_envelope(data), PayloadType.RATE_CARD, development_keyring().trusted_keys(Use.RATE_CARD))
    )


SIGNED: Mapping[str, Signed] = {
    name: Signed(parse_envelope(golden(file)), read)
    for name, file, read in (
        ("licence", "licence/pro.dsse.json", lambda data: open_licence(data, development_keyring())),
        ("keyring", "keyring/keyring.dsse.json", _open_keyring),
        ("revocations", "revocations/revocations.dsse.json", lambda data: open_revocations(data, keyring())),
        ("activation-request", "activation-request/request.dsse.json", open_request),
        ("usage-report", "usage-report/report.dsse.json", _open_report),
        ("acknowledgement", "acknowledgement/accepted.dsse.json",
         lambda data: open_acknowledgement(data, _trusted, frozenset())),
        ("rate-card", "rate-card/standard.armour.txt", _open_card),
    )
}  # fmt: skip
