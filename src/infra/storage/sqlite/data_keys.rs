//! The `DataKeyStore` port.

use std::collections::BTreeSet;

use async_trait::async_trait;
use jiff::Timestamp;

use super::error::store_error;
use super::{Query, SqliteStore, id_list};
use crate::domain::data_key::{DataKeyId, DataKeyPurpose, DataKeyStore, WrappedDataKey};
use crate::domain::key::TenantId;
use crate::domain::ports::StoreError;
use crate::infra::storage::codec::{after_bytes, array, micros, optional_time, purpose_text};
use crate::infra::storage::data_key_row::{DataKeyRow, data_key_columns};

const BY_ID: &str = concat!("SELECT ", data_key_columns!(), " FROM data_keys WHERE id = ?1");

/// One at most: an index says so.
const NEWEST: &str = concat!(
    "SELECT ",
    data_key_columns!(),
    " FROM data_keys WHERE tenant = ?1 AND purpose = ?2 AND superseded_at IS NULL"
);

const INSERT_IF_NONE: &str = "
    INSERT INTO data_keys (id, tenant, purpose, kek_id, wrapped, created_at)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6
    WHERE NOT EXISTS (SELECT 1 FROM data_keys WHERE tenant = ?2 AND purpose = ?3 AND superseded_at IS NULL)
        AND NOT EXISTS (
            SELECT 1 FROM tenants WHERE id = ?2 AND deleted_at IS NOT NULL AND ?3 = 'encryption'
        )";

const UNDER_KEK: &str = concat!(
    "SELECT ",
    data_key_columns!(),
    " FROM data_keys
    WHERE kek_id = ?1
    ORDER BY created_at DESC, rowid DESC
    LIMIT ?2"
);

const ALL: &str =
    concat!("SELECT ", data_key_columns!(), " FROM data_keys WHERE id > ?1 ORDER BY id LIMIT ?2");

const OF_TENANT: &str = concat!(
    "SELECT ",
    data_key_columns!(),
    " FROM data_keys WHERE tenant = ?3 AND id > ?1 ORDER BY id LIMIT ?2"
);

const STATES: &str =
    "SELECT id, superseded_at FROM data_keys WHERE id IN (SELECT unhex(value) FROM json_each(?1))";

/// Never before its own creation, should the clock have been set back.
const SUPERSEDE: &str = "
    UPDATE data_keys SET superseded_at = max(?4, created_at)
    WHERE id = ?1 AND tenant = ?2 AND purpose = ?3 AND superseded_at IS NULL";

/// A replica of the version before takes the key that was made last, so the successor's time is later in any case.
const INSERT_SUCCESSOR: &str = "
    INSERT INTO data_keys (id, tenant, purpose, kek_id, wrapped, created_at)
    SELECT ?1, ?2, ?3, ?4, ?5, max(?6, newest + 1)
    FROM (SELECT max(created_at) AS newest FROM data_keys WHERE tenant = ?2 AND purpose = ?3)";

const REWRAP: &str =
    "UPDATE data_keys SET kek_id = ?2, wrapped = ?3 WHERE id = ?1 AND kek_id = ?4 AND wrapped = ?5";

const RETIRE: &str = "DELETE FROM data_keys WHERE id = ?1 AND superseded_at < ?2";

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
    ) -> Result<Option<WrappedDataKey>, StoreError> {
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
            .fetch_optional(&mut *transaction)
            .await
            .map_err(store_error)?;
        transaction.commit().await.map_err(store_error)?;
        let row = row.as_ref().map(<DataKeyRow as sqlx::FromRow<_>>::from_row).transpose();
        row.map_err(store_error)?.map(TryInto::try_into).transpose()
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

    async fn data_keys(
        &self,
        tenant: Option<&TenantId>,
        after: Option<DataKeyId>,
        limit: u32,
    ) -> Result<Vec<WrappedDataKey>, StoreError> {
        let after = after_bytes(after.as_ref());
        let query = match tenant {
            Some(tenant) => sqlx::query(OF_TENANT).bind(after).bind(limit).bind(tenant.as_str()),
            None => sqlx::query(ALL).bind(after).bind(limit),
        };
        let rows: Vec<DataKeyRow> = self.read_all(query).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    async fn data_key_states(
        &self,
        ids: &[DataKeyId],
    ) -> Result<Vec<(DataKeyId, Option<Timestamp>)>, StoreError> {
        let query = sqlx::query(STATES).bind(id_list(ids.iter().map(|id| &id[..])));
        let rows: Vec<(Vec<u8>, Option<i64>)> = self.read_all(query).await?;
        rows.into_iter().map(|(id, superseded)| Ok((array(&id)?, optional_time(superseded)?))).collect()
    }

    async fn supersede_data_key(
        &self,
        over: DataKeyId,
        successor: WrappedDataKey,
    ) -> Result<bool, StoreError> {
        let (tenant, purpose) = (successor.tenant.as_str(), purpose_text(successor.purpose));
        let mut transaction = self.begin().await?;
        let superseded = sqlx::query(SUPERSEDE)
            .bind(&over[..])
            .bind(tenant)
            .bind(purpose)
            .bind(micros(successor.created_at))
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
        if superseded.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query(INSERT_SUCCESSOR)
            .bind(&successor.id[..])
            .bind(tenant)
            .bind(purpose)
            .bind(&successor.kek_id)
            .bind(&successor.wrapped)
            .bind(micros(successor.created_at))
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
        transaction.commit().await.map_err(store_error)?;
        Ok(true)
    }

    async fn rewrap_data_key(&self, was: &WrappedDataKey, is: &WrappedDataKey) -> Result<bool, StoreError> {
        let query = sqlx::query(REWRAP)
            .bind(&was.id[..])
            .bind(&is.kek_id)
            .bind(&is.wrapped)
            .bind(&was.kek_id)
            .bind(&was.wrapped);
        Ok(self.write(query).await? == 1)
    }

    async fn retire_data_key(&self, id: DataKeyId, superseded_before: Timestamp) -> Result<bool, StoreError> {
        let query = sqlx::query(RETIRE).bind(&id[..]).bind(micros(superseded_before));
        Ok(self.write(query).await? == 1)
    }
}

/// For the test of query plans; but for the one that sorts an operator's few.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] =
    &[BY_ID, NEWEST, INSERT_IF_NONE, UNDER_KEK, ALL, STATES, SUPERSEDE, REWRAP, RETIRE];
