-- The first schema: the same in meaning as SQLite's, column by column. Times are microseconds since 1970-01-01 UTC, random
-- ids are 16 bytes, sealed columns hold ciphertexts of the vault, lists are JSON arrays of strings. Texts that are
-- compared or ordered have COLLATE "C", so that they are compared byte by byte whatever the database's own collation is.
-- The reasons for sizes and settings are in docs/POSTGRES.md.

-- One row: which versions of the program may use this schema. A program that does not know all of the migrations that the
-- database has starts only if it knows the one that is named here. A migration that older programs can't live with raises
-- the number; all others leave it.
CREATE TABLE broker_schema (
    only_row       boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    oldest_version bigint  NOT NULL
);
INSERT INTO broker_schema (oldest_version) VALUES (1);

CREATE TABLE credentials (
    id                    bytea   NOT NULL UNIQUE CHECK (octet_length(id) = 16),
    tenant                text    NOT NULL COLLATE "C",
    provider              text    NOT NULL COLLATE "C",
    user_id               text    NOT NULL COLLATE "C",
    grant_name            text    NOT NULL COLLATE "C",
    account               text    NOT NULL COLLATE "C",
    created_at            bigint  NOT NULL,
    updated_at            bigint  NOT NULL,
    grant_id              bytea   NOT NULL CHECK (octet_length(grant_id) = 16),
    generation            bigint  NOT NULL CHECK (generation >= 1),
    epoch                 bigint  NOT NULL CHECK (epoch >= 1),
    status                text    NOT NULL COLLATE "C" CHECK (status IN ('active', 'refreshing', 'needs_reauth', 'revoked')),

    -- The tokens; all gone once revoked.
    access_sealed         bytea,
    access_obtained_at    bigint,
    access_expires_at     bigint,
    token_type            text,
    profile_sealed        bytea,
    scopes                text    CHECK (jsonb_typeof(scopes::jsonb) = 'array'),
    scopes_assumed        boolean,
    rt_sealed             bytea,
    rt_fingerprint        bytea   CHECK (octet_length(rt_fingerprint) = 32),
    rt_parent_fingerprint bytea   CHECK (octet_length(rt_parent_fingerprint) = 32),
    rt_epoch              bigint,

    -- The claim; there while refreshing.
    claim_owner           bytea   CHECK (octet_length(claim_owner) = 16),
    claim_deadline        bigint,
    settle_at             bigint,

    -- The back-off; `failures` alone is kept while refreshing.
    failures              bigint  NOT NULL DEFAULT 0 CHECK (failures >= 0),
    not_before            bigint,
    last_error            text,

    reauth_reason         text,

    -- When the background refreshes it ahead of its token's expiry (NULL: it does not), and when somebody last asked for
    -- it, to within an hour.
    next_refresh_at       bigint,
    used_at               bigint,

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
) WITH (
    -- A refresh writes a row twice, a claim and a new pair, and a row is about 1 kB. With a quarter of each page left free,
    -- the new version mostly lies on the page of the old one: one page is dirtied instead of two, and what is free again
    -- is used again by the same rows.
    fillfactor = 75,
    -- Of 100 million rows the usual fifth would be 20 million dead ones. Their number is what index scans stumble over,
    -- not their share.
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.02,
    -- A vacuum that rests every few pages never catches up with a thousand refreshes a second.
    autovacuum_vacuum_cost_delay = 1
);

-- A ciphertext can't be compressed: trying costs time with each write.
ALTER TABLE credentials ALTER COLUMN access_sealed SET STORAGE EXTERNAL;
ALTER TABLE credentials ALTER COLUMN profile_sealed SET STORAGE EXTERNAL;
ALTER TABLE credentials ALTER COLUMN rt_sealed SET STORAGE EXTERNAL;

-- One user's credentials in list order.
CREATE INDEX credentials_of_user ON credentials (tenant, user_id, provider, grant_name, account);
-- The few rows that are being refreshed.
CREATE INDEX credentials_to_settle ON credentials (settle_at) WHERE status = 'refreshing';
-- The due scan reads the few rows that are due at one provider, however many there are. The price: `status` and
-- `next_refresh_at` are indexed, so that a claim and a new pair are never HOT updates, and each writes an entry in every
-- index that has the row. Without the index each scan would read the table.
CREATE INDEX credentials_due ON credentials (provider, next_refresh_at)
    WHERE status = 'active' AND next_refresh_at IS NOT NULL;

