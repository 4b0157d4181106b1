"""Organisations, members and API keys in state.db: every change in one transaction with its audit row.

Where a method takes `organisation_id`, None means the platform administrator's view of the whole appliance;
with an id, the neighbour's objects are NOT_FOUND, as if they were not there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lotabotsd.foundation.clock import NANOSECONDS, Clock, from_ns, rfc3339
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.identifiers import new_id, random_base62

from . import queries
from .api_key import ENVIRONMENTS, KEY_ID_LENGTH, SECRET_LENGTH, format_api_key, hash_secret
from .audit import Audit, Change
from .limits_values import NO_LIMITS, ScopeLimits
from .records import THE_DAEMON, Actor, IdentityCaps, KeyRecord, Member, MemberKind, NewKey, Organisation
from .roles import Role
from .values import (
    MAX_GRACE_SECONDS,
    MAX_LIVE_KEYS,
    checked_life_days,
    checked_models,
    checked_name,
    folded,
)

if TYPE_CHECKING:
    import sqlite_utils

_DAY = 86_400 * NANOSECONDS


class IdentityStore:
    """Who may ask. The database is the daemon's alone; use one store per database.

    Besides what each method says, changes raise VALUE_INVALID for a value outside its rule, and DISK_FULL,
    FILE_UNWRITABLE or DATABASE_DAMAGED when they cannot be stored; then nothing has changed.
    """

    def __init__(self, db: sqlite_utils.Database, clock: Clock, pepper: bytes) -> None:
        self._clock = clock
        self._pepper = pepper
        self._audit = Audit(db, clock)

    @property
    def audit(self) -> Audit:
        """The trail, for reading it and for what other rooms have to tell."""
        return self._audit

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
                (made.organisation_id, name, folded(name), *_three(limits), made.created_at_ns),
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
                (*_three(limits.checked()), organisation_id),
            )
            made = queries.organisation(change.connection, organisation_id)
            change.after = made.to_dict()
        return made

    def remove_organisation(self, organisation_id: str, *, who: Actor = THE_DAEMON) -> None:
        """Remove an organisation and its members. Raises NOT_FOUND; CONFLICT while it has unrevoked keys."""
        with self._audit.change(who, "organisation.remove", organisation_id, organisation_id) as change:
            change.before = queries.organisation(change.connection, organisation_id).to_dict()
            open_keys = [k for k in queries.keys(change.connection, organisation_id) if not k.revoked]
            if open_keys:
                raise LotaBotsError(
                    Code.CONFLICT,
                    f"the organisation still has {len(open_keys)} API keys",
                    hint="revoke them first: lotabotsctl key list, then lotabotsctl key revoke KEY_ID",
                )
            now = self._clock.wall_ns()
            for column, table in (("organisation_id", "members"), ("id", "organisations")):
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
            name, kind = checked_name(name), _one_of(MemberKind, kind)
            made = Member(
                new_id("mem"), organisation_id, name, kind, _one_of(Role, role), self._clock.wall_ns()
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
        """Another role for a member, and so for its keys. Raises NOT_FOUND."""
        with self._audit.change(who, "member.role", member_id, organisation_id) as change:
            before = queries.member(change.connection, member_id, organisation_id)
            change.connection.execute(
                "UPDATE role_bindings SET role = ? WHERE member_id = ? AND team_id IS NULL",
                (_one_of(Role, role), member_id),
            )
            made = queries.member(change.connection, member_id, organisation_id)
            change.organisation_id = made.organisation_id
            change.before, change.after = before.to_dict(), made.to_dict()
        return made

    def remove_member(
        self, member_id: str, *, organisation_id: str | None = None, who: Actor = THE_DAEMON
    ) -> list[str]:
        """Remove a member and revoke its keys; their ids are the answer. Raises NOT_FOUND."""
        with self._audit.change(who, "member.remove", member_id, organisation_id) as change:
            found = queries.member(change.connection, member_id, organisation_id)
            change.organisation_id, change.before = found.organisation_id, found.to_dict()
            owned = queries.keys(change.connection, found.organisation_id)
            revoked = [k.key_id for k in owned if k.member_id == member_id and not k.revoked]
            for key_id in revoked:
                self._revoke(change, key_id)
            change.connection.execute(
                "UPDATE members SET removed_ns = ? WHERE id = ?", (self._clock.wall_ns(), member_id)
            )
            change.after = {"revoked_keys": revoked}
        return revoked

    # API keys

    def create_key(
        self,
        organisation_id: str,
        member_id: str,
        *,
        name: str,
        environment: str = "live",
        models: tuple[str, ...] = ("*",),
        expires_in_days: int,
        limits: ScopeLimits | None = None,
        caps: IdentityCaps,
        who: Actor = THE_DAEMON,
    ) -> NewKey:
        """A new key, its text in the answer and nowhere else. Raises NOT_FOUND, LICENCE_LIMIT."""
        with self._audit.change(who, "key.create", name, organisation_id) as change:
            queries.member(change.connection, member_id, organisation_id)
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
                "INSERT INTO api_keys VALUES (?, ?, NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
                (
                    *(key_id, organisation_id, member_id, name, environment, json.dumps(models)),
                    *(*_three(limits), days, now, now + days * _DAY),
                ),
            )
            text = self._new_secret(change, key_id, environment, now)
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
            _check_rotation(before, grace_seconds, now)
            if expires_in_days is None:
                expires_in_days = _days_again(change, key_id, caps.key_days)
            days = checked_life_days(expires_in_days, caps.key_days)
            end_ns = min(now + grace_seconds * NANOSECONDS, before.expires_at_ns)
            _end_old_secrets(change, key_id, end_ns, still_works=end_ns > now)
            change.connection.execute(
                "UPDATE api_keys SET expires_ns = ?, life_days = ? WHERE id = ?",
                (now + days * _DAY, days, key_id),
            )
            text = self._new_secret(change, key_id, before.environment, now)
            made = queries.key(change.connection, key_id, organisation_id)
            change.after = made.to_dict()
        return NewKey(text, made)

    def revoke_key(
        self, key_id: str, *, organisation_id: str | None = None, who: Actor = THE_DAEMON
    ) -> KeyRecord:
        """Revoke a key for ever; a second time changes nothing. Raises NOT_FOUND."""
        with self._audit.change(who, "key.revoke", key_id, organisation_id) as change:
            before = queries.key(change.connection, key_id, organisation_id)
            self._revoke(change, key_id)
            made = queries.key(change.connection, key_id, organisation_id)
            change.organisation_id = made.organisation_id
            change.before, change.after = before.to_dict(), made.to_dict()
        return made

    def grants(self) -> list[KeyRecord]:
        """What policy compiles: every key of the appliance, the revoked ones marked."""
        return self.list_keys()

    def _new_secret(self, change: Change, key_id: str, environment: str, now_ns: int) -> str:
        secret = random_base62(SECRET_LENGTH)
        change.connection.execute(
            "INSERT INTO api_key_secrets VALUES"
            " (?, (SELECT 1 + ifnull(max(number), 0) FROM api_key_secrets WHERE key_id = ?), ?, ?, NULL)",
            (key_id, key_id, hash_secret(self._pepper, key_id, secret), now_ns),
        )
        return format_api_key(environment, key_id, secret)

    def _revoke(self, change: Change, key_id: str) -> None:
        change.connection.execute(
            "UPDATE api_keys SET revoked_ns = ? WHERE id = ? AND revoked_ns IS NULL",
            (self._clock.wall_ns(), key_id),
        )
        change.connection.execute("DELETE FROM api_key_secrets WHERE key_id = ?", (key_id,))


def _three(limits: ScopeLimits) -> tuple[int, int, int]:
    return limits.rate_per_minute, limits.concurrency, limits.quota_per_month


def _within(cap: int, present: int, what: str) -> None:
    if cap and present >= cap:
        raise LotaBotsError(Code.LICENCE_LIMIT, f"the licence allows {cap} {what}")


def _days_again(change: Change, key_id: str, cap: int) -> int:
    """As many days as the key was given last, or as the tier allows now."""
    days: int = change.connection.execute(
        "SELECT life_days FROM api_keys WHERE id = ?", (key_id,)
    ).fetchone()[0]
    return min(days, cap) if cap else days


def _end_old_secrets(change: Change, key_id: str, end_ns: int, *, still_works: bool) -> None:
    """Keep the newest secret until `end_ns` if it still works; drop all others."""
    change.connection.execute(
        "DELETE FROM api_key_secrets WHERE key_id = ? AND (? OR expires_ns IS NOT NULL)",
        (key_id, int(not still_works)),
    )
    change.connection.execute("UPDATE api_key_secrets SET expires_ns = ? WHERE key_id = ?", (end_ns, key_id))


def _check_rotation(key: KeyRecord, grace_seconds: int, now_ns: int) -> None:
    if isinstance(grace_seconds, bool) or not 0 <= grace_seconds <= MAX_GRACE_SECONDS:
        raise LotaBotsError(Code.VALUE_INVALID, f"the grace time is from 0 to {MAX_GRACE_SECONDS} seconds")
    if key.revoked:
        raise LotaBotsError(Code.CONFLICT, "a revoked key cannot be rotated", hint="make a new key")
    running = [end for _, end in key.secrets if end is not None and end > now_ns]
    if running and grace_seconds:
        raise LotaBotsError(
            Code.CONFLICT,
            f"the secret before the last rotation still works until {rfc3339(from_ns(max(running)))}",
            hint="wait until then, or end it now with a grace time of 0",
        )


def _one_of(kind: type[Role] | type[MemberKind], value: str) -> str:
    allowed = [member.value for member in kind]
    if value not in allowed:
        raise LotaBotsError(Code.VALUE_INVALID, f"{value[:64]!r} is not one of {', '.join(allowed)}")
    return str(value)
