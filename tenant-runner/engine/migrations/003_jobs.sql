-- The queue. A lease is (boot_id, fence); whoever holds an older one cannot finish the job.
CREATE TABLE jobs (
    seq             INTEGER PRIMARY KEY,
    id              BLOB NOT NULL UNIQUE,
    event_id        TEXT,
    -- The slot of the event's schedule that this job fills.
    slot            INTEGER,
    action_type     TEXT NOT NULL,
    action_config   TEXT NOT NULL,
    -- What came with the trigger, as JSON.
    payload         TEXT,
    description     TEXT,
    agent           TEXT,
    priority        INTEGER NOT NULL,
    concurrency_key TEXT,
    state           TEXT NOT NULL CHECK (state IN ('ready', 'running', 'succeeded', 'dead', 'cancelled')),
    run_at          INTEGER NOT NULL,
    attempt         INTEGER NOT NULL DEFAULT 0,
    max_attempts    INTEGER NOT NULL CHECK (max_attempts >= 1),
    backoff_s       INTEGER NOT NULL CHECK (backoff_s >= 0),
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
    CHECK (cancelling = 0 OR state = 'running')
) STRICT;
CREATE INDEX jobs_ready ON jobs (priority, run_at, seq) WHERE state = 'ready';
CREATE INDEX jobs_running ON jobs (started_at) WHERE state = 'running';
CREATE INDEX jobs_finished ON jobs (finished_at, state) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_by_event ON jobs (event_id) WHERE event_id IS NOT NULL;

-- What became of each attempt.
CREATE TABLE attempts (
    job_seq     INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    id          BLOB NOT NULL,
    outcome     TEXT NOT NULL CHECK (outcome IN ('succeeded', 'failed', 'cancelled', 'interrupted')),
    detail      TEXT,
    started_at  INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    PRIMARY KEY (job_seq, number)
) STRICT, WITHOUT ROWID;
