-- The client's company (at most one) and its people. Passwords are Argon2id PHC strings.
CREATE TABLE company (
    only       INTEGER PRIMARY KEY CHECK (only = 1),
    id         TEXT NOT NULL,
    name       TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE users (
    id            TEXT PRIMARY KEY,
    username      TEXT NOT NULL,
    -- Lower case: names that differ in case only are the same.
    username_key  TEXT NOT NULL UNIQUE,
    role          TEXT NOT NULL CHECK (role IN ('admin', 'member')),
    password      TEXT NOT NULL,
    -- A token carries the version it was made under; raising it ends every token of the user.
    token_version INTEGER NOT NULL DEFAULT 1,
    created_at    INTEGER NOT NULL,
    last_login_at INTEGER
) STRICT;

-- Keys that the engine made for itself.
CREATE TABLE engine_keys (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;
