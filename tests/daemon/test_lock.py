"""One daemon per state directory."""

from __future__ import annotations

import os

import pytest

from lotabotsd.daemon.lock import only_daemon
from lotabotsd.foundation.errors import Code, Exit, LotaBotsError


def test_a_second_daemon_is_refused_and_told_who_is_first(tmp_path) -> None:
    with only_daemon(tmp_path):
        with pytest.raises(LotaBotsError) as failure, only_daemon(tmp_path):
            pass
        assert failure.value.code is Code.ALREADY_RUNNING
        assert failure.value.exit_code is Exit.BUSY
        assert str(os.getpid()) in failure.value.detail


def test_the_place_is_free_again_when_the_first_one_ends(tmp_path) -> None:
    with only_daemon(tmp_path):
        pass
    with only_daemon(tmp_path):
        pass


def test_a_file_left_by_a_dead_daemon_does_not_matter(tmp_path) -> None:
    (tmp_path / "lotabotsd.lock").write_text("999999\n")
    with only_daemon(tmp_path):
        assert (tmp_path / "lotabotsd.lock").read_text() == f"{os.getpid()}\n"


def test_a_state_directory_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(LotaBotsError) as failure, only_daemon(tmp_path / "missing"):
        pass
    assert failure.value.code is Code.FILE_UNWRITABLE
    assert "missing" in failure.value.detail
