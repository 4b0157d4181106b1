"""Tables small enough to look at whole, opened as often as a test needs workers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lotabotsd.limits.table import Table, create_table

BOOT = b"0123456789abcdef"
SLOTS = 8
WORKERS = 4


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty table of 8 slots and 4 workers."""
    path = tmp_path / "limits.table"
    create_table(path, slots=SLOTS, workers=WORKERS, boot_id=BOOT, fill=[])
    return path


@pytest.fixture
def open_table(path: Path) -> Iterator[Callable[..., Table]]:
    """Open the table as a worker; those that a test left open are closed at the end."""
    opened: list[Table] = []

    def open_one(worker: int | None = 0, **how: Any) -> Table:
        table = Table.open(path, worker, boot_id=BOOT, **how)
        opened.append(table)
        return table

    yield open_one
    for table in opened:
        if not table._memory.closed:
            table.close()


@pytest.fixture
def table(open_table: Callable[..., Table]) -> Table:
    """The table as worker 0 sees it."""
    return open_table(0)
