-- The control plane's state. Times are written by the application's clock; every change of a tenant or an operation
-- announces itself, so that routes, pages and the reconciler follow without polling.

CREATE TABLE installation (
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    install_id  uuid NOT NULL,
    created_at  timestamptz NOT NULL
);

CREATE TABLE leader (
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    epoch       bigint NOT NULL,
    holder      uuid NOT NULL,
    since       timestamptz NOT NULL
);

CREATE TABLE tenant (
    id                   uuid PRIMARY KEY,
    slug                 text NOT NULL CHECK (slug ~ '^[a-z][a-z0-9-]{1,30}[a-z0-9]$'),
    display_name         text NOT NULL CHECK (length(display_name) <= 120),
    desired              text NOT NULL CHECK (desired IN ('running', 'hibernated', 'suspended', 'deleted')),
    generation           bigint NOT NULL CHECK (generation > 0),
    observed_generation  bigint NOT NULL DEFAULT 0 CHECK (observed_generation <= generation),
    template             text NOT NULL,
    backend              text NOT NULL CHECK (backend IN ('docker', 'process', 'fake')),
    memory_bytes         bigint NOT NULL CHECK (memory_bytes > 0),
    cpu_millis           integer NOT NULL CHECK (cpu_millis > 0),
    pids                 integer NOT NULL CHECK (pids > 0),
    conditions           jsonb NOT NULL DEFAULT '[]',
    -- Counts changes of what the runner is told (secrets, API key), apart from what it is.
    settings_version     bigint NOT NULL DEFAULT 1,
    api_key_sha256       bytea CHECK (length(api_key_sha256) = 32),
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL,
    -- Set once the backend lists nothing of it; before that a deleted tenant is a tombstone.
    deleted_at           timestamptz
);
CREATE UNIQUE INDEX tenant_slug_live ON tenant (slug) WHERE deleted_at IS NULL;
CREATE INDEX tenant_deleted ON tenant (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE port_lease (
    port           integer PRIMARY KEY CHECK (port BETWEEN 1 AND 65535),
    tenant_id      uuid UNIQUE REFERENCES tenant (id) ON DELETE CASCADE,
    -- The host said that somebody else holds it: not leased again before this time.
    blocked_until  timestamptz,
    CHECK ((tenant_id IS NULL) <> (blocked_until IS NULL))
);

CREATE TABLE subnet_lease (
    -- The network's first address as a number.
    base           bigint PRIMARY KEY CHECK (base BETWEEN 0 AND 4294967295),
    prefix         smallint NOT NULL CHECK (prefix BETWEEN 8 AND 30),
    tenant_id      uuid UNIQUE REFERENCES tenant (id) ON DELETE CASCADE,
    blocked_until  timestamptz,
    CHECK ((tenant_id IS NULL) <> (blocked_until IS NULL))
);

CREATE TABLE operation (
    id           uuid PRIMARY KEY,
    tenant_id    uuid NOT NULL REFERENCES tenant (id) ON DELETE CASCADE,
    kind         text NOT NULL CHECK (kind IN ('create', 'suspend', 'resume', 'delete', 'heal', 'update')),
    generation   bigint NOT NULL,
    state        text NOT NULL CHECK (state IN ('running', 'succeeded', 'failed', 'superseded')),
    steps        jsonb NOT NULL,
    error        text,
    created_at   timestamptz NOT NULL,
    finished_at  timestamptz,
    deadline     timestamptz NOT NULL,
    CHECK ((state = 'running') = (finished_at IS NULL))
);
CREATE INDEX operation_of_tenant ON operation (tenant_id, created_at DESC);
-- One change at a time: a newer one supersedes what still runs.
CREATE UNIQUE INDEX operation_running ON operation (tenant_id) WHERE state = 'running';

CREATE TABLE idempotency (
    caller        text NOT NULL,
    key           text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    request_hash  bytea NOT NULL,
    operation_id  uuid NOT NULL REFERENCES operation (id) ON DELETE CASCADE,
    created_at    timestamptz NOT NULL,
    PRIMARY KEY (caller, key)
);
CREATE INDEX idempotency_age ON idempotency (created_at);

CREATE TABLE tenant_event (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id  uuid NOT NULL REFERENCES tenant (id) ON DELETE CASCADE,
    at         timestamptz NOT NULL,
    severity   text NOT NULL CHECK (severity IN ('info', 'warning', 'error')),
    reason     text NOT NULL,
    message    text NOT NULL
);
CREATE INDEX tenant_event_of_tenant ON tenant_event (tenant_id, id DESC);
CREATE INDEX tenant_event_age ON tenant_event (at);

CREATE TABLE tenant_secret (
    tenant_id   uuid NOT NULL REFERENCES tenant (id) ON DELETE CASCADE,
    name        text NOT NULL CHECK (name ~ '^[A-Z][A-Z0-9_]{0,63}$'),
    sealed      bytea NOT NULL,
    updated_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, name)
);

CREATE TABLE operator (
    id             uuid PRIMARY KEY,
    username       text NOT NULL UNIQUE,
    password_hash  text NOT NULL,
    role           text NOT NULL CHECK (role IN ('viewer', 'operator', 'owner')),
    token_version  bigint NOT NULL DEFAULT 1,
    created_at     timestamptz NOT NULL
);

CREATE TABLE api_token (
    id            uuid PRIMARY KEY,
    operator_id   uuid NOT NULL REFERENCES operator (id) ON DELETE CASCADE,
    name          text NOT NULL,
    role          text NOT NULL CHECK (role IN ('viewer', 'operator', 'owner')),
    sha256        bytea NOT NULL UNIQUE CHECK (length(sha256) = 32),
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    last_used_at  timestamptz
);
CREATE INDEX api_token_expiry ON api_token (expires_at);

-- Each row carries the hash of the one before it, so that a changed or missing row shows.
CREATE TABLE audit (
    seq       bigint PRIMARY KEY,
    at        timestamptz NOT NULL,
    actor     text NOT NULL,
    via       text NOT NULL,
    action    text NOT NULL,
    target    text NOT NULL,
    detail    text NOT NULL,
    previous  bytea NOT NULL,
    hash      bytea NOT NULL
);

-- `nexaas_change`: something about this tenant is different to look at.
CREATE FUNCTION announce_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('nexaas_change', NEW.id::text);
    -- `nexaas_intent`: the reconciler has work.
    IF TG_OP = 'INSERT' OR NEW.generation <> OLD.generation OR NEW.settings_version <> OLD.settings_version THEN
        PERFORM pg_notify('nexaas_intent', NEW.id::text);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER tenant_announce AFTER INSERT OR UPDATE ON tenant FOR EACH ROW EXECUTE FUNCTION announce_tenant();

CREATE FUNCTION announce_part() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.tenant_id IS NOT NULL THEN
        PERFORM pg_notify('nexaas_change', NEW.tenant_id::text);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER operation_announce AFTER INSERT OR UPDATE ON operation FOR EACH ROW EXECUTE FUNCTION announce_part();
CREATE TRIGGER port_announce AFTER INSERT OR UPDATE ON port_lease FOR EACH ROW EXECUTE FUNCTION announce_part();
CREATE TRIGGER event_announce AFTER INSERT ON tenant_event FOR EACH ROW EXECUTE FUNCTION announce_part();
