"""The bodies that the control API takes, as pydantic models: the only ones in the house."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from lotabotsd.identity.limits_values import (
    MAX_CONCURRENCY,
    MAX_QUOTA_PER_MONTH,
    MAX_RATE_PER_MINUTE,
    ScopeLimits,
)

Name = Annotated[str, Field(min_length=1, max_length=256)]


class Body(BaseModel):
    """A body with exactly these fields; numbers are numbers and texts are texts."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class LimitsBody(Body):
    """Three limits; 0 means that there is no such limit."""

    rate_per_minute: int = Field(default=0, ge=0, le=MAX_RATE_PER_MINUTE, description="Requests.")
    concurrency: int = Field(default=0, ge=0, le=MAX_CONCURRENCY, description="Requests at the same time.")
    quota_per_month: int = Field(default=0, ge=0, le=MAX_QUOTA_PER_MONTH, description="Inferences.")

    def value(self) -> ScopeLimits:
        """The same as identity knows it."""
        return ScopeLimits(self.rate_per_minute, self.concurrency, self.quota_per_month)


class OrganisationBody(Body):
    """A new organisation."""

    name: Name
    limits: LimitsBody = LimitsBody()


class TeamBody(Body):
    """A new team."""

    name: Name
    limits: LimitsBody = LimitsBody()


class MemberBody(Body):
    """A new member."""

    name: Name
    kind: str = Field(default="user", description="user or service")
    role: str = Field(default="developer", description="owner, admin, developer, operator, billing, auditor")


class RoleBody(Body):
    """A role for a member, in the organisation or in a team."""

    role: str


class KeyBody(Body):
    """A new API key."""

    name: Name
    member_id: str = Field(max_length=64)
    team_id: str | None = Field(default=None, max_length=64, description="One that the member is in.")
    environment: str = Field(default="live", description="live or test")
    models: list[Annotated[str, Field(max_length=128)]] = Field(default=["*"], min_length=1, max_length=256)
    expires_in_days: int = Field(default=90, ge=1)
    limits: LimitsBody = LimitsBody()


class RotationBody(Body):
    """A new secret for a key; the old one works for the grace time."""

    grace_seconds: int = Field(default=86_400, ge=0)


class AttestBody(Body):
    """A request for an attestation token."""

    nonce: str | None = Field(default=None, max_length=512, description="22 to 88 of A-Z a-z 0-9 - _")
    audience: str | None = Field(default=None, max_length=256, description="Whom the token is for.")


class ExportBody(Body):
    """Until when to report, exclusive."""

    until: str = Field(
        default="",
        max_length=40,
        description="now (cuts the running hour), today, a date, RFC 3339; empty: last hour",
    )
