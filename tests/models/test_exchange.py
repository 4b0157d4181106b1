"""Two directories change places in one step."""

from __future__ import annotations

from pathlib import Path

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.models.exchange import put_in_place


def make(directory: Path, content: str) -> Path:
    directory.mkdir()
    (directory / "file").write_text(content, encoding="utf-8")
    return directory


def test_two_directories_change_places(tmp_path: Path) -> None:
    new, target = make(tmp_path / "new", "new"), make(tmp_path / "target", "old")
    assert put_in_place(new, target)
    assert (target / "file").read_text(encoding="utf-8") == "new"
    assert (new / "file").read_text(encoding="utf-8") == "old"


def test_the_first_one_just_moves(tmp_path: Path) -> None:
    new = make(tmp_path / "new", "new")
    assert not put_in_place(new, tmp_path / "target")
    assert not new.exists()


def test_a_reader_who_holds_the_old_directory_keeps_it(tmp_path: Path) -> None:
    new, target = make(tmp_path / "new", "new"), make(tmp_path / "target", "old")
    with (target / "file").open(encoding="utf-8") as reader:
        put_in_place(new, target)
        assert reader.read() == "old"


def test_a_missing_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LotaBotsError) as refused:
        put_in_place(tmp_path / "nothing", make(tmp_path / "target", "old"))
    assert refused.value.code is Code.FILE_UNWRITABLE
    assert (tmp_path / "target" / "file").exists()
