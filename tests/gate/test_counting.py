"""What a worker counts, as the daemon finds it in the limits table."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from lotabotsd.identity.limits_values import ScopeLimits
from lotabotsd.limits.counters import Counter, summed
from lotabotsd.limits.table import Table


def found(rig: Any) -> dict[Counter, int]:
    table = Table.open(rig.config.paths.limits_table, None)
    try:
        return summed(table.counters())
    finally:
        table.close()


def test_a_day_of_a_worker_is_in_its_counters_and_its_successor_goes_on(rig: Any) -> None:
    async def slow(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    async def story(rig: Any) -> None:
        await rig.ready()
        rig.handler = slow
        await asyncio.gather(rig.infer(), rig.infer())
        assert (await rig.infer(key=None)).status == 401
        assert (await rig.send(b"nonsense\r\n\r\n")).status == 400
        rig.limit(key=ScopeLimits(quota_per_month=1))
        assert (await rig.infer()).status == 429

    rig.config = replace(rig.config, gate=replace(rig.config.gate, max_in_flight=1, workers=1))
    rig.publish()
    rig.run(story)
    counted = found(rig)
    health = counted[Counter.REQUESTS] - 4  # how often it was asked whether it is ready
    assert counted[Counter.COUNTING] == 1
    assert counted[Counter.CONNECTIONS] == counted[Counter.REQUESTS] + 1  # the nonsense was no request
    assert counted[Counter.ANSWERS_2XX] + counted[Counter.ANSWERS_5XX] == 2 + health
    assert (counted[Counter.ANSWERS_4XX], counted[Counter.UNAUTHENTICATED]) == (3, 1)
    assert (counted[Counter.UPSTREAM_REQUESTS], counted[Counter.UPSTREAM_FAILED]) == (2, 0)
    assert counted[Counter.UPSTREAM_US] >= 2 * 48_000  # the loop's timers are true to a millisecond
    assert (counted[Counter.LINE_ENTERED], counted[Counter.LINE_LEFT]) == (1, 1)
    assert counted[Counter.LINE_WAIT_US] > 0
    assert counted[Counter.RECEIVED_BYTES] > 0
    assert counted[Counter.SENT_BYTES] > 0
    assert counted[Counter.JOURNAL_SYNCS] > 0

    async def again(rig: Any) -> None:
        await rig.ready()

    rig.run(again)
    assert found(rig)[Counter.COUNTING] == 1
    assert found(rig)[Counter.REQUESTS] > counted[Counter.REQUESTS]
