-- Schedules and triggers. Times are microseconds since the epoch; NULL in next_eval_at means nothing is due.
CREATE TABLE events (
    id                    TEXT PRIMARY KEY,
    type                  TEXT NOT NULL,
    condition_type        TEXT NOT NULL CHECK (condition_type IN ('cron', 'interval', 'once', 'webhook')),
    condition_expr        TEXT NOT NULL,
    next_eval_at          INTEGER,
    action_type           TEXT NOT NULL CHECK (action_type IN ('webhook', 'script', 'skill', 'agent_chat')),
    action_config         TEXT NOT NULL,
    status                TEXT NOT NULL CHECK (status IN ('active', 'paused', 'completed', 'failed', 'expired')),
    priority              INTEGER NOT NULL,
    concurrency_key       TEXT,
    max_retries           INTEGER NOT NULL CHECK (max_retries >= 0),
    retry_backoff_minutes REAL NOT NULL CHECK (retry_backoff_minutes >= 0),
    expires_at            INTEGER,
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
    CHECK (status = 'active' OR next_eval_at IS NULL)
) STRICT;
CREATE INDEX events_due ON events (next_eval_at) WHERE next_eval_at IS NOT NULL;
CREATE INDEX events_expiring ON events (expires_at) WHERE expires_at IS NOT NULL AND status IN ('active', 'paused');

-- The slots a schedule has filled: one row per slot, whatever became of its job.
CREATE TABLE slots (
    event_id TEXT NOT NULL REFERENCES events (id) ON DELETE CASCADE,
    slot     INTEGER NOT NULL,
    job_id   BLOB NOT NULL,
    PRIMARY KEY (event_id, slot)
) STRICT, WITHOUT ROWID;
CREATE INDEX slots_by_time ON slots (slot);
