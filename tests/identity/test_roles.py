"""The table of roles: complete, deny by default, and an auditor changes nothing."""

from __future__ import annotations

import pytest

from lotabotsd.identity.roles import PERMISSIONS, Permission, Role, allows, permissions_of

CHANGES = {p for p in Permission if p.value.endswith("_manage")}


def test_every_role_is_in_the_table() -> None:
    assert set(PERMISSIONS) == set(Role)


def test_every_permission_is_somebodys() -> None:
    assert frozenset().union(*PERMISSIONS.values()) == frozenset(Permission)


def test_an_owner_may_do_everything() -> None:
    assert permissions_of("owner") == frozenset(Permission)


def test_an_auditor_reads_everything_and_changes_nothing() -> None:
    assert {p for p in Permission if p.value.endswith("_read")} <= permissions_of("auditor")
    assert not permissions_of("auditor") & (CHANGES | {Permission.INFER, Permission.PREDICT})


def test_a_developer_has_only_its_own_keys() -> None:
    assert allows("developer", Permission.OWN_KEYS_MANAGE)
    assert not allows("developer", Permission.KEYS_MANAGE)
    assert permissions_of("developer") & CHANGES == {Permission.OWN_KEYS_MANAGE}


@pytest.mark.parametrize("role", ["operator", "billing", "auditor"])
def test_who_does_not_build_apps_does_not_infer(role: str) -> None:
    assert not allows(role, Permission.INFER)
    assert not allows(role, Permission.PREDICT)


@pytest.mark.parametrize("role", ["", "root", "OWNER", "owner ", "*"])
def test_a_role_outside_the_table_may_do_nothing(role: str) -> None:
    assert permissions_of(role) == frozenset()
    assert not any(allows(role, permission) for permission in Permission)


def test_the_table_cannot_be_changed_at_run_time() -> None:
    with pytest.raises(TypeError):
        PERMISSIONS[Role.BILLING] = frozenset(Permission)  # type: ignore[index]  # that is the point
