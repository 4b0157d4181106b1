"""The page says what the catalogue says, and every entry has what a reader needs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from corpus.catalogue import ALL, CHAPTERS
from corpus.cheat import GOT_THROUGH, Cheat
from corpus.page import render

ROOT = Path(__file__).resolve().parents[2]
HINT = "write it anew: PYTHONPATH=tests/cheats:tests/simulators:scripts/vendor python -m corpus"


def test_the_page_is_made_from_the_catalogue() -> None:
    assert (ROOT / "docs" / "cheats.md").read_text() == render(CHAPTERS), HINT


def test_no_two_cheats_have_one_name() -> None:
    assert not [name for name, number in Counter(cheat.name for cheat in ALL).items() if number > 1]


@pytest.mark.parametrize("cheat", ALL, ids=lambda cheat: cheat.name.replace(" ", "-"))
def test_an_entry_says_everything(cheat: Cheat) -> None:
    assert cheat.what.rstrip().endswith(".")
    assert cheat.gain
    assert (cheat.by is None) == (cheat.answer == GOT_THROUGH) == bool(cheat.bound)


def test_security_points_to_the_page() -> None:
    assert "docs/cheats.md" in (ROOT / "SECURITY.md").read_text()
