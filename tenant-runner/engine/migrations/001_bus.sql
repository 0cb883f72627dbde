-- What happened, in order. The sequence number is given by the engine, so that an undone write never frees a number.
CREATE TABLE bus_events (
    seq        INTEGER PRIMARY KEY,
    type       TEXT NOT NULL,
    source     TEXT NOT NULL,
    data       TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX bus_events_by_time ON bus_events (created_at);
