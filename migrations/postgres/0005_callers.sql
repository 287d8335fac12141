-- Tenants about which something is known. One that is only named, in the configuration or by a caller, has no row.
CREATE TABLE tenants (
    id           text   NOT NULL COLLATE "C" PRIMARY KEY,
    display_name text   NOT NULL,
    created_at   bigint NOT NULL,
    -- Its callers may do nothing.
    disabled_at  bigint,
    -- The row stays, so that the id is never used again.
    deleted_at   bigint
);

-- Callers beside those of the configuration.
CREATE TABLE callers (
    tenant      text   NOT NULL COLLATE "C",
    id          text   NOT NULL COLLATE "C",
    description text   NOT NULL,
    -- JSON: a list of rules, and the rights to administer (src/domain/access_policy).
    rules       text   NOT NULL,
    admin       text   NOT NULL,
    -- The same as in caller_identities, as JSON.
    identities  text   NOT NULL,
    disabled_at bigint,
    revision    bigint NOT NULL CHECK (revision > 0),
    created_at  bigint NOT NULL,
    updated_at  bigint NOT NULL,
    PRIMARY KEY (tenant, id)
);

-- What callers prove to be beside their keys. Each is one caller's in the whole database: the tenant follows from it.
CREATE TABLE caller_identities (
    kind    text NOT NULL COLLATE "C" CHECK (kind IN ('spiffe', 'subject')),
    -- Of a subject; '' of a SPIFFE id.
    issuer  text NOT NULL COLLATE "C",
    -- The subject, or the SPIFFE id.
    subject text NOT NULL COLLATE "C",
    tenant  text NOT NULL COLLATE "C",
    caller  text NOT NULL COLLATE "C",
    PRIMARY KEY (kind, issuer, subject),
    FOREIGN KEY (tenant, caller) REFERENCES callers (tenant, id) ON DELETE CASCADE,
    CHECK ((kind = 'spiffe') = (issuer = ''))
);

CREATE INDEX caller_identities_of_caller ON caller_identities (tenant, caller);

-- SHA-256 hashes of keys of 256 random bits: nobody finds the key of a hash.
CREATE TABLE api_keys (
    hash         bytea  NOT NULL PRIMARY KEY CHECK (octet_length(hash) = 32),
    id           bytea  NOT NULL UNIQUE CHECK (octet_length(id) = 16),
    tenant       text   NOT NULL COLLATE "C",
    caller       text   NOT NULL COLLATE "C",
    label        text   NOT NULL,
    created_at   bigint NOT NULL,
    expires_at   bigint,
    revoked_at   bigint,
    -- To within an hour.
    last_used_at bigint,
    FOREIGN KEY (tenant, caller) REFERENCES callers (tenant, id) ON DELETE CASCADE
);

CREATE INDEX api_keys_of_caller ON api_keys (tenant, caller);
