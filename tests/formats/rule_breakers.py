"""For each rule that a schema leaves to words, a document that breaks it and is well-formed otherwise."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.envelope import PayloadType, sign
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.foundation.keys import raw_public, thumbprint

from .documents import (
    GONE,
    ISSUING,
    RECONCILED,
    ROOT_KEY,
    SECOND,
    STRICT,
    development_keyring,
    key_id,
)
from .mutations import at, put

Change = Callable[[Any], Any]
HIDDEN = "a\u200bb"  # a zero-width space: neither shown nor printable
NO_DAY = "2026-02-30T00:00:00Z"
OTHER_ID = key_id(GONE)
WEAK = bytes([1]) + bytes(31)


def to(*path: str | int, value: Any) -> Change:
    return lambda document: put(document, path, value)


def both(*changes: Change) -> Change:
    def change(document: Any) -> Any:
        for one in changes:
            document = one(document)
        return document

    return change


def public(private: Any) -> dict[str, str]:
    return {"keyid": key_id(private), "public": b64url(raw_public(private))}


def weak_key() -> dict[str, str]:
    return {"keyid": thumbprint(WEAK), "public": b64url(WEAK)}


def doubled(*path: str | int) -> Change:
    """The first entry of a list again, at its end."""
    return lambda document: put(document, path, [*at(document, path), at(document, path)[0]])


def backwards(*path: str | int) -> Change:
    return lambda document: put(document, path, at(document, path)[::-1])


def _keyring(*signers: Any, **changes: Any) -> Any:
    statement = {**STRICT["keyring"].value, **changes}
    return json.loads(sign(PayloadType.KEYRING, canonical_json(statement), list(signers)).to_json())


MONTHLY = ("limits", "inferences_per_month")
BIG = {"x": "y" * (256 * 1024)}
DEVELOPMENT = [{"keyid": id_, "public": b64url(raw)} for id_, raw in development_keyring().roots.items()]
FINGERPRINT = {"match": "operator", "components": {"first-mac": "64be"}}
LARGE_PAYLOAD = base64.b64encode(b"x" * 271_000).decode()
VERY_LARGE_PAYLOAD = base64.b64encode(b"x" * 800_000).decode()
_LICENCE: dict[str, Change] = {
    "calendar": to("issued_at", value=NO_DAY),
    "day": to("max_release_date", value="2026-04-31"),
    "printable": to("customer", value=HIDDEN),
    "features-sorted": backwards("features"),
    "issued-before-end": to("issued_at", value="2027-01-01T00:00:01Z"),
    "starts-before-end": to("starts_at", value="2027-01-01T00:00:00Z"),
    "terminates-after-grace": to("terminates_at", value="2027-01-14T23:59:59Z"),
    "billed-has-no-hard-limit": to(*MONTHLY, "hard", value=1),
    "ratio-of-capped": to("overage", "ratio_percent", value=100),
    "none-has-no-soft-limit": to("overage", "mode", value="none"),
    "capped": to("overage", value={"mode": "capped", "ratio_percent": 100}),
    "operator-alone": to("fingerprint", value=FINGERPRINT),
    "rate-card-size": to("rate_card", value=BIG),
}
_KEYRING: dict[str, Change] = {
    "calendar": to("issued_at", value=NO_DAY),
    "thumbprint": to("keys", 0, "keyid", value=OTHER_ID),
    "roots-once": doubled("roots"),
    "keys-once": doubled("keys"),
    "threshold": to("threshold", value=2),
    "key-life": to("keys", 0, "not_after", value="2025-06-01T00:00:00Z"),
    "uses-sorted": backwards("keys", 0, "uses"),
    "revoked-sorted": to("revoked", value=sorted([key_id(ISSUING), OTHER_ID], reverse=True)),
    "strong-keys": to("roots", 0, value=weak_key()),
}
_ANCHORS: dict[str, Change] = {
    "calendar": to("built_at", value=NO_DAY),
    "thumbprint": to("roots", 0, "keyid", value=OTHER_ID),
    "roots-once": doubled("roots"),
    "threshold": to("threshold", value=2),
    "no-published-root": to("roots", value=DEVELOPMENT),
    "keyring-once": doubled("keyring", "signatures"),
    "keyring-size": to("keyring", "payload", value=VERY_LARGE_PAYLOAD),
    "keyring-signed": to("keyring", value=_keyring(ISSUING)),
    "keyring-signature": to("keyring", "payload", value="e30="),
    "same-roots": to("keyring", value=_keyring(ROOT_KEY, roots=[public(ROOT_KEY), public(SECOND)])),
    "strong-keys": both(
        to("roots", value=[weak_key()]),
        to("keyring", "signatures", 0, "keyid", value=thumbprint(WEAK)),
    ),
}
_REVOCATIONS: dict[str, Change] = {
    "calendar": to("licences", 0, "revoked_at", value=NO_DAY),
    "printable": to("licences", 0, "reason", value=HIDDEN),
    "licences-sorted": backwards("licences"),
}
_ACTIVATION: dict[str, Change] = {
    "calendar": to("requested_at", value=NO_DAY),
    "thumbprint": to("key", "keyid", value=OTHER_ID),
    "strong-keys": to("key", value=weak_key()),
    "printable": to("note", value=HIDDEN),
}
_ACKNOWLEDGEMENT: dict[str, Change] = {
    "calendar": to("issued_at", value=NO_DAY),
    "printable": to("reasons", 0, value=HIDDEN),
    "period": to("period", "until", value="2026-03-01T00:00:00Z"),
    "reasons": to("reasons", value=[]),
    "document-size": to("licence", "payload", value=LARGE_PAYLOAD),
    "document-signers": doubled("licence", "signatures"),
}
TWO_TIERS = ("components", 0, "price", "tiers")
_CARD: dict[str, Change] = {
    "printable": to("components", 0, "description", value=HIDDEN),
    "models-sorted": to("components", 1, "models", value=["b", "a"]),
    "validity": to("valid_until", value="2025-12-01T00:00:00Z"),
    "something-to-charge": both(to("components", value=[]), to("minimum", value="0.00")),
    "minimum-places": to("minimum", value="50.001"),
    "ids-once": to("components", 1, "id", value="inferences"),
    "priced-once": to("components", 1, "models", value=[]),
    "overage-of-inferences": to("components", 1, "basis", value="overage"),
    "last-tier-open": to(*TWO_TIERS, 0, "up_to", value=None),
    "tiers-rise": to(
        *TWO_TIERS, value=[{"up_to": n, "amount": "1"} for n in (5, 5)] + [{"up_to": None, "amount": "1"}]
    ),
}
COMPARED, PAGES = ("data_condition", "reconciliation"), ("models", "page_orientation")
_REPORT: dict[str, Change] = {
    "printable": to("licence", "customer", value=HIDDEN),
    "calendar": to("frozen_at", value=NO_DAY),
    "thumbprint": to("appliance", "key_id", value=OTHER_ID),
    "findings-add-up": to("data_condition", "findings", "total", value=2),
    "reconciliation-ends": lambda _: put(RECONCILED.value, (*COMPARED, "since"), None),
    "reconciliation-adds-up": lambda _: put(RECONCILED.value, (*COMPARED, *PAGES, "unsure", "requests"), 3),
    "signed-by-its-key": to(
        "appliance", value={"id": "apl_test", "key_id": OTHER_ID, "public_key": b64url(raw_public(GONE))}
    ),
    "strong-keys": to(
        "appliance", value={"id": "apl_test", "key_id": thumbprint(WEAK), "public_key": b64url(WEAK)}
    ),
    "first-report": to("previous_report_hash", value=None),
    "row-numbers": to("ledger", "last", value=7),
    "chain": to("ledger", "head", value="00" * 32),
    "tiling": to("period", "until", value="2026-11-23T08:00:00Z"),
    "charged-by-outcome": to("rows", 0, 6, value="refused_quota"),
    "only-usage-has-names": to("rows", 1, 5, value="page_orientation"),
    "late-for-earlier": to("rows", 0, 8, value=1_795_413_600),
    "totals": to("totals", "charged", "requests", value=9),
    "condition-of-rows": to("data_condition", "windows", value=2),
}
_TOKEN: dict[str, Change] = {
    "issuer": to("iss", value="urn:dev:ueid:other"),
    "subject": to("sub", value="urn:dev:ueid:other"),
    "audience": to("aud", value="somebody-else"),
    "keyset": to("cnf", "jkt", value=OTHER_ID),
    "begun": to("iat", value=1_795_651_321),
    "not-expired": to("exp", value=1_795_651_200),
    "lifetime": to("exp", value=1_795_651_801),
    "challenge": to("eat_nonce", value="another-nonce-of-22-ch"),
}
_RECEIPT: dict[str, Change] = {"begun": to("iat", value=1_795_651_321)}
BREAKERS: dict[str, dict[str, Change]] = {
    "licence": _LICENCE,
    "keyring": _KEYRING,
    "anchors": _ANCHORS,
    "revocations": _REVOCATIONS,
    "activation-request": _ACTIVATION,
    "usage-report": _REPORT,
    "acknowledgement": _ACKNOWLEDGEMENT,
    "rate-card": _CARD,
    "attestation-token": _TOKEN,
    "receipt": _RECEIPT,
    "envelope": {"signs-once": doubled("signatures"), "size": to("payload", value=VERY_LARGE_PAYLOAD)},
}
