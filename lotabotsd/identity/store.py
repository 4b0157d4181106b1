"""Organisations, members and API keys in state.db: every change in one transaction with its audit row.

Teams are in `teams.py`, what a change does to a key's secrets in `key_changes.py`.

Where a method takes `organisation_id`, None means the platform administrator's view of the whole appliance;
with an id, the neighbour's objects are NOT_FOUND, as if they were not there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lotabotsd.foundation.clock import NANOSECONDS, Clock
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.identifiers import new_id, random_base62

from . import key_changes, queries
from .api_key import ENVIRONMENTS, KEY_ID_LENGTH
from .audit import Audit
from .limits_values import NO_LIMITS, ScopeLimits
from .records import THE_DAEMON, Actor, IdentityCaps, KeyRecord, Member, MemberKind, NewKey, Organisation
from .roles import Role
from .teams import Teams
from .values import MAX_LIVE_KEYS, checked_life_days, checked_models, checked_name, folded, one_of

if TYPE_CHECKING:
    import sqlite_utils

_DAY = 86_400 * NANOSECONDS
_OF_AN_ORGANISATION = (("members", "organisation_id"), ("teams", "organisation_id"), ("organisations", "id"))


class IdentityStore:
    """Who may ask. The database is the daemon's alone; use one store per database.

    Besides what each method says, changes raise VALUE_INVALID for a value outside its rule, and DISK_FULL,
    FILE_UNWRITABLE or DATABASE_DAMAGED when they cannot be stored; then nothing has changed.
    """

    def __init__(self, db: sqlite_utils.Database, clock: Clock, pepper: bytes) -> None:
        self._clock = clock
        self._pepper = pepper
        self._audit = Audit(db, clock)
        self._teams = Teams(self._audit, clock)

    @property
    def audit(self) -> Audit:
        """The trail, for reading it and for what other rooms have to tell."""
        return self._audit

    @property
    def teams(self) -> Teams:
        """The teams of all organisations."""
        return self._teams

    # organisations

    def create_organisation(
        self,
        name: str,
        *,
        limits: ScopeLimits | None = None,
        caps: IdentityCaps,
        who: Actor = THE_DAEMON,
    ) -> Organisation:
        """A new organisation. Raises ALREADY_EXISTS, LICENCE_LIMIT."""
        with self._audit.change(who, "organisation.create", name) as change:
            limits = (limits or NO_LIMITS).checked()
            name = checked_name(name)
            made = Organisation(new_id("org"), name, limits, self._clock.wall_ns())
            if queries.name_taken(change.connection, "organisations", folded(name), None):
                raise LotaBotsError(Code.ALREADY_EXISTS, f"an organisation is called {name!r}")
            _within(caps.organisations, queries.counts(change.connection)[0], "organisations")
            change.connection.execute(
                "INSERT INTO organisations VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
                (made.organisation_id, name, folded(name), *limits.columns(), made.created_at_ns),
            )
            change.target, change.organisation_id = made.organisation_id, made.organisation_id
            change.after = made.to_dict()
        return made

    def list_organisations(self) -> list[Organisation]:
        """All that are not removed, oldest first."""
        with self._audit.reading() as connection:
            return queries.organisations(connection)

    def get_organisation(self, organisation_id: str) -> Organisation:
        """One of them. Raises NOT_FOUND."""
        with self._audit.reading() as connection:
            return queries.organisation(connection, organisation_id)

    def set_organisation_limits(
        self, organisation_id: str, limits: ScopeLimits, *, who: Actor = THE_DAEMON
    ) -> Organisation:
        """Other limits for an organisation. Raises NOT_FOUND."""
        with self._audit.change(who, "organisation.limits", organisation_id, organisation_id) as change:
            change.before = queries.organisation(change.connection, organisation_id).to_dict()
            change.connection.execute(
                "UPDATE organisations SET rate_per_minute = ?, concurrency = ?, quota_per_month = ?"
                " WHERE id = ?",
                (*limits.checked().columns(), organisation_id),
            )
            made = queries.organisation(change.connection, organisation_id)
            change.after = made.to_dict()
        return made

    def remove_organisation(self, organisation_id: str, *, who: Actor = THE_DAEMON) -> None:
        """Remove an organisation, its teams and members. Raises NOT_FOUND; CONFLICT with unrevoked keys."""
        with self._audit.change(who, "organisation.remove", organisation_id, organisation_id) as change:
            change.before = queries.organisation(change.connection, organisation_id).to_dict()
            open_keys = queries.open_key_ids(change.connection, organisation_id)
            if open_keys:
                raise LotaBotsError(
                    Code.CONFLICT,
                    f"the organisation still has {len(open_keys)} API keys",
                    hint="revoke them first: lotabotsctl key list, then lotabotsctl key revoke KEY_ID",
                )
            now = self._clock.wall_ns()
            for table, column in _OF_AN_ORGANISATION:
                change.connection.execute(
                    f"UPDATE {table} SET removed_ns = ? WHERE {column} = ? AND removed_ns IS NULL",  # noqa: S608 - constants
                    (now, organisation_id),
                )

    # members

    def create_member(
        self,
        organisation_id: str,
        name: str,
        kind: str = MemberKind.USER,
        role: str = Role.DEVELOPER,
        *,
        caps: IdentityCaps,
        who: Actor = THE_DAEMON,
    ) -> Member:
        """A new user or service account. Raises NOT_FOUND, ALREADY_EXISTS, LICENCE_LIMIT."""
        with self._audit.change(who, "member.create", name, organisation_id) as change:
            queries.organisation(change.connection, organisation_id)
            name, kind = checked_name(name), one_of(MemberKind, kind)
            made = Member(
                new_id("mem"), organisation_id, name, kind, one_of(Role, role), self._clock.wall_ns()
            )
            if queries.name_taken(change.connection, "members", folded(name), organisation_id):
                raise LotaBotsError(Code.ALREADY_EXISTS, f"a member is called {name!r}")
            _within(caps.members, queries.counts(change.connection)[1], "members")
            change.connection.execute(
                "INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, NULL)",
                (made.member_id, organisation_id, name, folded(name), kind, made.created_at_ns),
            )
            change.connection.execute(
                "INSERT INTO role_bindings VALUES (?, ?, NULL, ?)",
                (organisation_id, made.member_id, made.role),
            )
            change.target, change.after = made.member_id, made.to_dict()
        return made

    def list_members(self, organisation_id: str | None = None) -> list[Member]:
        """All that are not removed, oldest first."""
        with self._audit.reading() as connection:
            return queries.members(connection, organisation_id)

    def get_member(self, member_id: str, *, organisation_id: str | None = None) -> Member:
        """One of them. Raises NOT_FOUND."""
        with self._audit.reading() as connection:
            return queries.member(connection, member_id, organisation_id)

    def set_role(
        self, member_id: str, role: str, *, organisation_id: str | None = None, who: Actor = THE_DAEMON
    ) -> Member:
        """Another role for a member, and so for its keys without a team. Raises NOT_FOUND."""
        with self._audit.change(who, "member.role", member_id, organisation_id) as change:
            before = queries.member(change.connection, member_id, organisation_id)
            change.connection.execute(
                "UPDATE role_bindings SET role = ? WHERE member_id = ? AND team_id IS NULL",
                (one_of(Role, role), member_id),
            )
            made = queries.member(change.connection, member_id, organisation_id)
            change.organisation_id = made.organisation_id
            change.before, change.after = before.to_dict(), made.to_dict()
        return made

    def remove_member(
        self, member_id: str, *, organisation_id: str | None = None, who: Actor = THE_DAEMON
    ) -> list[str]:
        """Remove a member and revoke its keys, those of teams too; their ids are the answer.

        Raises NOT_FOUND.
        """
        with self._audit.change(who, "member.remove", member_id, organisation_id) as change:
            found = queries.member(change.connection, member_id, organisation_id)
            change.organisation_id, change.before = found.organisation_id, found.to_dict()
            now = self._clock.wall_ns()
            revoked = queries.open_key_ids(change.connection, found.organisation_id, member_id=member_id)
            key_changes.revoke(change, revoked, now)
            change.connection.execute("UPDATE members SET removed_ns = ? WHERE id = ?", (now, member_id))
            change.after = {"revoked_keys": revoked}
        return revoked

    # API keys

    def create_key(
        self,
        organisation_id: str,
        member_id: str,
        *,
        name: str,
        team_id: str | None = None,
        environment: str = "live",
        models: tuple[str, ...] = ("*",),
        expires_in_days: int,
        limits: ScopeLimits | None = None,
        caps: IdentityCaps,
        who: Actor = THE_DAEMON,
    ) -> NewKey:
        """A new key, its text in the answer and nowhere else; with `team_id` it is of that team for ever.

        Raises NOT_FOUND, LICENCE_LIMIT; CONFLICT for a member who is not in the team.
        """
        with self._audit.change(who, "key.create", name, organisation_id) as change:
            queries.member(change.connection, member_id, organisation_id)
            if team_id is not None:
                key_changes.check_team(change, team_id, member_id, organisation_id)
            name, models = checked_name(name), checked_models(models)
            limits = (limits or NO_LIMITS).checked()
            days = checked_life_days(expires_in_days, caps.key_days)
            if environment not in ENVIRONMENTS:
                raise LotaBotsError(Code.VALUE_INVALID, f"environment is one of {', '.join(ENVIRONMENTS)}")
            if queries.counts(change.connection)[2] >= MAX_LIVE_KEYS:
                raise LotaBotsError(
                    Code.CONFLICT, f"there are {MAX_LIVE_KEYS} API keys", hint="revoke the unused ones"
                )
            key_id, now = random_base62(KEY_ID_LENGTH), self._clock.wall_ns()
            change.connection.execute(
                "INSERT INTO api_keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
                (
                    *(key_id, organisation_id, team_id, member_id, name, environment, json.dumps(models)),
                    *(*limits.columns(), days, now, now + days * _DAY),
                ),
            )
            text = key_changes.new_secret(change, self._pepper, key_id, environment, now)
            made = queries.key(change.connection, key_id, organisation_id)
            change.target, change.after = key_id, made.to_dict()
        return NewKey(text, made)

    def list_keys(self, organisation_id: str | None = None) -> list[KeyRecord]:
        """All keys, the revoked ones too, oldest first."""
        with self._audit.reading() as connection:
            return queries.keys(connection, organisation_id)

    def get_key(self, key_id: str, *, organisation_id: str | None = None) -> KeyRecord:
        """One of them. Raises NOT_FOUND."""
        with self._audit.reading() as connection:
            return queries.key(connection, key_id, organisation_id)

    def rotate_key(
        self,
        key_id: str,
        grace_seconds: int,
        *,
        expires_in_days: int | None = None,
        organisation_id: str | None = None,
        caps: IdentityCaps,
        who: Actor = THE_DAEMON,
    ) -> NewKey:
        """A new secret under the same id; the old one works until its grace ends or the key would have.

        The key lives on for `expires_in_days`, or for as many days as it was given last; so an expired key
        comes back to life, its old secret does not. Raises NOT_FOUND, LICENCE_LIMIT; CONFLICT for a revoked
        key, and while the grace of the last rotation runs (a grace of 0 ends it).
        """
        with self._audit.change(who, "key.rotate", key_id, organisation_id) as change:
            before = queries.key(change.connection, key_id, organisation_id)
            change.organisation_id, change.before = before.organisation_id, before.to_dict()
            now = self._clock.wall_ns()
            key_changes.check_rotation(before, grace_seconds, now)
            if expires_in_days is None:
                expires_in_days = key_changes.days_again(change, key_id, caps.key_days)
            days = checked_life_days(expires_in_days, caps.key_days)
            end_ns = min(now + grace_seconds * NANOSECONDS, before.expires_at_ns)
            key_changes.end_old_secrets(change, key_id, end_ns, still_works=end_ns > now)
            change.connection.execute(
                "UPDATE api_keys SET expires_ns = ?, life_days = ? WHERE id = ?",
                (now + days * _DAY, days, key_id),
            )
            text = key_changes.new_secret(change, self._pepper, key_id, before.environment, now)
            made = queries.key(change.connection, key_id, organisation_id)
            change.after = made.to_dict()
        return NewKey(text, made)

    def revoke_key(
        self, key_id: str, *, organisation_id: str | None = None, who: Actor = THE_DAEMON
    ) -> KeyRecord:
        """Revoke a key for ever; a second time changes nothing. Raises NOT_FOUND."""
        with self._audit.change(who, "key.revoke", key_id, organisation_id) as change:
            before = queries.key(change.connection, key_id, organisation_id)
            key_changes.revoke(change, [key_id], self._clock.wall_ns())
            made = queries.key(change.connection, key_id, organisation_id)
            change.organisation_id = made.organisation_id
            change.before, change.after = before.to_dict(), made.to_dict()
        return made

    def grants(self) -> list[KeyRecord]:
        """What policy compiles: every key of the appliance, the revoked ones marked."""
        return self.list_keys()


def _within(cap: int, present: int, what: str) -> None:
    if cap and present >= cap:
        raise LotaBotsError(Code.LICENCE_LIMIT, f"the licence allows {cap} {what}")
