"""The gate's view of policy.db: read only, cached per generation, one consistent snapshot per look.

Not for several threads: one reader per worker, used on its event loop. `refresh` and a first look-up read the
file (tens of microseconds); everything else is answered from memory.
"""

from __future__ import annotations

import json
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lotabotsd.foundation.database import open_read_only
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.limits.assign import LICENCE
from lotabotsd.limits.scope import Scope
from lotabotsd.models.facts import ModelFacts

from .grant import Grant, InstanceFacts, StandingFacts
from .schema import APPLICATION_ID, FORMAT

GRANTS_CACHED = 4_096
UNKNOWN_CACHED = 1_024
BUSY_TIMEOUT_MS = 100  # a look happens on the worker's event loop
_HINT = "restart lotabotsd: it makes policy.db anew"
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
_LICENCE_KIND, _, _LICENCE_ID = LICENCE.partition(":")
_GRANT = """
SELECT organisation_id, organisation_name, team_id, member_id, role, environment, permissions, models,
       expires_ns, priority_band
FROM grants WHERE key_id = ?
"""
_SECRETS = "SELECT hash, expires_ns FROM grant_secrets WHERE key_id = ? ORDER BY number"
_SCOPE_COLUMNS = "kind, slot, tag, rate_per_minute, burst, concurrency, quota, quota_hard"
_SCOPE = f"SELECT {_SCOPE_COLUMNS} FROM scopes WHERE kind = ? AND id = ?"  # noqa: S608 - constants
_MODEL_SCOPES = f"SELECT id, {_SCOPE_COLUMNS} FROM scopes WHERE kind = 'model'"  # noqa: S608 - constants
_TOKEN_HASH = "SELECT name, value FROM facts WHERE name = 'token_hash'"  # noqa: S105 - no password


class PolicyReader:
    """Open it, `refresh` it often, and ask it."""

    def __init__(self, path: Path, *, grants_cached: int = GRANTS_CACHED) -> None:
        self._path = path
        self._bound = grants_cached
        self._connection: sqlite3.Connection | None = None
        self._file = (0, 0)
        self._data_version = -1
        self._generation = 0
        self._grants: OrderedDict[str, Grant] = OrderedDict()
        self._unknown: OrderedDict[str, None] = OrderedDict()
        self._models: dict[str, ModelFacts] = {}
        self._model_scopes: dict[str, Scope] = {}
        self._facts: dict[str, str] = {}
        self._standing: StandingFacts | None = None
        self._instance: InstanceFacts | None = None

    def open(self) -> None:
        """Open the file and read the newest policy.

        Raises FILE_UNREADABLE while there is none, its writer has not started yet, or nothing was published;
        DATABASE_DAMAGED when it cannot be understood.
        """
        file = self._identity()
        connection = open_read_only(self._path)
        try:
            with _failures(self._path):
                connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
                self._check_format(connection)
                with _snapshot(connection):
                    self._load(connection, anew=True)
        except LotaBotsError:
            connection.close()
            raise
        self.close()
        self._connection, self._file, self._data_version = connection, file, -1

    def close(self) -> None:
        """Close the file. What was read stays."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def generation(self) -> int:
        """The generation that all answers belong to now; no look at the file."""
        return self._generation

    def refresh(self) -> bool:
        """Look for a new generation, a renewed lease or a new file; True when the generation changed.

        Raises FILE_UNREADABLE, DATABASE_DAMAGED; what was read before stays, and its lease ends.
        """
        before = self._generation
        if self._replaced():
            self.open()
            return self._generation != before
        connection = self._opened()
        with _failures(self._path):
            version = connection.execute("PRAGMA data_version").fetchone()[0]
            if version != self._data_version:
                with _snapshot(connection):
                    self._load(connection)
                self._data_version = version
        return self._generation != before

    def grant(self, key_id: str) -> Grant | None:
        """The grant of a key; None when there is no such key, or it was revoked."""
        found = self._grants.get(key_id)
        if found is not None:
            self._grants.move_to_end(key_id)
            return found
        if key_id in self._unknown:
            return None
        connection = self._opened()
        with _failures(self._path), _snapshot(connection):
            self._load(connection)  # so that nothing of two generations is mixed
            found = _read_grant(connection, key_id)
        if found is None:
            _remember(self._unknown, key_id, None, UNKNOWN_CACHED)
        else:
            _remember(self._grants, key_id, found, self._bound)
        return found

    def standing(self) -> StandingFacts:
        """The licence's standing, with the end of the lease. Raises FILE_UNREADABLE before `open`."""
        if self._standing is None:
            raise LotaBotsError(Code.FILE_UNREADABLE, f"{self._path} is not open")
        return self._standing

    def model(self, name: str) -> ModelFacts | None:
        """A live model; None when there is no such model."""
        return self._models.get(name)

    def model_scope(self, name: str) -> Scope | None:
        """The limits of a model; None when it has none."""
        return self._model_scopes.get(name)

    def models(self) -> tuple[ModelFacts, ...]:
        """All live models, by name."""
        return tuple(self._models.values())

    def jwks(self) -> bytes:
        """The public keys of tokens and receipts as a JWK set (RFC 7517)."""
        return self._facts.get("jwks", '{"keys":[]}').encode()

    def token_hash(self) -> str:
        """The hash of the attestation token in force; empty when there is none."""
        return self._facts.get("token_hash", "")

    def instance(self) -> InstanceFacts:
        """The appliance. Raises FILE_UNREADABLE before `open`."""
        if self._instance is None:
            raise LotaBotsError(Code.FILE_UNREADABLE, f"{self._path} is not open")
        return self._instance

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise LotaBotsError(Code.FILE_UNREADABLE, f"{self._path} is not open")
        return self._connection

    def _identity(self) -> tuple[int, int]:
        try:
            status = self._path.stat()
        except OSError as error:
            raise LotaBotsError(Code.FILE_UNREADABLE, f"{self._path}: {error.strerror}") from error
        return status.st_dev, status.st_ino

    def _replaced(self) -> bool:
        """Whether another file took the path: the writer puts a damaged one aside."""
        try:
            status = self._path.stat()
        except OSError:
            return False  # gone for a moment, or for good: the open one counts until its lease ends
        return (status.st_dev, status.st_ino) != self._file

    def _check_format(self, connection: sqlite3.Connection) -> None:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if application == version == 0:
            raise LotaBotsError(Code.FILE_UNREADABLE, f"{self._path} is empty: it is being made")
        if (application, version) != (APPLICATION_ID, FORMAT):
            raise LotaBotsError(
                Code.DATABASE_DAMAGED, f"{self._path} has format {version}, not {FORMAT}", hint=_HINT
            )

    def _load(self, connection: sqlite3.Connection, *, anew: bool = False) -> None:
        """Take over lease and token, and all else when the generation is another or `anew`; in a snapshot."""
        meta = connection.execute("SELECT generation, lease_until_ns FROM meta").fetchone()
        if meta is None:
            raise LotaBotsError(Code.DATABASE_DAMAGED, f"{self._path}: no generation", hint=_HINT)
        generation, lease_until_ns = meta
        if generation == 0:
            raise LotaBotsError(Code.FILE_UNREADABLE, f"{self._path}: nothing was published yet")
        if generation == self._generation and self._standing is not None and not anew:
            if lease_until_ns != self._standing.lease_until_ns:
                self._standing = replace(self._standing, lease_until_ns=lease_until_ns)
            self._facts.update(connection.execute(_TOKEN_HASH))
            return
        facts = dict(connection.execute("SELECT name, value FROM facts"))
        standing = StandingFacts.from_standing(json.loads(facts["standing"]), lease_until_ns)
        instance = InstanceFacts.from_dict(json.loads(facts["instance"]))
        found = connection.execute("SELECT name, content FROM models ORDER BY name")
        models = {name: ModelFacts.from_dict(json.loads(content)) for name, content in found}
        model_scopes = {row[0]: _scope(row[1:]) for row in connection.execute(_MODEL_SCOPES)}
        # Only now, that everything could be read, is it taken over.
        self._grants.clear()
        self._unknown.clear()
        self._facts, self._standing, self._instance = facts, standing, instance
        self._models, self._model_scopes = models, model_scopes
        self._generation = generation


