"""What a start finds and makes: the appliance's name, limits filled from the ledger, a status."""

from __future__ import annotations

import json

import pytest

from lotabotsd.daemon.findings import findings_of
from lotabotsd.daemon.readiness import published_ready
from lotabotsd.daemon.status import status_of
from lotabotsd.daemon.wiring import appliance_id_in, open_gate
from lotabotsd.foundation.clock import month_window
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.identity.limits_values import ScopeLimits
from lotabotsd.identity.records import IdentityCaps
from lotabotsd.limits.assign import LICENCE
from lotabotsd.limits.scope import Scope
from lotabotsd.limits.table import Table


def test_the_appliance_keeps_its_name(tmp_path) -> None:
    first = appliance_id_in(tmp_path)
    assert first.startswith("apl_")
    assert appliance_id_in(tmp_path) == first


@pytest.mark.parametrize("content", ["", "apl_", "org_1234", "apl_../../x", "apl_a b", "apl_" + "a" * 80])
def test_a_damaged_name_is_refused_and_never_replaced(tmp_path, content) -> None:
    (tmp_path / "appliance_id").write_text(content)
    with pytest.raises(LotaBotsError) as failure:
        appliance_id_in(tmp_path)
    assert failure.value.code is Code.FILE_UNREADABLE
    assert (tmp_path / "appliance_id").read_text() == content


def test_everything_is_the_same_after_a_restart(open_one) -> None:
    first = open_one()
    open_gate(first, triton_runs=False)
    first.identity.create_organisation("Ours", caps=IdentityCaps())
    keyset, identity, generation = first.keyset.digest, first.appliance_id, first.publishing.generation()
    first.publishing.let_go()
    first.close()
    second = open_one()
    open_gate(second, triton_runs=False)
    assert (second.keyset.digest, second.appliance_id) == (keyset, identity)
    assert second.publishing.generation() == generation
    assert [found.name for found in second.identity.list_organisations()] == ["Ours"]


@pytest.mark.parametrize("gone", ["state.db", "policy/pepper", "keys/attestation.key"])
def test_a_lost_part_of_the_state_is_refused_and_not_made_anew(open_one, gone) -> None:
    first = open_one()
    state = first.config.paths.state
    first.close()
    kept = (state / gone).read_bytes()
    (state / gone).unlink()
    with pytest.raises(LotaBotsError) as failure:
        open_one()
    assert failure.value.code is Code.DATABASE_DAMAGED
    assert gone in failure.value.detail
    assert "put your own copy of that file in its place" in failure.value.hint
    assert not (state / gone).exists()
    (state / gone).write_bytes(kept)
    (state / gone).chmod(0o600)
    open_one()


def test_a_first_start_that_broke_off_is_completed(open_one) -> None:
    first = open_one()
    state = first.config.paths.state
    first.close()
    (state / "appliance_id").unlink()
    (state / "policy" / "pepper").unlink()
    assert open_one().appliance_id.startswith("apl_")


def test_a_new_limits_table_begins_with_what_the_ledger_counted_this_month(open_one, clock) -> None:
    appliance = open_one()
    window = month_window(clock.wall_ns())
    with appliance.ledger.transaction() as connection:
        connection.execute("INSERT INTO months VALUES (?, 'licence', '', 99000)", (window,))
    open_gate(appliance, triton_runs=False)
    place = appliance.publisher.places()[("licence", LICENCE.partition(":")[2])]
    scope = Scope("licence", place.slot, place.tag, quota=100_000)
    table = Table.open(appliance.config.paths.limits_table, None)
    assert table.remaining(scope, clock.monotonic_ns(), window).quota == 1_000
    table.close()


def test_a_new_limits_table_begins_with_what_all_keys_of_a_team_used_this_month(open_one, clock) -> None:
    appliance = open_one()
    identity, caps = appliance.identity, IdentityCaps()
    owner = identity.create_organisation("Ours", caps=caps).organisation_id
    member = identity.create_member(owner, "app", caps=caps).member_id
    team = identity.teams.create(owner, "scan", limits=ScopeLimits(quota_per_month=1_000)).team_id
    identity.teams.join(team, member)
    of_the_team = [
        identity.create_key(owner, member, name="k", team_id=team, expires_in_days=1, caps=caps).record.key_id
        for _ in range(3)
    ]
    without = identity.create_key(owner, member, name="k", expires_in_days=1, caps=caps).record.key_id
    identity.revoke_key(of_the_team[0])
    window = month_window(clock.wall_ns())
    with appliance.ledger.transaction() as connection:
        for key, used in zip((*of_the_team[:2], without), (100, 30, 5), strict=True):
            connection.execute("INSERT INTO months VALUES (?, 'key', ?, ?)", (window, key, used))
    open_gate(appliance, triton_runs=False)
    place = appliance.publisher.places()[("team", team)]
    scope = Scope("team", place.slot, place.tag, quota=1_000)
    table = Table.open(appliance.config.paths.limits_table, None)
    assert table.remaining(scope, clock.monotonic_ns(), window).quota == 1_000 - 100 - 30
    table.close()


def test_a_table_of_this_boot_is_adopted_and_not_filled_again(open_one, clock) -> None:
    first = open_one()
    open_gate(first, triton_runs=False)
    inode = first.config.paths.limits_table.stat().st_ino
    first.publishing.let_go()
    first.close()
    open_gate(open_one(), triton_runs=False)
    assert first.config.paths.limits_table.stat().st_ino == inode


def test_the_status_of_an_idle_appliance_can_be_shown_and_names_what_is_missing(appliance) -> None:
    open_gate(appliance, triton_runs=False)
    status = status_of(appliance)
    json.dumps(status)
    codes = {finding["code"]: finding for finding in status["warnings"]}
    assert codes["gate_unavailable"]["severity"] == "error"
    assert "missing" in codes["package_invalid"]["message"]
    assert all(finding["hint"] for finding in status["warnings"])
    assert findings_of({**status}) == status["warnings"]


def test_without_a_policy_nothing_was_published_as_ready(tmp_path) -> None:
    assert published_ready(tmp_path / "policy.db") == {}
    (tmp_path / "policy.db").write_bytes(b"no database")
    assert published_ready(tmp_path / "policy.db") == {}


def test_a_licence_that_cannot_be_read_is_told_in_one_sentence_with_its_fix(appliance) -> None:
    (appliance.config.paths.licence / "current.dsse.json").write_text('{"payload": "a\x01"}')
    open_gate(appliance, triton_runs=False)
    found = {finding["code"]: finding for finding in status_of(appliance)["warnings"]}["licence_unusable"]
    assert found["message"].endswith(" (the signed file cannot be read: it is damaged)")
    assert "copy the file again" in found["hint"]
