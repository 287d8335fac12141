//! The `ProviderConfigStore` port.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{FromRow as _, Sqlite, Transaction};

use super::callers::execute;
use super::error::store_error;
use super::{Query, SqliteStore};
use crate::domain::key::{ProviderId, TenantId};
use crate::domain::ports::StoreError;
use crate::domain::provider_config::{ConfigWrite, DueConfig, ProviderConfig, ProviderConfigStore};
use crate::infra::storage::codec::micros;
use crate::infra::storage::provider_config_row::{
    ConfigJson, ConfigRow, bind_authentication, bind_new, due, not_inserted, uses,
};
use crate::infra::storage::provider_config_sql as sql;

const STOP: &str = "
    UPDATE credentials SET next_refresh_at = NULL
    WHERE tenant = ?1 AND provider = ?2 AND configuration = ?3 AND status = 'active' AND next_refresh_at IS NOT NULL";

/// Reads all configurations, of which there are few beside credentials. The index is named, since without statistics the
/// planner may take another for as good.
const DUE: &str = "
    SELECT c.tenant, c.provider, c.id FROM provider_configurations AS c
    WHERE EXISTS (
        SELECT 1 FROM credentials INDEXED BY credentials_due_own
        WHERE provider = c.provider AND status = 'active' AND next_refresh_at <= ?1 AND configuration = c.id
    )
    LIMIT ?2";

fn load<'q>(tenant: &'q TenantId, provider: &'q ProviderId) -> Query<'q> {
    sqlx::query(sql::LOAD).bind(tenant.as_str()).bind(provider.as_str())
}

async fn found(
    transaction: &mut Transaction<'_, Sqlite>,
    tenant: &TenantId,
    provider: &ProviderId,
) -> Result<Option<ProviderConfig>, StoreError> {
    let row = load(tenant, provider).fetch_optional(&mut **transaction).await.map_err(store_error)?;
    let Some(row) = row else { return Ok(None) };
    ConfigRow::from_row(&row).map_err(store_error)?.try_into().map(Some)
}

#[async_trait]
impl ProviderConfigStore for SqliteStore {
    async fn list_provider_configs(
        &self,
        tenant: &TenantId,
        after: Option<&ProviderId>,
        limit: u32,
    ) -> Result<Vec<ProviderConfig>, StoreError> {
        let after = after.map_or("", ProviderId::as_str);
        let query = sqlx::query(sql::PAGE).bind(tenant.as_str()).bind(after).bind(i64::from(limit));
        let rows: Vec<ConfigRow> = self.read_all(query).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    async fn load_provider_config(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
    ) -> Result<Option<ProviderConfig>, StoreError> {
        let row: Option<ConfigRow> = self.read_one(load(tenant, provider)).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn insert_provider_config(&self, config: ProviderConfig) -> Result<ConfigWrite, StoreError> {
        let mut transaction = self.begin().await?;
        let insert = bind_new!(sqlx::query(sql::INSERT), &config, ConfigJson::of(&config));
        if execute(&mut transaction, insert).await? > 0 {
            transaction.commit().await.map_err(store_error)?;
            return Ok(ConfigWrite::Done);
        }
        let there = found(&mut transaction, &config.tenant, &config.provider).await?.is_some();
        let deleted = sqlx::query(sql::IS_DELETED)
            .bind(config.tenant.as_str())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(store_error)?
            .is_some();
        transaction.rollback().await.map_err(store_error)?;
        Ok(not_inserted(there, deleted))
    }

    async fn update_provider_config(&self, config: ProviderConfig) -> Result<ConfigWrite, StoreError> {
        let json = ConfigJson::of(&config);
        let revision = i64::try_from(config.revision).map_err(|_| StoreError::Corrupt("a revision"))?;
        let mut transaction = self.begin().await?;
        let update = sqlx::query(sql::UPDATE)
            .bind(config.tenant.as_str())
            .bind(config.provider.as_str())
            .bind(&config.id.as_bytes()[..]);
        let update = bind_authentication!(update, &config, json.authentication)
            .bind(micros(config.updated_at))
            .bind(revision);
        if execute(&mut transaction, update).await? > 0 {
            transaction.commit().await.map_err(store_error)?;
            return Ok(ConfigWrite::Done);
        }
        let there = found(&mut transaction, &config.tenant, &config.provider).await?;
        transaction.rollback().await.map_err(store_error)?;
        Ok(if there.is_some() { ConfigWrite::Changed } else { ConfigWrite::Unknown })
    }

    async fn delete_provider_config(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
        force: bool,
    ) -> Result<ConfigWrite, StoreError> {
        let mut transaction = self.begin().await?;
        let Some(config) = found(&mut transaction, tenant, provider).await? else {
            return Ok(ConfigWrite::Unknown); // dropped, and so rolled back
        };
        let of_it = |sql: &'static str| {
            sqlx::query(sql)
                .bind(tenant.as_str().to_owned())
                .bind(provider.as_str().to_owned())
                .bind(config.id.as_bytes().to_vec())
        };
        let row = of_it(sql::USES).fetch_one(&mut *transaction).await.map_err(store_error)?;
        let uses = uses(<(i64, i64, i64)>::from_row(&row).map_err(store_error)?)?;
        if uses.any() && !force {
            return Ok(ConfigWrite::InUse(uses));
        }
        execute(&mut transaction, of_it(STOP)).await?;
        let delete = sqlx::query(sql::DELETE).bind(tenant.as_str()).bind(provider.as_str());
        execute(&mut transaction, delete).await?;
        transaction.commit().await.map_err(store_error)?;
        Ok(ConfigWrite::Done)
    }

    async fn due_provider_configs(&self, now: Timestamp, limit: u32) -> Result<Vec<DueConfig>, StoreError> {
        let query = sqlx::query(DUE).bind(micros(now)).bind(i64::from(limit));
        let rows: Vec<(String, String, Vec<u8>)> = self.read_all(query).await?;
        rows.into_iter().map(due).collect()
    }
}

/// For the test of query plans.
#[cfg(test)]
pub(super) use sql::STATEMENTS;
