-- The monitor looks for paused events again and again; there are few of them among many.
CREATE INDEX events_paused ON events (id) WHERE status = 'paused';
