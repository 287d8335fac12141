//! The `DataKeyStore` port.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::error::store_error;
use super::{Query, SqliteStore};
use crate::domain::key::TenantId;
use crate::domain::ports::{DataKeyPurpose, DataKeyStore, StoreError, WrappedDataKey};
use crate::infra::storage::codec::{micros, purpose_text};
use crate::infra::storage::data_key_row::DataKeyRow;

const BY_ID: &str = "SELECT id, tenant, purpose, kek_id, wrapped, created_at FROM data_keys WHERE id = ?1";

const NEWEST: &str = "
    SELECT id, tenant, purpose, kek_id, wrapped, created_at FROM data_keys
    WHERE tenant = ?1 AND purpose = ?2
    ORDER BY created_at DESC, rowid DESC
    LIMIT 1";

const INSERT_IF_NONE: &str = "
    INSERT INTO data_keys (id, tenant, purpose, kek_id, wrapped, created_at)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6
    WHERE NOT EXISTS (SELECT 1 FROM data_keys WHERE tenant = ?2 AND purpose = ?3)";

const UNDER_KEK: &str = "
    SELECT id, tenant, purpose, kek_id, wrapped, created_at FROM data_keys
    WHERE kek_id = ?1
    ORDER BY created_at DESC, rowid DESC
    LIMIT ?2";

fn newest(tenant: &TenantId, purpose: DataKeyPurpose) -> Query<'_> {
    sqlx::query(NEWEST).bind(tenant.as_str()).bind(purpose_text(purpose))
}

#[async_trait]
impl DataKeyStore for SqliteStore {
    async fn data_key(&self, id: [u8; 16]) -> Result<Option<WrappedDataKey>, StoreError> {
        let row: Option<DataKeyRow> = self.read_one(sqlx::query(BY_ID).bind(&id[..])).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn newest_data_key_or_insert(
        &self,
        candidate: WrappedDataKey,
    ) -> Result<WrappedDataKey, StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(INSERT_IF_NONE)
            .bind(&candidate.id[..])
            .bind(candidate.tenant.as_str())
            .bind(purpose_text(candidate.purpose))
            .bind(&candidate.kek_id)
            .bind(&candidate.wrapped)
            .bind(micros(candidate.created_at))
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
        let row = newest(&candidate.tenant, candidate.purpose)
            .fetch_one(&mut *transaction)
            .await
            .map_err(store_error)?;
        transaction.commit().await.map_err(store_error)?;
        <DataKeyRow as sqlx::FromRow<_>>::from_row(&row).map_err(store_error)?.try_into()
    }

    async fn newest_data_key(
        &self,
        tenant: &TenantId,
        purpose: DataKeyPurpose,
    ) -> Result<Option<WrappedDataKey>, StoreError> {
        let row: Option<DataKeyRow> = self.read_one(newest(tenant, purpose)).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn kek_ids_in_use(&self) -> Result<BTreeSet<String>, StoreError> {
        let rows: Vec<(String,)> =
            self.read_all(sqlx::query("SELECT DISTINCT kek_id FROM data_keys")).await?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }

    async fn data_keys_under(&self, kek_id: &str, limit: u32) -> Result<Vec<WrappedDataKey>, StoreError> {
        let rows: Vec<DataKeyRow> = self.read_all(sqlx::query(UNDER_KEK).bind(kek_id).bind(limit)).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }
}

/// For the test of query plans.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[BY_ID, NEWEST, INSERT_IF_NONE, UNDER_KEK];