def _read_grant(connection: sqlite3.Connection, key_id: str) -> Grant | None:
    row = connection.execute(_GRANT, (key_id,)).fetchone()
    if row is None:
        return None
    organisation_id, organisation_name, team_id, member_id, role, environment = row[:6]
    wanted = [(_LICENCE_KIND, _LICENCE_ID), ("organisation", organisation_id)]
    if team_id is not None:
        wanted.append(("team", team_id))
    wanted.append(("key", key_id))
    return Grant(
        key_id=key_id,
        organisation_id=organisation_id,
        organisation_name=organisation_name,
        team_id=team_id,
        member_id=member_id,
        role=role,
        environment=environment,
        permissions=frozenset(json.loads(row[6])),
        models=tuple(json.loads(row[7])),
        expires_at_ns=row[8],
        secrets=tuple(connection.execute(_SECRETS, (key_id,)).fetchall()),
        # A scope that is missing is damage (a TypeError here), never a key without that limit.
        scopes=tuple(_scope(connection.execute(_SCOPE, name).fetchone()) for name in wanted),
        priority_band=row[9],
    )


def _scope(row: tuple[Any, ...]) -> Scope:
    kind, slot, tag, rate_per_minute, burst, concurrency, quota, quota_hard = row
    return Scope(
        kind=kind,
        slot=slot,
        tag=int.from_bytes(tag, "big"),
        rate_per_minute=rate_per_minute,
        burst=burst,
        concurrency=concurrency,
        quota=quota,
        quota_hard=bool(quota_hard),
    )


def _remember(cache: OrderedDict[str, Any], key: str, value: Any, bound: int) -> None:
    cache[key] = value
    while len(cache) > bound:
        cache.popitem(last=False)


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """One read transaction: every SELECT inside sees the same generation."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def _failures(path: Path) -> Iterator[None]:
    """Tell what SQLite and a damaged row raise from the catalogue."""
    try:
        yield
    except sqlite3.Error as error:
        primary = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        code = Code.DATABASE_DAMAGED if primary in _DAMAGE else Code.FILE_UNREADABLE
        raise LotaBotsError(code, f"{path}: {error}", hint=_HINT) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LotaBotsError(Code.DATABASE_DAMAGED, f"{path}: a row is damaged", hint=_HINT) from error
