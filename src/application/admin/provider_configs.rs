//! A tenant's own OAuth apps: made, read, changed, deleted. Secrets are sealed before they are stored, and never read back from here.

use std::collections::BTreeMap;

use jiff::Timestamp;
use url::Url;

use super::super::Broker;
use super::super::error::{BrokerError, NotFound, Precondition, Violation};
use crate::domain::access_policy::Principal;
use crate::domain::admin_policy::AdminAction;
use crate::domain::cipher::{Binding, Field};
use crate::domain::credential::Sealed;
use crate::domain::key::{ConfigId, ProviderId, TenantId};
use crate::domain::ports::ConfigMistake;
use crate::domain::provider_config::{ClientAuthentication, ConfigWrite, ProviderConfig};
use crate::domain::secret::{SecretBytes, SecretString};

/// An app to be made known.
#[derive(Debug, Clone)]
pub struct NewProviderConfig {
    /// What callers will name.
    pub provider: ProviderId,
    /// Which definition.
    pub definition: String,
    /// `client_id`.
    pub client_id: String,
    /// What the definition leaves open.
    pub variables: BTreeMap<String, String>,
    /// How the client authenticates.
    pub authentication: ClientAuthentication<SecretString>,
    /// Whether it may not be used for now.
    pub disabled: bool,
}

/// What to change of an app. What it is does not change: another client, or another place, is another app.
#[derive(Debug, Clone, Default)]
pub struct ProviderConfigChange {
    /// How the client authenticates, all of it.
    pub authentication: Option<ClientAuthentication<SecretString>>,
    /// Whether it may not be used for now.
    pub disabled: Option<bool>,
}

/// A configuration as operators see it.
#[derive(Debug, Clone)]
pub struct ProviderConfigView {
    /// As stored. Its secrets are sealed.
    pub config: ProviderConfig,
    /// What has to be registered at the provider.
    pub redirect_uri: Url,
}

impl Broker {
    /// Makes an app known.
    pub async fn create_provider_config(
        &self,
        principal: &Principal,
        tenant: Option<TenantId>,
        new: NewProviderConfig,
    ) -> Result<ProviderConfigView, BrokerError> {
        let tenant = Self::administer(principal, AdminAction::ManageProviders, tenant)?;
        self.existing_tenant(principal, &tenant).await?;
        let now = self.stored_now();
        let mut config = ProviderConfig {
            id: ConfigId::from_random(self.random()),
            tenant,
            provider: new.provider,
            definition: new.definition,
            client_id: new.client_id,
            variables: new.variables,
            authentication: ClientAuthentication::default(),
            disabled_at: new.disabled.then_some(now),
            revision: 1,
            created_at: now,
            updated_at: now,
        };
        self.put_authentication(&mut config, new.authentication).await?;
        let write = self.ports.provider_configs.insert_provider_config(config.clone()).await?;
        self.ports.providers.forget(&config.tenant);
        written(write)?;
        Ok(self.view_provider_config(config))
    }

    /// One by provider id.
    pub async fn get_provider_config(
        &self,
        principal: &Principal,
        tenant: Option<TenantId>,
        provider: &ProviderId,
    ) -> Result<ProviderConfigView, BrokerError> {
        let tenant = Self::administer(principal, AdminAction::ManageProviders, tenant)?;
        Ok(self.view_provider_config(self.stored_provider_config(&tenant, provider).await?))
    }

    /// A page ordered by provider id, and whether there are more.
    pub async fn list_provider_configs(
        &self,
        principal: &Principal,
        tenant: Option<TenantId>,
        after: Option<ProviderId>,
        page_size: u32,
    ) -> Result<(Vec<ProviderConfigView>, bool), BrokerError> {
        let tenant = Self::administer(principal, AdminAction::ManageProviders, tenant)?;
        let limit = page_size.saturating_add(1);
        let configs = &self.ports.provider_configs;
        let mut page = configs.list_provider_configs(&tenant, after.as_ref(), limit).await?;
        let more = page.len() > page_size as usize;
        page.truncate(page_size as usize);
        Ok((page.into_iter().map(|config| self.view_provider_config(config)).collect(), more))
    }

