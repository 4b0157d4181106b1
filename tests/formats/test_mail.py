"""Every document survives what mail does to a text; with a line lost, doubled or swapped it is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lotabotsd.foundation.envelope import Envelope, PayloadType, armour, one_line, parse_envelope, sign
from lotabotsd.foundation.errors import Code, LotaBotsError

from .documents import ISSUING, SIGNED
from .mail_programs import ARMOUR, JSON, ONE_LINE, SIGNATURE, Mangle

FORMS: dict[str, tuple[Callable[[Envelope], str], dict[str, Mangle]]] = {
    "armour": (armour, ARMOUR),
    "line": (one_line, ONE_LINE),
    "json": (lambda envelope: envelope.to_json().decode(), JSON),
}
MANGLED = [(form, how) for form, (_, ways) in FORMS.items() for how in ways]
REFUSALS = {Code.ENVELOPE_MALFORMED, Code.ENVELOPE_TYPE, Code.SIGNATURE_INVALID, Code.SIGNER_UNKNOWN}


def detail_of(data: bytes) -> str:
    with pytest.raises(LotaBotsError) as caught:
        parse_envelope(data)
    assert caught.value.code is Code.ENVELOPE_MALFORMED
    return caught.value.detail


def test_every_kind_of_document_is_here() -> None:
    assert set(SIGNED) == {kind.short_name for kind in PayloadType}


@pytest.mark.parametrize("name", SIGNED)
@pytest.mark.parametrize(("form", "how"), MANGLED)
def test_a_document_survives(name: str, form: str, how: str) -> None:
    write, ways = FORMS[form]
    envelope = SIGNED[name].envelope
    arrived = ways[how](write(envelope))
    assert parse_envelope(arrived) == envelope
    assert SIGNED[name].open(arrived) is not None


@pytest.mark.parametrize("size", range(6))
@pytest.mark.parametrize("how", ARMOUR)
def test_base64_with_and_without_padding_survives(how: str, size: int) -> None:
    # The number of `=` at the end of armour depends on the length; each of them is also a soft break's sign.
    envelope = sign(PayloadType.USAGE_REPORT, b"x" * size, [ISSUING])
    assert parse_envelope(ARMOUR[how](armour(envelope))) == envelope


@pytest.mark.parametrize("name", SIGNED)
def test_armour_with_a_line_lost_doubled_or_swapped_is_refused(name: str) -> None:
    whole = armour(SIGNED[name].envelope).splitlines()
    for index in range(len(whole)):
        changed = [whole[:index] + whole[index + 1 :], [*whole[:index], whole[index], *whole[index:]]]
        if index + 1 < len(whole) and whole[index] != whole[index + 1]:
            changed.append([*whole[:index], whole[index + 1], whole[index], *whole[index + 2 :]])
        for lines in changed:
            # A second END line is text behind the document; everything else is refused.
            assert refused(name, "\n".join(lines)) or lines == [*whole, whole[-1]], (index, lines[index])


@pytest.mark.parametrize("name", SIGNED)
def test_a_wrapped_line_with_a_part_lost_doubled_or_swapped_is_refused(name: str) -> None:
    text = one_line(SIGNED[name].envelope)
    whole = [text[i : i + 60] for i in range(0, len(text), 60)]
    for index in range(len(whole)):
        changed = [whole[:index] + whole[index + 1 :], [*whole[:index], whole[index], *whole[index:]]]
        if index + 1 < len(whole) and whole[index] != whole[index + 1]:
            changed.append([*whole[:index], whole[index + 1], whole[index], *whole[index + 2 :]])
        for parts in changed:
            assert refused(name, "\n".join(parts)), (index, parts[:2])


def refused(name: str, text: str) -> bool:
    try:
        SIGNED[name].open(text.encode())
    except LotaBotsError as error:
        # Who signed an activation request stands in its body, which is read first.
        return error.code in REFUSALS | ({Code.ACTIVATION_INVALID} if name == "activation-request" else set())
    return False


LICENCE = SIGNED["licence"].envelope


@pytest.mark.parametrize("dash", ["—", "–", "‑‑‑‑‑", "--", "----"])
def test_dashes_that_a_program_wrote_otherwise_are_named(dash: str) -> None:
    changed = armour(LICENCE).replace("-----", dash)
    assert "its first line is not -----BEGIN LOTABOTS" in detail_of(changed.encode())


def test_an_end_with_other_dashes_is_named() -> None:
    changed = armour(LICENCE).replace("-----END LOTABOTS LICENCE-----", "—END LOTABOTS LICENCE—")
    assert detail_of(changed.encode()) == "it ends before -----END LOTABOTS LICENCE-----"


@pytest.mark.parametrize("after", [f"\n{SIGNATURE}", "\nYours", " and more", "\n-- \n"])
def test_a_line_with_text_behind_it_is_refused_and_told_why(after: str) -> None:
    assert "other text stands behind it" in detail_of(f"{one_line(LICENCE)}{after}".encode())


def test_letters_in_another_case_are_refused() -> None:
    assert detail_of(armour(LICENCE).lower().encode())
    assert detail_of(armour(LICENCE).upper().encode()) == "it is damaged inside the armour"


def test_markup_and_escapes_hide_no_second_document() -> None:
    both = armour(LICENCE) + "<p>" + armour(SIGNED["keyring"].envelope).replace("BEGIN", "<wbr>BEGIN")
    assert detail_of(both.encode()) == "it holds more than one document"


def test_much_text_that_looks_like_mail_is_refused_in_little_time() -> None:
    megabyte = 1024 * 1024
    for part in (
        "<a ",
        "= ",
        "> ",
        "-----BEGIN LOTABOTS A ",
        "&",
        "=\n",
        "\n- ",
        "-----BEGIN LOTABOTS LICENCE-----= ",
    ):
        data = (part * (megabyte // len(part))).encode()
        assert detail_of(data)
