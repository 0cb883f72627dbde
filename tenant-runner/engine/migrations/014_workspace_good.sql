-- The last usable text of each file of the workspace.
CREATE TABLE workspace_good (
    path    TEXT PRIMARY KEY,
    content TEXT NOT NULL,
    at      INTEGER NOT NULL
) STRICT;
