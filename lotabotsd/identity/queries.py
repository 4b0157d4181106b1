"""Reading identities: rows of state.db into records. Every look-up takes the organisation it may see."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from typing import Any

from lotabotsd.foundation.errors import Code, LotaBotsError

from .limits_values import ScopeLimits
from .records import KeyRecord, Member, Organisation, Team, TeamMember

_ORGANISATION = """
SELECT id, name, rate_per_minute, concurrency, quota_per_month, created_ns
FROM organisations WHERE removed_ns IS NULL
"""
_MEMBER = """
SELECT m.id, m.organisation_id, m.name, m.kind, b.role, m.created_ns
FROM members AS m
JOIN role_bindings AS b ON b.member_id = m.id AND b.team_id IS NULL
WHERE m.removed_ns IS NULL
"""
_TEAM = """
SELECT t.id, t.organisation_id, t.name, t.rate_per_minute, t.concurrency, t.quota_per_month, t.created_ns
FROM teams AS t WHERE t.removed_ns IS NULL
"""
_TEAM_MEMBER = """
SELECT b.team_id, m.id, m.name, m.kind, b.role, m.created_ns
FROM role_bindings AS b
JOIN members AS m ON m.id = b.member_id AND m.removed_ns IS NULL
WHERE b.organisation_id = :organisation AND b.team_id = :team
"""
# A key of a team has its member's role in that team and no other. Without such a binding it has no role, and
# no role may do nothing. The comparison is the one that the unique index of role_bindings is made for.
_KEY = """
SELECT k.id, k.organisation_id, o.name, k.member_id, ifnull(b.role, ''), k.name, k.models, k.environment,
       k.created_ns, k.expires_ns, k.team_id, t.name, k.revoked_ns,
       k.rate_per_minute, k.concurrency, k.quota_per_month,
       o.rate_per_minute, o.concurrency, o.quota_per_month,
       ifnull(t.rate_per_minute, 0), ifnull(t.concurrency, 0), ifnull(t.quota_per_month, 0),
       o.removed_ns, t.removed_ns
FROM api_keys AS k
JOIN organisations AS o ON o.id = k.organisation_id
LEFT JOIN role_bindings AS b
  ON b.member_id = k.member_id AND ifnull(b.team_id, '') = ifnull(k.team_id, '')
LEFT JOIN teams AS t ON t.id = k.team_id
WHERE 1
"""
# An unset organisation means the whole appliance (NULL); a set one hides everything of its neighbours.
_SCOPE = " AND (:organisation IS NULL OR {column} = :organisation)"


def organisations(connection: sqlite3.Connection) -> list[Organisation]:
    """All that are not removed, oldest first."""
    return [_organisation(row) for row in connection.execute(_ORGANISATION + " ORDER BY created_ns, id")]


def organisation(connection: sqlite3.Connection, organisation_id: str) -> Organisation:
    """One organisation. Raises NOT_FOUND."""
    row = connection.execute(_ORGANISATION + " AND id = ?", (_typed(organisation_id),)).fetchone()
    if row is None:
        raise LotaBotsError(Code.NOT_FOUND, "no such organisation")
    return _organisation(row)


def members(connection: sqlite3.Connection, organisation_id: str | None) -> list[Member]:
    """All that are not removed, oldest first."""
    query = _MEMBER + _SCOPE.format(column="m.organisation_id") + " ORDER BY m.created_ns, m.id"
    return [Member(*row) for row in connection.execute(query, {"organisation": organisation_id})]


def member(connection: sqlite3.Connection, member_id: str, organisation_id: str | None) -> Member:
    """One member. Raises NOT_FOUND, also for a neighbour's."""
    query = _MEMBER + _SCOPE.format(column="m.organisation_id") + " AND m.id = :member"
    row = connection.execute(query, {"organisation": organisation_id, "member": _typed(member_id)}).fetchone()
    if row is None:
        raise LotaBotsError(Code.NOT_FOUND, "no such member")
    return Member(*row)


def teams(connection: sqlite3.Connection, organisation_id: str | None) -> list[Team]:
    """All that are not removed, oldest first."""
    query = _TEAM + _SCOPE.format(column="t.organisation_id") + " ORDER BY t.created_ns, t.id"
    return [_team(row) for row in connection.execute(query, {"organisation": organisation_id})]


def team(connection: sqlite3.Connection, team_id: str, organisation_id: str | None) -> Team:
    """One team. Raises NOT_FOUND, also for a neighbour's."""
    query = _TEAM + _SCOPE.format(column="t.organisation_id") + " AND t.id = :team"
    row = connection.execute(query, {"organisation": organisation_id, "team": _typed(team_id)}).fetchone()
    if row is None:
        raise LotaBotsError(Code.NOT_FOUND, "no such team")
    return _team(row)


def team_members(connection: sqlite3.Connection, found: Team) -> list[TeamMember]:
    """The members of a team who are not removed, oldest first."""
    query = _TEAM_MEMBER + " ORDER BY m.created_ns, m.id"
    values = {"organisation": found.organisation_id, "team": found.team_id}
    return [TeamMember(*row) for row in connection.execute(query, values)]


