"""The envelope: DSSE's own vector, three spellings of the same bytes, and everything that must be refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from lotabotsd.foundation.envelope import (
    MAX_ENVELOPE_BYTES,
    MAX_SIGNATURES,
    Envelope,
    PayloadType,
    Signature,
    armour,
    one_line,
    pae,
    parse_envelope,
    sign,
    verify,
)
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.keys import raw_public, thumbprint

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "envelope"
LICENCE = PayloadType.LICENCE
BODY = b'{"hello":"world"}'
# RFC 8032, section 5.1: the order of the base point; S and S + L would both satisfy a careless verifier.
L = 2**252 + 27742317777372353535851937790883648493


def key(seed: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


def trusted(*keys: Ed25519PrivateKey) -> dict[str, bytes]:
    return {thumbprint(raw_public(k)): raw_public(k) for k in keys}


ONE, TWO = key(1), key(2)
SIGNED = sign(LICENCE, BODY, [ONE])


def code_of(data: bytes) -> Code:
    with pytest.raises(LotaBotsError) as caught:
        parse_envelope(data)
    return caught.value.code


def altered(**changes: Any) -> bytes:
    return json.dumps({**json.loads(SIGNED.to_json()), **changes}).encode()


def test_the_signed_bytes_are_those_of_the_specification() -> None:
    # DSSE 1.0.2, protocol.md, "Test Vectors".
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pae("http://example.com/HelloWorld", b"hello world") == expected


def test_lengths_count_bytes_not_characters() -> None:
    assert pae("t", "é".encode()) == b"DSSEv1 1 t 2 \xc3\xa9"


@pytest.mark.parametrize("kind", PayloadType)
def test_every_type_is_written_and_read_in_three_forms(kind: PayloadType) -> None:
    envelope = sign(kind, BODY, [ONE, TWO])
    for data in (envelope.to_json(), armour(envelope).encode(), one_line(envelope).encode()):
        assert parse_envelope(data) == envelope
    assert verify(envelope, kind, trusted(ONE, TWO), threshold=2) == BODY


@pytest.mark.parametrize("name", ["hello.dsse.json", "hello.armour.txt", "hello.line.txt"])
def test_the_golden_bytes_are_written_and_read(name: str) -> None:
    written = {
        "hello.dsse.json": SIGNED.to_json().decode(),
        "hello.armour.txt": armour(SIGNED),
        "hello.line.txt": one_line(SIGNED) + "\n",
    }[name]
    golden = (GOLDEN / name).read_bytes()
    assert written.encode() == golden
    assert verify(parse_envelope(golden), LICENCE, trusted(ONE)) == BODY


MAILED = armour(SIGNED)
DAMAGE_BY_MAIL = {
    "CRLF": MAILED.replace("\n", "\r\n"),
    "lone CR": MAILED.replace("\n", "\r"),
    "indented": "".join(f"   \t{line}  \n" for line in MAILED.splitlines()),
    "quoted": "".join(f"> {line}\n" for line in MAILED.splitlines()),
    "quoted thrice": "".join(f">>> {line}\r\n" for line in MAILED.splitlines()),
    "quoted with spaces": "".join(f" > > {line}\n" for line in MAILED.splitlines()),
    "blank lines": MAILED.replace("\n", "\n\n"),
    "all in one line": MAILED.replace("\n", " "),
    "non-breaking spaces": MAILED.replace("\n", "\u00a0\n"),
    "text around": f"Dear customer,\n\n{MAILED}\n-- \nYours, the vendor -----\n",
    "byte order mark": "\ufeff" + MAILED,
}


@pytest.mark.parametrize("text", DAMAGE_BY_MAIL.values(), ids=DAMAGE_BY_MAIL.keys())
def test_armour_survives_mail(text: str) -> None:
    assert parse_envelope(text.encode()) == SIGNED


@pytest.mark.parametrize("width", [1, 10, 63, 65, 76, 1000])
def test_armour_survives_wrapping(width: int) -> None:
    begin, *content, end = MAILED.splitlines()
    joined = "".join(content)
    lines = [joined[i : i + width] for i in range(0, len(joined), width)]
    assert parse_envelope("\n".join([begin, *lines, end]).encode()) == SIGNED


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_files_saved_by_windows_editors_are_read(encoding: str) -> None:
    for text in (MAILED, one_line(SIGNED)):
        assert parse_envelope(text.encode(encoding)) == SIGNED
    assert parse_envelope(SIGNED.to_json().decode().encode("utf-8-sig")) == SIGNED


def test_the_one_line_form_survives_wrapping_and_quoting() -> None:
    line = one_line(SIGNED)
    wrapped = "\r\n".join(f"> {line[i : i + 40]}" for i in range(0, len(line), 40))
    assert parse_envelope(wrapped.encode()) == SIGNED
    assert parse_envelope(f"\n  {line} \n".encode()) == SIGNED


def test_a_text_mail_in_another_charset_around_the_armour_is_no_obstacle() -> None:
    assert parse_envelope(b"Gr\xfc\xdfe\n" + MAILED.encode()) == SIGNED


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" \n",
        b"\0",
        b"licence",
        b"{",
        b"[]",
        b"{}",
        b"lotabots-licence:",
        b"lotabots-licence:A",
        b"lotabots-licence:=",
        b"lotabots-licence:" + b"A" * 40,
        b"-----BEGIN LOTABOTS LICENCE-----",
        b"-----BEGIN LOTABOTS LICENCE-----\n-----END LOTABOTS LICENCE-----",
        MAILED.encode()[:-2],
        MAILED.encode()[20:],
        MAILED.replace("END LOTABOTS LICENCE", "END LOTABOTS KEYRING").encode(),
        MAILED.replace("LICENCE", "KEYRING").encode(),
        one_line(SIGNED).replace("licence", "keyring").encode(),
        one_line(SIGNED)[:-1].encode(),
        (MAILED + MAILED).encode(),
        (one_line(SIGNED) + "\n" + one_line(SIGNED)).encode(),
        b"[" * 100_000,
        b'{"payload":' + b"[" * 100_000,
    ],
)
def test_what_is_cut_or_mixed_is_malformed(data: bytes) -> None:
    assert code_of(data) is Code.ENVELOPE_MALFORMED


def test_armour_cut_anywhere_is_refused() -> None:
    whole = MAILED.rstrip().encode()
    for length in range(len(whole)):
        assert code_of(whole[:length]) is Code.ENVELOPE_MALFORMED


def test_armour_with_a_line_missing_or_twice_is_refused() -> None:
    lines = MAILED.splitlines()
    for index in range(1, len(lines) - 1):
        for changed in (lines[:index] + lines[index + 1 :], [*lines[:index], lines[index], *lines[index:]]):
            assert refused("\n".join(changed).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"extra": 1},
        {"payload": None},
        {"payload": 1.5},
        {"payload": "e30"},  # padding left out
        {"payload": "e31="},  # loose bits
        {"payload": "e3 0="},
        {"payload": "e-_="},
        {"payload": "é30="},
        {"payloadType": 1},
        {"payloadType": None},
        {"payloadType": ["x"]},
        {"signatures": []},
        {"signatures": {}},
        {"signatures": None},
        {"signatures": [1]},
        {"signatures": [{"sig": ""}]},
        {"signatures": [{"keyid": "a" * 43, "sig": "", "cert": ""}]},
        {"signatures": [{"keyid": "a" * 42, "sig": base64.b64encode(bytes(64)).decode()}]},
        {"signatures": [{"keyid": "a" * 42 + "\n", "sig": base64.b64encode(bytes(64)).decode()}]},
        {"signatures": [{"keyid": 1, "sig": base64.b64encode(bytes(64)).decode()}]},
        {"signatures": [{"keyid": "a" * 43, "sig": base64.b64encode(bytes(63)).decode()}]},
        {"signatures": [{"keyid": "a" * 43, "sig": base64.b64encode(bytes(64)).decode()}] * 2},
        {
            "signatures": [
                {"keyid": f"{n:043}", "sig": base64.b64encode(bytes(64)).decode()}
                for n in range(MAX_SIGNATURES + 1)
            ]
        },
    ],
)
def test_a_wrong_field_is_malformed(changes: dict[str, Any]) -> None:
    assert code_of(altered(**changes)) is Code.ENVELOPE_MALFORMED


def test_a_missing_field_or_one_that_comes_twice_is_malformed() -> None:
    whole = json.loads(SIGNED.to_json())
    for name in whole:
        assert code_of(json.dumps({k: v for k, v in whole.items() if k != name}).encode()) is (
            Code.ENVELOPE_MALFORMED
        )
        twice = SIGNED.to_json()[:-1] + b',"%b":%b}' % (name.encode(), json.dumps(whole[name]).encode())
        assert code_of(twice) is Code.ENVELOPE_MALFORMED


@pytest.mark.parametrize("kind", ["application/vnd.in-toto+json", "", LICENCE.replace("v1", "v2")])
def test_a_type_of_another_world_or_release_is_named_as_such(kind: str) -> None:
    assert code_of(altered(payloadType=kind)) is Code.ENVELOPE_TYPE


def test_the_size_is_bounded() -> None:
    padded = SIGNED.to_json() + b" " * (MAX_ENVELOPE_BYTES - len(SIGNED.to_json()))
    assert parse_envelope(padded) == SIGNED
    assert code_of(padded + b" ") is Code.ENVELOPE_MALFORMED
    assert parse_envelope(padded + b" ", limit_bytes=MAX_ENVELOPE_BYTES + 1) == SIGNED


def test_a_document_does_not_pass_for_another_type() -> None:
    with pytest.raises(LotaBotsError) as caught:
        verify(SIGNED, PayloadType.KEYRING, trusted(ONE))
    assert caught.value.code is Code.ENVELOPE_TYPE
    relabelled = Envelope(PayloadType.KEYRING, SIGNED.body, SIGNED.signatures)
    with pytest.raises(LotaBotsError) as caught:
        verify(relabelled, PayloadType.KEYRING, trusted(ONE))
    assert caught.value.code is Code.SIGNATURE_INVALID


def test_an_unknown_signer_is_refused_and_named() -> None:
    with pytest.raises(LotaBotsError, match=thumbprint(raw_public(ONE))) as caught:
        verify(SIGNED, LICENCE, trusted(TWO))
    assert caught.value.code is Code.SIGNER_UNKNOWN
    with pytest.raises(LotaBotsError) as caught:
        verify(SIGNED, LICENCE, {})
    assert caught.value.code is Code.SIGNER_UNKNOWN


def test_a_signature_under_a_swapped_key_id_is_refused() -> None:
    swapped = Envelope(LICENCE, BODY, (Signature(thumbprint(raw_public(TWO)), SIGNED.signatures[0].sig),))
    with pytest.raises(LotaBotsError) as caught:
        verify(swapped, LICENCE, trusted(ONE, TWO))
    assert caught.value.code is Code.SIGNATURE_INVALID


@pytest.mark.parametrize(
    "weak",
    [
        bytes(32),
        bytes([1]) + bytes(31),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        bytes([0xEC]) + bytes([0xFF]) * 30 + bytes([0x7F]),
        bytes([0xEE]) + bytes([0xFF]) * 30 + bytes([0x7F]),
    ],
)
def test_a_key_of_small_order_is_refused_whatever_it_signed(weak: bytes) -> None:
    # R = identity, S = 0 verifies under some of these keys for every message.
    universal = Signature(thumbprint(weak), bytes([1]) + bytes(63))
    with pytest.raises(LotaBotsError) as caught:
        verify(Envelope(LICENCE, BODY, (universal,)), LICENCE, {thumbprint(weak): weak})
    assert caught.value.code is Code.KEY_WEAK


def test_a_second_spelling_of_a_signature_is_refused() -> None:
    genuine = SIGNED.signatures[0]
    s = int.from_bytes(genuine.sig[32:], "little") + L
    doubled = Signature(genuine.keyid, genuine.sig[:32] + s.to_bytes(32, "little"))
    with pytest.raises(LotaBotsError) as caught:
        verify(Envelope(LICENCE, BODY, (doubled,)), LICENCE, trusted(ONE))
    assert caught.value.code is Code.SIGNATURE_INVALID


def test_a_threshold_counts_different_keys() -> None:
    both = sign(LICENCE, BODY, [ONE, TWO])
    assert verify(both, LICENCE, trusted(ONE, TWO), threshold=2) == BODY
    assert verify(both, LICENCE, trusted(ONE)) == BODY
    with pytest.raises(LotaBotsError, match="1 of 2") as caught:
        verify(both, LICENCE, trusted(ONE), threshold=2)
    assert caught.value.code is Code.SIGNER_UNKNOWN
    # One key under two ids is one signer.
    aliased = {**trusted(ONE), "b" * 43: raw_public(ONE)}
    twice = Envelope(LICENCE, BODY, (SIGNED.signatures[0], Signature("b" * 43, SIGNED.signatures[0].sig)))
    with pytest.raises(LotaBotsError) as caught:
        verify(twice, LICENCE, aliased, threshold=2)
    assert caught.value.code is Code.SIGNER_UNKNOWN
    with pytest.raises(ValueError, match="at least 1"):
        verify(both, LICENCE, trusted(ONE), threshold=0)


def test_one_wrong_signature_of_a_trusted_key_refuses_the_whole() -> None:
    both = sign(LICENCE, BODY, [ONE, TWO])
    wrong = Signature(both.signatures[1].keyid, bytes(64))
    with pytest.raises(LotaBotsError) as caught:
        verify(Envelope(LICENCE, BODY, (both.signatures[0], wrong)), LICENCE, trusted(ONE, TWO))
    assert caught.value.code is Code.SIGNATURE_INVALID


def refused(data: bytes) -> bool:
    """Whether reading and verifying ends in a refusal of the catalogue."""
    try:
        verify(parse_envelope(data), LICENCE, trusted(ONE))
    except LotaBotsError as error:
        return error.code in {
            Code.ENVELOPE_MALFORMED,
            Code.ENVELOPE_TYPE,
            Code.SIGNATURE_INVALID,
            Code.SIGNER_UNKNOWN,
        }
    return False


def test_every_changed_bit_of_the_json_form_is_refused() -> None:
    whole = SIGNED.to_json()
    for index, byte in enumerate(whole):
        for bit in range(8):
            changed = whole[:index] + bytes([byte ^ (1 << bit)]) + whole[index + 1 :]
            assert refused(changed), (index, bit)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_any_body_comes_back_as_it_was(body: bytes) -> None:
    envelope = sign(LICENCE, body, [ONE])
    for data in (envelope.to_json(), armour(envelope).encode(), one_line(envelope).encode()):
        assert verify(parse_envelope(data), LICENCE, trusted(ONE)) == body


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_input_gives_anything_but_a_refusal_of_the_catalogue(data: bytes) -> None:
    assert code_of(data) in {Code.ENVELOPE_MALFORMED, Code.ENVELOPE_TYPE}


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(MAILED) - 1), st.characters(codec="utf-8"))
def test_armour_with_a_changed_character_is_the_same_or_refused(index: int, character: str) -> None:
    changed = (MAILED[:index] + character + MAILED[index + 1 :]).encode()
    try:
        found = parse_envelope(changed)
    except LotaBotsError:
        return
    assert found == SIGNED or refused(changed)
