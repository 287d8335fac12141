//! The `ReencryptionStore` port.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::SqliteStore;
use super::error::store_error;
use crate::domain::data_key::{
    PassStep, Reencryption, ReencryptionStore, RenewedRow, RowId, RowsPerKey, SealedRow, SealedTable,
};
use crate::domain::key::ClaimOwner;
use crate::domain::ports::StoreError;
use crate::infra::storage::codec::{after_bytes, micros, micros_of, number, place_text, stored};
use crate::infra::storage::sealed_row::{
    ReencryptionRow, SealedColumns, bind_step, column, reencryption_columns, rows_per_key,
};

const CREDENTIALS: &str = "
    SELECT id, tenant, provider, user_id, grant_name, account, grant_id,
        access_sealed AS first, rt_sealed AS second, profile_sealed AS third
    FROM credentials
    WHERE id > ?1 AND access_sealed IS NOT NULL
    ORDER BY id
    LIMIT ?2";

const FLOWS: &str = "
    SELECT id, tenant, provider, user_id, grant_name, account, grant_id,
        secrets_sealed AS first, NULL AS second, NULL AS third
    FROM flows
    WHERE id > ?1
    ORDER BY id
    LIMIT ?2";

const REVOCATIONS: &str = "
    SELECT id, tenant, provider, user_id, grant_name, account, grant_id,
        access_sealed AS first, refresh_sealed AS second, NULL AS third
    FROM revocations
    WHERE id > ?1 AND access_sealed IS NOT NULL
    ORDER BY id
    LIMIT ?2";

/// The words of their binding (`CONFIG_KEY_WORDS`) stand where others have a user, a grant and an account.
const CONFIGS: &str = "
    SELECT id, tenant, provider, 'provider configuration' AS user_id, 'configuration' AS grant_name, 'default' AS account,
        id AS grant_id, client_secret_sealed AS first, private_key_sealed AS second, tls_key_sealed AS third
    FROM provider_configurations
    WHERE id > ?1 AND (client_secret_sealed IS NOT NULL OR private_key_sealed IS NOT NULL OR tls_key_sealed IS NOT NULL)
    ORDER BY id
    LIMIT ?2";

/// With what they are bound to (`user_key_binding`).
const USER_KEYS: &str = "
    SELECT id, tenant, 'user-key' AS provider, user_id, 'user-key' AS grant_name, 'default' AS account, id AS grant_id,
        sealed AS first, NULL AS second, NULL AS third
    FROM user_keys
    WHERE id > ?1
    ORDER BY id
    LIMIT ?2";

/// Compare-and-swap. The parameters of columns that a table does not have are not used.
const REPLACE_CREDENTIAL: &str = "
    UPDATE credentials SET access_sealed = ?5, rt_sealed = ?6, profile_sealed = ?7
    WHERE id = ?1 AND access_sealed = ?2 AND rt_sealed IS ?3 AND profile_sealed = ?4";

const REPLACE_FLOW: &str = "UPDATE flows SET secrets_sealed = ?5 WHERE id = ?1 AND secrets_sealed = ?2";

const REPLACE_REVOCATION: &str = "
    UPDATE revocations SET access_sealed = ?5, refresh_sealed = ?6
    WHERE id = ?1 AND access_sealed = ?2 AND refresh_sealed IS ?3";

const REPLACE_CONFIG: &str = "
    UPDATE provider_configurations SET client_secret_sealed = ?5, private_key_sealed = ?6, tls_key_sealed = ?7
    WHERE id = ?1 AND client_secret_sealed IS ?2 AND private_key_sealed IS ?3 AND tls_key_sealed IS ?4";

const REPLACE_USER_KEY: &str = "UPDATE user_keys SET sealed = ?5 WHERE id = ?1 AND sealed = ?2";

const EXPECTED: &str = "
    SELECT (SELECT count(*) FROM credentials) + (SELECT count(*) FROM flows) + (SELECT count(*) FROM revocations)
        + (SELECT count(*) FROM provider_configurations) + (SELECT count(*) FROM user_keys)";

const STATE: &str = concat!("SELECT ", reencryption_columns!(), " FROM reencryption WHERE only_row = 1");

const REQUEST: &str =
    "UPDATE reencryption SET requested_at = max(coalesce(requested_at, ?1), ?1) WHERE only_row = 1";

const TAKE: &str = concat!(
    "UPDATE reencryption SET worker = ?1, lease_until = ?2 + ?3
    WHERE only_row = 1 AND requested_at IS NOT NULL AND (worker IS NULL OR worker = ?1 OR lease_until <= ?2)
    RETURNING ",
    reencryption_columns!()
);

const SAVE: &str = "
    UPDATE reencryption SET
        worker = CASE WHEN ?3 > 0 THEN worker END, lease_until = CASE WHEN ?3 > 0 THEN ?2 + ?3 END,
        requested_at = CASE WHEN requested_at <= ?4 THEN NULL ELSE requested_at END,
        pass = ?5, began_at = ?6, place = ?7, after = ?8,
        looked_at = ?9, renewed = ?10, skipped = ?11, unreadable = ?12, ended_at = ?13, expected = ?14
    WHERE only_row = 1 AND worker = ?1";

