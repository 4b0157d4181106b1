"""The tables of state.db that identity owns, as frozen SQL: version 1. Pure."""

from __future__ import annotations

APPLICATION_ID = 0x4C425354  # "LBST"

# An organisation's objects carry its id, and the composite foreign keys refuse a key or a binding that
# would join two organisations. Nothing is deleted but spent secrets and the bindings of who left a team:
# history keeps its names, and the audit trail tells the rest.
_IDENTITIES = """
CREATE TABLE organisations (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  name_folded TEXT NOT NULL,
  rate_per_minute INTEGER NOT NULL,
  concurrency INTEGER NOT NULL,
  quota_per_month INTEGER NOT NULL,
  created_ns INTEGER NOT NULL,
  removed_ns INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX organisations_name ON organisations (name_folded) WHERE removed_ns IS NULL;

CREATE TABLE teams (
  id TEXT PRIMARY KEY NOT NULL,
  organisation_id TEXT NOT NULL REFERENCES organisations (id),
  name TEXT NOT NULL,
  name_folded TEXT NOT NULL,
  rate_per_minute INTEGER NOT NULL,
  concurrency INTEGER NOT NULL,
  quota_per_month INTEGER NOT NULL,
  created_ns INTEGER NOT NULL,
  removed_ns INTEGER,
  UNIQUE (organisation_id, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX teams_name ON teams (organisation_id, name_folded) WHERE removed_ns IS NULL;

CREATE TABLE members (
  id TEXT PRIMARY KEY NOT NULL,
  organisation_id TEXT NOT NULL REFERENCES organisations (id),
  name TEXT NOT NULL,
  name_folded TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('user', 'service')),
  created_ns INTEGER NOT NULL,
  removed_ns INTEGER,
  UNIQUE (organisation_id, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX members_name ON members (organisation_id, name_folded) WHERE removed_ns IS NULL;

CREATE TABLE role_bindings (
  organisation_id TEXT NOT NULL,
  member_id TEXT NOT NULL,
  team_id TEXT,
  role TEXT NOT NULL
    CHECK (role IN ('owner', 'admin', 'developer', 'operator', 'billing', 'auditor')),
  FOREIGN KEY (organisation_id, member_id) REFERENCES members (organisation_id, id),
  FOREIGN KEY (organisation_id, team_id) REFERENCES teams (organisation_id, id)
) STRICT;
CREATE UNIQUE INDEX role_bindings_one ON role_bindings (member_id, ifnull(team_id, ''));

CREATE TABLE api_keys (
  id TEXT PRIMARY KEY NOT NULL,
  organisation_id TEXT NOT NULL,
  team_id TEXT,
  member_id TEXT NOT NULL,
  name TEXT NOT NULL,
  environment TEXT NOT NULL CHECK (environment IN ('live', 'test')),
  models TEXT NOT NULL,
  rate_per_minute INTEGER NOT NULL,
  concurrency INTEGER NOT NULL,
  quota_per_month INTEGER NOT NULL,
  life_days INTEGER NOT NULL CHECK (life_days > 0),
  created_ns INTEGER NOT NULL,
  expires_ns INTEGER NOT NULL,
  revoked_ns INTEGER,
  FOREIGN KEY (organisation_id, member_id) REFERENCES members (organisation_id, id),
  FOREIGN KEY (organisation_id, team_id) REFERENCES teams (organisation_id, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX api_keys_organisation ON api_keys (organisation_id, created_ns, id);
CREATE INDEX api_keys_member ON api_keys (member_id);

CREATE TABLE api_key_secrets (
  key_id TEXT NOT NULL REFERENCES api_keys (id),
  number INTEGER NOT NULL,
  hash BLOB NOT NULL CHECK (length(hash) = 32),
  created_ns INTEGER NOT NULL,
  expires_ns INTEGER,
  PRIMARY KEY (key_id, number)
) STRICT, WITHOUT ROWID;
"""

_AUDIT = """
CREATE TABLE audit (
  number INTEGER PRIMARY KEY,
  at_ns INTEGER NOT NULL,
  who TEXT NOT NULL,
  source TEXT NOT NULL,
  organisation_id TEXT,
  action TEXT NOT NULL,
  target TEXT NOT NULL,
  before TEXT,
  after TEXT,
  outcome TEXT NOT NULL CHECK (outcome IN ('done', 'refused')),
  hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE INDEX audit_organisation ON audit (organisation_id, number);
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'audit rows are never changed'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'audit rows are never deleted'); END;

CREATE TABLE audit_head (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  number INTEGER NOT NULL,
  hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
INSERT INTO audit_head (one, number, hash) VALUES (1, 0, zeroblob(32));
"""

MIGRATIONS: list[str] = [_IDENTITIES + _AUDIT]
