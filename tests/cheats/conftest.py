"""A world for each cheat: one vendor, one customer, one machine, all in a temporary directory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

HERE = Path(__file__).resolve()
for folder in (HERE.parent, HERE.parents[1] / "simulators", HERE.parents[2] / "scripts" / "vendor"):
    sys.path.insert(0, str(folder))

from corpus.world import World, world_in  # noqa: E402 - of this folder

from lotabotsd.foundation.clock import FixedClock  # noqa: E402


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Closed at the end."""
    with world_in(tmp_path, FixedClock(datetime(2026, 3, 1, 12, tzinfo=UTC))) as made:
        yield made
