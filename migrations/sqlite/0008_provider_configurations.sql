-- Provider configurations of tenants: their own OAuth apps. Sealed columns are ciphertexts of the vault under the tenant's data
-- key, bound to tenant, provider and configuration.
CREATE TABLE provider_configurations (
    tenant               TEXT    NOT NULL,
    provider             TEXT    NOT NULL,
    id                   BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    -- Definition, client and variables never change: what was obtained with the app goes nowhere else.
    definition           TEXT    NOT NULL,
    client_id            TEXT    NOT NULL,
    -- A JSON object of texts.
    variables            TEXT    NOT NULL CHECK (json_valid(variables)),
    -- A JSON object: how the client authenticates, without its secrets.
    authentication       TEXT    NOT NULL CHECK (json_valid(authentication)),
    client_secret_sealed BLOB,
    private_key_sealed   BLOB,
    tls_key_sealed       BLOB,
    disabled_at          INTEGER,
    revision             INTEGER NOT NULL CHECK (revision > 0),
    created_at           INTEGER NOT NULL,
    updated_at           INTEGER NOT NULL,
    PRIMARY KEY (tenant, provider)
) STRICT;

-- The configuration that something was begun or obtained with; NULL: the operator's. The one may be gone while the other stays.
ALTER TABLE credentials ADD COLUMN configuration BLOB CHECK (length(configuration) = 16);
ALTER TABLE flows ADD COLUMN configuration BLOB CHECK (length(configuration) = 16);
ALTER TABLE revocations ADD COLUMN configuration BLOB CHECK (length(configuration) = 16);

-- A pass that moves rows to the active data keys looks at configurations, too. The tables are made anew, since SQLite can't change
-- a constraint.
CREATE TABLE new_reencryption (
    only_row     INTEGER PRIMARY KEY CHECK (only_row = 1),
    worker       BLOB    CHECK (length(worker) = 16),
    lease_until  INTEGER,
    requested_at INTEGER,
    pass         INTEGER NOT NULL DEFAULT 0 CHECK (pass >= 0),
    began_at     INTEGER,
    place        TEXT    CHECK (place IN ('credentials', 'flows', 'revocations', 'provider_configurations')),
    after        BLOB,
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
    place     TEXT    NOT NULL CHECK (place IN ('credentials', 'flows', 'revocations', 'provider_configurations')),
    row_count INTEGER NOT NULL,
    PRIMARY KEY (pass, data_key, place)
) STRICT;
INSERT INTO new_data_key_rows (pass, data_key, place, row_count)
SELECT pass, data_key, place, row_count FROM data_key_rows;
DROP TABLE data_key_rows;
ALTER TABLE new_data_key_rows RENAME TO data_key_rows;
