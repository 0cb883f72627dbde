-- Facts of one commit share a row; `facts` is one JSON object per line.
CREATE TABLE bus_packs (
    last_seq   INTEGER PRIMARY KEY,
    first_seq  INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    facts      TEXT NOT NULL,
    CHECK (first_seq <= last_seq)
) STRICT;
CREATE INDEX bus_packs_by_time ON bus_packs (created_at);
INSERT INTO bus_packs (last_seq, first_seq, created_at, facts)
    SELECT seq, seq, created_at,
           json_object('seq', seq, 'type', type, 'source', source, 'data', json(data), 'at', created_at)
    FROM bus_events ORDER BY seq;
DROP TABLE bus_events;

-- The queue. A lease is (boot_id, fence); whoever holds an older one cannot finish the job. Finished jobs stay where they are.
CREATE TABLE jobs_020 (
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
    state           TEXT NOT NULL CHECK (state IN ('ready', 'running', 'succeeded', 'dead', 'cancelled')),
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
    CHECK ((state IN ('succeeded', 'dead', 'cancelled')) = (finished_at IS NOT NULL)),
    CHECK (state <> 'running' OR (attempt_id IS NOT NULL AND started_at IS NOT NULL)),
    CHECK (attempt <= max_attempts),
    CHECK (cancelling = 0 OR state = 'running'),
    CHECK (parked = 0 OR (state = 'ready' AND concurrency_key IS NOT NULL))
) STRICT;
INSERT INTO jobs_020 (seq, id, event_id, slot, action_type, action_config, payload, description, agent, priority,
        concurrency_key, state, run_at, attempt, max_attempts, round_attempts, backoff_ms, attempt_id, interruptions, boot_id,
        fence, cancelling, traceparent, result, error, created_at, started_at, finished_at)
    SELECT seq, id, event_id, slot, action_type, action_config, payload, description, agent, priority,
        concurrency_key, state, run_at, attempt, max_attempts, max_attempts, min(backoff_s, 604800) * 1000, attempt_id, interruptions,
        boot_id, fence, cancelling, traceparent, result, error, created_at, started_at, finished_at
    FROM jobs;

CREATE TABLE attempts_020 (
    job_seq     INTEGER NOT NULL REFERENCES jobs_020 (seq) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    id          BLOB NOT NULL,
    outcome     TEXT NOT NULL CHECK (outcome IN ('succeeded', 'failed', 'cancelled', 'interrupted')),
    detail      TEXT,
    started_at  INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    PRIMARY KEY (job_seq, number)
) STRICT, WITHOUT ROWID;
INSERT INTO attempts_020 SELECT job_seq, number, id, outcome, detail, started_at, finished_at FROM attempts;
DROP TABLE attempts;
DROP TABLE jobs;
ALTER TABLE jobs_020 RENAME TO jobs;
-- What became of each attempt, apart from a first one that succeeded: that is in the job's own row.
ALTER TABLE attempts_020 RENAME TO attempts;

CREATE INDEX jobs_ready ON jobs (priority, run_at, seq) WHERE state = 'ready' AND parked = 0;
CREATE INDEX jobs_parked ON jobs (concurrency_key, priority, run_at, seq) WHERE parked = 1;
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_dead ON jobs (finished_at) WHERE state = 'dead';
CREATE INDEX jobs_by_event ON jobs (event_id, seq) WHERE event_id IS NOT NULL;
CREATE INDEX jobs_live_by_event ON jobs (event_id) WHERE event_id IS NOT NULL AND finished_at IS NULL;

-- Steps that a job has finished: its next attempt goes on after them.
CREATE TABLE job_steps (
    job_seq     INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    number      INTEGER NOT NULL CHECK (number >= 0),
    name        TEXT NOT NULL,
    result      TEXT NOT NULL,
    finished_at INTEGER NOT NULL,
    PRIMARY KEY (job_seq, number)
) STRICT, WITHOUT ROWID;

-- Concurrency keys that differ from the usual: one job at a time, as often as one likes.
CREATE TABLE queue_keys (
    key          TEXT PRIMARY KEY,
    concurrency  INTEGER NOT NULL CHECK (concurrency >= 1),
    rate_count   INTEGER CHECK (rate_count >= 1),
    rate_period  INTEGER CHECK (rate_period >= 1),
    -- The last rate_count starts, oldest first, as a JSON list.
    starts       TEXT NOT NULL DEFAULT '[]',
    used_at      INTEGER NOT NULL,
    CHECK ((rate_count IS NULL) = (rate_period IS NULL))
) STRICT, WITHOUT ROWID;

-- Which job a unique key stands for: until a time, or while that job lives.
CREATE TABLE unique_jobs (
    key        TEXT PRIMARY KEY,
    job_seq    INTEGER NOT NULL,
    expires_at INTEGER,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX unique_jobs_by_time ON unique_jobs (created_at);

-- How jobs have ended since the beginning, and where to look for running ones: none has a lower seq.
CREATE TABLE queue_totals (
    only         INTEGER PRIMARY KEY CHECK (only = 1),
    succeeded    INTEGER NOT NULL,
    dead         INTEGER NOT NULL,
    cancelled    INTEGER NOT NULL,
    running_from INTEGER NOT NULL,
    -- The highest seq ever given.
    last_seq     INTEGER NOT NULL
) STRICT;
INSERT INTO queue_totals
    SELECT 1, count(*) FILTER (WHERE state = 'succeeded'), count(*) FILTER (WHERE state = 'dead'),
           count(*) FILTER (WHERE state = 'cancelled'), coalesce(min(seq) FILTER (WHERE state = 'running'), 0),
           coalesce(max(seq), 0)
    FROM jobs;
