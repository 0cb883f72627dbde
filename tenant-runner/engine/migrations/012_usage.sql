-- One row per model call. Costs are in billionths of a US dollar.
CREATE TABLE usage (
    id                    INTEGER PRIMARY KEY,
    at                    INTEGER NOT NULL,
    workspace             TEXT,
    agent                 TEXT,
    source                TEXT NOT NULL,
    backend               TEXT NOT NULL,
    model                 TEXT NOT NULL,
    input_tokens          INTEGER NOT NULL,
    output_tokens         INTEGER NOT NULL,
    cache_read_tokens     INTEGER NOT NULL,
    cache_creation_tokens INTEGER NOT NULL,
    cost_nano_usd         INTEGER NOT NULL,
    -- interrupted: the process ended during the call, so the tokens are an estimate.
    outcome               TEXT NOT NULL CHECK (outcome IN ('ok', 'failed', 'interrupted')),
    session_id            TEXT,
    job_id                TEXT
) STRICT;
CREATE INDEX usage_by_time ON usage (at);

-- What running calls may cost at worst; a row ends with its call.
CREATE TABLE usage_reservations (
    id            TEXT PRIMARY KEY,
    boot_id       TEXT NOT NULL,
    at            INTEGER NOT NULL,
    workspace     TEXT,
    agent         TEXT,
    source        TEXT NOT NULL,
    model         TEXT NOT NULL,
    input_tokens  INTEGER NOT NULL,
    cost_nano_usd INTEGER NOT NULL
) STRICT;