const COUNT: &str = "
    INSERT INTO data_key_rows (pass, data_key, place, row_count) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (pass, data_key, place) DO UPDATE SET row_count = row_count + excluded.row_count";

const COUNTED: &str = "SELECT data_key, place, row_count FROM data_key_rows WHERE pass = ?1";

const FORGET: &str = "DELETE FROM data_key_rows WHERE pass < ?1";

#[async_trait]
impl ReencryptionStore for SqliteStore {
    async fn sealed_rows(
        &self,
        table: SealedTable,
        after: Option<RowId>,
        limit: u32,
    ) -> Result<Vec<SealedRow>, StoreError> {
        let sql = match table {
            SealedTable::Credentials => CREDENTIALS,
            SealedTable::Flows => FLOWS,
            SealedTable::Revocations => REVOCATIONS,
            SealedTable::ProviderConfigs => CONFIGS,
            SealedTable::UserKeys => USER_KEYS,
        };
        let query = sqlx::query(sql).bind(after_bytes(after.as_ref())).bind(limit);
        let rows: Vec<SealedColumns> = self.read_all(query).await?;
        rows.into_iter().map(|row| row.row(table)).collect()
    }

    async fn replace_sealed(
        &self,
        table: SealedTable,
        rows: &[RenewedRow],
    ) -> Result<Vec<RowId>, StoreError> {
        let sql = match table {
            SealedTable::Credentials => REPLACE_CREDENTIAL,
            SealedTable::Flows => REPLACE_FLOW,
            SealedTable::Revocations => REPLACE_REVOCATION,
            SealedTable::ProviderConfigs => REPLACE_CONFIG,
            SealedTable::UserKeys => REPLACE_USER_KEY,
        };
        let mut replaced = Vec::with_capacity(rows.len());
        let mut transaction = self.begin().await?;
        for row in rows {
            let mut query = sqlx::query(sql).bind(&row.was.id[..]);
            for side in [&row.was, &row.is] {
                for index in 0..3 {
                    query = query.bind(column(side, table, index));
                }
            }
            let changed = query.execute(&mut *transaction).await.map_err(store_error)?.rows_affected();
            replaced.extend((changed > 0).then_some(row.was.id));
        }
        transaction.commit().await.map_err(store_error)?;
        Ok(replaced)
    }

    async fn expected_rows(&self) -> Result<u64, StoreError> {
        let row: Option<(i64,)> = self.read_one(sqlx::query(EXPECTED)).await?;
        row.map_or(Ok(0), |(rows,)| number(rows))
    }

    async fn reencryption(&self) -> Result<Reencryption, StoreError> {
        let row: Option<ReencryptionRow> = self.read_one(sqlx::query(STATE)).await?;
        row.ok_or(StoreError::Corrupt("no answer"))?.try_into()
    }

    async fn request_reencryption(&self, now: Timestamp) -> Result<(), StoreError> {
        self.write(sqlx::query(REQUEST).bind(micros(now))).await.map(|_| ())
    }

    async fn take_reencryption(
        &self,
        worker: ClaimOwner,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<Reencryption>, StoreError> {
        let query = sqlx::query(TAKE).bind(&worker.as_bytes()[..]).bind(micros(now)).bind(micros_of(lease));
        let row: Option<ReencryptionRow> = self.write_one(query).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn save_reencryption(
        &self,
        worker: ClaimOwner,
        step: &PassStep,
        now: Timestamp,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        let PassStep { state, rows, .. } = step;
        let mut transaction = self.begin().await?;
        let save = sqlx::query(SAVE).bind(&worker.as_bytes()[..]).bind(micros(now)).bind(micros_of(lease));
        let saved = bind_step!(save, step).execute(&mut *transaction).await.map_err(store_error)?;
        if saved.rows_affected() == 0 {
            return Ok(false);
        }
        for ((key, table), count) in rows {
            sqlx::query(COUNT)
                .bind(state.pass)
                .bind(&key[..])
                .bind(place_text(*table))
                .bind(stored(*count))
                .execute(&mut *transaction)
                .await
                .map_err(store_error)?;
        }
        transaction.commit().await.map_err(store_error)?;
        Ok(true)
    }

    async fn rows_per_key(&self, pass: i64) -> Result<RowsPerKey, StoreError> {
        rows_per_key(self.read_all(sqlx::query(COUNTED).bind(pass)).await?)
    }

    async fn forget_passes(&self, before: i64) -> Result<(), StoreError> {
        self.write(sqlx::query(FORGET).bind(before)).await.map(|_| ())
    }
}

/// For the test of query plans.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    CREDENTIALS,
    FLOWS,
    REVOCATIONS,
    CONFIGS,
    USER_KEYS,
    REPLACE_CREDENTIAL,
    REPLACE_FLOW,
    REPLACE_REVOCATION,
    REPLACE_CONFIG,
    REPLACE_USER_KEY,
    STATE,
    TAKE,
    SAVE,
    COUNT,
    COUNTED,
    FORGET,
];
