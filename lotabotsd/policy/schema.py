"""policy.db, the one format that daemon and gate share: frozen SQL (tests/golden/policy-schema.sql). Pure."""

from __future__ import annotations

APPLICATION_ID = 0x4C42504F  # "LBPO"
FORMAT = 1  # PRAGMA user_version

SCHEMA = """\
-- One row. The generation is 0 until something was published; every publication that changes anything makes
-- it larger. The lease is wall time in nanoseconds and is renewed without a new generation.
CREATE TABLE meta (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  generation INTEGER NOT NULL,
  lease_until_ns INTEGER NOT NULL,
  published_ns INTEGER NOT NULL,
  content_hash BLOB NOT NULL CHECK (length(content_hash) = 32)
) STRICT;
INSERT INTO meta VALUES (1, 0, 0, 0, zeroblob(32));

-- standing, jwks, instance: JSON. token_hash: text.
CREATE TABLE facts (
  name TEXT PRIMARY KEY NOT NULL CHECK (name IN ('standing', 'jwks', 'token_hash', 'instance')),
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What has limits, with its slot of the limits table. 0 means "no such limit". The tag is big-endian.
CREATE TABLE scopes (
  kind TEXT NOT NULL CHECK (kind IN ('licence', 'organisation', 'team', 'key', 'model')),
  id TEXT NOT NULL,
  slot INTEGER NOT NULL UNIQUE,
  tag BLOB NOT NULL CHECK (length(tag) = 8),
  rate_per_minute INTEGER NOT NULL,
  burst INTEGER NOT NULL,
  concurrency INTEGER NOT NULL,
  quota INTEGER NOT NULL,
  quota_hard INTEGER NOT NULL CHECK (quota_hard IN (0, 1)),
  PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

-- One row per key that is not revoked, the expired ones too. permissions and models: JSON arrays.
CREATE TABLE grants (
  key_id TEXT PRIMARY KEY NOT NULL,
  organisation_id TEXT NOT NULL,
  organisation_name TEXT NOT NULL,
  team_id TEXT,
  member_id TEXT NOT NULL,
  role TEXT NOT NULL,
  environment TEXT NOT NULL CHECK (environment IN ('live', 'test')),
  permissions TEXT NOT NULL,
  models TEXT NOT NULL,
  expires_ns INTEGER NOT NULL,
  priority_band INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Keyed hashes only. number 0 is the present secret; expires_ns is the end of a grace time.
CREATE TABLE grant_secrets (
  key_id TEXT NOT NULL REFERENCES grants (key_id),
  number INTEGER NOT NULL,
  hash BLOB NOT NULL CHECK (length(hash) = 32),
  expires_ns INTEGER,
  PRIMARY KEY (key_id, number)
) STRICT, WITHOUT ROWID;

-- The live models; content is the JSON of models.facts.ModelFacts.
CREATE TABLE models (
  name TEXT PRIMARY KEY NOT NULL,
  content TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

MIGRATIONS: list[str] = [SCHEMA]
