-- How the browser that consents is proved to be the user's. Hashes are SHA-256 of secrets of 256 random bits.
SET LOCAL lock_timeout = '5s';

ALTER TABLE flows
    ADD COLUMN binding         text  NOT NULL DEFAULT 'app' COLLATE "C" CHECK (binding IN ('app', 'login', 'confirm')),
    -- Of the link to the broker's own page.
    ADD COLUMN link_hash       bytea UNIQUE CHECK (octet_length(link_hash) = 32),
    -- Of the half of whoever began.
    ADD COLUMN secret_hash     bytea CHECK (octet_length(secret_hash) = 32),
    -- Of the key in the browser that was let in.
    ADD COLUMN browser_hash    bytea CHECK (octet_length(browser_hash) = 32),
    -- Of the half of the browser that came back.
    ADD COLUMN completion_hash bytea CHECK (octet_length(completion_hash) = 32),
    -- The authorization code, while it waits for the proof.
    ADD COLUMN code_sealed     bytea;

ALTER TABLE flows
    DROP CONSTRAINT flows_status_check,
    DROP CONSTRAINT flows_check,
    ADD CONSTRAINT flows_status_check CHECK (
        status IN ('pending', 'returned', 'exchanging', 'completed', 'denied', 'failed', 'expired', 'cancelled')
    ),
    ADD CONSTRAINT flows_ended CHECK ((status IN ('pending', 'returned', 'exchanging')) = (ended_at IS NULL)),
    ADD CONSTRAINT flows_code CHECK ((status = 'returned') = (code_sealed IS NOT NULL)),
    -- Whatever program writes here, also one of the version before: without a proof nothing is exchanged. Not valid for rows
    -- that are being exchanged just now, which may end.
    ADD CONSTRAINT flows_proved CHECK (
        status <> 'exchanging' OR browser_hash IS NOT NULL OR (secret_hash IS NOT NULL AND completion_hash IS NOT NULL)
    ) NOT VALID;

CREATE INDEX flows_returned ON flows (expires_at) WHERE status = 'returned';
