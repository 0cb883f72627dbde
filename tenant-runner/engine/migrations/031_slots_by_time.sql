-- Slots of one moment are filled together. So the rows that say which are filled lie together as well: by their time, not by
-- their event, and a burst of many schedules writes few pages. A slot names its event by a number that is never given again;
-- the slots of an event that is gone mean nothing any more, and pass with their time.
CREATE TABLE events_031 (
    number                INTEGER PRIMARY KEY AUTOINCREMENT,
    id                    TEXT NOT NULL UNIQUE,
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
INSERT INTO events_031 (id, type, condition_type, condition_expr, timezone, catch_up, planned_zone, next_eval_at, starts_at,
        expires_at, jitter_s, overlap, watch_from, action_type, action_config, job, status, paused_reason,
        pause_after_failures, failures_in_row, priority, concurrency_key, max_retries, retry_backoff_minutes, workspace,
        agent, client, description, metadata, last_run_at, last_result, run_count, fail_count, created_at, updated_at)
    SELECT id, type, condition_type, condition_expr, timezone, catch_up, planned_zone, next_eval_at, starts_at,
        expires_at, jitter_s, overlap, watch_from, action_type, action_config, job, status, paused_reason,
        pause_after_failures, failures_in_row, priority, concurrency_key, max_retries, retry_backoff_minutes, workspace,
        agent, client, description, metadata, last_run_at, last_result, run_count, fail_count, created_at, updated_at
    FROM events ORDER BY created_at, id;

-- The slots a schedule has filled or passed over: one row per slot, whatever became of its job.
CREATE TABLE slots_031 (
    slot    INTEGER NOT NULL,
    event   INTEGER NOT NULL,
    job_id  BLOB,
    -- Why there is no job: the one before was not over, or a job of the same unique key stood already.
    outcome TEXT CHECK (outcome IN ('overlap', 'unique')),
    PRIMARY KEY (slot, event),
    CHECK ((job_id IS NULL) = (outcome IS NOT NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO slots_031 (slot, event, job_id, outcome)
    SELECT s.slot, e.number, s.job_id, s.outcome FROM slots s JOIN events_031 e ON e.id = s.event_id;
DROP TABLE slots;
DROP TABLE events;
ALTER TABLE events_031 RENAME TO events;
ALTER TABLE slots_031 RENAME TO slots;

CREATE INDEX events_due ON events (next_eval_at, id) WHERE next_eval_at IS NOT NULL;
CREATE INDEX events_idle ON events (status, id) WHERE next_eval_at IS NULL;
CREATE INDEX events_expiring ON events (expires_at) WHERE expires_at IS NOT NULL AND status IN ('active', 'paused');
CREATE INDEX events_by_agent ON events (agent) WHERE agent IS NOT NULL;
CREATE INDEX events_by_zone ON events (planned_zone) WHERE planned_zone IS NOT NULL;
CREATE INDEX events_on_bus ON events (watch_from) WHERE condition_type = 'bus' AND status = 'active';
CREATE INDEX events_paused ON events (id) WHERE status = 'paused';
CREATE TRIGGER events_made AFTER INSERT ON events BEGIN
    UPDATE event_total SET events = events + 1;
END;
CREATE TRIGGER events_gone AFTER DELETE ON events BEGIN
    UPDATE event_total SET events = events - 1;
END;

-- A job comes under its event in two parts: those that live, which are few and written together, and those that have ended.
DROP INDEX jobs_by_event;
CREATE INDEX jobs_ended_by_event ON jobs (event_id, seq) WHERE event_id IS NOT NULL AND finished_at IS NOT NULL;
