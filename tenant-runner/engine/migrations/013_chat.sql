-- Conversations. `turn_boot` names the process that runs a turn now; NULL means that none runs.
CREATE TABLE chat_sessions (
    id         TEXT PRIMARY KEY,
    agent      TEXT NOT NULL,
    title      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    last_seq   INTEGER NOT NULL DEFAULT 0,
    turn_boot  TEXT
) STRICT;
CREATE INDEX chat_sessions_by_time ON chat_sessions (updated_at);

CREATE TABLE chat_messages (
    session_id TEXT NOT NULL REFERENCES chat_sessions (id) ON DELETE CASCADE,
    number     INTEGER NOT NULL,
    role       TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
    content    TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (session_id, number)
) STRICT, WITHOUT ROWID;

-- What watchers of a session are shown, in order.
CREATE TABLE chat_events (
    session_id TEXT NOT NULL REFERENCES chat_sessions (id) ON DELETE CASCADE,
    seq        INTEGER NOT NULL,
    type       TEXT NOT NULL CHECK (type IN ('chunk', 'done', 'error')),
    content    TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (session_id, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX chat_events_by_time ON chat_events (created_at);
