//! The statements about callers, keys and tenants. Both databases understand them, so that they stand here once; how they
//! are run is each store's own.

macro_rules! caller_columns {
    () => {
        "c.tenant, c.id, c.description, c.rules, c.admin, c.identities, c.disabled_at, c.revision, c.created_at, c.updated_at"
    };
}
macro_rules! key_columns {
    () => {
        "k.id AS key_id, k.tenant AS key_tenant, k.caller AS key_caller, k.label, k.created_at AS key_created_at, \
         k.expires_at, k.revoked_at, k.last_used_at"
    };
}

pub(super) const BY_KEY: &str = concat!(
    "SELECT ",
    caller_columns!(),
    ", ",
    key_columns!(),
    " FROM api_keys AS k JOIN callers AS c ON c.tenant = k.tenant AND c.id = k.caller WHERE k.hash = $1"
);

pub(super) const BY_IDENTITY: &str = concat!(
    "SELECT ",
    caller_columns!(),
    " FROM caller_identities AS i JOIN callers AS c ON c.tenant = i.tenant AND c.id = i.caller
    WHERE i.kind = $1 AND i.issuer = $2 AND i.subject = $3"
);

pub(super) const LOAD: &str =
    concat!("SELECT ", caller_columns!(), " FROM callers AS c WHERE c.tenant = $1 AND c.id = $2");

/// No id is empty, so that an empty one comes before all.
pub(super) const PAGE: &str = concat!(
    "SELECT ",
    caller_columns!(),
    " FROM callers AS c WHERE c.tenant = $1 AND c.id > $2 ORDER BY c.id LIMIT $3"
);

pub(super) const INSERT: &str = "
    INSERT INTO callers
        (tenant, id, description, rules, admin, identities, disabled_at, created_at, updated_at, revision)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1)
    ON CONFLICT DO NOTHING";

pub(super) const UPDATE: &str = "
    UPDATE callers SET description = $3, rules = $4, admin = $5, identities = $6, disabled_at = $7, updated_at = $8,
        revision = revision + 1
    WHERE tenant = $1 AND id = $2 AND revision = $9";

pub(super) const DELETE: &str = "DELETE FROM callers WHERE tenant = $1 AND id = $2";

pub(super) const DELETE_IDENTITIES: &str = "DELETE FROM caller_identities WHERE tenant = $1 AND caller = $2";

/// In the same order in every transaction, so that two of them never wait for each other.
pub(super) const INSERT_IDENTITY: &str = "
    INSERT INTO caller_identities (kind, issuer, subject, tenant, caller) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING";

pub(super) const INSERT_KEY: &str = "
    INSERT INTO api_keys (hash, id, tenant, caller, label, created_at, expires_at)
    SELECT $1, $2, $3, $4, $5, $6, $7
    WHERE EXISTS (SELECT 1 FROM callers WHERE tenant = $3 AND id = $4)
        AND $8 > (
            SELECT count(*) FROM api_keys
            WHERE tenant = $3 AND caller = $4 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $6)
        )";

pub(super) const KEYS: &str =
    concat!("SELECT ", key_columns!(), " FROM api_keys AS k WHERE k.tenant = $1 AND k.caller = $2");

/// A key that ends earlier anyway keeps its end.
pub(super) const END_KEY: &str = "
    UPDATE api_keys SET expires_at = CASE WHEN expires_at < $4 THEN expires_at ELSE $4 END
    WHERE id = $1 AND tenant = $2 AND caller = $3 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $5)";

pub(super) const REVOKE_KEY: &str = concat!(
    "UPDATE api_keys AS k SET revoked_at = coalesce(revoked_at, $4) WHERE k.id = $1 AND k.tenant = $2 AND k.caller = $3
    RETURNING ",
    "id AS key_id, tenant AS key_tenant, caller AS key_caller, label, created_at AS key_created_at, expires_at, \
     revoked_at, last_used_at"
);

pub(super) const KEY_USED: &str =
    "UPDATE api_keys SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at <= $3)";

pub(super) const TENANT: &str =
    "SELECT id, display_name, created_at, disabled_at, deleted_at FROM tenants WHERE id = $1";

pub(super) const TENANTS: &str = "
    SELECT id, display_name, created_at, disabled_at, deleted_at FROM tenants
    WHERE id > $1 AND deleted_at IS NULL ORDER BY id LIMIT $2";

pub(super) const INSERT_TENANT: &str = "
    INSERT INTO tenants (id, display_name, created_at, disabled_at, deleted_at) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING";

pub(super) const UPDATE_TENANT: &str = "
    UPDATE tenants SET display_name = $2, disabled_at = $3, deleted_at = $4 WHERE id = $1 AND deleted_at IS NULL";

/// Keys and identities go with them.
pub(super) const DELETE_CALLERS: &str = "DELETE FROM callers WHERE tenant = $1";

/// What was sealed with them does not open any more.
pub(super) const DELETE_DATA_KEYS: &str =
    "DELETE FROM data_keys WHERE tenant = $1 AND purpose = 'encryption'";

/// For the test of query plans.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    BY_KEY,
    BY_IDENTITY,
    LOAD,
    PAGE,
    UPDATE,
    DELETE,
    DELETE_IDENTITIES,
    INSERT_KEY,
    KEYS,
    END_KEY,
    REVOKE_KEY,
    KEY_USED,
    TENANT,
    TENANTS,
    UPDATE_TENANT,
    DELETE_CALLERS,
    DELETE_DATA_KEYS,
];
