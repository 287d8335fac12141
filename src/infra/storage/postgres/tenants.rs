//! The `TenantStore` port.

use async_trait::async_trait;

use super::PgStore;
use super::session::{Again, lock_of};
use crate::domain::caller_store::{Tenant, TenantStore, TenantWrite};
use crate::domain::data_key::DataKeyPurpose;
use crate::domain::key::TenantId;
use crate::domain::ports::StoreError;
use crate::infra::storage::caller_row::TenantRow;
use crate::infra::storage::caller_sql as sql;
use crate::infra::storage::codec::{micros, purpose_text};
use crate::infra::storage::provider_config_sql::DELETE_OF_TENANT;

#[async_trait]
impl TenantStore for PgStore {
    async fn load_tenant(&self, id: &TenantId) -> Result<Option<Tenant>, StoreError> {
        let row: Option<TenantRow> =
            self.one(Again::Once, || sqlx::query(sql::TENANT).bind(id.as_str())).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn list_tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<Tenant>, StoreError> {
        let after = after.map_or("", TenantId::as_str);
        let query = || sqlx::query(sql::TENANTS).bind(after).bind(i64::from(limit));
        let rows: Vec<TenantRow> = self.all(Again::Once, query).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    async fn insert_tenant(&self, tenant: Tenant) -> Result<TenantWrite, StoreError> {
        let query = || {
            sqlx::query(sql::INSERT_TENANT)
                .bind(tenant.id.as_str())
                .bind(&tenant.display_name)
                .bind(micros(tenant.created_at))
                .bind(tenant.disabled_at.map(micros))
                .bind(tenant.deleted_at.map(micros))
        };
        let stored = self.write(Again::Never, query).await? > 0;
        Ok(if stored { TenantWrite::Done } else { TenantWrite::Exists })
    }

    async fn update_tenant(&self, tenant: Tenant) -> Result<TenantWrite, StoreError> {
        let mut transaction = self.begin(lock_of("tenant", &[tenant.id.as_str()])).await?;
        let update = sqlx::query(sql::UPDATE_TENANT)
            .bind(tenant.id.as_str())
            .bind(&tenant.display_name)
            .bind(tenant.disabled_at.map(micros))
            .bind(tenant.deleted_at.map(micros));
        if transaction.execute(update).await? == 0 {
            transaction.roll_back().await?;
            return Ok(TenantWrite::Unknown);
        }
        if tenant.deleted_at.is_some() {
            // Whoever is making the tenant's first data key has either stored it by now, or will see that it is deleted.
            let lock = lock_of("data key", &[tenant.id.as_str(), purpose_text(DataKeyPurpose::Encryption)]);
            transaction.execute(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(lock)).await?;
            for delete in [sql::DELETE_CALLERS, sql::DELETE_DATA_KEYS, DELETE_OF_TENANT] {
                transaction.execute(sqlx::query(delete).bind(tenant.id.as_str())).await?;
            }
        }
        transaction.commit().await?;
        Ok(TenantWrite::Done)
    }
}
