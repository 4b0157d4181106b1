"""kill -9 of worker and daemon at any moment: what was answered after `write()` is counted, once.

This is what mode "process" promises. It says nothing about power cuts: the kernel keeps what was written.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lotabotsd.usage.drain import Drainer
from lotabotsd.usage.journal import MIN_SEGMENT_BYTES, Journal
from lotabotsd.usage.ledger import open_ledger

BOOT = bytes(range(16))
LIVES = 5


def live(box: Any, epoch: int, answers: int) -> None:
    """Worker and daemon in one process, until it is killed: writes a byte for every answer."""
    ledger = open_ledger(box.path / "ledger.db", box.clock)
    drainer = Drainer(box.journal, ledger, box.clock, batch_records=7)
    journal = Journal(box.journal, 0, BOOT, epoch, MIN_SEGMENT_BYTES, files=box.files)
    number = 0
    while True:
        name = f"m{epoch}-{number}"
        box.close(journal, box.open(journal, model=name))
        os.write(answers, b"1")  # the answer leaves
        number += 1
        if number % 12 == 0:
            drainer.drain_once()
        if number % 40 == 0:
            box.clock.advance(2_000)
            ledger.seal(box.clock.wall_ns(), cut=True)


def kill_after(count: int, life: Callable[[int], None]) -> int:
    """Start a life, kill it after so many answers; returns how many had left by then."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read_end)
            life(write_end)
        finally:
            os._exit(1)  # only on an error: a life does not end by itself
    os.close(write_end)
    answered = 0
    with os.fdopen(read_end, "rb", buffering=0) as pipe:
        while answered < count and (some := pipe.read(1)):
            answered += len(some)
        os.kill(child, signal.SIGKILL)
        answered += len(pipe.read())
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    return answered


def test_what_was_answered_before_a_kill_is_counted_once(make_box: Callable[..., Any]) -> None:
    box = make_box(on_disk=True)
    path: Path = box.path / "ledger.db"
    box.ledger.close()
    chance = random.Random(9)  # noqa: S311 - the same every time
    answered = [
        kill_after(chance.randint(1, 90), lambda answers, epoch=epoch: live(box, epoch, answers))
        for epoch in range(1, LIVES + 1)
    ]
    assert sum(answered) > 100
    box.ledger = open_ledger(path, box.clock)
    assert box.drain().problems == []
    box.seal(cut=True)
    counted = {row.model: row for row in box.ledger.usage(by=("model", "outcome")) if row.outcome == "served"}
    for epoch, count in enumerate(answered, 1):
        assert all(counted[f"m{epoch}-{number}"].meters.requests == 1 for number in range(count))
    # At most the one request of each life whose answer had not left yet.
    assert sum(row.meters.requests for row in counted.values()) <= sum(answered) + LIVES
    assert box.ledger.verify().integrity.ok
    assert set(box.kinds()) <= {"torn_tail", "clock_back"}
    box.ledger.close()
