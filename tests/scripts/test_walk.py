"""scripts/walk: the demo empties only its own folder, and a wrong result stops the walk."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

WALK = Path(__file__).resolve().parents[2] / "scripts" / "walk"
NAMES = ("appliance", "telling", "pages")


@pytest.fixture(scope="module")
def walk() -> Iterator[dict[str, Any]]:
    """The demo's modules, loaded as scripts/demo does, from their own folder."""
    sys.path.insert(0, str(WALK))
    try:
        yield {name: __import__(name) for name in NAMES}
    finally:
        sys.path.remove(str(WALK))
        for name in NAMES:
            sys.modules.pop(name, None)


def test_a_folder_with_somebody_elses_files_is_left_alone(walk: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(walk["appliance"].FolderInUseError, match="something else"):
        walk["appliance"].claim_folder(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_folder_of_an_earlier_demo_is_emptied(walk: dict[str, Any], tmp_path: Path) -> None:
    os.close(walk["appliance"].claim_folder(tmp_path))
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.db").write_text("old")
    os.close(walk["appliance"].claim_folder(tmp_path))
    assert [item.name for item in tmp_path.iterdir()] == [walk["appliance"].MARK]


def test_a_folder_in_which_a_demo_runs_is_refused(walk: dict[str, Any], tmp_path: Path) -> None:
    lock = walk["appliance"].claim_folder(tmp_path)
    with pytest.raises(walk["appliance"].FolderInUseError, match="a demo runs"):
        walk["appliance"].claim_folder(tmp_path)
    os.close(lock)


def test_a_wrong_result_stops_the_walk(walk: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    telling = walk["telling"].Telling(1)
    telling.proved("water is wet", True)
    with pytest.raises(walk["telling"].WrongResultError):
        telling.proved("water is dry", False)
    assert capsys.readouterr().out.split() == ["✓", "water", "is", "wet", "✗", "water", "is", "dry"]


def test_the_four_pages_are_one_page_turned_clockwise(walk: dict[str, Any], tmp_path: Path) -> None:
    pages = walk["pages"]
    upright = pages.page()
    quarter = pages.turned(upright, 90)
    assert quarter.size == (upright.height, upright.width)
    # The top left corner of a page turned clockwise is at the top right.
    assert quarter.getpixel((quarter.width - 1 - 90, 90)) == upright.getpixel((90, 90))
    assert [path.read_bytes()[:4] for path in pages.write_pages(tmp_path).values()] == [b"\x89PNG"] * 4
