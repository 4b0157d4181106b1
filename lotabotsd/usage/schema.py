"""The tables of ledger.db, written out. Pure.

`windows`, `reports`, `acknowledgements` and `purges` only ever grow: triggers refuse UPDATE and DELETE. The
one exception: windows up to the last row of the newest purge may be deleted, and a purge is refused unless it
ends where an accepted report ends and every report before it was accepted too. The other tables are the
ledger's workplace: how far each journal was read, which requests are open, what the open window holds so far.
"""

from __future__ import annotations

APPLICATION_ID = 0x4C424C47  # "LBLG"

_VERSION_1 = """
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    began INTEGER NOT NULL,                -- Unix seconds: start of the first window
    sealed_until INTEGER NOT NULL          -- Unix seconds: end of the last window
) STRICT;

CREATE TABLE streams (                     -- one life of one worker
    worker INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    segment INTEGER NOT NULL,              -- the cursor: next byte to read, next record number to expect
    "offset" INTEGER NOT NULL,
    next_number INTEGER NOT NULL,
    ended INTEGER NOT NULL CHECK (ended IN (0, 1)),
    PRIMARY KEY (worker, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE open_requests (
    worker INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    number INTEGER NOT NULL,               -- of the OPEN record
    request_id BLOB NOT NULL,
    wall_ns INTEGER NOT NULL,
    key TEXT NOT NULL,
    organisation TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    window_id INTEGER NOT NULL,
    reserved INTEGER NOT NULL,
    PRIMARY KEY (worker, epoch, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE accumulators (                -- closed requests of windows that are not sealed yet
    window_start INTEGER NOT NULL,
    late_for INTEGER NOT NULL,             -- start of the sealed hour it came too late for; 0 = in time
    organisation TEXT NOT NULL,
    key TEXT NOT NULL,
    model TEXT NOT NULL,
    outcome TEXT NOT NULL,
    charged INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    inferences INTEGER NOT NULL,
    input_bytes INTEGER NOT NULL,
    output_bytes INTEGER NOT NULL,
    gate_us INTEGER NOT NULL,
    PRIMARY KEY (window_start, late_for, organisation, key, model, outcome)
) STRICT, WITHOUT ROWID;

CREATE TABLE months (                      -- charged inferences by quota month, to refill the limits table
    window_id INTEGER NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    inferences INTEGER NOT NULL,
    PRIMARY KEY (window_id, kind, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE windows (
    sequence INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('usage', 'appliance', 'gap')),
    start INTEGER NOT NULL,                -- Unix seconds, inclusive
    "end" INTEGER NOT NULL,                -- Unix seconds, exclusive
    organisation TEXT NOT NULL,
    key TEXT NOT NULL,
    model TEXT NOT NULL,
    outcome TEXT NOT NULL,
    charged INTEGER NOT NULL CHECK (charged IN (0, 1)),
    late_for INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    inferences INTEGER NOT NULL,
    input_bytes INTEGER NOT NULL,
    output_bytes INTEGER NOT NULL,
    gate_us INTEGER NOT NULL,
    clock_suspect INTEGER NOT NULL CHECK (clock_suspect IN (0, 1)),
    previous_hash BLOB NOT NULL,
    row_hash BLOB NOT NULL
) STRICT;
CREATE INDEX windows_by_time ON windows (start);
CREATE TRIGGER windows_stay_as_they_are BEFORE UPDATE ON windows
BEGIN SELECT RAISE(ABORT, 'a sealed window cannot be changed'); END;
CREATE TRIGGER windows_stay BEFORE DELETE ON windows
BEGIN SELECT RAISE(ABORT, 'a sealed window cannot be removed'); END;

CREATE TABLE findings (                    -- what a reader of the numbers should know about their making
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,                   -- Unix seconds
    kind TEXT NOT NULL,
    worker INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    count INTEGER NOT NULL,
    inferences INTEGER NOT NULL,
    detail TEXT NOT NULL,
    UNIQUE (kind, worker, epoch, segment, "offset")
) STRICT;

CREATE TABLE reports (                     -- everything a report's bytes are made from, frozen before writing
    sequence INTEGER PRIMARY KEY,
    frozen_at INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    previous_head BLOB NOT NULL,
    head BLOB NOT NULL,
    period_from INTEGER NOT NULL,
    period_until INTEGER NOT NULL,
    previous_report_hash BLOB,
    report_hash BLOB NOT NULL,
    last_finding INTEGER NOT NULL,
    context TEXT NOT NULL                  -- canonical JSON: appliance, licence, names, data condition
) STRICT;
CREATE TRIGGER reports_stay_as_they_are BEFORE UPDATE ON reports
BEGIN SELECT RAISE(ABORT, 'a frozen report cannot be changed'); END;
CREATE TRIGGER reports_stay BEFORE DELETE ON reports
BEGIN SELECT RAISE(ABORT, 'a frozen report cannot be removed'); END;
"""

