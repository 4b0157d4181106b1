"""Compile keys, standing, models and limits into the rows of policy.db. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lotabotsd.foundation.chain import Field, encode_fields
from lotabotsd.identity.limits_values import ScopeLimits
from lotabotsd.identity.records import KeyRecord
from lotabotsd.identity.roles import permissions_of
from lotabotsd.limits.assign import LICENCE, assign_slots, scope_id, tag_of
from lotabotsd.limits.scope import default_burst
from lotabotsd.models.facts import ModelFacts

from .grant import InstanceFacts, StandingFacts

Row = tuple[Field, ...]
# In the order in which they are filled: a secret refers to its grant.
TABLES = ("facts", "scopes", "grants", "grant_secrets", "models")


TOKEN_HASH = "token_hash"  # noqa: S105 - the name of a fact, no password


@dataclass(frozen=True, slots=True)
class PolicySource:
    """All that a policy is made of, as plain values out of the rooms below."""

    keys: Sequence[KeyRecord]
    standing: Mapping[str, Any]  # licence.standing.Standing.to_dict()
    models: Sequence[ModelFacts]
    jwks: Mapping[str, Any]
    instance: InstanceFacts
    token_hash: str = ""  # of the attestation token in force
    model_limits: Mapping[str, ScopeLimits] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """The rows of each table, in the order of its columns."""

    tables: Mapping[str, tuple[Row, ...]]

    @property
    def content_hash(self) -> bytes:
        """SHA-256 over every row of every table but the token in force: equal for equal policies."""
        digest = hashlib.sha256()
        for table in TABLES:
            rows = tuple(row for row in self.tables[table] if row[0] != TOKEN_HASH)
            digest.update(encode_fields((table, len(rows))))
            for row in rows:
                digest.update(encode_fields(row))
        return digest.digest()


def compile_policy(source: PolicySource, assignment: Mapping[str, int], slots: int) -> CompiledPolicy:
    """The rows for `source`; scopes in `assignment` (`kind:id` → slot) keep their slots.

    Revoked keys are left out, so the gate does not know them. Expired ones stay: the gate says so.
    Raises CONFLICT when there are more scopes than slots; KeyError when the standing lacks a field.
    """
    StandingFacts.from_standing(source.standing, 0)
    keys = [key for key in source.keys if not key.revoked and key.secrets]
    limits = _limits(source, keys)
    assigned = assign_slots(assignment, limits, slots)
    scopes = [(*_split(name), assigned[name], _tag(name), *columns) for name, columns in limits.items()]
    band = int(source.standing["priority_band"])
    facts = {
        "standing": _json(source.standing),
        "jwks": _json(source.jwks),
        TOKEN_HASH: source.token_hash,
        "instance": _json(source.instance.to_dict()),
    }
    return CompiledPolicy(
        {
            "facts": tuple(sorted(facts.items())),
            "scopes": tuple(sorted(scopes)),
            "grants": tuple(sorted(_grant(key, band) for key in keys)),
            "grant_secrets": tuple(
                (key.key_id, number, digest, expires_ns)
                for key in sorted(keys, key=lambda key: key.key_id)
                for number, (digest, expires_ns) in enumerate(key.secrets)
            ),
            "models": tuple(sorted((model.name, _json(model.to_dict())) for model in source.models)),
        }
    )


def _limits(source: PolicySource, keys: Sequence[KeyRecord]) -> dict[str, tuple[int, int, int, int, int]]:
    """`kind:id` → rate, burst, concurrency, quota, quota_hard of everything that may have limits.

    Organisations, teams and keys have a scope without limits too: their month is counted from its start,
    whenever a quota is set. So organisations and teams keep it until they are removed, also while all of
    their keys are revoked: another key must not find the month's quota unspent. A model has one only when it
    is limited.
    """
    found = {LICENCE: _licence_limits(source.standing)}
    for key in source.keys:
        if not (key.revoked and key.organisation_removed):
            found[scope_id("organisation", key.organisation_id)] = _columns(key.organisation_limits)
        if key.team_id is not None and not (key.revoked and key.team_removed):
            found[scope_id("team", key.team_id)] = _columns(key.team_limits)
    for key in keys:
        found[scope_id("key", key.key_id)] = _columns(key.limits)
    live = {model.name for model in source.models}
    for name, limits in source.model_limits.items():
        if name in live and limits != ScopeLimits():
            found[scope_id("model", name)] = _columns(limits)
    return found


def _licence_limits(standing: Mapping[str, Any]) -> tuple[int, int, int, int, int]:
    rate = int(standing["requests_per_minute"])
    burst = int(standing["burst"]) or default_burst(rate)
    return (
        rate,
        burst if rate else 0,
        0,
        int(standing["inferences_per_month"]),
        int(bool(standing["quota_hard"])),
    )


def _columns(limits: ScopeLimits) -> tuple[int, int, int, int, int]:
    """What an admin sets is a hard limit; its burst is 10 s of the rate, at least 5 requests."""
    rate = limits.rate_per_minute
    return rate, default_burst(rate) if rate else 0, limits.concurrency, limits.quota_per_month, 1


def _grant(key: KeyRecord, priority_band: int) -> Row:
    return (
        key.key_id,
        key.organisation_id,
        key.organisation_name,
        key.team_id,
        key.member_id,
        key.role,
        key.environment,
        _json(sorted(permissions_of(key.role))),
        _json(key.models),
        key.expires_at_ns,
        priority_band,
    )


def _split(name: str) -> tuple[str, str]:
    kind, _, identifier = name.partition(":")
    return kind, identifier


def _tag(name: str) -> bytes:
    return tag_of(name).to_bytes(8, "big")


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
