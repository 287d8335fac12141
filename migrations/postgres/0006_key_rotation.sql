-- Data keys are replaced while the broker runs. The one without `superseded_at` is the active one of its tenant and purpose,
-- there is one at most; the others only open what they made, until no row is made with them any more.
ALTER TABLE data_keys ADD COLUMN superseded_at bigint;
CREATE UNIQUE INDEX data_keys_active ON data_keys (tenant, purpose) WHERE superseded_at IS NULL;

-- One row: the work of moving all rows to the active data keys. A pass walks through the tables in the order of the rows'
-- ids, and the place where it is stands here, so that any replica goes on where another one died.
CREATE TABLE reencryption (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- Who works, and until when nobody else does.
    worker       bytea   CHECK (octet_length(worker) = 16),
    lease_until  bigint,
    -- Since when a pass is asked for; NULL: all is done.
    requested_at bigint,
    -- The pass that is under way, or the last one.
    pass         bigint  NOT NULL DEFAULT 0 CHECK (pass >= 0),
    began_at     bigint,
    -- Where it is: behind `after` in `place`. NULL: it has ended.
    place        text    COLLATE "C" CHECK (place IN ('credentials', 'flows', 'revocations')),
    after        bytea,
    -- About how many rows there are.
    expected     bigint  NOT NULL DEFAULT 0,
    looked_at    bigint  NOT NULL DEFAULT 0,
    renewed      bigint  NOT NULL DEFAULT 0,
    skipped      bigint  NOT NULL DEFAULT 0,
    unreadable   bigint  NOT NULL DEFAULT 0,
    ended_at     bigint,
    CHECK ((worker IS NULL) = (lease_until IS NULL)),
    CHECK ((place IS NULL) = (after IS NULL)),
    CHECK (pass > 0 OR place IS NULL),
    CHECK ((pass > 0) = (began_at IS NOT NULL))
);
INSERT INTO reencryption DEFAULT VALUES;

-- How many rows each data key had in a pass, after the pass had moved what it could.
CREATE TABLE data_key_rows (
    pass      bigint NOT NULL,
    data_key  bytea  NOT NULL CHECK (octet_length(data_key) = 16),
    place     text   NOT NULL COLLATE "C" CHECK (place IN ('credentials', 'flows', 'revocations')),
    row_count bigint NOT NULL,
    PRIMARY KEY (pass, data_key, place)
);
