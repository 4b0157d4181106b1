"""The pepper is made once, kept, and never replaced when it is damaged."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.identity.pepper import load_or_create_pepper, load_pepper


def test_it_is_made_once_and_stays(tmp_path: Path) -> None:
    first = load_or_create_pepper(tmp_path / "pepper")
    assert len(first) == 32
    assert load_or_create_pepper(tmp_path / "pepper") == load_pepper(tmp_path / "pepper") == first


def test_only_owner_and_group_may_read_it(tmp_path: Path) -> None:
    load_or_create_pepper(tmp_path / "pepper")
    assert stat.S_IMODE((tmp_path / "pepper").stat().st_mode) == 0o640


def test_two_hosts_have_two_peppers(tmp_path: Path) -> None:
    assert load_or_create_pepper(tmp_path / "a") != load_or_create_pepper(tmp_path / "b")


def test_a_missing_one_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(LotaBotsError) as caught:
        load_pepper(tmp_path / "pepper")
    assert caught.value.code is Code.FILE_UNREADABLE


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_damaged_one_is_an_error_and_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pepper"
    path.write_bytes(content)
    with pytest.raises(LotaBotsError) as caught:
        load_or_create_pepper(path)
    assert caught.value.code is Code.FILE_UNREADABLE
    assert "put your own copy of that file in its place" in caught.value.hint
    assert path.read_bytes() == content
