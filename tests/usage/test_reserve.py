"""Disk space put aside and given back."""

from __future__ import annotations

from pathlib import Path

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.usage.reserve import ensure_reserve, release_reserve


def test_the_space_is_really_taken(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    ensure_reserve(path, 100_000)
    assert path.stat().st_size == 100_000
    assert path.stat().st_blocks * 512 >= 100_000


@pytest.mark.parametrize("size", [50_000, 100_000, 200_000])
def test_the_reserve_follows_the_configuration(tmp_path: Path, size: int) -> None:
    path = tmp_path / "reserve"
    ensure_reserve(path, 100_000)
    ensure_reserve(path, size)
    assert path.stat().st_size == size


def test_a_reserve_of_nothing_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    ensure_reserve(path, 1_000)
    ensure_reserve(path, 0)
    assert not path.exists()


def test_the_space_is_given_back_once(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    ensure_reserve(path, 1_000)
    assert release_reserve(path)
    assert not release_reserve(path)


def test_more_than_the_disk_has_is_said_so_and_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    with pytest.raises(LotaBotsError) as caught:
        ensure_reserve(path, 1 << 60)
    assert caught.value.code in (Code.DISK_FULL, Code.FILE_UNWRITABLE)
    assert not path.exists()


def test_a_directory_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(LotaBotsError) as caught:
        ensure_reserve(tmp_path / "missing" / "reserve", 1)
    assert caught.value.code is Code.FILE_UNWRITABLE
