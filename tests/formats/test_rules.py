"""Each rule that a schema leaves to words: a document that breaks it is refused, with its code and words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lotabotsd.attestation.verify import verify_token
from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.envelope import Envelope, PayloadType, Signature, sign
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.usage.acknowledgement import read_acknowledgement

from .documents import (
    NOW,
    READERS,
    REPORT_KEY,
    SCHEMAS,
    STATEMENTS,
    STRICT,
    TOKEN_KEY,
    failed,
    judged_report,
    jwk_set,
    jws,
    zipped,
)
from .mutations import put
from .rule_breakers import BREAKERS

DOCUMENTS = {**STRICT, **STATEMENTS}
RULES = {
    (name, one["id"]): one for name, schema in SCHEMAS.items() for one in schema.get("x-lotabots-rules", [])
}
# About the spelling of the bytes: no value shows it.
SPELLING = {("usage-report", "canonical"), ("acknowledgement", "canonical")}


def test_every_rule_has_a_document_that_breaks_it_and_every_such_document_a_rule() -> None:
    assert {(name, id_) for name, one in BREAKERS.items() for id_ in one} == set(RULES) - SPELLING


@pytest.mark.parametrize(("name", "id_"), sorted(set(RULES) - SPELLING))
def test_a_rule_is_kept(name: str, id_: str) -> None:
    rule, document = RULES[name, id_], DOCUMENTS[name]
    changed = BREAKERS[name][id_](document.value)
    assert document.conforms(changed), "the schema refuses it already: then it needs no words"
    told = OTHER_READERS.get((name, id_), document.problems)(changed)
    assert [(code, detail) for code, detail in told if code == rule["code"] and rule["says"] in detail], told


def challenged(claims: Any) -> list[tuple[str, str]]:
    """Judged by a reader who sent the golden nonce."""
    text = jws(claims, TOKEN_KEY, "eat+jwt")
    return failed(
        verify_token(text, jwk_set(TOKEN_KEY), audience="golden", now=NOW, nonce="golden-nonce-of-22-chr")
    )


def signed_by_a_weak_key(report: Any) -> list[tuple[str, str]]:
    """Signed as anybody can under such a key: R is the identity, S is 0."""
    signature = Signature(report["appliance"]["key_id"], bytes([1]) + bytes(63))
    return judged_report(zipped(Envelope(PayloadType.USAGE_REPORT, canonical_json(report), (signature,))))


OTHER_READERS = {
    ("attestation-token", "challenge"): challenged,
    ("usage-report", "strong-keys"): signed_by_a_weak_key,
}


def test_a_report_that_is_spelled_otherwise_is_refused() -> None:
    loose = json.dumps(STRICT["usage-report"].value, sort_keys=True).encode()
    [told] = judged_report(zipped(sign(PayloadType.USAGE_REPORT, loose, [REPORT_KEY])))
    assert told == (RULES["usage-report", "canonical"]["code"], RULES["usage-report", "canonical"]["says"])


def test_an_acknowledgement_that_is_spelled_otherwise_is_refused() -> None:
    rule = RULES["acknowledgement", "canonical"]
    with pytest.raises(LotaBotsError, match=rule["says"]) as caught:
        read_acknowledgement(json.dumps(STRICT["acknowledgement"].value).encode())
    assert caught.value.code is Code(rule["code"])


FINDING = {
    "at": "2026-11-23T05:00:00Z",
    "count": 1,
    "detail": "",
    "inferences": 0,
    "kind": "damage",
    "worker": True,
}
FINDINGS = {"by_kind": {"damage": 1}, "first": [FINDING], "total": 1}


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        (("totals", "uncharged", "requests"), False, "totals"),
        (("totals", "charged", "requests"), True, "totals"),
        (("data_condition", "late_rows"), True, "data_condition"),
        (("data_condition", "findings"), FINDINGS, "body"),
        (("rows", 0, 7), True, "body"),
    ],
)
def test_true_and_false_are_no_numbers_in_a_report(
    path: tuple[str | int, ...], value: object, code: str
) -> None:
    # To Python they equal 1 and 0; to a reader in another language they do not.
    report = STRICT["usage-report"]
    assert {told for told, _ in report.problems(put(report.value, path, value))} == {code}


@pytest.mark.parametrize("name", STRICT)
@pytest.mark.parametrize(
    "what", ["a key twice", "NaN", "a float", "too deep", "no JSON", "no UTF-8", "nothing"]
)
def test_what_no_schema_sees_is_refused_by_every_reader(name: str, what: str) -> None:
    document = STRICT[name]
    whole = canonical_json(document.value).decode()
    first = next(iter(document.value))
    body = {
        "a key twice": f'{whole[:-1]},"{first}":{json.dumps(document.value[first])}}}'.encode(),
        "NaN": whole.replace(":", ':NaN,"x":', 1).encode(),
        "a float": f'{{"x":1.0,{whole[1:]}'.encode(),
        "too deep": f'{{"x":{"[" * 40}{"]" * 40},{whole[1:]}'.encode(),
        "no JSON": whole[:-1].encode(),
        "no UTF-8": whole.encode()[:-1] + b',"x":"\xff"}',
        "nothing": b"",
    }[what]
    assert {code for code, _ in told_of(name, body)} <= document.codes
    assert told_of(name, body)


def told_of(name: str, body: bytes) -> list[tuple[str, str]]:
    """What the reader says of bytes."""
    if name == "usage-report":
        return judged_report(zipped(sign(PayloadType.USAGE_REPORT, body, [REPORT_KEY])))
    try:
        READERS[name](body)
    except LotaBotsError as error:
        return [(error.code.value, error.detail)]
    return []
