"""What the schemas leave to words, as predicates: the ids are those of `x-lotabots-rules` in each schema."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.clock import parse_rfc3339
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.foundation.identifiers import unb64url
from lotabotsd.foundation.keys import public_key, thumbprint
from lotabotsd.licence.keyring import DEVELOPMENT_ROOT

Rule = Callable[[Any], bool]  # whether a document that its schema accepts breaks it


def texts(value: Any) -> Iterator[str]:
    """Every text inside, names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inside in value.items():
            yield name
            yield from texts(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from texts(inside)


def no_day(text: str) -> bool:
    try:
        date.fromisoformat(text[:10])
    except ValueError:
        return True
    return False


def no_days(*moments: str | None) -> bool:
    return any(no_day(moment) for moment in moments if moment is not None)


def twice(names: Iterable[str]) -> bool:
    listed = list(names)
    return len(set(listed)) != len(listed)


def unsorted(names: list[str]) -> bool:
    return sorted(set(names)) != names


def strange_id(one: dict[str, str]) -> bool:
    return thumbprint(unb64url(one["public"])) != one["keyid"]


def weak(text: str) -> bool:
    try:
        public_key(unb64url(text))
    except LotaBotsError:
        return True
    return False


def signers_twice(envelope: Any) -> bool:
    return envelope is not None and twice(one["keyid"] for one in envelope["signatures"])


def _end_of_grace(licence: Any) -> Any:
    return parse_rfc3339(licence["expires_at"]) + timedelta(days=licence["grace_days"])


def _capped(licence: Any) -> bool:
    limit, overage = licence["limits"]["inferences_per_month"], licence["overage"]
    cap = limit["soft"] * overage["ratio_percent"] // 100
    return not limit["soft"] or overage["ratio_percent"] < 100 or limit["hard"] != cap


LICENCE: dict[str, Rule] = {
    "calendar": lambda v: no_days(*(v[n] for n in ("issued_at", "starts_at", "expires_at", "terminates_at"))),
    "day": lambda v: no_days(v["max_release_date"]),
    "printable": lambda v: not v["customer"].isprintable(),
    "features-sorted": lambda v: unsorted(v["features"]),
    "issued-before-end": lambda v: v["issued_at"] > v["expires_at"],
    "starts-before-end": lambda v: v["starts_at"] >= v["expires_at"],
    "terminates-after-grace": lambda v: (
        v["terminates_at"] is not None and parse_rfc3339(v["terminates_at"]) < _end_of_grace(v)
    ),
    "billed-has-no-hard-limit": lambda v: (
        v["overage"]["mode"] == "billed" and v["limits"]["inferences_per_month"]["hard"] != 0
    ),
    "ratio-of-capped": lambda v: v["overage"]["mode"] != "capped" and v["overage"]["ratio_percent"] != 0,
    "none-has-no-soft-limit": lambda v: (
        v["overage"]["mode"] == "none" and v["limits"]["inferences_per_month"]["soft"] != 0
    ),
    "capped": lambda v: v["overage"]["mode"] == "capped" and _capped(v),
    "operator-alone": lambda v: (
        v["fingerprint"] is not None
        and v["fingerprint"]["match"] == "operator"
        and set(v["fingerprint"]["components"]) != {"operator"}
    ),
    "rate-card-size": lambda v: len(canonical_json(v["rate_card"])) > 256 * 1024,
}
KEYRING: dict[str, Rule] = {
    "calendar": lambda v: no_days(
        v["issued_at"], *(k[n] for k in v["keys"] for n in ("not_before", "not_after"))
    ),
    "thumbprint": lambda v: any(strange_id(one) for one in (*v["roots"], *v["keys"])),
    "roots-once": lambda v: twice(one["keyid"] for one in v["roots"]),
    "keys-once": lambda v: twice(one["keyid"] for one in v["keys"]),
    "threshold": lambda v: v["threshold"] > len(v["roots"]),
    "key-life": lambda v: any(one["not_before"] >= one["not_after"] for one in v["keys"]),
    "uses-sorted": lambda v: any(unsorted(one["uses"]) for one in v["keys"]),
    "revoked-sorted": lambda v: unsorted(v["revoked"]),
    "strong-keys": lambda v: any(weak(one["public"]) for one in (*v["roots"], *v["keys"])),
}
REVOCATIONS: dict[str, Rule] = {
    "calendar": lambda v: no_days(v["issued_at"], *(one["revoked_at"] for one in v["licences"])),
    "printable": lambda v: not all(one["reason"].isprintable() for one in v["licences"]),
    "licences-sorted": lambda v: unsorted([one["licence_id"] for one in v["licences"]]),
}
ACTIVATION: dict[str, Rule] = {
    "calendar": lambda v: no_days(v["requested_at"]),
    "thumbprint": lambda v: strange_id(v["key"]),
    "strong-keys": lambda v: weak(v["key"]["public"]),
    "printable": lambda v: v["note"] is not None and not v["note"].isprintable(),
}
ACKNOWLEDGEMENT: dict[str, Rule] = {
    "calendar": lambda v: no_days(v["issued_at"], *v["period"].values()),
    "printable": lambda v: not all(reason.isprintable() for reason in v["reasons"]),
    "period": lambda v: v["period"]["from"] >= v["period"]["until"],
    "reasons": lambda v: (v["verdict"] == "accepted") != (not v["reasons"]),
    "document-size": lambda v: any(len(canonical_json(v[n])) > 352 * 1024 for n in ("licence", "rate_card")),
    "document-signers": lambda v: signers_twice(v["licence"]) or signers_twice(v["rate_card"]),
}


def _places_priced(card: Any) -> list[str]:
    return [
        f"{one['basis']} {one['meter']} {model}"
        for one in card["components"]
        for model in one["models"] or ("",)
    ]


def _tiers(card: Any) -> list[list[int | None]]:
    return [
        [tier["up_to"] for tier in one["price"]["tiers"]]
        for one in card["components"]
        if one["price"]["kind"] == "graduated"
    ]


def _places(amount: str) -> int:
    return len(amount.partition(".")[2])


RATE_CARD: dict[str, Rule] = {
    "printable": lambda v: not all(one["description"].isprintable() for one in v["components"]),
    "models-sorted": lambda v: any(unsorted(one["models"]) for one in v["components"]),
    "validity": lambda v: v["valid_until"] is not None and v["valid_until"] <= v["valid_from"],
    "something-to-charge": lambda v: not v["components"] and not v["minimum"].strip("0."),
    "minimum-places": lambda v: _places(v["minimum"]) > v["rounding"]["decimal_places"],
    "ids-once": lambda v: twice(one["id"] for one in v["components"]),
    "priced-once": lambda v: twice(_places_priced(v)),
    "overage-of-inferences": lambda v: any(
        one["basis"] == "overage"
        and (one["meter"] != "inferences" or bool(one["models"]) or one["free"] != 0)
        for one in v["components"]
    ),
    "last-tier-open": lambda v: any(
        (up_to is None) is not (number == len(tiers))
        for tiers in _tiers(v)
        for number, up_to in enumerate(tiers, start=1)
    ),
    "tiers-rise": lambda v: any(
        last is not None and following is not None and following <= last
        for tiers in _tiers(v)
        for last, following in pairwise(tiers)
    ),
}
ENVELOPE: dict[str, Rule] = {
    "signs-once": signers_twice,
    "size": lambda v: len(canonical_json(v)) > 1024 * 1024,
}


def _findings_wrong(report: Any) -> bool:
    findings = report["data_condition"]["findings"]
    total = sum(findings["by_kind"].values())
    return findings["total"] != total or len(findings["first"]) != min(total, 100)


def _one_end(report: Any) -> bool:
    compared = report["data_condition"].get("reconciliation", {"since": None, "until": None})
    return (compared["since"] is None) != (compared["until"] is None)


def _moments(report: Any) -> Iterator[str]:
    condition = report["data_condition"]
    compared = condition.get("reconciliation", {"since": None, "until": None})
    yield from (moment for moment in (compared["since"], compared["until"]) if moment is not None)
    yield from (report["frozen_at"], *report["period"].values())
    yield from (found["at"] for found in condition["findings"]["first"])
    yield from (moment for gap in condition["gaps"] for moment in gap.values())


# Those about the form alone; the others are findings with codes of their own.
REPORT: dict[str, Rule] = {
    "printable": lambda v: not all(text.isprintable() for text in texts(v)),
    "calendar": lambda v: no_days(*_moments(v)),
    "thumbprint": lambda v: strange_id(
        {"keyid": v["appliance"]["key_id"], "public": v["appliance"]["public_key"]}
    ),
    "findings-add-up": _findings_wrong,
    "reconciliation-ends": _one_end,
}


def _other_roots(anchors: Any) -> bool:
    try:
        statement = json.loads(base64.b64decode(anchors["keyring"]["payload"]))
        named = (statement["roots"], statement["threshold"])
    except (ValueError, TypeError, KeyError):
        return True  # no keyring statement at all
    return named != (anchors["roots"], anchors["threshold"])


ANCHORS: dict[str, Rule] = {
    "calendar": lambda v: no_days(v["built_at"]),
    "thumbprint": lambda v: any(strange_id(one) for one in v["roots"]),
    "roots-once": lambda v: twice(one["keyid"] for one in v["roots"]),
    "threshold": lambda v: v["threshold"] > len(v["roots"]),
    "no-published-root": lambda v: (
        v["kind"] == "production" and any(one["keyid"] == DEVELOPMENT_ROOT for one in v["roots"])
    ),
    "keyring-once": lambda v: signers_twice(v["keyring"]),
    "keyring-size": lambda v: len(canonical_json(v["keyring"])) > 1024 * 1024,
    "same-roots": _other_roots,
}
RULES: dict[str, dict[str, Rule]] = {
    "envelope": ENVELOPE,
    "licence": LICENCE,
    "keyring": KEYRING,
    "anchors": ANCHORS,
    "revocations": REVOCATIONS,
    "activation-request": ACTIVATION,
    "usage-report": REPORT,
    "acknowledgement": ACKNOWLEDGEMENT,
    "rate-card": RATE_CARD,
}
