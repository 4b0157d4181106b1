"""Teams in state.db: members who share limits, each with a role of its own in the team.

A key of a team has the role that its member has in that team, and no other. When a member leaves a team, or
the team is removed, the keys in question are revoked. As in the store, None for `organisation_id` means the
whole appliance, and a neighbour's team is NOT_FOUND.
"""

from __future__ import annotations

from lotabotsd.foundation.clock import Clock
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.identifiers import new_id

from . import key_changes, queries
from .audit import Audit
from .limits_values import NO_LIMITS, ScopeLimits
from .records import THE_DAEMON, Actor, Team, TeamMember
from .roles import Role
from .values import MAX_TEAMS, checked_name, folded, one_of


class Teams:
    """The teams of one state.db; a part of `IdentityStore`, whose failures are its own too."""

    def __init__(self, audit: Audit, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock

    def create(
        self,
        organisation_id: str,
        name: str,
        *,
        limits: ScopeLimits | None = None,
        who: Actor = THE_DAEMON,
    ) -> Team:
        """A new team without members. Raises NOT_FOUND, ALREADY_EXISTS; CONFLICT when there are too many."""
        with self._audit.change(who, "team.create", name, organisation_id) as change:
            queries.organisation(change.connection, organisation_id)
            name, limits = checked_name(name), (limits or NO_LIMITS).checked()
            made = Team(new_id("team"), organisation_id, name, limits, self._clock.wall_ns())
            if queries.name_taken(change.connection, "teams", folded(name), organisation_id):
                raise LotaBotsError(Code.ALREADY_EXISTS, f"a team is called {name!r}")
            if queries.counts(change.connection)[3] >= MAX_TEAMS:
                raise LotaBotsError(
                    Code.CONFLICT, f"there are {MAX_TEAMS} teams", hint="remove the unused ones"
                )
            change.connection.execute(
                "INSERT INTO teams VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)",
                (made.team_id, organisation_id, name, folded(name), *limits.columns(), made.created_at_ns),
            )
            change.target, change.after = made.team_id, made.to_dict()
        return made

    def all_of(self, organisation_id: str | None = None) -> list[Team]:
        """All that are not removed, oldest first."""
        with self._audit.reading() as connection:
            return queries.teams(connection, organisation_id)

    def get(self, team_id: str, *, organisation_id: str | None = None) -> Team:
        """One of them. Raises NOT_FOUND."""
        with self._audit.reading() as connection:
            return queries.team(connection, team_id, organisation_id)

    def set_limits(
        self,
        team_id: str,
        limits: ScopeLimits,
        *,
        organisation_id: str | None = None,
        who: Actor = THE_DAEMON,
    ) -> Team:
        """Other limits for what all keys of a team use together. Raises NOT_FOUND."""
        with self._audit.change(who, "team.limits", team_id, organisation_id) as change:
            before = queries.team(change.connection, team_id, organisation_id)
            change.organisation_id, change.before = before.organisation_id, before.to_dict()
            change.connection.execute(
                "UPDATE teams SET rate_per_minute = ?, concurrency = ?, quota_per_month = ? WHERE id = ?",
                (*limits.checked().columns(), team_id),
            )
            made = queries.team(change.connection, team_id, organisation_id)
            change.after = made.to_dict()
        return made

    def remove(
        self, team_id: str, *, organisation_id: str | None = None, who: Actor = THE_DAEMON
    ) -> list[str]:
        """Remove a team and revoke its keys; their ids are the answer. Its members stay.

        Raises NOT_FOUND.
        """
        with self._audit.change(who, "team.remove", team_id, organisation_id) as change:
            found = queries.team(change.connection, team_id, organisation_id)
            change.organisation_id, change.before = found.organisation_id, found.to_dict()
            now = self._clock.wall_ns()
            revoked = queries.open_key_ids(change.connection, found.organisation_id, team_id=team_id)
            key_changes.revoke(change, revoked, now)
            change.connection.execute("UPDATE teams SET removed_ns = ? WHERE id = ?", (now, team_id))
            change.after = {"revoked_keys": revoked}
        return revoked

    # members of a team

    def members(self, team_id: str, *, organisation_id: str | None = None) -> list[TeamMember]:
        """Who is in the team, oldest member first. Raises NOT_FOUND."""
        with self._audit.reading() as connection:
            return queries.team_members(connection, queries.team(connection, team_id, organisation_id))

    def join(
        self,
        team_id: str,
        member_id: str,
        role: str = Role.DEVELOPER,
        *,
        organisation_id: str | None = None,
        who: Actor = THE_DAEMON,
    ) -> TeamMember:
        """Put a member into a team, or give it another role there, and so its keys of the team.

        Raises NOT_FOUND.
        """
        with self._audit.change(who, "team.join", _pair(team_id, member_id), organisation_id) as change:
            team = queries.team(change.connection, team_id, organisation_id)
            change.organisation_id = team.organisation_id
            member = queries.member(change.connection, member_id, team.organisation_id)
            before = queries.team_member(change.connection, team, member_id)
            made = TeamMember(
                team_id, member_id, member.name, member.kind, one_of(Role, role), member.created_at_ns
            )
            change.connection.execute(
                "INSERT INTO role_bindings VALUES (?, ?, ?, ?)"
                " ON CONFLICT (member_id, ifnull(team_id, '')) DO UPDATE SET role = excluded.role",
                (team.organisation_id, member_id, team_id, made.role),
            )
            change.before = None if before is None else before.to_dict()
            change.after = made.to_dict()
        return made

    def leave(
        self,
        team_id: str,
        member_id: str,
        *,
        organisation_id: str | None = None,
        who: Actor = THE_DAEMON,
    ) -> list[str]:
        """Take a member out of a team and revoke its keys of this team; their ids are the answer.

        Raises NOT_FOUND, also for a member who is not in the team.
        """
        with self._audit.change(who, "team.leave", _pair(team_id, member_id), organisation_id) as change:
            team = queries.team(change.connection, team_id, organisation_id)
            change.organisation_id = team.organisation_id
            found = queries.team_member(change.connection, team, member_id)
            if found is None:
                raise LotaBotsError(Code.NOT_FOUND, "no such member in this team")
            change.before = found.to_dict()
            revoked = queries.open_key_ids(
                change.connection, team.organisation_id, member_id=member_id, team_id=team_id
            )
            key_changes.revoke(change, revoked, self._clock.wall_ns())
            change.connection.execute(
                "DELETE FROM role_bindings WHERE member_id = ? AND team_id = ?", (member_id, team_id)
            )
            change.after = {"revoked_keys": revoked}
        return revoked


def _pair(team_id: str, member_id: str) -> str:
    """Both, for the audit trail: a refused attempt has nothing else that says who was meant."""
    return f"{team_id}/{member_id}"
