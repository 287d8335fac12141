//! The `DataKeyStore` port.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::session::{Again, lock_of};
use super::{PgStore, Query};
use crate::domain::key::TenantId;
use crate::domain::ports::{DataKeyPurpose, DataKeyStore, StoreError, WrappedDataKey};
use crate::infra::storage::codec::{micros, purpose_text};
use crate::infra::storage::data_key_row::DataKeyRow;

const BY_ID: &str = "SELECT id, tenant, purpose, kek_id, wrapped, created_at FROM data_keys WHERE id = $1";

const NEWEST: &str = "
    SELECT id, tenant, purpose, kek_id, wrapped, created_at FROM data_keys
    WHERE tenant = $1 AND purpose = $2
    ORDER BY created_at DESC, inserted DESC
    LIMIT 1";

/// Under the lock of tenant and purpose, or two replicas would each find none.
const INSERT_IF_NONE: &str = "
    INSERT INTO data_keys (id, tenant, purpose, kek_id, wrapped, created_at)
    SELECT $1, $2, $3, $4, $5, $6
    WHERE NOT EXISTS (SELECT 1 FROM data_keys WHERE tenant = $2 AND purpose = $3)";

const UNDER_KEK: &str = "
    SELECT id, tenant, purpose, kek_id, wrapped, created_at FROM data_keys
    WHERE kek_id = $1
    ORDER BY created_at DESC, inserted DESC
    LIMIT $2";

/// Jumps from one id to the next in the index: there are few ids, and a key for every tenant under each.
const KEK_IDS: &str = "
    WITH RECURSIVE ids (id) AS (
        SELECT min(kek_id) FROM data_keys
        UNION ALL
        SELECT (SELECT min(kek_id) FROM data_keys WHERE kek_id > ids.id) FROM ids WHERE ids.id IS NOT NULL
    )
    SELECT id FROM ids WHERE id IS NOT NULL";

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
    ) -> Result<WrappedDataKey, StoreError> {
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
        row.ok_or(StoreError::Corrupt("no answer"))?.try_into()
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
}
