//! The `ReencryptionStore` port.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::session::{Again, lock_of};
use super::{PgStore, now_or};
use crate::domain::data_key::{
    PassStep, Reencryption, ReencryptionStore, RenewedRow, RowId, RowsPerKey, SealedRow, SealedTable,
};
use crate::domain::key::ClaimOwner;
use crate::domain::ports::StoreError;
use crate::infra::storage::codec::{after_bytes, array, micros, micros_of, number, place_text, stored};
use crate::infra::storage::sealed_row::{
    ReencryptionRow, SealedColumns, bind_step, column, reencryption_columns, rows_per_key,
};

const CREDENTIALS: &str = "
    SELECT id, tenant, provider, user_id, grant_name, account, grant_id,
        access_sealed AS first, rt_sealed AS second, profile_sealed AS third
    FROM credentials
    WHERE id > $1 AND access_sealed IS NOT NULL
    ORDER BY id
    LIMIT $2";

const FLOWS: &str = "
    SELECT id, tenant, provider, user_id, grant_name, account, grant_id,
        secrets_sealed AS first, NULL::bytea AS second, NULL::bytea AS third
    FROM flows
    WHERE id > $1
    ORDER BY id
    LIMIT $2";

/// Those that are not finished have ciphertexts; they are few, and an index knows them.
const REVOCATIONS: &str = "
    SELECT id, tenant, provider, user_id, grant_name, account, grant_id,
        access_sealed AS first, refresh_sealed AS second, NULL::bytea AS third
    FROM revocations
    WHERE id > $1 AND finished_at IS NULL
    ORDER BY id
    LIMIT $2";

/// The words of their binding (`CONFIG_KEY_WORDS`) stand where others have a user, a grant and an account.
const CONFIGS: &str = "
    SELECT id, tenant, provider, 'provider configuration' AS user_id, 'configuration' AS grant_name, 'default' AS account,
        id AS grant_id, client_secret_sealed AS first, private_key_sealed AS second, tls_key_sealed AS third
    FROM provider_configurations
    WHERE id > $1 AND (client_secret_sealed IS NOT NULL OR private_key_sealed IS NOT NULL OR tls_key_sealed IS NOT NULL)
    ORDER BY id
    LIMIT $2";

/// With what they are bound to (`user_key_binding`).
const USER_KEYS: &str = "
    SELECT id, tenant, 'user-key' AS provider, user_id, 'user-key' AS grant_name, 'default' AS account, id AS grant_id,
        sealed AS first, NULL::bytea AS second, NULL::bytea AS third
    FROM user_keys
    WHERE id > $1
    ORDER BY id
    LIMIT $2";

/// A statement that replaces ciphertexts by compare-and-swap. A row that somebody works on is left out, not waited for: no
/// refresh waits for this, this waits for no refresh, and no two statements wait for each other.
macro_rules! replace {
    ($table:literal, $set:literal, $same:literal) => {
        concat!(
            "WITH given AS (
                SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[])
                    AS given (id, first_was, second_was, third_was, first_is, second_is, third_is)
            ), free AS (
                SELECT t.id AS id FROM ",
            $table,
            " AS t JOIN given ON t.id = given.id
                ORDER BY id
                FOR NO KEY UPDATE OF t SKIP LOCKED
            )
            UPDATE ",
            $table,
            " AS t SET ",
            $set,
            " FROM given JOIN free ON free.id = given.id
            WHERE t.id = given.id AND ",
            $same,
            " RETURNING t.id"
        )
    };
}

const REPLACE_CREDENTIALS: &str = replace!(
    "credentials",
    "access_sealed = given.first_is, rt_sealed = given.second_is, profile_sealed = given.third_is",
    "t.access_sealed = given.first_was AND t.rt_sealed IS NOT DISTINCT FROM given.second_was
        AND t.profile_sealed = given.third_was"
);

const REPLACE_FLOWS: &str =
    replace!("flows", "secrets_sealed = given.first_is", "t.secrets_sealed = given.first_was");

const REPLACE_REVOCATIONS: &str = replace!(
    "revocations",
    "access_sealed = given.first_is, refresh_sealed = given.second_is",
    "t.access_sealed = given.first_was AND t.refresh_sealed IS NOT DISTINCT FROM given.second_was"
);

const REPLACE_CONFIGS: &str = replace!(
    "provider_configurations",
    "client_secret_sealed = given.first_is, private_key_sealed = given.second_is, tls_key_sealed = given.third_is",
    "t.client_secret_sealed IS NOT DISTINCT FROM given.first_was
        AND t.private_key_sealed IS NOT DISTINCT FROM given.second_was AND t.tls_key_sealed IS NOT DISTINCT FROM given.third_was"
);

const REPLACE_USER_KEYS: &str =
    replace!("user_keys", "sealed = given.first_is", "t.sealed = given.first_was");

/// What the server knows from its last look; never counted, which would take minutes in a large table.
const EXPECTED: &str = "
    SELECT coalesce(sum(greatest(reltuples, 0)), 0)::bigint FROM pg_class
    WHERE oid IN ('credentials'::regclass, 'flows'::regclass, 'revocations'::regclass, 'provider_configurations'::regclass,
        'user_keys'::regclass)";

const STATE: &str = concat!("SELECT ", reencryption_columns!(), " FROM reencryption");

const REQUEST: &str = "UPDATE reencryption SET requested_at = greatest(requested_at, $1)";

