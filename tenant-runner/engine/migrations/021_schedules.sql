-- Events with further conditions (a fact on the bus), further actions, and rules about overlap, failures and time.
-- Both tables are rebuilt, since SQLite cannot widen a CHECK; `slots` goes first, or dropping `events` would empty it.
CREATE TABLE events_021 (
    id                    TEXT PRIMARY KEY,
    type                  TEXT NOT NULL,
    condition_type        TEXT NOT NULL CHECK (condition_type IN ('cron', 'interval', 'once', 'webhook', 'bus')),
    condition_expr        TEXT NOT NULL,
    timezone              TEXT,
    catch_up              TEXT,
    -- The default zone that next_eval_at was worked out in; NULL for events that depend on none.
    planned_zone          TEXT,
    next_eval_at          INTEGER,
    starts_at             INTEGER,
    expires_at            INTEGER,
    jitter_s              INTEGER NOT NULL DEFAULT 0 CHECK (jitter_s >= 0),
    overlap               TEXT NOT NULL DEFAULT 'allow' CHECK (overlap IN ('allow', 'skip', 'queue', 'cancel_previous')),
    -- Facts up to this one are older than the event's watch on the bus.
    watch_from            INTEGER,
    action_type           TEXT NOT NULL CHECK (action_type IN
        ('webhook', 'script', 'skill', 'agent_chat', 'job_enqueue', 'registry_update', 'steps')),
    action_config         TEXT NOT NULL,
    -- Further fields of its jobs, as JSON.
    job                   TEXT,
    status                TEXT NOT NULL CHECK (status IN ('active', 'paused', 'completed', 'failed', 'expired')),
    paused_reason         TEXT,
    pause_after_failures  INTEGER CHECK (pause_after_failures >= 1),
    failures_in_row       INTEGER NOT NULL DEFAULT 0 CHECK (failures_in_row >= 0),
    priority              INTEGER NOT NULL,
    concurrency_key       TEXT,
    max_retries           INTEGER NOT NULL CHECK (max_retries >= 0),
    retry_backoff_minutes REAL NOT NULL CHECK (retry_backoff_minutes >= 0),
    workspace             TEXT,
    agent                 TEXT,
    client                TEXT,
    description           TEXT,
    metadata              TEXT,
    last_run_at           INTEGER,
    last_result           TEXT,
    run_count             INTEGER NOT NULL DEFAULT 0,
    fail_count            INTEGER NOT NULL DEFAULT 0,
    created_at            INTEGER NOT NULL,
    updated_at            INTEGER NOT NULL,
    CHECK (status = 'active' OR next_eval_at IS NULL),
    CHECK (status = 'paused' OR paused_reason IS NULL)
) STRICT;
INSERT INTO events_021 (id, type, condition_type, condition_expr, next_eval_at, expires_at, action_type, action_config, status,
        priority, concurrency_key, max_retries, retry_backoff_minutes, workspace, agent, client, description, metadata,
        last_run_at, last_result, run_count, fail_count, created_at, updated_at)
    SELECT id, type, condition_type, condition_expr, next_eval_at, expires_at, action_type, action_config, status,
        priority, concurrency_key, max_retries, retry_backoff_minutes, workspace, agent, client, description, metadata,
        last_run_at, last_result, run_count, fail_count, created_at, updated_at
    FROM events;
-- So that the first plan in the default zone sees to those that may depend on it.
UPDATE events_021 SET planned_zone = '' WHERE condition_type = 'cron' AND next_eval_at IS NOT NULL;

-- The slots a schedule has filled or passed over: one row per slot, whatever became of its job.
CREATE TABLE slots_021 (
    event_id TEXT NOT NULL REFERENCES events_021 (id) ON DELETE CASCADE,
    slot     INTEGER NOT NULL,
    job_id   BLOB,
    -- Why there is no job: the one before was not over, or a job of the same unique key stood already.
    outcome  TEXT CHECK (outcome IN ('overlap', 'unique')),
    PRIMARY KEY (event_id, slot),
    CHECK ((job_id IS NULL) = (outcome IS NOT NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO slots_021 (event_id, slot, job_id) SELECT event_id, slot, job_id FROM slots;
DROP TABLE slots;
DROP TABLE events;
ALTER TABLE events_021 RENAME TO events;
ALTER TABLE slots_021 RENAME TO slots;

CREATE INDEX slots_by_time ON slots (slot);
CREATE INDEX events_due ON events (next_eval_at, id) WHERE next_eval_at IS NOT NULL;
CREATE INDEX events_idle ON events (status, id) WHERE next_eval_at IS NULL;
CREATE INDEX events_expiring ON events (expires_at) WHERE expires_at IS NOT NULL AND status IN ('active', 'paused');
CREATE INDEX events_by_agent ON events (agent) WHERE agent IS NOT NULL;
CREATE INDEX events_by_zone ON events (planned_zone) WHERE planned_zone IS NOT NULL;
CREATE INDEX events_on_bus ON events (watch_from) WHERE condition_type = 'bus' AND status = 'active';

-- How many events there are, kept without counting.
CREATE TABLE event_total (
    only   INTEGER PRIMARY KEY CHECK (only = 1),
    events INTEGER NOT NULL
) STRICT;
INSERT INTO event_total SELECT 1, count(*) FROM events;
CREATE TRIGGER events_made AFTER INSERT ON events BEGIN
    UPDATE event_total SET events = events + 1;
END;
CREATE TRIGGER events_gone AFTER DELETE ON events BEGIN
    UPDATE event_total SET events = events - 1;
END;

-- Facts on the bus that an event has answered, and up to which fact all of them were looked at.
CREATE TABLE event_facts (
    seq      INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    job_id   BLOB,
    outcome  TEXT CHECK (outcome IN ('overlap', 'unique')),
    PRIMARY KEY (seq, event_id),
    CHECK ((job_id IS NULL) = (outcome IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE TABLE event_cursor (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    seq  INTEGER NOT NULL
) STRICT;
INSERT INTO event_cursor VALUES (1, 0);
