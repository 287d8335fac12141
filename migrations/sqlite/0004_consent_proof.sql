-- How the browser that consents is proved to be the user's. Hashes are SHA-256 of secrets of 256 random bits. The table is
-- made anew, since SQLite can't change a constraint.
CREATE TABLE new_flows (
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
        status IN ('pending', 'returned', 'exchanging', 'completed', 'denied', 'failed', 'expired', 'cancelled')
    ),
    failure           TEXT,
    created_at        INTEGER NOT NULL,
    expires_at        INTEGER NOT NULL,
    exchange_began_at INTEGER,
    ended_at          INTEGER,
    binding           TEXT    NOT NULL DEFAULT 'app' CHECK (binding IN ('app', 'login', 'confirm')),
    -- Of the link to the broker's own page.
    link_hash         BLOB    UNIQUE CHECK (length(link_hash) = 32),
    -- Of the half of whoever began.
    secret_hash       BLOB    CHECK (length(secret_hash) = 32),
    -- Of the key in the browser that was let in.
    browser_hash      BLOB    CHECK (length(browser_hash) = 32),
    -- Of the half of the browser that came back.
    completion_hash   BLOB    CHECK (length(completion_hash) = 32),
    -- The authorization code, while it waits for the proof.
    code_sealed       BLOB,
    CHECK ((status IN ('pending', 'returned', 'exchanging')) = (ended_at IS NULL)),
    CHECK ((status = 'failed') = (failure IS NOT NULL)),
    CHECK ((status = 'returned') = (code_sealed IS NOT NULL)),
    -- Whatever program writes here: without a proof nothing is exchanged.
    CHECK (status <> 'exchanging' OR browser_hash IS NOT NULL OR (secret_hash IS NOT NULL AND completion_hash IS NOT NULL))
) STRICT;

-- In the order of their insertion, by which the newest is known. What was being exchanged has ended with its process.
INSERT INTO new_flows (
    id, tenant, provider, user_id, grant_name, account, caller, services, scopes, grant_id, state_hash, secrets_sealed,
    endpoints, redirect_uri, return_url, client_state, login_hint, status, failure, created_at, expires_at,
    exchange_began_at, ended_at
)
SELECT
    id, tenant, provider, user_id, grant_name, account, caller, services, scopes, grant_id, state_hash, secrets_sealed,
    endpoints, redirect_uri, return_url, client_state, login_hint,
    CASE status WHEN 'exchanging' THEN 'failed' ELSE status END,
    CASE status WHEN 'exchanging' THEN 'interrupted' ELSE failure END,
    created_at, expires_at, exchange_began_at,
    CASE status WHEN 'exchanging' THEN exchange_began_at ELSE ended_at END
FROM flows
ORDER BY rowid;

DROP TABLE flows;
ALTER TABLE new_flows RENAME TO flows;

CREATE INDEX flows_of_key ON flows (tenant, provider, user_id, grant_name, account, created_at);
CREATE INDEX flows_pending ON flows (expires_at) WHERE status = 'pending';
CREATE INDEX flows_returned ON flows (expires_at) WHERE status = 'returned';
CREATE INDEX flows_pending_of_user ON flows (tenant, provider, user_id, expires_at) WHERE status = 'pending';
CREATE INDEX flows_exchanging ON flows (exchange_began_at) WHERE status = 'exchanging';
CREATE INDEX flows_ended ON flows (ended_at) WHERE ended_at IS NOT NULL;
