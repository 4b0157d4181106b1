"""What identity stores, as frozen values: organisations, teams, members, API keys, and who acts. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .limits_values import NO_LIMITS, ScopeLimits


class MemberKind(StrEnum):
    """A person, or a program that acts on its own."""

    USER = "user"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, and from where: `uid:0` from `control.sock`, `mem_…` from `192.0.2.7`."""

    who: str
    source: str


THE_DAEMON = Actor("lotabotsd", "appliance")


@dataclass(frozen=True, slots=True)
class IdentityCaps:
    """How much the standing allows on the whole appliance; 0 means that there is no such cap."""

    organisations: int = 0
    members: int = 0
    key_days: int = 0  # the longest life of an API key; MAX_KEY_DAYS applies anyway


@dataclass(frozen=True, slots=True)
class Organisation:
    """The owner of teams, members, keys and usage."""

    organisation_id: str
    name: str
    limits: ScopeLimits
    created_at_ns: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON: audit rows, the control API."""
        return {
            "organisation_id": self.organisation_id,
            "name": self.name,
            "limits": self.limits.to_dict(),
            "created_at_ns": self.created_at_ns,
        }


@dataclass(frozen=True, slots=True)
class Member:
    """A user or a service account of one organisation, with its role there."""

    member_id: str
    organisation_id: str
    name: str
    kind: str
    role: str
    created_at_ns: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON: audit rows, the control API."""
        return {
            "member_id": self.member_id,
            "organisation_id": self.organisation_id,
            "name": self.name,
            "kind": self.kind,
            "role": self.role,
            "created_at_ns": self.created_at_ns,
        }


@dataclass(frozen=True, slots=True)
class Team:
    """Members of one organisation who share limits; a member has a role of its own in each of its teams."""

    team_id: str
    organisation_id: str
    name: str
    limits: ScopeLimits
    created_at_ns: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON: audit rows, the control API."""
        return {
            "team_id": self.team_id,
            "organisation_id": self.organisation_id,
            "name": self.name,
            "limits": self.limits.to_dict(),
            "created_at_ns": self.created_at_ns,
        }


@dataclass(frozen=True, slots=True)
class TeamMember:
    """A member as one of a team, with its role there."""

    team_id: str
    member_id: str
    name: str
    kind: str
    role: str
    created_at_ns: int  # the member

    def to_dict(self) -> dict[str, Any]:
        """For JSON: audit rows, the control API."""
        return {
            "team_id": self.team_id,
            "member_id": self.member_id,
            "name": self.name,
            "kind": self.kind,
            "role": self.role,
            "created_at_ns": self.created_at_ns,
        }


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One API key with everything that policy compiles into its grant. The secret itself is nowhere."""

    key_id: str
    organisation_id: str
    organisation_name: str
    member_id: str
    role: str  # the member's in the key's team; of a key without one, in the organisation
    name: str
    models: tuple[str, ...]  # ("*",) for all
    environment: str
    created_at_ns: int
    expires_at_ns: int
    team_id: str | None = None
    team_name: str | None = None
    revoked: bool = False
    # (hash, end of its grace time or None), the present secret first
    secrets: tuple[tuple[bytes, int | None], ...] = field(default=(), repr=False)
    limits: ScopeLimits = NO_LIMITS
    organisation_limits: ScopeLimits = NO_LIMITS
    team_limits: ScopeLimits = NO_LIMITS
    organisation_removed: bool = False  # then the key is revoked
    team_removed: bool = False  # then the key is revoked

    def to_dict(self) -> dict[str, Any]:
        """For JSON: audit rows, the control API. Never the hashes."""
        return {
            "key_id": self.key_id,
            "organisation_id": self.organisation_id,
            "organisation_name": self.organisation_name,
            "team_id": self.team_id,
            "team_name": self.team_name,
            "member_id": self.member_id,
            "role": self.role,
            "name": self.name,
            "models": list(self.models),
            "environment": self.environment,
            "created_at_ns": self.created_at_ns,
            "expires_at_ns": self.expires_at_ns,
            "revoked": self.revoked,
            "grace_until_ns": max((end for _, end in self.secrets if end is not None), default=None),
            "limits": self.limits.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made or rotated: the only moment at which its text exists."""

    text: str = field(repr=False)
    record: KeyRecord
