-- What the ops monitor found. An alert is open until it is resolved; at most one open alert per fingerprint.
CREATE TABLE alerts (
    id           TEXT PRIMARY KEY,
    fingerprint  TEXT NOT NULL,
    severity     TEXT NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    category     TEXT NOT NULL,
    message      TEXT NOT NULL,
    auto_healed  INTEGER NOT NULL DEFAULT 0 CHECK (auto_healed IN (0, 1)),
    acknowledged INTEGER NOT NULL DEFAULT 0 CHECK (acknowledged IN (0, 1)),
    details      TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    resolved_at  INTEGER
) STRICT;
CREATE UNIQUE INDEX alerts_open ON alerts (fingerprint) WHERE resolved_at IS NULL;
CREATE INDEX alerts_by_time ON alerts (created_at);
