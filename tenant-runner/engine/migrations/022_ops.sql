-- An alert stays the same alert while its trouble lasts: it may become worse, be acknowledged and silenced, and it is taken up
-- again when its trouble comes back soon (a flap).
ALTER TABLE alerts ADD COLUMN acknowledged_by TEXT;
ALTER TABLE alerts ADD COLUMN acknowledged_at INTEGER;
-- The trouble was last found.
ALTER TABLE alerts ADD COLUMN seen_at INTEGER NOT NULL DEFAULT 0;
-- The trouble is gone, but not yet for long enough.
ALTER TABLE alerts ADD COLUMN gone_since INTEGER;
ALTER TABLE alerts ADD COLUMN flaps INTEGER NOT NULL DEFAULT 0 CHECK (flaps >= 0);
-- The remedy that ran for it by itself.
ALTER TABLE alerts ADD COLUMN remedy TEXT;
-- The severity that was sent out.
ALTER TABLE alerts ADD COLUMN sent TEXT CHECK (sent IN ('info', 'warning', 'critical'));
UPDATE alerts SET seen_at = created_at;
CREATE INDEX alerts_by_fingerprint ON alerts (fingerprint, resolved_at);

-- Who does not want to hear of what, until when, and why.
CREATE TABLE ops_silences (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL CHECK (kind IN ('category', 'fingerprint')),
    value      TEXT NOT NULL,
    until      INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    ended_by   TEXT,
    ended_at   INTEGER,
    CHECK ((ended_by IS NULL) = (ended_at IS NULL))
) STRICT;
CREATE INDEX ops_silences_by_end ON ops_silences (until);

-- Since when each check is as it is. One row per check.
CREATE TABLE ops_checks (
    name   TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    since  INTEGER NOT NULL
) STRICT;

-- What was measured, for charts.
CREATE TABLE ops_snapshots (
    at   INTEGER PRIMARY KEY,
    data TEXT NOT NULL
) STRICT;

-- Remedies that were taken, by the monitor itself or by somebody.
CREATE TABLE ops_remedies (
    seq         INTEGER PRIMARY KEY,
    remedy      TEXT NOT NULL,
    taken_by    TEXT NOT NULL,
    -- What it was taken against; NULL when somebody asked for it.
    fingerprint TEXT,
    outcome     TEXT NOT NULL CHECK (outcome IN ('done', 'failed')),
    result      TEXT NOT NULL,
    started_at  INTEGER NOT NULL,
    finished_at INTEGER NOT NULL
) STRICT;
CREATE INDEX ops_remedies_by_time ON ops_remedies (started_at);

-- The breaker of each remedy that runs by itself.
CREATE TABLE ops_breakers (
    remedy    TEXT PRIMARY KEY,
    -- The latest runs, oldest first, as a JSON list of times.
    runs      TEXT NOT NULL,
    opened_at INTEGER
) STRICT;

-- Messages on their way to webhooks.
CREATE TABLE ops_outbox (
    seq        INTEGER PRIMARY KEY,
    -- The webhook-id: the same message has the same one.
    id         TEXT NOT NULL,
    -- Which address, as a hash: addresses may hold tokens.
    target     TEXT NOT NULL,
    body       TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'given_up')),
    attempts   INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_at    INTEGER NOT NULL,
    error      TEXT,
    created_at INTEGER NOT NULL,
    done_at    INTEGER,
    UNIQUE (id, target),
    CHECK ((state = 'waiting') = (done_at IS NULL))
) STRICT;
CREATE INDEX ops_outbox_waiting ON ops_outbox (target, seq) WHERE state = 'waiting';
CREATE INDEX ops_outbox_by_time ON ops_outbox (created_at);

-- Single facts of the monitor: when the database was last examined, and what came of it.
CREATE TABLE ops_facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    at    INTEGER NOT NULL
) STRICT;
