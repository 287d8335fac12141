-- Data keys are replaced while the broker runs. The one without `superseded_at` is the active one of its tenant and purpose,
-- there is one at most; the others only open what they made, until no row is made with them any more.
ALTER TABLE data_keys ADD COLUMN superseded_at INTEGER;
CREATE UNIQUE INDEX data_keys_active ON data_keys (tenant, purpose) WHERE superseded_at IS NULL;

-- One row: the work of moving all rows to the active data keys. A pass walks through the tables in the order of the rows'
-- ids, and the place where it is stands here, so that the next process goes on where this one died.
CREATE TABLE reencryption (
    only_row     INTEGER PRIMARY KEY CHECK (only_row = 1),
    -- Who works, and until when nobody else does.
    worker       BLOB    CHECK (length(worker) = 16),
    lease_until  INTEGER,
    -- Since when a pass is asked for; NULL: all is done.
    requested_at INTEGER,
    -- The pass that is under way, or the last one.
    pass         INTEGER NOT NULL DEFAULT 0 CHECK (pass >= 0),
    began_at     INTEGER,
    -- Where it is: behind `after` in `place`. NULL: it has ended.
    place        TEXT    CHECK (place IN ('credentials', 'flows', 'revocations')),
    after        BLOB,
    -- About how many rows there are.
    expected     INTEGER NOT NULL DEFAULT 0,
    looked_at    INTEGER NOT NULL DEFAULT 0,
    renewed      INTEGER NOT NULL DEFAULT 0,
    skipped      INTEGER NOT NULL DEFAULT 0,
    unreadable   INTEGER NOT NULL DEFAULT 0,
    ended_at     INTEGER,
    CHECK ((worker IS NULL) = (lease_until IS NULL)),
    CHECK ((place IS NULL) = (after IS NULL)),
    CHECK (pass > 0 OR place IS NULL),
    CHECK ((pass > 0) = (began_at IS NOT NULL))
) STRICT;
INSERT INTO reencryption (only_row) VALUES (1);

-- How many rows each data key had in a pass, after the pass had moved what it could.
CREATE TABLE data_key_rows (
    pass      INTEGER NOT NULL,
    data_key  BLOB    NOT NULL CHECK (length(data_key) = 16),
    place     TEXT    NOT NULL CHECK (place IN ('credentials', 'flows', 'revocations')),
    row_count INTEGER NOT NULL,
    PRIMARY KEY (pass, data_key, place)
) STRICT;
