-- Tenants about which something is known. One that is only named, in the configuration or by a caller, has no row.
CREATE TABLE tenants (
    id           TEXT    NOT NULL PRIMARY KEY,
    display_name TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    -- Its callers may do nothing.
    disabled_at  INTEGER,
    -- The row stays, so that the id is never used again.
    deleted_at   INTEGER
) STRICT;

-- Callers beside those of the configuration.
CREATE TABLE callers (
    tenant      TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    description TEXT    NOT NULL,
    -- JSON: a list of rules, and the rights to administer (src/domain/access_policy).
    rules       TEXT    NOT NULL,
    admin       TEXT    NOT NULL,
    -- The same as in caller_identities, as JSON.
    identities  TEXT    NOT NULL,
    disabled_at INTEGER,
    revision    INTEGER NOT NULL CHECK (revision > 0),
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;

-- What callers prove to be beside their keys. Each is one caller's in the whole database: the tenant follows from it.
CREATE TABLE caller_identities (
    kind    TEXT NOT NULL CHECK (kind IN ('spiffe', 'subject')),
    -- Of a subject; '' of a SPIFFE id.
    issuer  TEXT NOT NULL,
    -- The subject, or the SPIFFE id.
    subject TEXT NOT NULL,
    tenant  TEXT NOT NULL,
    caller  TEXT NOT NULL,
    PRIMARY KEY (kind, issuer, subject),
    FOREIGN KEY (tenant, caller) REFERENCES callers (tenant, id) ON DELETE CASCADE,
    CHECK ((kind = 'spiffe') = (issuer = ''))
) STRICT;

CREATE INDEX caller_identities_of_caller ON caller_identities (tenant, caller);

-- SHA-256 hashes of keys of 256 random bits: nobody finds the key of a hash.
CREATE TABLE api_keys (
    hash         BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    id           BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    tenant       TEXT    NOT NULL,
    caller       TEXT    NOT NULL,
    label        TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    revoked_at   INTEGER,
    -- To within an hour.
    last_used_at INTEGER,
    FOREIGN KEY (tenant, caller) REFERENCES callers (tenant, id) ON DELETE CASCADE
) STRICT;

CREATE INDEX api_keys_of_caller ON api_keys (tenant, caller);
