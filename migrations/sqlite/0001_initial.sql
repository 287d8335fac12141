-- The first schema. Times are microseconds since 1970-01-01 UTC. Random ids are 16 bytes. Sealed columns hold
-- ciphertexts of the vault. Lists are JSON arrays of strings.

-- "tkbr": tells this program's databases from others'.
PRAGMA application_id = 1953194610;

CREATE TABLE credentials (
    id                    BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    tenant                TEXT    NOT NULL,
    provider              TEXT    NOT NULL,
    user_id               TEXT    NOT NULL,
    grant_name            TEXT    NOT NULL,
    account               TEXT    NOT NULL,
    created_at            INTEGER NOT NULL,
    updated_at            INTEGER NOT NULL,
    grant_id              BLOB    NOT NULL CHECK (length(grant_id) = 16),
    generation            INTEGER NOT NULL CHECK (generation >= 1),
    epoch                 INTEGER NOT NULL CHECK (epoch >= 1),
    status                TEXT    NOT NULL CHECK (status IN ('active', 'refreshing', 'needs_reauth', 'revoked')),

    -- The tokens; all gone once revoked.
    access_sealed         BLOB,
    access_obtained_at    INTEGER,
    access_expires_at     INTEGER,
    token_type            TEXT,
    profile_sealed        BLOB,
    scopes                TEXT    CHECK (json_valid(scopes)),
    scopes_assumed        INTEGER CHECK (scopes_assumed IN (0, 1)),
    rt_sealed             BLOB,
    rt_fingerprint        BLOB    CHECK (length(rt_fingerprint) = 32),
    rt_parent_fingerprint BLOB    CHECK (length(rt_parent_fingerprint) = 32),
    rt_epoch              INTEGER,

    -- The claim; there while refreshing.
    claim_owner           BLOB    CHECK (length(claim_owner) = 16),
    claim_deadline        INTEGER,
    settle_at             INTEGER,

    -- The back-off; `failures` alone is kept while refreshing.
    failures              INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0),
    not_before            INTEGER,
    last_error            TEXT,

    reauth_reason         TEXT,

    PRIMARY KEY (tenant, provider, user_id, grant_name, account),
    CHECK ((status = 'revoked') = (access_sealed IS NULL)),
    CHECK ((access_sealed IS NULL) = (access_obtained_at IS NULL)),
    CHECK ((access_sealed IS NULL) = (token_type IS NULL)),
    CHECK ((access_sealed IS NULL) = (profile_sealed IS NULL)),
    CHECK ((access_sealed IS NULL) = (scopes IS NULL)),
    CHECK ((access_sealed IS NULL) = (scopes_assumed IS NULL)),
    CHECK (access_sealed IS NOT NULL OR (access_expires_at IS NULL AND rt_sealed IS NULL)),
    CHECK ((rt_sealed IS NULL) = (rt_fingerprint IS NULL)),
    CHECK ((rt_sealed IS NULL) = (rt_epoch IS NULL)),
    CHECK (rt_sealed IS NOT NULL OR rt_parent_fingerprint IS NULL),
    CHECK ((status = 'refreshing') = (claim_owner IS NOT NULL)),
    CHECK ((claim_owner IS NULL) = (claim_deadline IS NULL)),
    CHECK ((claim_owner IS NULL) = (settle_at IS NULL)),
    CHECK ((not_before IS NULL) = (last_error IS NULL)),
    CHECK (last_error IS NULL OR (status = 'active' AND failures >= 1)),
    CHECK ((status = 'needs_reauth') = (reauth_reason IS NOT NULL))
) STRICT;

-- One user's credentials in list order.
CREATE INDEX credentials_of_user ON credentials (tenant, user_id, provider, grant_name, account);
CREATE INDEX credentials_to_settle ON credentials (settle_at) WHERE status = 'refreshing';

CREATE TABLE flows (
    id                BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    tenant            TEXT    NOT NULL,
    provider          TEXT    NOT NULL,
    user_id           TEXT    NOT NULL,
    grant_name        TEXT    NOT NULL,
    account           TEXT    NOT NULL,
    caller            TEXT    NOT NULL,
    services          TEXT    NOT NULL CHECK (json_valid(services)),
    scopes            TEXT    NOT NULL CHECK (json_valid(scopes)),
    grant_id          BLOB    NOT NULL CHECK (length(grant_id) = 16),
    state_hash        BLOB    NOT NULL UNIQUE CHECK (length(state_hash) = 32),
    secrets_sealed    BLOB    NOT NULL,
    endpoints         TEXT    NOT NULL CHECK (json_valid(endpoints)),
    redirect_uri      TEXT    NOT NULL,
    return_url        TEXT,
    client_state      TEXT,
    login_hint        TEXT,
    status            TEXT    NOT NULL CHECK (
        status IN ('pending', 'exchanging', 'completed', 'denied', 'failed', 'expired', 'cancelled')
    ),
    failure           TEXT,
    created_at        INTEGER NOT NULL,
    expires_at        INTEGER NOT NULL,
    exchange_began_at INTEGER,
    ended_at          INTEGER,
    CHECK ((status IN ('pending', 'exchanging')) = (ended_at IS NULL)),
    CHECK ((status = 'failed') = (failure IS NOT NULL))
) STRICT;

CREATE INDEX flows_of_key ON flows (tenant, provider, user_id, grant_name, account, created_at);
CREATE INDEX flows_pending ON flows (expires_at) WHERE status = 'pending';
CREATE INDEX flows_pending_of_user ON flows (tenant, provider, user_id, expires_at) WHERE status = 'pending';
CREATE INDEX flows_exchanging ON flows (exchange_began_at) WHERE status = 'exchanging';
CREATE INDEX flows_ended ON flows (ended_at) WHERE ended_at IS NOT NULL;

-- Revocations that providers have to be told. The ciphertexts are bound to the key and grant, and go when it is done.
CREATE TABLE revocations (
    id              BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    tenant          TEXT    NOT NULL,
    provider        TEXT    NOT NULL,
    user_id         TEXT    NOT NULL,
    grant_name      TEXT    NOT NULL,
    account         TEXT    NOT NULL,
    grant_id        BLOB    NOT NULL CHECK (length(grant_id) = 16),
    access_sealed   BLOB,
    refresh_sealed  BLOB,
    attempts        INTEGER NOT NULL CHECK (attempts >= 0),
    created_at      INTEGER NOT NULL,
    next_attempt_at INTEGER NOT NULL,
    finished_at     INTEGER,
    outcome         TEXT    CHECK (outcome IN ('revoked', 'failed', 'not_supported')),
    CHECK ((finished_at IS NULL) = (outcome IS NULL)),
    CHECK ((finished_at IS NULL) = (access_sealed IS NOT NULL)),
    CHECK (finished_at IS NULL OR refresh_sealed IS NULL)
) STRICT;

CREATE INDEX revocations_due ON revocations (next_attempt_at) WHERE finished_at IS NULL;
CREATE INDEX revocations_finished ON revocations (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE data_keys (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    tenant     TEXT    NOT NULL,
    purpose    TEXT    NOT NULL CHECK (purpose IN ('encryption', 'fingerprint')),
    kek_id     TEXT    NOT NULL,
    wrapped    BLOB    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX data_keys_of_tenant ON data_keys (tenant, purpose, created_at);
CREATE INDEX data_keys_under_kek ON data_keys (kek_id, created_at);
