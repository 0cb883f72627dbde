-- Calls from outside that were taken, so that a repetition is known for one, also after a restart. A row outlives its event: an
-- event of the same name does not take an old call for a new one.
CREATE TABLE hook_calls (
    event_id    TEXT NOT NULL,
    -- As its sender named it.
    call_id     TEXT NOT NULL,
    job_id      BLOB NOT NULL,
    received_at INTEGER NOT NULL,
    PRIMARY KEY (event_id, call_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX hook_calls_by_time ON hook_calls (received_at);

-- Keys under which callers have put jobs on the queue, with a hash of what they asked for.
CREATE TABLE intake_keys (
    key        TEXT PRIMARY KEY,
    request    BLOB NOT NULL,
    job_id     BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX intake_keys_by_time ON intake_keys (created_at);
