"""Real processes on one table: exactly as many as the limits say, also when one of them is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import lotabotsd
from lotabotsd.limits.table import Table, Totals

BOOT = b"0123456789abcdef"
NOW = 3_600_000_000_000
NOVEMBER = 202611
ROOT = Path(lotabotsd.__file__).parent.parent

# Reserves until refused and commits or keeps what it got, or reserves and refunds for ever.
# Prints how many were admitted.
WORKER = f"""
import sys
from pathlib import Path
from lotabotsd.limits.table import Busy, Refusal, Scope, Table

unit, then = sys.argv[3], sys.argv[5]
path, worker, limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[4])
limits = {{"rate": {{"rate_per_minute": 60, "burst": limit}}, "concurrency": {{"concurrency": limit}},
           "quota": {{"quota": limit}}}}[unit]
scopes = (Scope("licence", 0, 5), Scope("key", 1, 6, **limits), Scope("model", 2, 7))
table = Table.open(path, worker, boot_id={BOOT!r})
table.settle_worker(worker)
print("ready", flush=True)
sys.stdin.readline()
admitted = 0
while True:
    answer = table.reserve(scopes, 1, {NOW}, {NOVEMBER})
    if isinstance(answer, Busy):
        continue
    if isinstance(answer, Refusal):
        assert (answer.kind, answer.unit) == ("key", unit)
        if then == "refund":
            continue
        break
    admitted += 1
    if then == "commit":
        table.commit(answer, 1)
    elif then == "refund":
        table.refund(answer)
while table.settle_late():
    pass
print(admitted, flush=True)
table.close()
"""


class Workers:
    """Worker processes of one test, all of which are gone at its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, worker: int, unit: str, limit: int, then: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(self.path), str(worker), unit, str(limit), then],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.processes.append(process)
        return process

    def go(self, *some: subprocess.Popen[str]) -> None:
        """Wait until these (all, when none is named) are ready, then let them run at once."""
        chosen = some or tuple(self.processes)
        for process in chosen:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in chosen:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()

    @staticmethod
    def result(process: subprocess.Popen[str]) -> int:
        """How many it admitted."""
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        return int(out)


@pytest.fixture
def workers(path: Path) -> Iterator[Workers]:
    """Nobody works yet."""
    found = Workers(path)
    yield found
    for process in found.processes:
        process.kill()
        process.communicate()


def totals(table: Table, slot: int) -> Totals:
    """The accounts, as soon as the lock is free."""
    while not isinstance(found := table.totals(slot), Totals):
        pass
    return found


@pytest.mark.parametrize(
    ("unit", "limit", "then"),
    [("rate", 800, "commit"), ("concurrency", 800, "keep"), ("quota", 800, "commit")],
)
def test_four_processes_admit_exactly_the_limit(
    workers: Workers, open_table: Callable[..., Table], unit: str, limit: int, then: str
) -> None:
    for worker in range(4):
        workers.start(worker, unit, limit, then)
    workers.go()
    assert sum(workers.result(process) for process in workers.processes) == limit
    table = open_table(None)
    for slot in range(3):
        found = totals(table, slot)
        assert found.balanced
        assert found.admitted == limit
        assert found.open == (limit if then == "keep" else 0)
        assert found.used == (limit if then == "commit" else 0)


def test_a_killed_process_costs_nobody_anything(workers: Workers, open_table: Callable[..., Table]) -> None:
    limit = 4_000
    table = open_table(None)
    dying = workers.start(3, "quota", limit, "refund")
    others = [workers.start(worker, "quota", limit, "commit") for worker in range(3)]
    deadline = time.monotonic() + 30
    workers.go(dying)  # alone at first: once the others have spent the quota it is only refused
    while totals(table, 0).refunded < 100:
        assert time.monotonic() < deadline
    workers.go(*others)
    while totals(table, 0).committed < 100:
        assert time.monotonic() < deadline
    dying.kill()
    dying.wait()
    committed = sum(workers.result(process) for process in others)
    # It may have held one row at the end; its successor gives that back, and takes what is left.
    assert committed >= limit - 1
    workers.processes = [workers.start(3, "quota", limit, "commit")]
    workers.go()
    assert committed + workers.result(workers.processes[0]) == limit
    for slot in range(3):
        found = totals(table, slot)
        assert found.balanced
        assert (found.committed, found.used, found.open, found.reserved) == (limit, limit, 0, 0)
        assert found.refunded >= 100
