"""For each way in which a signed document can be wrong, one that is, given to those who read it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lotabots_vendor.card_file import read_rate_card

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.clock import NANOSECONDS, FixedClock
from lotabotsd.foundation.envelope import Envelope, PayloadType, armour, one_line, parse_envelope, sign
from lotabotsd.foundation.keys import raw_public
from lotabotsd.licence.activation import open_request
from lotabotsd.licence.document import open_licence
from lotabotsd.licence.keyring import Keyring, Use, parse_anchors, parse_keyring, rotate
from lotabotsd.licence.revocations import open_revocations, refuse_older
from lotabotsd.licence.store import LicenceStore
from lotabotsd.usage.acknowledged import record_acknowledgement
from lotabotsd.usage.acknowledgement import open_acknowledgement
from lotabotsd.usage.ledger import open_ledger
from lotabotsd.usage.report import About, freeze
from lotabotsd.usage.report_body import instant
from lotabotsd.usage.report_zip import README, unpack

from .documents import (
    GONE,
    ISSUING,
    REPORT_KEY,
    REQUESTER,
    ROOT_KEY,
    SECOND,
    SIGNED,
    STRICT,
    Problems,
    anchors,
    judged_report,
    key,
    key_id,
    keyring,
    zipped,
)
from .rule_breakers import DEVELOPMENT, public

Maker = Callable[[Path], Problems | None]
STRANGER = key(9)
LICENCE = SIGNED["licence"].envelope
APPLIANCE = "apl_test"


def whole(kind: PayloadType, /, *keys: Any, **changes: Any) -> bytes:
    """A golden body with some fields changed, signed by the issuing key or by others."""
    value = {**STRICT[kind.short_name].value, **changes}
    return sign(kind, canonical_json(value), list(keys) or [ISSUING]).to_json()


def changed_behind(data: bytes) -> bytes:
    """The same signatures over another body."""
    envelope = parse_envelope(data)
    return Envelope(envelope.payload_type, envelope.body + b" ", envelope.signatures).to_json()


def fields(**changes: Any) -> bytes:
    return json.dumps({**json.loads(LICENCE.to_json()), **changes}).encode()


def reading(read: Callable[..., object], *arguments: Any) -> Maker:
    """A maker that only reads; what it finds it raises."""

    def make(_: Path) -> None:
        read(*arguments)

    return make


ARMOUR = armour(LICENCE)
_LINES = ARMOUR.splitlines()
SIGNATURE = json.loads(LICENCE.to_json())["signatures"][0]
ENVELOPE: dict[str, bytes] = {
    "no-form": b"hello",
    "other-dashes": ARMOUR.replace("-----", "—").encode(),
    "cut": "\n".join(_LINES[:-1]).encode(),
    "two-documents": (ARMOUR + ARMOUR).encode(),
    "other-label": ARMOUR.replace("LICENCE", "KEYRING").encode(),
    "other-name": one_line(LICENCE).replace("licence", "keyring").encode(),
    "damaged-armour": "\n".join([*_LINES[:3], _LINES[3][:-1], *_LINES[4:]]).encode(),
    "damaged-line": one_line(LICENCE)[:-3].encode(),
    "no-json": LICENCE.to_json()[:-1],
    "other-fields": fields(more=1),
    "no-signature": fields(signatures=[]),
    "short-signature": fields(signatures=[{**SIGNATURE, "sig": "AAAA"}]),
    "loose-base64": fields(payload="e31="),
    "unknown-type": fields(payloadType="application/vnd.lotabots.licence.v2+json"),
}


def revoking() -> Keyring:
    """The golden keyring, with the issuing key revoked."""
    value = STRICT["keyring"].value
    return parse_keyring(canonical_json({**value, "revoked": sorted([key_id(ISSUING), key_id(GONE)])}))


def vendor_signed(
    kind: PayloadType, read: Callable[[bytes, Keyring], object], moment: str
) -> dict[str, Maker]:
    """The ways that all documents share which an issuing key signs; `moment` is when its key had ended."""
    late = {"issued_at": moment}
    if kind is PayloadType.LICENCE:
        late |= {"expires_at": "2099-01-01T00:00:00Z", "terminates_at": None}  # type: ignore[dict-item]
    good = whole(kind)
    return {
        "other-type": reading(read, SIGNED["keyring"].envelope.to_json(), keyring()),
        "unknown-signer": reading(read, whole(kind, STRANGER), keyring()),
        "revoked-signer": reading(read, good, revoking()),
        "signer-not-valid": reading(read, whole(kind, **late), keyring()),
        "changed": reading(read, changed_behind(good), keyring()),
    }


def installed(folder: Path, *documents: bytes, **claims: Any) -> None:
    """Install a licence into a new store in March 2026, after other licences."""
    store = LicenceStore(folder, anchors(), FixedClock(datetime(2026, 3, 1, tzinfo=UTC)), components=dict)
    for document in documents:
        if parse_envelope(document).payload_type is PayloadType.REVOCATIONS:
            store.trust.install_revocations(document)
        else:
            store.install(document)
    store.install(whole(PayloadType.LICENCE, kind="paid", **claims))


BOUND = {"match": "all", "components": {"machine-id": "ab" * 32}}
ENDED = {"issued_at": "2025-07-01T00:00:00Z", "starts_at": "2025-07-01T00:00:00Z",
         "expires_at": "2025-12-01T00:00:00Z", "terminates_at": None}  # fmt: skip
PAID = whole(PayloadType.LICENCE, kind="paid")
LICENCES: dict[str, Maker] = {
    **vendor_signed(PayloadType.LICENCE, open_licence, "2028-06-01T00:00:00Z"),
    "invalid": lambda folder: installed(folder, tier="gold"),
    "not-yet": lambda folder: installed(folder, starts_at="2026-04-01T00:00:00Z"),
    "expired": lambda folder: installed(folder, **ENDED),
    "other-machine": lambda folder: installed(folder, fingerprint=BOUND),
    "revoked": lambda folder: installed(folder, SIGNED["revocations"].envelope.to_json()),
    "lower-sequence": lambda folder: installed(folder, PAID, sequence=6),
    "used-sequence": lambda folder: installed(folder, PAID, customer="Another"),
}


def next_keyring(*keys: Any, **changes: Any) -> bytes:
    return whole(PayloadType.KEYRING, *(keys or (ROOT_KEY,)), **{"version": 2, **changes})


def follow(data: bytes) -> Maker:
    return reading(rotate, keyring(), parse_envelope(data))


KEYRINGS: dict[str, Maker] = {
    "other-type": follow(PAID),
    "below-threshold": follow(next_keyring(ISSUING)),
    "below-new-threshold": follow(next_keyring(roots=[public(ROOT_KEY), public(SECOND)], threshold=2)),
    "changed": follow(changed_behind(next_keyring())),
    "invalid": follow(next_keyring(version=0)),
    "not-next": follow(next_keyring(version=3)),
    "trusts-again": follow(next_keyring(revoked=[])),
    "published-root": follow(next_keyring(roots=[public(ROOT_KEY), *DEVELOPMENT])),
}


def anchored(**changes: Any) -> Maker:
    return reading(parse_anchors, canonical_json({**STRICT["anchors"].value, **changes}))


ANCHORS: dict[str, Maker] = {
    "invalid": anchored(kind="test"),
    "malformed-keyring": anchored(keyring={}),
    "other-type": anchored(keyring=json.loads(PAID)),
}


def listed(**changes: Any) -> Maker:
    """A list that comes after the golden one."""

    def make(_: Path) -> None:
        here = open_revocations(SIGNED["revocations"].envelope.to_json(), keyring())
        refuse_older(here, open_revocations(whole(PayloadType.REVOCATIONS, **changes), keyring()))

    return make


REVOCATIONS: dict[str, Maker] = {
    **vendor_signed(PayloadType.REVOCATIONS, open_revocations, "2028-06-01T00:00:00Z"),
    "invalid": listed(version=0),
    "older": listed(version=2),
    "other-of-same-version": listed(licences=[]),
    "shorter": listed(version=4, licences=[]),
}


def asked(data: bytes) -> Maker:
    return reading(open_request, data)


_ASKED = PayloadType.ACTIVATION_REQUEST
REQUESTS: dict[str, Maker] = {
    "other-type": asked(PAID),
    "unknown-signer": asked(whole(_ASKED, STRANGER)),
    "changed": asked(changed_behind(whole(_ASKED, REQUESTER))),
    "invalid": asked(whole(_ASKED, REQUESTER, gpus=-1)),
}


def _zip(contents: dict[str, bytes], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def checked(data: bytes) -> Maker:
    return lambda _: judged_report(data)


_GOOD = zipped(SIGNED["usage-report"].envelope)
_REPORTED = PayloadType.USAGE_REPORT
_SHORT = STRICT["usage-report"].value
REPORTS: dict[str, Maker] = {
    "no-zip": checked(_GOOD[:-1]),
    "other-files": checked(_zip({"more.txt": b"x", **unpack(_GOOD)})),
    "checksum": checked(_zip({**unpack(_GOOD), README: b"Another\n"})),
    "packed-again": checked(_zip(unpack(_GOOD))),
    "spelled-otherwise": checked(zipped(sign(_REPORTED, canonical_json(_SHORT), [REPORT_KEY, STRANGER]))),
    "malformed": lambda _: judged_report(zipped(Bytes(b"{}"))),
    "other-type": checked(zipped(sign(PayloadType.LICENCE, canonical_json(_SHORT), [REPORT_KEY]))),
    "changed": checked(
        zipped(Envelope(_REPORTED, canonical_json(_SHORT), SIGNED["usage-report"].envelope.signatures))
    ),
    "invalid": checked(zipped(sign(_REPORTED, b"{}", [REPORT_KEY]))),
    "other-format": checked(zipped(sign(_REPORTED, canonical_json({**_SHORT, "format": 99}), [REPORT_KEY]))),
}


@dataclass(frozen=True)
class Bytes:
    """Bytes in the place of an envelope."""

    data: bytes

    def to_json(self) -> bytes:
        return self.data


def open_ack(data: bytes, keys: Keyring) -> object:
    return open_acknowledgement(data, lambda at: keys.trusted_keys(Use.ACKNOWLEDGEMENT, at), keys.revoked)


def answered(earlier: int = 0, appliance: str = APPLIANCE, **changes: Any) -> Maker:
    """An answer to the one report of a new ledger; `earlier` answers of the same moment came before."""

    def make(folder: Path) -> None:
        clock = FixedClock(datetime(2026, 3, 1, tzinfo=UTC))
        ledger = open_ledger(folder / "ledger.db", clock)
        clock.advance(3_600)
        ledger.seal(clock.wall_ns())
        now = clock.wall_ns() // NANOSECONDS
        about = About(APPLIANCE, raw_public(REPORT_KEY), None, False, {}, {})
        frozen = freeze(ledger, now, about, now)
        report = {"hash": frozen.report_hash.hex(), "head": frozen.head.hex(), "sequence": 1}
        period = {"from": instant(frozen.period_from), "until": instant(frozen.period_until)}
        said = {"appliance_id": APPLIANCE, "report": report, "period": period, "licence": None, **changes}
        for number in range(earlier + 1):
            data = whole(PayloadType.ACKNOWLEDGEMENT, **{**said, "reasons": [f"answer {number}"]})
            record_acknowledgement(ledger, open_ack(data, keyring()), appliance, now)  # type: ignore[arg-type]

    return make


_NO_SUCH = {"report": {"hash": "00" * 32, "head": "00" * 32, "sequence": 2}}
_ANOTHER = {"report": {"hash": "00" * 32, "head": "00" * 32, "sequence": 1}}


def without_a_verdict(_: Path) -> None:
    said = {name: value for name, value in STRICT["acknowledgement"].value.items() if name != "verdict"}
    open_ack(sign(PayloadType.ACKNOWLEDGEMENT, canonical_json(said), [ISSUING]).to_json(), keyring())


ACKNOWLEDGEMENTS: dict[str, Maker] = {
    **vendor_signed(PayloadType.ACKNOWLEDGEMENT, open_ack, "2028-06-01T00:00:00Z"),
    "invalid": without_a_verdict,
    "elsewhere": answered(appliance="apl_other"),
    "unknown": answered(**_NO_SUCH),
    "mismatch": answered(**_ANOTHER),
    "older": answered(earlier=1),
}


def priced(data: bytes) -> Maker:
    return reading(SIGNED["rate-card"].open, data)


def too_large(folder: Path) -> None:
    """As `rate-card sign` reads it: 64 components with 64 models each."""
    component = STRICT["rate-card"].value["components"][1]
    components = [
        {**component, "id": f"c{n}", "models": [f"{n:02}-{m:02}-{'x' * 90}" for m in range(64)]}
        for n in range(64)
    ]
    (folder / "card.json").write_bytes(
        canonical_json({**STRICT["rate-card"].value, "components": components})
    )
    read_rate_card(folder / "card.json")


_DEVELOPMENT_CARD = SIGNED["rate-card"].envelope.to_json()
CARDS: dict[str, Maker] = {
    "other-type": priced(LICENCE.to_json()),
    "unknown-signer": priced(whole(PayloadType.RATE_CARD, STRANGER)),
    "changed": priced(changed_behind(_DEVELOPMENT_CARD)),
    "invalid": lambda _: STRICT["rate-card"].problems({**STRICT["rate-card"].value, "currency": "eur"}),
    "too-large": too_large,
}
MAKERS: dict[str, dict[str, Maker]] = {
    "envelope": {way: reading(parse_envelope, data) for way, data in ENVELOPE.items()},
    "licence": LICENCES,
    "keyring": KEYRINGS,
    "anchors": ANCHORS,
    "revocations": REVOCATIONS,
    "activation-request": REQUESTS,
    "usage-report": REPORTS,
    "acknowledgement": ACKNOWLEDGEMENTS,
    "rate-card": CARDS,
}
