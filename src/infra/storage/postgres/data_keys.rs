//! The `DataKeyStore` port.

use std::collections::BTreeSet;

use async_trait::async_trait;
use jiff::Timestamp;

use super::session::{Again, lock_of};
use super::{PgStore, Query};
use crate::domain::data_key::{DataKeyId, DataKeyPurpose, DataKeyStore, WrappedDataKey};
use crate::domain::key::TenantId;
use crate::domain::ports::StoreError;
use crate::infra::storage::codec::{after_bytes, array, micros, optional_time, purpose_text};
use crate::infra::storage::data_key_row::{DataKeyRow, data_key_columns};

const BY_ID: &str = concat!("SELECT ", data_key_columns!(), " FROM data_keys WHERE id = $1");

/// One at most: an index says so.
const NEWEST: &str = concat!(
    "SELECT ",
    data_key_columns!(),
    " FROM data_keys WHERE tenant = $1 AND purpose = $2 AND superseded_at IS NULL"
);

/// Under the lock of tenant and purpose, or two replicas would each find none.
const INSERT_IF_NONE: &str = "
    INSERT INTO data_keys (id, tenant, purpose, kek_id, wrapped, created_at)
    SELECT $1, $2, $3, $4, $5, $6
    WHERE NOT EXISTS (SELECT 1 FROM data_keys WHERE tenant = $2 AND purpose = $3 AND superseded_at IS NULL)
        AND NOT EXISTS (
            SELECT 1 FROM tenants WHERE id = $2 AND deleted_at IS NOT NULL AND $3 = 'encryption'
        )";

const UNDER_KEK: &str = concat!(
    "SELECT ",
    data_key_columns!(),
    " FROM data_keys
    WHERE kek_id = $1
    ORDER BY created_at DESC, inserted DESC
    LIMIT $2"
);

/// Jumps from one id to the next in the index: there are few ids, and a key for every tenant under each.
const KEK_IDS: &str = "
    WITH RECURSIVE ids (id) AS (
        SELECT min(kek_id) FROM data_keys
        UNION ALL
        SELECT (SELECT min(kek_id) FROM data_keys WHERE kek_id > ids.id) FROM ids WHERE ids.id IS NOT NULL
    )
    SELECT id FROM ids WHERE id IS NOT NULL";

const ALL: &str =
    concat!("SELECT ", data_key_columns!(), " FROM data_keys WHERE id > $1 ORDER BY id LIMIT $2");

const OF_TENANT: &str = concat!(
    "SELECT ",
    data_key_columns!(),
    " FROM data_keys WHERE tenant = $3 AND id > $1 ORDER BY id LIMIT $2"
);

const STATES: &str = "SELECT id, superseded_at FROM data_keys WHERE id = ANY($1)";

/// Never before its own creation, should the clock have been set back.
const SUPERSEDE: &str = "
    UPDATE data_keys SET superseded_at = greatest($4, created_at)
    WHERE id = $1 AND tenant = $2 AND purpose = $3 AND superseded_at IS NULL";

/// A replica of the version before takes the key that was made last, so the successor's time is later in any case.
const INSERT_SUCCESSOR: &str = "
    INSERT INTO data_keys (id, tenant, purpose, kek_id, wrapped, created_at)
    SELECT $1, $2, $3, $4, $5, greatest($6, max(created_at) + 1) FROM data_keys WHERE tenant = $2 AND purpose = $3";

const REWRAP: &str =
    "UPDATE data_keys SET kek_id = $2, wrapped = $3 WHERE id = $1 AND kek_id = $4 AND wrapped = $5";

const RETIRE: &str = "DELETE FROM data_keys WHERE id = $1 AND superseded_at < $2";

fn newest(tenant: &TenantId, purpose: DataKeyPurpose) -> Query<'_> {
    sqlx::query(NEWEST).bind(tenant.as_str()).bind(purpose_text(purpose))
}