const TAKE: &str = concat!(
    "UPDATE reencryption SET worker = $1, lease_until = $3 + ",
    now_or!("$2"),
    " WHERE requested_at IS NOT NULL AND (worker IS NULL OR worker = $1 OR lease_until <= ",
    now_or!("$2"),
    ") RETURNING ",
    reencryption_columns!()
);

const SAVE: &str = concat!(
    "UPDATE reencryption SET
        worker = CASE WHEN $3 > 0 THEN worker END,
        lease_until = CASE WHEN $3 > 0 THEN $3 + ",
    now_or!("$2"),
    " END,
        requested_at = CASE WHEN requested_at <= $4 THEN NULL ELSE requested_at END,
        pass = $5, began_at = $6, place = $7, after = $8,
        looked_at = $9, renewed = $10, skipped = $11, unreadable = $12, ended_at = $13, expected = $14
    WHERE worker = $1"
);

const COUNT: &str = "
    INSERT INTO data_key_rows (pass, data_key, place, row_count)
    SELECT $1, counted.* FROM unnest($2::bytea[], $3::text[], $4::bigint[]) AS counted (data_key, place, row_count)
    ON CONFLICT (pass, data_key, place) DO UPDATE SET row_count = data_key_rows.row_count + excluded.row_count";

const COUNTED: &str = "SELECT data_key, place, row_count FROM data_key_rows WHERE pass = $1";

const FORGET: &str = "DELETE FROM data_key_rows WHERE pass < $1";

#[async_trait]
impl ReencryptionStore for PgStore {
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
        let query = || sqlx::query(sql).bind(after_bytes(after.as_ref())).bind(i64::from(limit));
        let rows: Vec<SealedColumns> = self.all(Again::Once, query).await?;
        rows.into_iter().map(|row| row.row(table)).collect()
    }

    async fn replace_sealed(
        &self,
        table: SealedTable,
        rows: &[RenewedRow],
    ) -> Result<Vec<RowId>, StoreError> {
        let sql = match table {
            SealedTable::Credentials => REPLACE_CREDENTIALS,
            SealedTable::Flows => REPLACE_FLOWS,
            SealedTable::Revocations => REPLACE_REVOCATIONS,
            SealedTable::ProviderConfigs => REPLACE_CONFIGS,
            SealedTable::UserKeys => REPLACE_USER_KEYS,
        };
        let all = |read: fn(&RenewedRow) -> &SealedRow, index: usize| -> Vec<Option<&[u8]>> {
            rows.iter().map(|row| column(read(row), table, index)).collect()
        };
        let query = || {
            let mut query = sqlx::query(sql).bind(rows.iter().map(|row| &row.was.id[..]).collect::<Vec<_>>());
            for read in [(|row| &row.was) as fn(&RenewedRow) -> &SealedRow, |row| &row.is] {
                for index in 0..3 {
                    query = query.bind(all(read, index));
                }
            }
            query
        };
        let replaced: Vec<(Vec<u8>,)> = self.all(Again::Never, query).await?;
        replaced.iter().map(|(id,)| array(id)).collect()
    }

    async fn expected_rows(&self) -> Result<u64, StoreError> {
        let row: Option<(i64,)> = self.one(Again::Once, || sqlx::query(EXPECTED)).await?;
        row.map_or(Ok(0), |(rows,)| number(rows))
    }

    async fn reencryption(&self) -> Result<Reencryption, StoreError> {
        let row: Option<ReencryptionRow> = self.one(Again::Once, || sqlx::query(STATE)).await?;
        row.ok_or(StoreError::Corrupt("no answer"))?.try_into()
    }

    async fn request_reencryption(&self, now: Timestamp) -> Result<(), StoreError> {
        self.write(Again::Once, || sqlx::query(REQUEST).bind(micros(now))).await.map(|_| ())
    }

    async fn take_reencryption(
        &self,
        worker: ClaimOwner,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<Reencryption>, StoreError> {
        let query =
            || sqlx::query(TAKE).bind(&worker.as_bytes()[..]).bind(self.now(now)).bind(micros_of(lease));
        let row: Option<ReencryptionRow> = self.one(Again::Once, query).await?;
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
        let mut transaction = self.begin(lock_of("reencryption", &[])).await?;
        let save = sqlx::query(SAVE).bind(&worker.as_bytes()[..]).bind(self.now(now)).bind(micros_of(lease));
        let save = bind_step!(save, step);
        if transaction.execute(save).await? == 0 {
            transaction.roll_back().await?;
            return Ok(false);
        }
        if !rows.is_empty() {
            let count = sqlx::query(COUNT)
                .bind(state.pass)
                .bind(rows.keys().map(|(key, _)| &key[..]).collect::<Vec<_>>())
                .bind(rows.keys().map(|(_, table)| place_text(*table)).collect::<Vec<_>>())
                .bind(rows.values().map(|rows| stored(*rows)).collect::<Vec<_>>());
            transaction.execute(count).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    async fn rows_per_key(&self, pass: i64) -> Result<RowsPerKey, StoreError> {
        rows_per_key(self.all(Again::Once, || sqlx::query(COUNTED).bind(pass)).await?)
    }

    async fn forget_passes(&self, before: i64) -> Result<(), StoreError> {
        self.write(Again::Once, || sqlx::query(FORGET).bind(before)).await.map(|_| ())
    }
}
