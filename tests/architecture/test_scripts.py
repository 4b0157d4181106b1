"""The scripts are sound shell, refuse what they do not know, and CI turns required skips into failures."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SHELL = (
    "scripts/demo",
    "scripts/test",
    "scripts/check",
    "scripts/setup-environment",
    "scripts/lock",
    "scripts/gpu-check",
    ".ci/run",
    "installer/compose/build-cpu-image",
    "installer/compose/build-images",
)
TAKES_OPTIONS = (
    "scripts/demo",
    "scripts/test",
    "scripts/check",
    "scripts/setup-environment",
    "scripts/gpu-check",
)


@pytest.mark.parametrize("script", SHELL)
def test_scripts_are_executable_and_stop_at_the_first_failure(root: Path, script: str) -> None:
    assert os.access(root / script, os.X_OK)
    assert "set -euo pipefail" in (root / script).read_text()


def test_scripts_are_clean_to_shellcheck(root: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck here; enable it: apt-get install shellcheck")
    run = subprocess.run(
        ["shellcheck", *SHELL], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("script", TAKES_OPTIONS)
def test_an_unknown_option_is_refused_before_anything_is_set_up(root: Path, script: str) -> None:
    run = subprocess.run(
        [str(root / script), "--no-such-option"], capture_output=True, text=True, timeout=20, check=False
    )
    assert run.returncode == 2
    assert "usage:" in run.stderr


SKIPPING = """
import pytest

@pytest.mark.required
def test_required():
    pytest.skip("no Triton here")

def test_optional():
    pytest.skip("no browser here")
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("in_ci", "exit_code", "says"), [("true", 1, "is required in CI"), ("", 0, "2 skipped")]
)
def test_a_required_test_that_is_skipped_fails_in_ci_only(
    root: Path, tmp_path: Path, in_ci: str, exit_code: int, says: str
) -> None:
    shutil.copy(root / "tests" / "conftest.py", tmp_path)
    shutil.copy(root / "pyproject.toml", tmp_path)
    (tmp_path / "test_skips.py").write_text(SKIPPING)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "CI": in_ci},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == exit_code, run.stdout
    assert says in run.stdout
