"""A page damaged while the daemon runs is told with the whole path of its file and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.identity.records import THE_DAEMON


def _overwrite_pages(path: Path) -> None:
    """All pages but the first."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4_096)
        file.write(b"\xff" * (size - 4_096))


def _failure_of(attempt: Callable[[], object]) -> LotaBotsError:
    with pytest.raises(LotaBotsError) as failure:
        attempt()
    assert failure.value.code is Code.DATABASE_DAMAGED
    return failure.value


def test_of_the_identities(open_one) -> None:
    open_one().close()
    appliance = open_one()
    path = appliance.config.paths.state_db
    _overwrite_pages(path)
    failure = _failure_of(lambda: appliance.identity.audit.record(THE_DAEMON, "y", "z", None, None))
    assert str(path) in failure.detail
    assert failure.hint == "stop lotabotsd, put your own copy of that file in its place, start it again"


def test_of_the_ledger(open_one) -> None:
    open_one().close()
    appliance = open_one()
    path = appliance.config.paths.ledger_db
    _overwrite_pages(path)
    failure = _failure_of(appliance.ledger.findings)
    assert str(path) in failure.detail
    assert "ledger.head" in failure.hint