#[async_trait]
impl DataKeyStore for PgStore {
    async fn data_key(&self, id: [u8; 16]) -> Result<Option<WrappedDataKey>, StoreError> {
        let row: Option<DataKeyRow> = self.one(Again::Once, || sqlx::query(BY_ID).bind(&id[..])).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn newest_data_key_or_insert(
        &self,
        candidate: WrappedDataKey,
    ) -> Result<Option<WrappedDataKey>, StoreError> {
        let purpose = purpose_text(candidate.purpose);
        let mut transaction = self.begin(lock_of("data key", &[candidate.tenant.as_str(), purpose])).await?;
        let insert = sqlx::query(INSERT_IF_NONE)
            .bind(&candidate.id[..])
            .bind(candidate.tenant.as_str())
            .bind(purpose)
            .bind(&candidate.kek_id)
            .bind(&candidate.wrapped)
            .bind(micros(candidate.created_at));
        transaction.execute(insert).await?;
        let row: Option<DataKeyRow> = transaction.one(newest(&candidate.tenant, candidate.purpose)).await?;
        transaction.commit().await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn newest_data_key(
        &self,
        tenant: &TenantId,
        purpose: DataKeyPurpose,
    ) -> Result<Option<WrappedDataKey>, StoreError> {
        let row: Option<DataKeyRow> = self.one(Again::Once, || newest(tenant, purpose)).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn kek_ids_in_use(&self) -> Result<BTreeSet<String>, StoreError> {
        let rows: Vec<(String,)> = self.all(Again::Once, || sqlx::query(KEK_IDS)).await?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }

    async fn data_keys_under(&self, kek_id: &str, limit: u32) -> Result<Vec<WrappedDataKey>, StoreError> {
        let query = || sqlx::query(UNDER_KEK).bind(kek_id).bind(i64::from(limit));
        let rows: Vec<DataKeyRow> = self.all(Again::Once, query).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    async fn data_keys(
        &self,
        tenant: Option<&TenantId>,
        after: Option<DataKeyId>,
        limit: u32,
    ) -> Result<Vec<WrappedDataKey>, StoreError> {
        let after = after_bytes(after.as_ref());
        let query = || {
            let query = sqlx::query(if tenant.is_some() { OF_TENANT } else { ALL });
            let query = query.bind(after).bind(i64::from(limit));
            match tenant {
                Some(tenant) => query.bind(tenant.as_str()),
                None => query,
            }
        };
        let rows: Vec<DataKeyRow> = self.all(Again::Once, query).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    async fn data_key_states(
        &self,
        ids: &[DataKeyId],
    ) -> Result<Vec<(DataKeyId, Option<Timestamp>)>, StoreError> {
        let query = || sqlx::query(STATES).bind(ids.iter().map(|id| &id[..]).collect::<Vec<_>>());
        let rows: Vec<(Vec<u8>, Option<i64>)> = self.all(Again::Once, query).await?;
        rows.into_iter().map(|(id, superseded)| Ok((array(&id)?, optional_time(superseded)?))).collect()
    }

    async fn supersede_data_key(
        &self,
        over: DataKeyId,
        successor: WrappedDataKey,
    ) -> Result<bool, StoreError> {
        let (tenant, purpose) = (successor.tenant.as_str(), purpose_text(successor.purpose));
        let mut transaction = self.begin(lock_of("data key", &[tenant, purpose])).await?;
        let supersede = sqlx::query(SUPERSEDE)
            .bind(&over[..])
            .bind(tenant)
            .bind(purpose)
            .bind(micros(successor.created_at));
        if transaction.execute(supersede).await? == 0 {
            transaction.roll_back().await?;
            return Ok(false);
        }
        let insert = sqlx::query(INSERT_SUCCESSOR)
            .bind(&successor.id[..])
            .bind(tenant)
            .bind(purpose)
            .bind(&successor.kek_id)
            .bind(&successor.wrapped)
            .bind(micros(successor.created_at));
        transaction.execute(insert).await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn rewrap_data_key(&self, was: &WrappedDataKey, is: &WrappedDataKey) -> Result<bool, StoreError> {
        let query = || {
            sqlx::query(REWRAP)
                .bind(&was.id[..])
                .bind(&is.kek_id)
                .bind(&is.wrapped)
                .bind(&was.kek_id)
                .bind(&was.wrapped)
        };
        Ok(self.write(Again::Never, query).await? == 1)
    }

    async fn retire_data_key(&self, id: DataKeyId, superseded_before: Timestamp) -> Result<bool, StoreError> {
        let query = || sqlx::query(RETIRE).bind(&id[..]).bind(micros(superseded_before));
        Ok(self.write(Again::Never, query).await? == 1)
    }
}
