"""Rate cards at the vendor: checked, signed, shown, embedded in a licence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.foundation.errors import Exit
from lotabotsd.licence.claims import parse_licence
from lotabotsd.usage.rate_card import parse_rate_card

Vendor = Callable[..., Any]
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "rate-card"
PLAIN = GOLDEN / "standard.json"


@pytest.fixture
def signed(vendor: Vendor, directory: Path, passphrase_file: Path, tmp_path: Path) -> Path:
    file = tmp_path / "standard.card"
    answer = vendor(
        "rate-card", "sign", "--dir", directory, "--passphrase-file", passphrase_file, "--output", file, PLAIN
    )
    assert answer.code == Exit.OK, answer.err
    return file


def test_a_signed_card_is_shown_with_its_prices(vendor: Vendor, directory: Path, signed: Path) -> None:
    assert signed.read_text().startswith("-----BEGIN LOTABOTS RATE CARD-----")
    answer = vendor("rate-card", "show", "--dir", directory, signed)
    assert answer.code == Exit.OK
    assert "2.00 up to 100000, 1.50 for inferences per 1000, beyond 10000 free" in answer.out
    found = vendor("--json", "rate-card", "show", "--dir", directory, signed).json
    assert found["card"] == json.loads(PLAIN.read_bytes())
    assert found["digest"] == parse_rate_card(PLAIN.read_bytes()).digest


def test_the_bytes_of_a_signed_card_are_frozen(vendor: Vendor) -> None:
    answer = vendor("rate-card", "sign", "--development", PLAIN)
    assert answer.out == (GOLDEN / "standard.armour.txt").read_text()


def test_a_card_of_another_authority_is_refused(vendor: Vendor, signed: Path) -> None:
    answer = vendor("rate-card", "show", "--development", signed)
    assert answer.code == Exit.SIGNATURE


def test_another_document_is_no_card(vendor: Vendor, tmp_path: Path) -> None:
    licence = tmp_path / "a.licence"
    vendor("licence", "issue", "--development", "--tier", "pro", "--customer", "C", "--output", licence)
    for command in ("show", "sign"):
        answer = vendor("rate-card", command, "--development", licence)
        assert answer.code == Exit.SIGNATURE
        assert "another kind of signed file" in answer.err


def test_a_wrong_card_is_not_signed_and_every_problem_is_told(vendor: Vendor, tmp_path: Path) -> None:
    file = tmp_path / "card.json"
    file.write_text(json.dumps({**json.loads(PLAIN.read_bytes()), "currency": "EURO", "minimum": 5.0}))
    answer = vendor("rate-card", "sign", "--development", "--output", tmp_path / "out", file)
    assert answer.code == Exit.SIGNATURE
    assert "currency" in answer.err
    assert "minimum" in answer.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["plain", "signed"])
def test_a_licence_carries_the_card(
    vendor: Vendor, directory: Path, passphrase_file: Path, signed: Path, form: str
) -> None:
    answer = vendor(
        "--json", "licence", "issue", "--dir", directory, "--passphrase-file", passphrase_file,
        "--tier", "pro", "--customer", "C", "--rate-card", PLAIN if form == "plain" else signed,
    )  # fmt: skip
    assert answer.code == Exit.OK, answer.err
    claims = answer.json["licence"]
    assert claims["rate_card"] == json.loads(PLAIN.read_bytes())
    assert parse_licence(json.dumps(claims).encode()).rate_card == PLAIN.read_bytes()


def test_overage_needs_a_number_of_included_inferences(vendor: Vendor, tmp_path: Path) -> None:
    card = json.loads(PLAIN.read_bytes())
    card["components"][0] |= {"basis": "overage", "free": 0}
    file = tmp_path / "card.json"
    file.write_text(json.dumps(card))
    issue = ["licence", "issue", "--development", "--tier", "pro", "--customer", "C", "--rate-card", file]
    answer = vendor(*issue)
    assert answer.code == Exit.CHECK_FAILED
    assert "--inferences-per-month" in answer.err
    assert vendor(*issue, "--inferences-per-month", 100).code == Exit.OK


def test_a_card_that_goes_nowhere_else_is_in_the_json(vendor: Vendor, tmp_path: Path) -> None:
    sign = ("rate-card", "sign", "--development", PLAIN)
    value = vendor("--json", *sign).json
    assert (value["text"], value["file"]) == (vendor(*sign).out, None)
    assert vendor("--json", *sign, "--output", tmp_path / "card").json["text"] is None
