//! The statements about provider configurations that both databases understand; how they are run is each store's own.

macro_rules! columns {
    () => {
        "tenant, provider, id, definition, client_id, variables, authentication, client_secret_sealed, private_key_sealed, \
         tls_key_sealed, disabled_at, created_at, updated_at, revision"
    };
}

pub(super) const LOAD: &str =
    concat!("SELECT ", columns!(), " FROM provider_configurations WHERE tenant = $1 AND provider = $2");

/// No id is empty, so that an empty one comes before all.
pub(super) const PAGE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM provider_configurations WHERE tenant = $1 AND provider > $2 ORDER BY provider LIMIT $3"
);

pub(super) const INSERT: &str = concat!(
    "INSERT INTO provider_configurations (",
    columns!(),
    ")
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 1
    WHERE $14 > (SELECT count(*) FROM provider_configurations WHERE tenant = $1)
        AND NOT EXISTS (SELECT 1 FROM tenants WHERE id = $1 AND deleted_at IS NOT NULL)
    ON CONFLICT DO NOTHING"
);

pub(super) const IS_DELETED: &str = "SELECT 1 FROM tenants WHERE id = $1 AND deleted_at IS NOT NULL";

/// What never changes is not in it.
pub(super) const UPDATE: &str = "
    UPDATE provider_configurations SET
        authentication = $4, client_secret_sealed = $5, private_key_sealed = $6, tls_key_sealed = $7, disabled_at = $8,
        updated_at = $9, revision = revision + 1
    WHERE tenant = $1 AND provider = $2 AND id = $3 AND revision = $10";

pub(super) const DELETE: &str = "DELETE FROM provider_configurations WHERE tenant = $1 AND provider = $2";

pub(super) const USES: &str = "
    SELECT
        (SELECT count(*) FROM credentials
            WHERE tenant = $1 AND provider = $2 AND configuration = $3 AND status <> 'revoked'),
        (SELECT count(*) FROM flows
            WHERE tenant = $1 AND provider = $2 AND configuration = $3 AND status IN ('pending', 'returned', 'exchanging')),
        (SELECT count(*) FROM revocations WHERE configuration = $3 AND finished_at IS NULL)";

pub(super) const DELETE_OF_TENANT: &str = "DELETE FROM provider_configurations WHERE tenant = $1";

/// For the test of query plans. Not [`USES`], which reads all revocations that are to be done, once for a deletion.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[LOAD, PAGE, IS_DELETED, UPDATE, DELETE, DELETE_OF_TENANT];
