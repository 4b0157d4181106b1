"""The billing walk: two months end as reckoned by hand, and docs/billing.md shows its output."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "billing.md"


@pytest.mark.required
def test_two_months_end_as_reckoned_and_the_page_shows_them(tmp_path: Path) -> None:
    copy = tmp_path / "billing.md"
    copy.write_text(PAGE.read_text())
    done = subprocess.run(
        [str(ROOT / "scripts" / "billing-walk"), "--page", str(copy)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr
    assert "✗" not in done.stdout
    steps = re.findall(r"^step (\d+) ", done.stdout, re.MULTILINE)
    shown = re.findall(r"^<!-- walk: (\d+) -->$", PAGE.read_text(), re.MULTILINE)
    assert steps == shown, "every step is on the page, in its order"
    assert copy.read_text() == PAGE.read_text(), "fill the page: scripts/billing-walk --page docs/billing.md"


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(ROOT / "scripts" / "billing-walk"), "--keep", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, "new folder" in done.stderr, list(tmp_path.iterdir())) == (2, True, [])