def team_member(connection: sqlite3.Connection, found: Team, member_id: str) -> TeamMember | None:
    """A member as one of this team; None when it is not in it."""
    values = {"organisation": found.organisation_id, "team": found.team_id, "member": _typed(member_id)}
    row = connection.execute(_TEAM_MEMBER + " AND m.id = :member", values).fetchone()
    return None if row is None else TeamMember(*row)


def keys(connection: sqlite3.Connection, organisation_id: str | None) -> list[KeyRecord]:
    """All keys with their secrets' hashes, the revoked ones too, oldest first."""
    query = _KEY + _SCOPE.format(column="k.organisation_id") + " ORDER BY k.created_ns, k.id"
    found = connection.execute(query, {"organisation": organisation_id}).fetchall()
    hashes = _secrets(connection, None)
    return [_key(row, hashes[row[0]]) for row in found]


def key(connection: sqlite3.Connection, key_id: str, organisation_id: str | None) -> KeyRecord:
    """One key. Raises NOT_FOUND, also for a neighbour's."""
    query = _KEY + _SCOPE.format(column="k.organisation_id") + " AND k.id = :key"
    row = connection.execute(query, {"organisation": organisation_id, "key": _typed(key_id)}).fetchone()
    if row is None:
        raise LotaBotsError(Code.NOT_FOUND, "no such API key")
    return _key(row, _secrets(connection, key_id)[key_id])


def open_key_ids(
    connection: sqlite3.Connection,
    organisation_id: str,
    *,
    member_id: str | None = None,
    team_id: str | None = None,
) -> list[str]:
    """The organisation's unrevoked keys, only a member's or a team's where one is given; oldest first."""
    found = connection.execute(
        "SELECT id FROM api_keys WHERE organisation_id = :organisation AND revoked_ns IS NULL"
        " AND (:member IS NULL OR member_id = :member) AND (:team IS NULL OR team_id = :team)"
        " ORDER BY created_ns, id",
        {"organisation": organisation_id, "member": member_id, "team": team_id},
    )
    return [row[0] for row in found]


def name_taken(
    connection: sqlite3.Connection, table: str, folded_name: str, organisation_id: str | None
) -> bool:
    """Whether something alive has this name: an organisation, or a member or a team of one organisation."""
    query = {
        "organisations": "SELECT 1 FROM organisations WHERE name_folded = ? AND removed_ns IS NULL",
        "members": "SELECT 1 FROM members WHERE name_folded = ? AND removed_ns IS NULL"
        " AND organisation_id = ?",
        "teams": "SELECT 1 FROM teams WHERE name_folded = ? AND removed_ns IS NULL AND organisation_id = ?",
    }[table]
    values = (folded_name,) if organisation_id is None else (folded_name, organisation_id)
    return connection.execute(query, values).fetchone() is not None


def counts(connection: sqlite3.Connection) -> tuple[int, int, int, int]:
    """How many live organisations, live members, unrevoked keys and live teams the appliance has."""
    found: tuple[int, int, int, int] = connection.execute(
        "SELECT (SELECT count(*) FROM organisations WHERE removed_ns IS NULL),"
        " (SELECT count(*) FROM members WHERE removed_ns IS NULL),"
        " (SELECT count(*) FROM api_keys WHERE revoked_ns IS NULL),"
        " (SELECT count(*) FROM teams WHERE removed_ns IS NULL)"
    ).fetchone()
    return found


def _typed(identifier: str) -> str:
    """An id as somebody typed it; one that SQLite could not take (lone surrogates) is as good as none."""
    return identifier if identifier.isascii() else ""


def _organisation(row: tuple[Any, ...]) -> Organisation:
    return Organisation(row[0], row[1], ScopeLimits(*row[2:5]), row[5])


def _team(row: tuple[Any, ...]) -> Team:
    return Team(row[0], row[1], row[2], ScopeLimits(*row[3:6]), row[6])


def _key(row: tuple[Any, ...], secrets: tuple[tuple[bytes, int | None], ...]) -> KeyRecord:
    return KeyRecord(
        key_id=row[0],
        organisation_id=row[1],
        organisation_name=row[2],
        member_id=row[3],
        role=row[4],
        name=row[5],
        models=tuple(json.loads(row[6])),
        environment=row[7],
        created_at_ns=row[8],
        expires_at_ns=row[9],
        team_id=row[10],
        team_name=row[11],
        revoked=row[12] is not None,
        secrets=secrets,
        limits=ScopeLimits(*row[13:16]),
        organisation_limits=ScopeLimits(*row[16:19]),
        team_limits=ScopeLimits(*row[19:22]),
        organisation_removed=row[22] is not None,
        team_removed=row[23] is not None,
    )


def _secrets(
    connection: sqlite3.Connection, key_id: str | None
) -> defaultdict[str, tuple[tuple[bytes, int | None], ...]]:
    """Hashes by key id, the newest first."""
    found: defaultdict[str, tuple[tuple[bytes, int | None], ...]] = defaultdict(tuple)
    for owner, digest, expires_ns in connection.execute(
        "SELECT key_id, hash, expires_ns FROM api_key_secrets"
        " WHERE (:key IS NULL OR key_id = :key) ORDER BY key_id, number DESC",
        {"key": key_id},
    ):
        found[owner] += ((digest, expires_ns),)
    return found
