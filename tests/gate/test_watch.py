"""When the parent replaces a worker that lives."""

from __future__ import annotations

import pytest

from lotabotsd.gate.watch import (
    BEHIND_SECONDS,
    HOLDING_SECONDS,
    SILENT_SECONDS,
    START_SECONDS,
    Watched,
    overdue,
)


@pytest.mark.parametrize(
    ("worker", "bound"),
    [
        (Watched(started=False, silent_seconds=0), START_SECONDS),
        (Watched(started=False, silent_seconds=0, behind=True, holds_lock=True), START_SECONDS),
        (Watched(started=True, silent_seconds=0), SILENT_SECONDS),
        (Watched(started=True, silent_seconds=0, behind=True), BEHIND_SECONDS),
        (Watched(started=True, silent_seconds=0, holds_lock=True), HOLDING_SECONDS),
        (Watched(started=True, silent_seconds=0, behind=True, holds_lock=True), HOLDING_SECONDS),
    ],
)
def test_a_worker_is_replaced_once_it_was_silent_for_longer_than_its_bound(
    worker: Watched, bound: float
) -> None:
    def silent(seconds: float) -> str:
        return overdue(Watched(worker.started, seconds, worker.behind, worker.holds_lock))

    assert silent(0) == silent(bound) == ""
    assert silent(bound + 0.001)


def test_the_reason_is_told() -> None:
    assert "did not start" in overdue(Watched(False, 61))
    assert "lock" in overdue(Watched(True, 1.5, behind=True, holds_lock=True))
    assert "policy" in overdue(Watched(True, 2.5, behind=True))
