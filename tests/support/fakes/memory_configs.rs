//! Tenants' provider configurations in memory.

use async_trait::async_trait;
use jiff::Timestamp;
use token_broker::domain::credential::CredentialState;
use token_broker::domain::key::{ConfigId, ProviderId, TenantId};
use token_broker::domain::ports::StoreError;
use token_broker::domain::provider_config::{
    ConfigUses, ConfigWrite, DueConfig, MAX_CONFIGS, ProviderConfig, ProviderConfigStore,
};

use super::memory_store::{MemoryStore, Tables};

impl Tables {
    fn config(&self, tenant: &TenantId, provider: &ProviderId) -> Option<&ProviderConfig> {
        self.configs.iter().find(|config| config.tenant == *tenant && config.provider == *provider)
    }

    fn uses(&self, id: ConfigId) -> ConfigUses {
        let count = |number: usize| u64::try_from(number).unwrap();
        let connected = |credential: &&token_broker::domain::credential::Credential| {
            credential.configuration == Some(id) && credential.state != CredentialState::Revoked
        };
        let flows = self.flows.iter().filter(|row| row.flow.configuration == Some(id));
        let revocations = self.revocations.iter().filter(|row| row.pending.configuration == Some(id));
        ConfigUses {
            credentials: count(self.credentials().filter(connected).count()),
            flows: count(flows.filter(|row| row.flow.ended_at.is_none()).count()),
            revocations: count(revocations.filter(|row| row.finished.is_none()).count()),
        }
    }
}

#[async_trait]
impl ProviderConfigStore for MemoryStore {
    async fn list_provider_configs(
        &self,
        tenant: &TenantId,
        after: Option<&ProviderId>,
        limit: u32,
    ) -> Result<Vec<ProviderConfig>, StoreError> {
        let mut page = self.read(|tables| tables.configs.clone());
        page.retain(|config| config.tenant == *tenant && after.is_none_or(|after| config.provider > *after));
        page.sort_by(|one, two| one.provider.cmp(&two.provider));
        page.truncate(limit as usize);
        Ok(page)
    }

    async fn load_provider_config(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
    ) -> Result<Option<ProviderConfig>, StoreError> {
        Ok(self.read(|tables| tables.config(tenant, provider).cloned()))
    }

    async fn insert_provider_config(&self, config: ProviderConfig) -> Result<ConfigWrite, StoreError> {
        Ok(self.write(|tables| {
            let of_tenant = tables.configs.iter().filter(|there| there.tenant == config.tenant).count();
            let gone = |tenant: &token_broker::domain::caller_store::Tenant| {
                tenant.id == config.tenant && tenant.deleted_at.is_some()
            };
            if tables.tenants.iter().any(gone) {
                ConfigWrite::Unknown
            } else if tables.config(&config.tenant, &config.provider).is_some() {
                ConfigWrite::Exists
            } else if of_tenant >= MAX_CONFIGS as usize {
                ConfigWrite::TooMany
            } else {
                tables.configs.push(ProviderConfig { revision: 1, ..config });
                ConfigWrite::Done
            }
        }))
    }

    async fn update_provider_config(&self, config: ProviderConfig) -> Result<ConfigWrite, StoreError> {
        Ok(self.write(|tables| {
            let mut all = tables.configs.iter_mut();
            let Some(there) = all.find(|c| c.tenant == config.tenant && c.provider == config.provider) else {
                return ConfigWrite::Unknown;
            };
            if there.id != config.id || there.revision != config.revision {
                return ConfigWrite::Changed;
            }
            there.authentication = config.authentication;
            there.disabled_at = config.disabled_at;
            there.updated_at = config.updated_at;
            there.revision += 1;
            ConfigWrite::Done
        }))
    }

    async fn delete_provider_config(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
        force: bool,
    ) -> Result<ConfigWrite, StoreError> {
        Ok(self.write(|tables| {
            let Some(id) = tables.config(tenant, provider).map(|config| config.id) else {
                return ConfigWrite::Unknown;
            };
            let uses = tables.uses(id);
            if uses.any() && !force {
                return ConfigWrite::InUse(uses);
            }
            tables.stop(id);
            tables.configs.retain(|config| config.id != id);
            ConfigWrite::Done
        }))
    }

    async fn due_provider_configs(&self, now: Timestamp, limit: u32) -> Result<Vec<DueConfig>, StoreError> {
        Ok(self.read(|tables| {
            let due = tables.configs.iter().filter(|config| tables.is_due(config.id, now));
            let due = due.map(|config| DueConfig {
                tenant: config.tenant.clone(),
                provider: config.provider.clone(),
                id: config.id,
            });
            due.take(limit as usize).collect()
        }))
    }
}
