-- Which template the workspace was made from; an empty name means that it had files of its own.
CREATE TABLE workspace_init (
    only     INTEGER PRIMARY KEY CHECK (only = 1),
    template TEXT NOT NULL,
    state    TEXT NOT NULL CHECK (state IN ('copying', 'done')),
    at       INTEGER NOT NULL
) STRICT;

-- The events that stand for entries of the memory files, with a hash of the entry as it was last taken over.
CREATE TABLE memory_sync (
    event_id TEXT PRIMARY KEY,
    hash     TEXT NOT NULL,
    at       INTEGER NOT NULL
) STRICT;
