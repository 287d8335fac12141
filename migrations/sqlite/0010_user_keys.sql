-- A key for each user: what is sealed for a user takes it, beside a data key of the tenant. With its row goes all of the
-- user's that was sealed since, wherever a copy is.
CREATE TABLE user_keys (
    tenant     TEXT    NOT NULL,
    user_id    TEXT    NOT NULL,
    -- In the header of every ciphertext made with it.
    id         BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    -- The key, under a data key of the tenant.
    sealed     BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, user_id)
) STRICT;

-- To delete what there is of a user. Credentials and events have such an index.
CREATE INDEX flows_of_user ON flows (tenant, user_id);
CREATE INDEX revocations_of_user ON revocations (tenant, user_id);

-- Which tables a pass walks through is the program's to say; SQLite can't change a constraint, so the tables are made anew.
CREATE TABLE new_reencryption (
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
    place        TEXT,
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
INSERT INTO new_reencryption (
    only_row, worker, lease_until, requested_at, pass, began_at, place, after, expected, looked_at, renewed, skipped,
    unreadable, ended_at
)
SELECT
    only_row, worker, lease_until, requested_at, pass, began_at, place, after, expected, looked_at, renewed, skipped,
    unreadable, ended_at
FROM reencryption;
DROP TABLE reencryption;
ALTER TABLE new_reencryption RENAME TO reencryption;

CREATE TABLE new_data_key_rows (
    pass      INTEGER NOT NULL,
    data_key  BLOB    NOT NULL CHECK (length(data_key) = 16),
    place     TEXT    NOT NULL,
    row_count INTEGER NOT NULL,
    PRIMARY KEY (pass, data_key, place)
) STRICT;
INSERT INTO new_data_key_rows (pass, data_key, place, row_count)
SELECT pass, data_key, place, row_count FROM data_key_rows;
DROP TABLE data_key_rows;
ALTER TABLE new_data_key_rows RENAME TO data_key_rows;

-- What was sealed before is sealed anew, with users' keys.
UPDATE reencryption
SET requested_at = max(coalesce(requested_at, 0), CAST(unixepoch('subsec') * 1000000 AS INTEGER))
WHERE EXISTS (SELECT 1 FROM data_keys WHERE purpose = 'encryption');
