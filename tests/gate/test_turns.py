"""The bounded line in front of Triton, and the table of readiness."""

from __future__ import annotations

import asyncio

import pytest

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.gate.readiness import READINESS, Component, Readiness, State
from lotabotsd.gate.turns import Turns


def test_first_come_first_served_and_the_line_is_bounded() -> None:
    async def story() -> None:
        turns = Turns(at_once=1, waiting=2, timeout_seconds=5)
        assert await turns.take() is False
        order: list[int] = []

        async def wait(number: int) -> None:
            assert await turns.take() is True
            order.append(number)
            turns.give()

        tasks = [asyncio.create_task(wait(n)) for n in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(LotaBotsError) as caught:
            await turns.take()
        assert caught.value.code is Code.OVERLOADED
        turns.give()
        await asyncio.gather(*tasks)
        assert order == [1, 2]
        assert await turns.take() is False

    asyncio.run(story())


def test_a_wait_has_an_end_and_leaves_the_line_whole() -> None:
    async def story() -> None:
        turns = Turns(at_once=1, waiting=2, timeout_seconds=0.01)
        await turns.take()
        with pytest.raises(LotaBotsError):
            await turns.take()
        turns.give()
        assert await turns.take() is False

    asyncio.run(story())


def test_a_cancelled_waiter_passes_its_turn_on() -> None:
    async def story() -> None:
        turns = Turns(at_once=1, waiting=2, timeout_seconds=5)
        await turns.take()
        leaving = asyncio.create_task(turns.take())
        staying = asyncio.create_task(turns.take())
        await asyncio.sleep(0)
        turns.give()  # the turn goes to the first in line …
        leaving.cancel()  # … who leaves in the same moment
        assert await asyncio.wait_for(staying, 1) is True
        await asyncio.gather(leaving, return_exceptions=True)

    asyncio.run(story())


def test_the_readiness_table_is_complete() -> None:
    assert set(READINESS) == {(component, state) for component in Component for state in State}
    for (_, state), code in READINESS.items():
        assert (code is None) == (state is State.OK)


def test_the_first_problem_in_order_is_named() -> None:
    states = dict.fromkeys(Component, State.OK)
    assert Readiness(states).code is None
    states[Component.RUNTIME] = State.FAILED
    assert Readiness(states).code is Code.RUNTIME_UNAVAILABLE
    states[Component.POLICY] = State.STALE
    assert Readiness(states).code is Code.POLICY_LEASE_ENDED
