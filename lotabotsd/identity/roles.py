"""What each role may do: one explicit table; what is not in it is denied. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Role(StrEnum):
    """What a member is in an organisation."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    OPERATOR = "operator"
    BILLING = "billing"
    AUDITOR = "auditor"


class Permission(StrEnum):
    """One thing that may be done. Those ending in `_read` change nothing."""

    # at the gate, with an API key
    INFER = "infer"
    PREDICT = "predict"
    ATTEST = "attest"
    MODELS_READ = "models_read"
    RECEIPTS_READ = "receipts_read"
    # in the organisation
    ORGANISATION_READ = "organisation_read"
    ORGANISATION_MANAGE = "organisation_manage"
    MEMBERS_READ = "members_read"
    MEMBERS_MANAGE = "members_manage"
    KEYS_READ = "keys_read"
    KEYS_MANAGE = "keys_manage"
    OWN_KEYS_MANAGE = "own_keys_manage"
    LIMITS_MANAGE = "limits_manage"
    # on the appliance
    MODELS_MANAGE = "models_manage"
    RUNTIME_READ = "runtime_read"
    RUNTIME_MANAGE = "runtime_manage"
    # money and evidence
    USAGE_READ = "usage_read"
    REPORTS_READ = "reports_read"
    REPORTS_MANAGE = "reports_manage"
    LICENCE_READ = "licence_read"
    AUDIT_READ = "audit_read"


_P = Permission
_USE = {_P.INFER, _P.PREDICT, _P.ATTEST, _P.MODELS_READ, _P.RECEIPTS_READ}
_READ_ALL = {permission for permission in _P if permission.value.endswith("_read")}

PERMISSIONS: Mapping[Role, frozenset[Permission]] = MappingProxyType(
    {
        Role.OWNER: frozenset(_P),
        Role.ADMIN: frozenset(_P) - {_P.ORGANISATION_MANAGE, _P.REPORTS_MANAGE},
        Role.DEVELOPER: frozenset(_USE | {_P.ORGANISATION_READ, _P.OWN_KEYS_MANAGE, _P.USAGE_READ}),
        Role.OPERATOR: frozenset({_P.ATTEST, _P.MODELS_READ, _P.MODELS_MANAGE})
        | {_P.RUNTIME_READ, _P.RUNTIME_MANAGE, _P.ORGANISATION_READ, _P.LICENCE_READ},
        Role.BILLING: frozenset({_P.ORGANISATION_READ, _P.USAGE_READ, _P.LICENCE_READ})
        | {_P.REPORTS_READ, _P.REPORTS_MANAGE},
        # Asking for an attestation token changes nothing: it is how an auditor reads the appliance.
        Role.AUDITOR: frozenset(_READ_ALL | {_P.ATTEST}),
    }
)


def permissions_of(role: str) -> frozenset[Permission]:
    """Everything the role may do; nothing at all for a role that is not in the table."""
    try:
        return PERMISSIONS[Role(role)]
    except ValueError:
        return frozenset()


def allows(role: str, permission: Permission) -> bool:
    """Whether the table has this permission for the role."""
    return permission in permissions_of(role)
