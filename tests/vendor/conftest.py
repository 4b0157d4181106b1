"""The vendor's command line, run in this process with a clock that stands still."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "vendor"))

from lotabots_vendor.cli import run

from lotabotsd.foundation.clock import FixedClock


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 3, 1, 12, tzinfo=UTC))


@pytest.fixture
def vendor(capfd: pytest.CaptureFixture[str], clock: FixedClock) -> Callable[..., Answer]:
    """Run `lotabots-vendor` with these arguments."""

    def called(*arguments: object) -> Answer:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments], clock)
        printed = capfd.readouterr()
        assert "Traceback" not in printed.err
        return Answer(code, printed.out, printed.err)

    return called


@pytest.fixture
def passphrase_file(tmp_path: Path) -> Path:
    file = tmp_path / "passphrase"
    file.write_text("correct horse battery staple\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def directory(vendor: Callable[..., Answer], tmp_path: Path, passphrase_file: Path) -> Path:
    """A vendor's directory with fresh keys."""
    made = tmp_path / "vendor"
    answer = vendor("root", "init", "--dir", made, "--passphrase-file", passphrase_file)
    assert answer.code == 0, answer.err
    return made
