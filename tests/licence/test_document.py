"""Opening a licence: its signer, and that no changed byte of a golden licence passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.envelope import PayloadType, parse_envelope, sign
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.licence.document import open_licence
from lotabotsd.licence.keyring import Keyring, load_anchors

FORMS = ("pro.dsse.json", "pro.armour.txt", "pro.line.txt")
REFUSALS = {Code.ENVELOPE_MALFORMED, Code.ENVELOPE_TYPE, Code.SIGNATURE_INVALID, Code.SIGNER_UNKNOWN}


def code_of(call: Callable[[], Any]) -> Code:
    with pytest.raises(LotaBotsError) as caught:
        call()
    return caught.value.code


@pytest.mark.parametrize("form", FORMS)
def test_the_golden_licence_opens_under_the_development_anchors(golden: Path, form: str) -> None:
    opened = open_licence((golden / form).read_bytes(), load_anchors().keyring)
    assert opened.envelope.body == (golden / "pro.json").read_bytes()
    assert opened.licence.customer == "Example Works GmbH"
    assert opened.signer == opened.envelope.signatures[0].keyid


def test_each_changed_byte_of_the_golden_licence_is_refused(golden: Path) -> None:
    whole = (golden / "pro.dsse.json").read_bytes()
    keyring = load_anchors().keyring
    for index, byte in enumerate(whole):
        for value in {byte ^ 1, byte ^ 0x20, byte ^ 0x80, 0x20, 0x0A, 0x5C, 0} - {byte}:
            changed = whole[:index] + bytes([value]) + whole[index + 1 :]
            assert _refused(changed, keyring), (index, value)


@pytest.mark.parametrize("form", ["pro.armour.txt", "pro.line.txt"])
def test_a_changed_byte_of_the_other_forms_changes_only_white_space_or_is_refused(
    golden: Path, form: str
) -> None:
    whole = (golden / form).read_bytes()
    keyring = load_anchors().keyring
    for index, byte in enumerate(whole):
        changed = whole[:index] + bytes([byte ^ 1]) + whole[index + 1 :]
        assert _refused(changed, keyring) or bytes([byte]).isspace(), index


def _refused(data: bytes, keyring: Keyring) -> bool:
    try:
        open_licence(data, keyring)
    except LotaBotsError as error:
        return error.code in REFUSALS
    return False


def test_each_missing_byte_and_each_cut_is_refused(golden: Path) -> None:
    whole = (golden / "pro.dsse.json").read_bytes()
    keyring = load_anchors().keyring
    for index in range(0, len(whole), 7):
        assert _refused(whole[:index] + whole[index + 1 :], keyring)
        assert _refused(whole[:index], keyring)


def test_development_licences_are_worth_nothing_under_other_anchors(vendor: Any, golden: Path) -> None:
    data = (golden / "pro.dsse.json").read_bytes()
    assert code_of(lambda: open_licence(data, vendor.anchors().keyring)) is Code.SIGNER_UNKNOWN


def test_another_signed_document_is_no_licence(vendor: Any) -> None:
    keyring = vendor.anchors().keyring
    assert code_of(lambda: open_licence(vendor.keyring().to_json(), keyring)) is Code.ENVELOPE_TYPE
    report = sign(PayloadType.USAGE_REPORT, canonical_json(vendor.claims()), [vendor.issuing])
    assert code_of(lambda: open_licence(report.to_json(), keyring)) is Code.ENVELOPE_TYPE


def test_a_root_does_not_sign_licences(vendor: Any) -> None:
    data = vendor.licence(by=vendor.root)
    assert code_of(lambda: open_licence(data, vendor.anchors().keyring)) is Code.SIGNER_UNKNOWN


def test_a_licence_outlives_its_key_but_is_not_issued_after_it(vendor: Any) -> None:
    keyring = vendor.anchors().keyring  # the key ends on 2028-06-01
    late = {"issued_at": "2028-05-31T23:59:59Z", "expires_at": "2030-01-01T00:00:00Z", "terminates_at": None}
    assert open_licence(vendor.licence(**late), keyring).licence.sequence == 7
    for issued_at in ("2028-06-01T00:00:00Z", "2025-05-31T23:59:59Z"):
        data = vendor.licence(**{**late, "issued_at": issued_at})
        assert code_of(lambda data=data: open_licence(data, keyring)) is Code.SIGNER_NOT_VALID


def test_a_revoked_key_signs_nothing_any_more(vendor: Any) -> None:
    revoked = [parse_envelope(vendor.licence()).signatures[0].keyid]
    envelope = vendor.keyring(revoked=revoked)
    keyring = vendor.anchors(keyring=json.loads(envelope.to_json())).keyring
    with pytest.raises(LotaBotsError, match="revoked") as caught:
        open_licence(vendor.licence(), keyring)
    assert caught.value.code is Code.SIGNER_REVOKED


def test_signed_claims_that_are_wrong_are_an_invalid_licence(vendor: Any) -> None:
    data = vendor.licence(tier="gold")
    assert code_of(lambda: open_licence(data, vendor.anchors().keyring)) is Code.LICENCE_INVALID
    twice = canonical_json(vendor.claims())[:-1] + b',"tier":"enterprise"}'
    data = sign(PayloadType.LICENCE, twice, [vendor.issuing]).to_json()
    assert code_of(lambda: open_licence(data, vendor.anchors().keyring)) is Code.LICENCE_INVALID
    floats = canonical_json(vendor.claims()).replace(b'"gpus":4', b'"gpus":4.0')
    data = sign(PayloadType.LICENCE, floats, [vendor.issuing]).to_json()
    assert code_of(lambda: open_licence(data, vendor.anchors().keyring)) is Code.LICENCE_INVALID


def test_two_licences_with_other_claims_have_other_digests(vendor: Any) -> None:
    keyring = vendor.anchors().keyring
    one, same, other = (open_licence(vendor.licence(gpus=n), keyring) for n in (1, 1, 2))
    assert one.digest == same.digest != other.digest
