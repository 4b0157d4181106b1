"""The helper's process trusts no configuration that somebody else can change."""

from __future__ import annotations

from pathlib import Path

import pytest

from lotabotsd.cli.runtime import refuse_untrusted
from lotabotsd.foundation.errors import Code, Exit, LotaBotsError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir(mode=0o755)
    path = folder / "lotabots.toml"
    path.write_text("")
    path.chmod(0o644)
    return path


def refusal(path: Path) -> LotaBotsError:
    with pytest.raises(LotaBotsError) as failure:
        refuse_untrusted(path)
    return failure.value


def test_one_of_ours_is_taken_and_a_missing_one_is_somebody_elses_business(config: Path) -> None:
    refuse_untrusted(config)
    refuse_untrusted(config.with_name("missing.toml"))


def test_a_file_that_everybody_can_write_is_refused_also_behind_a_link(config: Path, tmp_path: Path) -> None:
    config.chmod(0o646)
    link = tmp_path / "link.toml"
    link.symlink_to(config)
    for path in (config, link):
        failure = refusal(path)
        assert (failure.code, failure.exit_code) == (Code.CONFIG_INVALID, Exit.CONFIGURATION)
        assert str(config) in failure.detail
        assert "chmod go-w" in failure.hint


def test_a_directory_in_which_everybody_can_put_another_file_is_refused(config: Path) -> None:
    config.parent.chmod(0o757)
    assert str(config.parent) in refusal(config).detail