    /// Changes a configuration, if it is still of this revision.
    pub async fn update_provider_config(
        &self,
        principal: &Principal,
        tenant: Option<TenantId>,
        provider: &ProviderId,
        revision: u64,
        change: ProviderConfigChange,
    ) -> Result<ProviderConfigView, BrokerError> {
        let tenant = Self::administer(principal, AdminAction::ManageProviders, tenant)?;
        let there = self.stored_provider_config(&tenant, provider).await?;
        let now = self.stored_now();
        let mut config = ProviderConfig {
            disabled_at: match change.disabled {
                None => there.disabled_at,
                Some(false) => None,
                Some(true) => Some(there.disabled_at.unwrap_or(now)),
            },
            revision,
            updated_at: now,
            ..there
        };
        if let Some(authentication) = change.authentication {
            self.put_authentication(&mut config, authentication).await?;
        }
        let write = self.ports.provider_configs.update_provider_config(config.clone()).await?;
        self.ports.providers.forget(&config.tenant);
        written(write)?;
        config.revision = revision.saturating_add(1);
        Ok(self.view_provider_config(config))
    }

    /// Deletes a configuration. With `force` also one that users are connected by: nobody can use what it obtained any more.
    pub async fn delete_provider_config(
        &self,
        principal: &Principal,
        tenant: Option<TenantId>,
        provider: &ProviderId,
        force: bool,
    ) -> Result<(), BrokerError> {
        let tenant = Self::administer(principal, AdminAction::ManageProviders, tenant)?;
        let write = self.ports.provider_configs.delete_provider_config(&tenant, provider, force).await?;
        self.ports.providers.forget(&tenant);
        written(write)
    }

    /// The time as it comes back from the database: in whole microseconds.
    fn stored_now(&self) -> Timestamp {
        let now = self.ports.clock.now();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }

    async fn stored_provider_config(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
    ) -> Result<ProviderConfig, BrokerError> {
        let found = self.ports.provider_configs.load_provider_config(tenant, provider).await?;
        found.ok_or(BrokerError::NotFound(NotFound::ProviderConfiguration))
    }

    /// Looks whether a provider comes of it, and seals the secrets.
    async fn put_authentication(
        &self,
        config: &mut ProviderConfig,
        plain: ClientAuthentication<SecretString>,
    ) -> Result<(), BrokerError> {
        self.ports.providers.assemble(config, plain.clone()).map_err(refused)?;
        let client_secret = self.seal_secret(config, Field::ClientSecret, plain.client_secret).await?;
        let private_key = self.seal_secret(config, Field::ClientPrivateKey, plain.private_key).await?;
        let tls_key = self.seal_secret(config, Field::ClientTlsKey, plain.tls_key).await?;
        config.authentication = ClientAuthentication {
            method: plain.method,
            client_secret,
            private_key,
            private_key_id: plain.private_key_id,
            private_key_algorithm: plain.private_key_algorithm,
            tls_certificate: plain.tls_certificate,
            tls_key,
        };
        Ok(())
    }

    async fn seal_secret(
        &self,
        config: &ProviderConfig,
        field: Field,
        secret: Option<SecretString>,
    ) -> Result<Option<Sealed>, BrokerError> {
        let Some(secret) = secret else { return Ok(None) };
        let (key, grant) = config.binding().map_err(|_| BrokerError::Internal)?;
        let plain = SecretBytes::new(secret.expose_secret().as_bytes().to_vec());
        Ok(Some(self.ports.cipher.seal(Binding { key: &key, grant, field }, &plain).await?))
    }

    fn view_provider_config(&self, config: ProviderConfig) -> ProviderConfigView {
        let redirect_uri = self.redirect_uri_of(&config.provider, Some(config.id));
        ProviderConfigView { config, redirect_uri }
    }
}

fn refused(mistakes: Vec<ConfigMistake>) -> BrokerError {
    let violations = mistakes.into_iter().map(|mistake| Violation::new(mistake.field, mistake.description));
    BrokerError::InvalidArgument(violations.collect())
}

fn written(write: ConfigWrite) -> Result<(), BrokerError> {
    let precondition = match write {
        ConfigWrite::Done => return Ok(()),
        ConfigWrite::Unknown => return Err(BrokerError::NotFound(NotFound::ProviderConfiguration)),
        ConfigWrite::Exists => Precondition::ProviderConfigurationExists,
        ConfigWrite::Changed => Precondition::ProviderConfigurationChanged,
        ConfigWrite::TooMany => Precondition::TooManyProviderConfigurations,
        ConfigWrite::InUse(uses) => Precondition::ProviderConfigurationInUse(uses),
    };
    Err(BrokerError::FailedPrecondition(precondition))
}