CREATE TABLE flows (
    id                bytea   NOT NULL PRIMARY KEY CHECK (octet_length(id) = 16),
    tenant            text    NOT NULL COLLATE "C",
    provider          text    NOT NULL COLLATE "C",
    user_id           text    NOT NULL COLLATE "C",
    grant_name        text    NOT NULL COLLATE "C",
    account           text    NOT NULL COLLATE "C",
    caller            text    NOT NULL,
    services          text    NOT NULL CHECK (jsonb_typeof(services::jsonb) = 'array'),
    scopes            text    NOT NULL CHECK (jsonb_typeof(scopes::jsonb) = 'array'),
    grant_id          bytea   NOT NULL CHECK (octet_length(grant_id) = 16),
    state_hash        bytea   NOT NULL UNIQUE CHECK (octet_length(state_hash) = 32),
    secrets_sealed    bytea   NOT NULL,
    endpoints         text    NOT NULL CHECK (jsonb_typeof(endpoints::jsonb) = 'object'),
    redirect_uri      text    NOT NULL,
    return_url        text,
    client_state      text,
    login_hint        text,
    status            text    NOT NULL COLLATE "C" CHECK (
        status IN ('pending', 'exchanging', 'completed', 'denied', 'failed', 'expired', 'cancelled')
    ),
    failure           text,
    created_at        bigint  NOT NULL,
    expires_at        bigint  NOT NULL,
    exchange_began_at bigint,
    ended_at          bigint,
    -- Of two that began at one time the later one is the newest.
    inserted          bigint  GENERATED ALWAYS AS IDENTITY,
    CHECK ((status IN ('pending', 'exchanging')) = (ended_at IS NULL)),
    CHECK ((status = 'failed') = (failure IS NOT NULL))
);

CREATE INDEX flows_of_key ON flows (tenant, provider, user_id, grant_name, account, created_at, inserted);
CREATE INDEX flows_pending ON flows (expires_at) WHERE status = 'pending';
CREATE INDEX flows_pending_of_user ON flows (tenant, provider, user_id, expires_at) WHERE status = 'pending';
CREATE INDEX flows_exchanging ON flows (exchange_began_at) WHERE status = 'exchanging';
CREATE INDEX flows_ended ON flows (ended_at) WHERE ended_at IS NOT NULL;

-- Revocations that providers have to be told. The ciphertexts are bound to the key and grant, and go when it is done.
CREATE TABLE revocations (
    id              bytea   NOT NULL PRIMARY KEY CHECK (octet_length(id) = 16),
    tenant          text    NOT NULL COLLATE "C",
    provider        text    NOT NULL COLLATE "C",
    user_id         text    NOT NULL COLLATE "C",
    grant_name      text    NOT NULL COLLATE "C",
    account         text    NOT NULL COLLATE "C",
    grant_id        bytea   NOT NULL CHECK (octet_length(grant_id) = 16),
    access_sealed   bytea,
    refresh_sealed  bytea,
    attempts        bigint  NOT NULL CHECK (attempts >= 0),
    created_at      bigint  NOT NULL,
    next_attempt_at bigint  NOT NULL,
    finished_at     bigint,
    outcome         text    CHECK (outcome IN ('revoked', 'failed', 'not_supported')),
    inserted        bigint  GENERATED ALWAYS AS IDENTITY,
    CHECK ((finished_at IS NULL) = (outcome IS NULL)),
    CHECK ((finished_at IS NULL) = (access_sealed IS NOT NULL)),
    CHECK (finished_at IS NULL OR refresh_sealed IS NULL)
);

CREATE INDEX revocations_due ON revocations (next_attempt_at, inserted) WHERE finished_at IS NULL;
CREATE INDEX revocations_finished ON revocations (finished_at) WHERE finished_at IS NOT NULL;
-- Whether a grant was revoked that its row does not have any more: asked when an answer comes after a new consent.
CREATE INDEX revocations_of_grant ON revocations (grant_id);

CREATE TABLE data_keys (
    id         bytea   NOT NULL PRIMARY KEY CHECK (octet_length(id) = 16),
    tenant     text    NOT NULL COLLATE "C",
    purpose    text    NOT NULL COLLATE "C" CHECK (purpose IN ('encryption', 'fingerprint')),
    kek_id     text    NOT NULL COLLATE "C",
    wrapped    bytea   NOT NULL,
    created_at bigint  NOT NULL,
    inserted   bigint  GENERATED ALWAYS AS IDENTITY
);

CREATE INDEX data_keys_of_tenant ON data_keys (tenant, purpose, created_at, inserted);
CREATE INDEX data_keys_under_kek ON data_keys (kek_id, created_at, inserted);
