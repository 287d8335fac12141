//! The `TenantStore` port.

use async_trait::async_trait;

use super::SqliteStore;
use super::callers::execute;
use super::error::store_error;
use crate::domain::caller_store::{Tenant, TenantStore, TenantWrite};
use crate::domain::key::TenantId;
use crate::domain::ports::StoreError;
use crate::infra::storage::caller_row::TenantRow;
use crate::infra::storage::caller_sql as sql;
use crate::infra::storage::codec::micros;
use crate::infra::storage::provider_config_sql::DELETE_OF_TENANT;

#[async_trait]
impl TenantStore for SqliteStore {
    async fn load_tenant(&self, id: &TenantId) -> Result<Option<Tenant>, StoreError> {
        let row: Option<TenantRow> = self.read_one(sqlx::query(sql::TENANT).bind(id.as_str())).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn list_tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<Tenant>, StoreError> {
        let after = after.map_or("", TenantId::as_str);
        let query = sqlx::query(sql::TENANTS).bind(after).bind(i64::from(limit));
        let rows: Vec<TenantRow> = self.read_all(query).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    async fn insert_tenant(&self, tenant: Tenant) -> Result<TenantWrite, StoreError> {
        let query = sqlx::query(sql::INSERT_TENANT)
            .bind(tenant.id.as_str())
            .bind(&tenant.display_name)
            .bind(micros(tenant.created_at))
            .bind(tenant.disabled_at.map(micros))
            .bind(tenant.deleted_at.map(micros));
        let stored = self.write(query).await? > 0;
        Ok(if stored { TenantWrite::Done } else { TenantWrite::Exists })
    }

    async fn update_tenant(&self, tenant: Tenant) -> Result<TenantWrite, StoreError> {
        let mut transaction = self.begin().await?;
        let update = sqlx::query(sql::UPDATE_TENANT)
            .bind(tenant.id.as_str())
            .bind(&tenant.display_name)
            .bind(tenant.disabled_at.map(micros))
            .bind(tenant.deleted_at.map(micros));
        if execute(&mut transaction, update).await? == 0 {
            transaction.rollback().await.map_err(store_error)?;
            return Ok(TenantWrite::Unknown);
        }
        if tenant.deleted_at.is_some() {
            for delete in [sql::DELETE_CALLERS, sql::DELETE_DATA_KEYS, DELETE_OF_TENANT] {
                execute(&mut transaction, sqlx::query(delete).bind(tenant.id.as_str())).await?;
            }
        }
        transaction.commit().await.map_err(store_error)?;
        Ok(TenantWrite::Done)
    }
}
