"""Activation requests: what leaves the box, who signs it, and what its reader refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.envelope import PayloadType, armour, one_line, sign
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.foundation.keys import raw_public, thumbprint
from lotabotsd.licence.activation import (
    ActivationRequest,
    open_request,
    parse_request,
    request_body,
    short_code,
)
from lotabotsd.licence.fingerprint import component

from .conftest import START, key

KEY = key(7)
REQUEST = ActivationRequest(
    appliance_id="apl_0123456789ABCDEF",
    public_key=raw_public(KEY),
    requested_at=START,
    release="0.1.0",
    components={
        "first-mac": component("first-mac", "52:54:00:12:34:56"),
        "machine-id": component("machine-id", "0123456789abcdef0123456789abcdef"),
    },
    gpus=2,
    licence_id="",
    sequence=0,
    note="order 4711",
)
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "activation-request"


def signed(body: bytes, by: Ed25519PrivateKey = KEY) -> bytes:
    return sign(PayloadType.ACTIVATION_REQUEST, body, [by]).to_json()


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    value = json.loads(request_body(REQUEST))
    change(value)
    return canonical_json(value)


def code_of(call: Callable[[], object]) -> Code:
    with pytest.raises(LotaBotsError) as caught:
        call()
    return caught.value.code


def test_the_golden_request_is_made_and_read_as_ever() -> None:
    body = (GOLDEN / "request.json").read_bytes()
    assert request_body(REQUEST) == body
    assert signed(body) == (GOLDEN / "request.dsse.json").read_bytes()
    opened = open_request((GOLDEN / "request.dsse.json").read_bytes())
    assert opened.request == REQUEST
    assert opened.short_code == "2QND-7RTZ-0BG3-9VWB"


def test_it_survives_mail_and_a_paste() -> None:
    envelope = sign(PayloadType.ACTIVATION_REQUEST, request_body(REQUEST), [KEY])
    quoted = "".join(f"> {line}\r\n" for line in armour(envelope).splitlines())
    for text in (armour(envelope), one_line(envelope), f"Good day,\n{quoted}-- \nExample"):
        assert open_request(text.encode()).request == REQUEST


def test_nothing_that_names_the_machine_leaves_it() -> None:
    said = request_body(REQUEST).decode()
    for identifier in ("0123456789abcdef0123456789abcdef", "52:54:00", "525400"):
        assert identifier not in said


def test_an_installed_licence_and_an_empty_note_are_told_as_such() -> None:
    request = replace(REQUEST, licence_id="lic_0123456789ABCDEF", sequence=9, note="")
    read = parse_request(request_body(request))
    assert (read.licence_id, read.sequence, read.note) == ("lic_0123456789ABCDEF", 9, "")


def test_the_short_code_is_spoken_without_doubt_and_changes_with_every_byte() -> None:
    code = short_code(b"one")
    assert len(code) == 19
    assert not set(code) & set("ILOUilou")
    assert len({short_code(bytes([n])) for n in range(256)}) == 256


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.pop("release"),
        lambda v: v.update(more=1),
        lambda v: v.update(components={}),
        lambda v: v["components"].update(hostname="a" * 64),
        lambda v: v["components"].update({"first-mac": "ABCD"}),
        lambda v: v.update(gpus=-1),
        lambda v: v.update(gpus=True),
        lambda v: v.update(note=""),
        lambda v: v.update(note="two\nlines"),
        lambda v: v.update(note="x" * 201),
        lambda v: v.update(licence_id="lic_short"),
        lambda v: v.update(appliance_id="../etc"),
        lambda v: v.update(requested_at="2026-01-01"),
        lambda v: v["key"].update(keyid="A" * 43),
    ],
)
def test_what_is_not_just_right_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    body = changed(change)
    assert code_of(lambda: parse_request(body)) is Code.ACTIVATION_INVALID
    assert code_of(lambda: open_request(signed(body))) is Code.ACTIVATION_INVALID


def test_who_makes_one_hears_what_is_wrong_with_it() -> None:
    assert code_of(lambda: request_body(replace(REQUEST, note="two\nlines"))) is Code.VALUE_INVALID
    assert code_of(lambda: request_body(replace(REQUEST, components={}))) is Code.VALUE_INVALID


def test_only_the_key_that_it_names_may_sign_it() -> None:
    body = request_body(REQUEST)
    assert code_of(lambda: open_request(signed(body, key(8)))) is Code.SIGNER_UNKNOWN
    envelope = json.loads(signed(body, key(8)))
    envelope["signatures"][0]["keyid"] = REQUEST.key_id
    assert code_of(lambda: open_request(canonical_json(envelope))) is Code.SIGNATURE_INVALID


def test_a_weak_key_proves_nothing() -> None:
    weak = bytes(32)
    body = changed(lambda v: v.update(key={"keyid": thumbprint(weak), "public": b64url(weak)}))
    assert code_of(lambda: parse_request(body)) is Code.KEY_WEAK


def test_another_document_is_named_as_what_it_is(vendor: Any) -> None:
    with pytest.raises(LotaBotsError) as caught:
        open_request(vendor.licence())
    assert (caught.value.code, "found: licence" in caught.value.detail) == (Code.ENVELOPE_TYPE, True)
