-- The audit log: one row for each decision, a chain of hashes for each tenant. Rows are added behind the head, never
-- changed, and removed from the beginning only, after a row of the log itself has said so.
CREATE TABLE audit_heads (
    tenant   TEXT    NOT NULL PRIMARY KEY,
    sequence INTEGER NOT NULL CHECK (sequence >= 0),
    hash     BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

CREATE TABLE audit_log (
    tenant        TEXT    NOT NULL,
    sequence      INTEGER NOT NULL CHECK (sequence >= 1),
    created_at    INTEGER NOT NULL,
    caller        TEXT,
    identified_by TEXT,
    action        TEXT    NOT NULL,
    outcome       TEXT    NOT NULL CHECK (outcome IN ('allowed', 'denied', 'failed')),
    reason        TEXT,
    user_id       TEXT,
    provider      TEXT,
    services      TEXT    NOT NULL CHECK (json_type(services) = 'array'),
    account       TEXT,
    flow_id       BLOB    CHECK (length(flow_id) = 16),
    generation    INTEGER,
    fingerprint   BLOB    CHECK (length(fingerprint) = 32),
    purpose       TEXT,
    request_id    TEXT,
    -- Of the log's own rows: how many decisions a gap stands for, or through which row older ones are removed.
    mark          INTEGER,
    mark_hash     BLOB    CHECK (length(mark_hash) = 32),
    hash          BLOB    NOT NULL CHECK (length(hash) = 32),
    seal          BLOB    NOT NULL CHECK (length(seal) = 32),
    PRIMARY KEY (tenant, sequence),
    CHECK ((generation IS NULL) = (fingerprint IS NULL)),
    CHECK (mark IS NOT NULL OR mark_hash IS NULL)
) STRICT, WITHOUT ROWID;

-- Who used this user's tokens, the newest first.
CREATE INDEX audit_of_user ON audit_log (tenant, user_id, sequence) WHERE user_id IS NOT NULL;
-- How far the log is older than it has to be kept.
CREATE INDEX audit_by_age ON audit_log (tenant, created_at);
-- The few rows that say that older ones are removed.
CREATE INDEX audit_prunes ON audit_log (tenant, sequence) WHERE action = 'AuditPrune';

-- Whoever can write the file can take these away: the chain's seals are for that.
CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
-- REPLACE removes rows without asking the trigger for that.
CREATE TRIGGER audit_log_no_replace BEFORE INSERT ON audit_log
WHEN EXISTS (SELECT 1 FROM audit_log WHERE tenant = NEW.tenant AND sequence = NEW.sequence)
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log
WHEN NOT EXISTS (
    -- Else each removed row would be looked for among all.
    SELECT 1 FROM audit_log AS said INDEXED BY audit_prunes
    WHERE said.tenant = OLD.tenant AND said.action = 'AuditPrune' AND said.mark >= OLD.sequence
        AND said.sequence > said.mark
)
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
