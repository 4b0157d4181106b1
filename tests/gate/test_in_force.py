"""Between the moment a key is identified and its admission the world may change: then it is judged again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from lotabotsd.foundation.clock import NANOSECONDS, SystemClock
from lotabotsd.foundation.codes import Code
from lotabotsd.gate.admission import Admission, Refused, Reserved
from lotabotsd.identity.api_key import format_api_key, hash_secret
from lotabotsd.identity.limits_values import ScopeLimits
from lotabotsd.limits.table import Table, create_table, current_boot_id
from lotabotsd.policy.grant import Grant
from lotabotsd.policy.reader import PolicyReader

PEPPER = bytes(range(32))
KEY_ID, SECRET = "K" * 12, "S" * 32
HEADER = b"Bearer " + format_api_key("live", KEY_ID, SECRET).encode()
OTHER_HASH = hash_secret(PEPPER, KEY_ID, "T" * 32)
HOUR_NS = 3_600 * NANOSECONDS


@pytest.fixture
def parts(rig: Any) -> Iterator[tuple[Any, Admission, Table]]:
    """A worker's admission over the rig's policy; nobody else refreshes it."""
    rig.publish()
    reader = PolicyReader(rig.config.paths.policy_db)
    reader.open()
    table = Table.open(rig.config.paths.limits_table, 0)
    yield rig, Admission(reader, table, PEPPER), table
    table.close()
    reader.close()


def identified(admission: Admission) -> Grant:
    grant = admission.identify(HEADER, SystemClock().wall_ns())
    assert isinstance(grant, Grant)
    return grant


def reserve(admission: Admission, grant: Grant, *, rows: int = 1, later_ns: int = 0) -> Reserved | Refused:
    clock = SystemClock()
    return admission.reserve(grant, "m", rows, clock.monotonic_ns(), clock.wall_ns() + later_ns)


def terminate(rig: Any) -> None:
    rig.standing = {**rig.standing, "state": "terminated"}
    rig.publish()


CHANGES: dict[str, tuple[Callable[[Any], Any], Code | None]] = {
    "nothing": (lambda rig: None, None),
    "another generation, the same grant": (
        lambda rig: (setattr(rig, "models", rig.models[:1]), rig.publish()),
        None,
    ),
    "the key is revoked": (lambda rig: rig.key(revoked=True), Code.KEY_INVALID),
    "the key is gone": (lambda rig: (rig.keys.clear(), rig.publish()), Code.KEY_INVALID),
    "another secret": (lambda rig: rig.key(secrets=((OTHER_HASH, None),)), Code.KEY_INVALID),
    "a secret more": (
        lambda rig: rig.key(secrets=((OTHER_HASH, None), (rig.keys[0].secrets[0][0], 1 << 62))),
        None,
    ),
    "a role without inference": (lambda rig: rig.key(role="billing"), Code.PERMISSION_DENIED),
    "a role with more than that": (lambda rig: rig.key(role="owner"), None),
    "other models": (lambda rig: rig.key(models=("pages",)), Code.MODEL_NOT_IN_SCOPE),
    "these models": (lambda rig: rig.key(models=("pages", "m")), None),
    "expired": (lambda rig: rig.key(expires_at_ns=SystemClock().wall_ns() - 1), Code.KEY_EXPIRED),
    "the licence is terminated": (terminate, Code.LICENCE_TERMINATED),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_after_the_key_was_identified_counts(
    parts: tuple[Any, Admission, Table], change: str
) -> None:
    rig, admission, table = parts
    grant = identified(admission)
    act, code = CHANGES[change]
    act(rig)
    answer = reserve(admission, grant)
    if code is None:
        assert isinstance(answer, Reserved)
        table.refund(answer.ticket)
        assert admission.still_valid(grant, "m", SystemClock().wall_ns()) is None
        return
    assert isinstance(answer, Refused)
    assert answer.code is code
    waited = admission.still_valid(grant, "m", SystemClock().wall_ns())
    assert waited is not None
    assert waited.code is code


def test_when_one_of_two_secrets_ended_it_cannot_be_told_which_was_used_so_it_is_asked_again(
    parts: tuple[Any, Admission, Table],
) -> None:
    rig, admission, _ = parts
    (mine, _) = rig.keys[0].secrets[0]
    rig.key(secrets=((OTHER_HASH, None), (mine, 1 << 62)))
    admission._policy.refresh()
    grant = identified(admission)
    rig.key(secrets=((OTHER_HASH, None),))
    answer = reserve(admission, grant)
    assert isinstance(answer, Refused)
    assert (answer.code, answer.retry_after_seconds) == (Code.LIMITS_UNAVAILABLE, 1)
    assert isinstance(admission.identify(HEADER, SystemClock().wall_ns()), Refused)


def test_other_limits_hold_from_the_moment_they_are_announced(parts: tuple[Any, Admission, Table]) -> None:
    rig, admission, _ = parts
    grant = identified(admission)
    assert isinstance(reserve(admission, grant), Reserved)
    rig.limit(key=ScopeLimits(quota_per_month=1))
    answer = reserve(admission, grant)
    assert isinstance(answer, Refused)
    assert answer.code is Code.QUOTA_SPENT


def test_the_lease_and_the_keys_end_count_at_the_admission(parts: tuple[Any, Admission, Table]) -> None:
    _, admission, _ = parts
    grant = identified(admission)
    lease = reserve(admission, grant, later_ns=HOUR_NS // 2)
    assert isinstance(lease, Refused)
    assert lease.code is Code.POLICY_LEASE_ENDED
    expired = reserve(admission, grant, later_ns=2 * HOUR_NS)
    assert isinstance(expired, Refused)
    assert expired.code is Code.KEY_EXPIRED


def test_what_infers_nothing_needs_no_licence(parts: tuple[Any, Admission, Table]) -> None:
    rig, admission, _ = parts
    grant = identified(admission)
    terminate(rig)
    assert isinstance(reserve(admission, grant, rows=0), Reserved)


def test_a_table_that_was_replaced_admits_nobody(parts: tuple[Any, Admission, Table]) -> None:
    rig, admission, _ = parts
    grant = identified(admission)
    create_table(rig.config.paths.limits_table, slots=256, workers=4, boot_id=current_boot_id(), fill=[])
    answer = reserve(admission, grant)
    assert isinstance(answer, Refused)
    assert answer.code is Code.LIMITS_UNAVAILABLE
    assert replace(answer, detail="").retry_after_seconds == 1
