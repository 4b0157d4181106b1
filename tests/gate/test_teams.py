"""A team's limits hold for all of its keys together, and for no other key."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from lotabotsd.identity.api_key import format_api_key, hash_secret
from lotabotsd.identity.limits_values import ScopeLimits

PEPPER = bytes(range(32))
FIRST, SECOND, WITHOUT = ("A" * 12, "B" * 12, "C" * 12)
SECRET = "S" * 32


def text(key_id: str) -> str:
    return format_api_key("live", key_id, SECRET)


@pytest.fixture
def team(rig: Any) -> Any:
    """Three keys of one organisation: two of a team, one without; `team(limits)` publishes them."""
    (like,) = rig.keys

    def publish(limits: ScopeLimits) -> None:
        of_the_team = {"team_id": "team_a", "team_name": "scan", "team_limits": limits}
        rig.keys = [
            replace(
                like,
                key_id=key_id,
                secrets=((hash_secret(PEPPER, key_id, SECRET), None),),
                **(of_the_team if key_id != WITHOUT else {}),
            )
            for key_id in (FIRST, SECOND, WITHOUT)
        ]
        rig.publish()

    return publish


def test_two_keys_of_a_team_share_its_quota_exactly(rig: Any, team: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        asked = [rig.infer(key=text((FIRST, SECOND)[number % 2])) for number in range(30)]
        answers = await asyncio.gather(*asked)
        assert Counter(answer.status for answer in answers) == {200: 11, 429: 19}
        for key_id in (FIRST, SECOND):
            refused = (await rig.infer(key=text(key_id))).json()
            assert (refused["code"], refused["scope"], refused["limit"]) == ("quota_spent", "team", 11)
        assert (await rig.infer(key=text(WITHOUT))).status == 200
        team(ScopeLimits(quota_per_month=12))  # what was used is known
        assert (await rig.infer(key=text(SECOND))).status == 200
        assert (await rig.infer(key=text(FIRST))).status == 429

    team(ScopeLimits(quota_per_month=11))
    rig.run(story)
    assert rig.outcomes() == {"served": 13, "refused_quota": 22}


def test_two_keys_of_a_team_share_its_rate(rig: Any, team: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        statuses = [(await rig.infer(key=text((FIRST, SECOND)[n % 2]))).status for n in range(5)]
        assert statuses == [200] * 5
        for key_id in (FIRST, SECOND):
            refused = (await rig.infer(key=text(key_id))).json()
            assert (refused["code"], refused["scope"]) == ("rate_limited", "team")
        assert (await rig.infer(key=text(WITHOUT))).status == 200

    team(ScopeLimits(rate_per_minute=6))  # a burst of 5, then one in 10 s
    rig.run(story)


def test_two_keys_of_a_team_share_its_places(rig: Any, team: Any) -> None:
    release = asyncio.Event()

    async def slow(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async def story(rig: Any) -> None:
        await rig.ready()
        rig.handler = slow
        first = asyncio.create_task(rig.infer(key=text(FIRST)))
        while not rig.seen:
            await asyncio.sleep(0.005)
        refused = (await rig.infer(key=text(SECOND))).json()
        assert (refused["code"], refused["scope"]) == ("concurrency_limited", "team")
        release.set()
        assert (await first).status == 200
        assert (await rig.infer(key=text(SECOND))).status == 200

    team(ScopeLimits(concurrency=1))
    rig.run(story)


def test_the_headers_name_what_the_team_has_left(rig: Any, team: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        await rig.infer(key=text(FIRST))
        told = (await rig.infer(key=text(SECOND))).headers
        assert '"team-month";q=10' in told["ratelimit-policy"]
        assert '"team-month";r=8' in told["ratelimit"]

    team(ScopeLimits(quota_per_month=10))
    rig.run(story)
