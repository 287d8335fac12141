//! The `ProviderConfigStore` port.

use async_trait::async_trait;
use jiff::Timestamp;

use super::session::{Again, lock_of};
use super::{PgStore, Query, scan_now_or};
use crate::domain::key::{ProviderId, TenantId};
use crate::domain::ports::StoreError;
use crate::domain::provider_config::{ConfigWrite, DueConfig, ProviderConfig, ProviderConfigStore};
use crate::infra::storage::codec::micros;
use crate::infra::storage::provider_config_row::{
    ConfigJson, ConfigRow, bind_authentication, bind_new, due, not_inserted, uses,
};
use crate::infra::storage::provider_config_sql as sql;

/// Rows are locked in the order of their ids, as wherever a statement waits for several.
const STOP: &str = "
    WITH stopped AS (
        SELECT id FROM credentials
        WHERE tenant = $1 AND provider = $2 AND configuration = $3 AND status = 'active' AND next_refresh_at IS NOT NULL
        ORDER BY id
        FOR NO KEY UPDATE
    )
    UPDATE credentials SET next_refresh_at = NULL
    FROM stopped
    WHERE credentials.id = stopped.id AND status = 'active' AND configuration = $3";

/// Reads all configurations, of which there are few beside credentials.
const DUE: &str = concat!(
    "SELECT c.tenant, c.provider, c.id FROM provider_configurations AS c
    WHERE EXISTS (
        SELECT 1 FROM credentials
        WHERE provider = c.provider AND status = 'active' AND configuration = c.id AND next_refresh_at <= ",
    scan_now_or!("$1"),
    ")
    LIMIT $2"
);

fn load<'q>(tenant: &'q TenantId, provider: &'q ProviderId) -> Query<'q> {
    sqlx::query(sql::LOAD).bind(tenant.as_str()).bind(provider.as_str())
}

/// The lock of a tenant, which its deletion takes as well.
fn lock(tenant: &TenantId) -> i64 {
    lock_of("tenant", &[tenant.as_str()])
}

#[async_trait]
impl ProviderConfigStore for PgStore {
    async fn list_provider_configs(
        &self,
        tenant: &TenantId,
        after: Option<&ProviderId>,
        limit: u32,
    ) -> Result<Vec<ProviderConfig>, StoreError> {
        let after = after.map_or("", ProviderId::as_str);
        let query = || sqlx::query(sql::PAGE).bind(tenant.as_str()).bind(after).bind(i64::from(limit));
        let rows: Vec<ConfigRow> = self.all(Again::Once, query).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    async fn load_provider_config(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
    ) -> Result<Option<ProviderConfig>, StoreError> {
        let row: Option<ConfigRow> = self.one(Again::Once, || load(tenant, provider)).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn insert_provider_config(&self, config: ProviderConfig) -> Result<ConfigWrite, StoreError> {
        // Under the lock: two that count at one time would both find room.
        let mut transaction = self.begin(lock(&config.tenant)).await?;
        let insert = bind_new!(sqlx::query(sql::INSERT), &config, ConfigJson::of(&config));
        if transaction.execute(insert).await? > 0 {
            transaction.commit().await?;
            return Ok(ConfigWrite::Done);
        }
        let there: Option<ConfigRow> = transaction.one(load(&config.tenant, &config.provider)).await?;
        let deleted: Option<(i32,)> =
            transaction.one(sqlx::query(sql::IS_DELETED).bind(config.tenant.as_str())).await?;
        transaction.roll_back().await?;
        Ok(not_inserted(there.is_some(), deleted.is_some()))
    }

    async fn update_provider_config(&self, config: ProviderConfig) -> Result<ConfigWrite, StoreError> {
        let json = ConfigJson::of(&config);
        let revision = i64::try_from(config.revision).map_err(|_| StoreError::Corrupt("a revision"))?;
        let mut transaction = self.begin(lock(&config.tenant)).await?;
        let update = sqlx::query(sql::UPDATE)
            .bind(config.tenant.as_str())
            .bind(config.provider.as_str())
            .bind(&config.id.as_bytes()[..]);
        let update = bind_authentication!(update, &config, json.authentication)
            .bind(micros(config.updated_at))
            .bind(revision);
        if transaction.execute(update).await? > 0 {
            transaction.commit().await?;
            return Ok(ConfigWrite::Done);
        }
        let there: Option<ConfigRow> = transaction.one(load(&config.tenant, &config.provider)).await?;
        transaction.roll_back().await?;
        Ok(if there.is_some() { ConfigWrite::Changed } else { ConfigWrite::Unknown })
    }

    async fn delete_provider_config(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
        force: bool,
    ) -> Result<ConfigWrite, StoreError> {
        let mut transaction = self.begin(lock(tenant)).await?;
        let there: Option<ConfigRow> = transaction.one(load(tenant, provider)).await?;
        let Some(row) = there else {
            transaction.roll_back().await?;
            return Ok(ConfigWrite::Unknown);
        };
        let config: ProviderConfig = row.try_into()?;
        let of_it = |sql: &'static str| {
            sqlx::query(sql).bind(tenant.as_str()).bind(provider.as_str()).bind(config.id.as_bytes().to_vec())
        };
        let counted: Option<(i64, i64, i64)> = transaction.one(of_it(sql::USES)).await?;
        let uses = uses(counted.ok_or(StoreError::Corrupt("no answer"))?)?;
        if uses.any() && !force {
            transaction.roll_back().await?;
            return Ok(ConfigWrite::InUse(uses));
        }
        transaction.execute(of_it(STOP)).await?;
        let delete = sqlx::query(sql::DELETE).bind(tenant.as_str()).bind(provider.as_str());
        transaction.execute(delete).await?;
        transaction.commit().await?;
        Ok(ConfigWrite::Done)
    }

    async fn due_provider_configs(&self, now: Timestamp, limit: u32) -> Result<Vec<DueConfig>, StoreError> {
        let query = || sqlx::query(DUE).bind(self.now(now)).bind(i64::from(limit));
        let rows: Vec<(String, String, Vec<u8>)> = self.all(Again::Once, query).await?;
        rows.into_iter().map(due).collect()
    }
}
