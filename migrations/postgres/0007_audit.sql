-- The audit log: one row for each decision, a chain of hashes for each tenant. Rows are added behind the head, never
-- changed, and removed from the beginning only, after a row of the log itself has said so.
CREATE TABLE audit_heads (
    tenant   text   NOT NULL PRIMARY KEY COLLATE "C",
    sequence bigint NOT NULL CHECK (sequence >= 0),
    hash     bytea  NOT NULL CHECK (octet_length(hash) = 32)
) WITH (
    -- One small row for each tenant, written with every batch: room for new versions on its own page.
    fillfactor = 10
);

CREATE TABLE audit_log (
    tenant        text   NOT NULL COLLATE "C",
    sequence      bigint NOT NULL CHECK (sequence >= 1),
    created_at    bigint NOT NULL,
    caller        text   COLLATE "C",
    identified_by text   COLLATE "C",
    action        text   NOT NULL COLLATE "C",
    outcome       text   NOT NULL COLLATE "C" CHECK (outcome IN ('allowed', 'denied', 'failed')),
    reason        text   COLLATE "C",
    user_id       text   COLLATE "C",
    provider      text   COLLATE "C",
    services      text   NOT NULL CHECK (jsonb_typeof(services::jsonb) = 'array'),
    account       text   COLLATE "C",
    flow_id       bytea  CHECK (octet_length(flow_id) = 16),
    generation    bigint,
    fingerprint   bytea  CHECK (octet_length(fingerprint) = 32),
    purpose       text,
    request_id    text,
    -- Of the log's own rows: how many decisions a gap stands for, or through which row older ones are removed.
    mark          bigint,
    mark_hash     bytea  CHECK (octet_length(mark_hash) = 32),
    hash          bytea  NOT NULL CHECK (octet_length(hash) = 32),
    seal          bytea  NOT NULL CHECK (octet_length(seal) = 32),
    PRIMARY KEY (tenant, sequence),
    CHECK ((generation IS NULL) = (fingerprint IS NULL)),
    CHECK (mark IS NOT NULL OR mark_hash IS NULL)
);

-- Who used this user's tokens, the newest first.
CREATE INDEX audit_of_user ON audit_log (tenant, user_id, sequence) WHERE user_id IS NOT NULL;
-- How far the log is older than it has to be kept.
CREATE INDEX audit_by_age ON audit_log (tenant, created_at);
-- The few rows that say that older ones are removed.
CREATE INDEX audit_prunes ON audit_log (tenant, sequence) WHERE action = 'AuditPrune';

-- Whoever serves as the broker's role can add rows and nothing else, whatever the grants say. The owner of the table can
-- take these triggers away: the chain's seals are for that.
CREATE FUNCTION audit_log_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND EXISTS (
        SELECT 1 FROM audit_log AS said
        WHERE said.tenant = OLD.tenant AND said.action = 'AuditPrune' AND said.mark >= OLD.sequence
            AND said.sequence > said.mark
    ) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION audit_log_keep();
CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_keep();