_VERSION_2 = """
CREATE TABLE acknowledgements (            -- what the vendor said of reports, in order of arrival
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,           -- SHA-256 of the signed body
    report INTEGER NOT NULL REFERENCES reports (sequence),
    verdict TEXT NOT NULL CHECK (verdict IN ('accepted', 'accepted_with_findings', 'rejected')),
    issued_at INTEGER NOT NULL,            -- Unix seconds, by the vendor's clock
    received_at INTEGER NOT NULL,
    head BLOB NOT NULL,                    -- hash of the report's last row
    envelope BLOB NOT NULL                 -- DSSE JSON, as it was verified
) STRICT;
CREATE INDEX acknowledgements_of_a_report ON acknowledgements (report, issued_at);
CREATE TRIGGER acknowledgements_stay_as_they_are BEFORE UPDATE ON acknowledgements
BEGIN SELECT RAISE(ABORT, 'an acknowledgement cannot be changed'); END;
CREATE TRIGGER acknowledgements_stay BEFORE DELETE ON acknowledgements
BEGIN SELECT RAISE(ABORT, 'an acknowledgement cannot be removed'); END;

CREATE TABLE purges (                      -- prefixes of the chain that are gone; the newest is the anchor
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,                   -- Unix seconds
    last INTEGER NOT NULL,                 -- the last row that is gone
    head BLOB NOT NULL,                    -- its hash: the chain goes on from here
    until INTEGER NOT NULL,                -- the end of its window: time goes on from here
    who TEXT NOT NULL
) STRICT;
CREATE TRIGGER purges_stay_as_they_are BEFORE UPDATE ON purges
BEGIN SELECT RAISE(ABORT, 'a purge cannot be changed'); END;
CREATE TRIGGER purges_stay BEFORE DELETE ON purges
BEGIN SELECT RAISE(ABORT, 'a purge cannot be removed'); END;
CREATE TRIGGER purges_only_what_was_acknowledged BEFORE INSERT ON purges
WHEN NEW.last <= (SELECT coalesce(max(last), 0) FROM purges)
  OR NOT EXISTS (
    SELECT 1 FROM windows JOIN reports ON reports.last = windows.sequence
    WHERE windows.sequence = NEW.last AND windows.row_hash = NEW.head AND reports.head = NEW.head
  )
  OR EXISTS (
    SELECT 1 FROM reports WHERE last <= NEW.last AND sequence NOT IN (
      SELECT report FROM acknowledgements WHERE verdict <> 'rejected'
    )
  )
BEGIN SELECT RAISE(ABORT, 'only acknowledged windows may be purged'); END;

CREATE TABLE purged (                      -- sums of the purged usage rows, so that totals never go back
    organisation TEXT NOT NULL,
    key TEXT NOT NULL,
    model TEXT NOT NULL,
    outcome TEXT NOT NULL,
    charged INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    inferences INTEGER NOT NULL,
    input_bytes INTEGER NOT NULL,
    output_bytes INTEGER NOT NULL,
    gate_us INTEGER NOT NULL,
    PRIMARY KEY (organisation, key, model, outcome, charged)
) STRICT, WITHOUT ROWID;

DROP TRIGGER windows_stay;
CREATE TRIGGER windows_stay BEFORE DELETE ON windows
WHEN OLD.sequence > (SELECT coalesce(max(last), 0) FROM purges)
BEGIN SELECT RAISE(ABORT, 'a sealed window cannot be removed'); END;
"""

_VERSION_3 = """
CREATE TABLE passed (                      -- closed requests that may have reached Triton
    model TEXT PRIMARY KEY,                -- since schema 3
    answered_requests INTEGER NOT NULL,
    answered_inferences INTEGER NOT NULL,
    unanswered_requests INTEGER NOT NULL,
    unanswered_inferences INTEGER NOT NULL -- that were asked for
) STRICT, WITHOUT ROWID;

CREATE TABLE own_requests (                -- canaries and warm-ups: kept before they are sent
    run TEXT NOT NULL,                     -- of Triton
    model TEXT NOT NULL,
    requests INTEGER NOT NULL,
    PRIMARY KEY (run, model)
) STRICT, WITHOUT ROWID;

CREATE TABLE reconciliation (              -- what Triton counted, compared with the ledger so far
    id INTEGER PRIMARY KEY CHECK (id = 1),
    state TEXT NOT NULL                    -- canonical JSON of usage/reconciliation.py
) STRICT;
"""

MIGRATIONS = [_VERSION_1, _VERSION_2, _VERSION_3]
