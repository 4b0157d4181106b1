"""Callers with a key hear of a licence that somebody should look after; nobody else does."""

from __future__ import annotations

from typing import Any

from lotabotsd.policy.grant import StandingFacts

HEADER = "lotabots-licence"
DAY_NS = 86_400 * 10**9


def test_nothing_is_said_without_a_licence_or_with_a_good_one(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        for state in ("none", "valid"):
            rig.standing = {**rig.standing, "state": state}
            rig.publish()
            assert HEADER not in (await rig.infer()).headers

    rig.publish()
    rig.run(story)


def test_an_expiring_licence_is_told_with_answers_and_refusals_of_a_known_key(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        rig.standing = {
            **rig.standing,
            "state": "expiring",
            "code": "licence_expiring",
            "expires_at_ns": 20_000 * DAY_NS,
        }
        rig.publish()
        said = "expiring;code=licence_expiring;expires=@1728000000"
        assert (await rig.infer()).headers[HEADER] == said
        refused = await rig.ask("POST", "/v2/models/nobody_has_this/infer", b"{}")
        assert (refused.status, refused.headers[HEADER]) == (404, said)
        stranger = await rig.infer(key="lb_live_nobody")
        assert (stranger.status, HEADER in stranger.headers) == (401, False)

    rig.publish()
    rig.run(story)


def test_every_state_that_asks_for_action_is_told(rig: Any) -> None:
    for state in ("expiring", "grace", "restricted", "terminated"):
        facts = StandingFacts.from_standing({**rig.standing, "state": state, "expires_at_ns": 0}, 0)
        assert facts.warning == f"{state};code={rig.standing['code']}".encode()
