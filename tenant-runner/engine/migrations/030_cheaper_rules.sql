-- The same rows under cheaper rules: SQLite builds a table in memory, for each row, to test `IN` with more than two values.
-- Said as comparisons, the rules of a state cost next to nothing.
CREATE TABLE jobs_030 (
    seq             INTEGER PRIMARY KEY,
    id              BLOB NOT NULL UNIQUE,
    event_id        TEXT,
    -- The slot of the event's schedule that this job fills.
    slot            INTEGER,
    -- How many jobs led to this one.
    depth           INTEGER NOT NULL DEFAULT 0 CHECK (depth >= 0),
    action_type     TEXT NOT NULL,
    action_config   TEXT NOT NULL,
    -- What came with the trigger, as JSON.
    payload         TEXT,
    description     TEXT,
    agent           TEXT,
    priority        INTEGER NOT NULL,
    concurrency_key TEXT,
    unique_key      TEXT,
    state           TEXT NOT NULL
                    CHECK (state = 'ready' OR state = 'running' OR state = 'succeeded' OR state = 'dead' OR state = 'cancelled'),
    -- It is due, but its key has no room: it is out of the way until there is.
    parked          INTEGER NOT NULL DEFAULT 0 CHECK (parked IN (0, 1)),
    run_at          INTEGER NOT NULL,
    attempt         INTEGER NOT NULL DEFAULT 0,
    max_attempts    INTEGER NOT NULL CHECK (max_attempts >= 1),
    -- How many attempts a round has; being retried by hand begins another round.
    round_attempts  INTEGER NOT NULL CHECK (round_attempts >= 1),
    -- Milliseconds before the second attempt, doubled each time; or the waits one by one, as a JSON list.
    backoff_ms      INTEGER NOT NULL CHECK (backoff_ms >= 0),
    retry_delays_ms TEXT,
    timeout_ms      INTEGER CHECK (timeout_ms > 0),
    -- What follows, as JSON: {"then": […], "on_failure": […]}.
    chain           TEXT,
    -- Of the attempt that runs, or that an ended process left behind: the next process takes it up under the same id.
    attempt_id      BLOB,
    interruptions   INTEGER NOT NULL DEFAULT 0,
    boot_id         BLOB,
    fence           INTEGER NOT NULL DEFAULT 0,
    cancelling      INTEGER NOT NULL DEFAULT 0 CHECK (cancelling IN (0, 1)),
    traceparent     TEXT,
    result          TEXT,
    error           TEXT,
    created_at      INTEGER NOT NULL,
    started_at      INTEGER,
    finished_at     INTEGER,
    CHECK ((state = 'running') = (boot_id IS NOT NULL)),
    CHECK ((state <> 'ready' AND state <> 'running') = (finished_at IS NOT NULL)),
    CHECK (state <> 'running' OR (attempt_id IS NOT NULL AND started_at IS NOT NULL)),
    CHECK (attempt <= max_attempts),
    CHECK (cancelling = 0 OR state = 'running'),
    CHECK (parked = 0 OR (state = 'ready' AND concurrency_key IS NOT NULL))
) STRICT;
INSERT INTO jobs_030 (seq, id, event_id, slot, depth, action_type, action_config, payload, description, agent,
        priority, concurrency_key, unique_key, state, parked, run_at, attempt, max_attempts, round_attempts, backoff_ms,
        retry_delays_ms, timeout_ms, chain, attempt_id, interruptions, boot_id, fence, cancelling, traceparent, result,
        error, created_at, started_at, finished_at)
    SELECT seq, id, event_id, slot, depth, action_type, action_config, payload, description, agent,
        priority, concurrency_key, unique_key, state, parked, run_at, attempt, max_attempts, round_attempts, backoff_ms,
        retry_delays_ms, timeout_ms, chain, attempt_id, interruptions, boot_id, fence, cancelling, traceparent, result,
        error, created_at, started_at, finished_at
    FROM jobs;

CREATE TABLE attempts_030 (
    job_seq     INTEGER NOT NULL REFERENCES jobs_030 (seq) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    id          BLOB NOT NULL,
    outcome     TEXT NOT NULL
                CHECK (outcome = 'succeeded' OR outcome = 'failed' OR outcome = 'cancelled' OR outcome = 'interrupted'),
    detail      TEXT,
    started_at  INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    PRIMARY KEY (job_seq, number)
) STRICT, WITHOUT ROWID;
INSERT INTO attempts_030 SELECT job_seq, number, id, outcome, detail, started_at, finished_at FROM attempts;

CREATE TABLE job_steps_030 (
    job_seq     INTEGER NOT NULL REFERENCES jobs_030 (seq) ON DELETE CASCADE,
    number      INTEGER NOT NULL CHECK (number >= 0),
    name        TEXT NOT NULL,
    result      TEXT NOT NULL,
    finished_at INTEGER NOT NULL,
    PRIMARY KEY (job_seq, number)
) STRICT, WITHOUT ROWID;
INSERT INTO job_steps_030 SELECT job_seq, number, name, result, finished_at FROM job_steps;
DROP TABLE attempts;
DROP TABLE job_steps;
DROP TABLE jobs;
ALTER TABLE jobs_030 RENAME TO jobs;
-- What became of each attempt, apart from a first one that succeeded: that is in the job's own row.
ALTER TABLE attempts_030 RENAME TO attempts;
-- Steps that a job has finished: its next attempt goes on after them.
ALTER TABLE job_steps_030 RENAME TO job_steps;

CREATE INDEX jobs_ready ON jobs (priority, run_at, seq) WHERE state = 'ready' AND parked = 0;
CREATE INDEX jobs_parked ON jobs (concurrency_key, priority, run_at, seq) WHERE parked = 1;
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_dead ON jobs (finished_at) WHERE state = 'dead';
CREATE INDEX jobs_by_event ON jobs (event_id, seq) WHERE event_id IS NOT NULL;
CREATE INDEX jobs_live_by_event ON jobs (event_id) WHERE event_id IS NOT NULL AND finished_at IS NULL;
