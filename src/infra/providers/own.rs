//! The operator's providers and tenants' own, put together: a tenant's configuration takes the place of the operator's of the same
//! id, for that tenant alone.
//!
//! What the database says of a tenant is believed for `authentication.cache_ttl`, at most five seconds: so soon a configuration
//! that was made, changed or deleted counts on every replica; at once on the one that did it. A tenant without any is remembered, too. While the database does not
//! answer, what was read within that time goes on, and then nobody can say which app is the tenant's: the error is "not available",
//! never the operator's app instead. A configuration that is named by what was made with it, and is not known yet, is looked for at
//! once: another replica may have made it a moment ago.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::catalogue::Catalogue;
use super::client::{ClientKeys, PrivateKey};
use super::error::RegistrationMistake;
use super::own_mistakes::told;
use super::registration::{self, ConfiguredProviders, Registration};
use crate::domain::cipher::{Binding, Cipher, CipherError, Field};
use crate::domain::credential::Sealed;
use crate::domain::key::{ConfigId, ProviderId, TenantId};
use crate::domain::ports::{Clock, ConfigMistake, ProviderDirectory, ProviderStanding};
use crate::domain::provider::{ClientCertificate, Provider};
use crate::domain::provider_config::{
    ClientAuthentication, MAX_CONFIGS, ProviderConfig, ProviderConfigStore,
};
use crate::domain::secret::SecretString;
use crate::infra::cache::{Cache, Known};

/// How many tenants are remembered, twice.
const MOST_TENANTS: usize = 10_000;

/// How many deleted configurations are remembered, twice.
const MOST_GONE: usize = 10_000;

/// Whether a provider's keys can be used and its URLs may be reached, for those that a tenant has named: all that is wrong.
pub type ClientCheck = Box<dyn Fn(&Provider) -> Vec<ConfigMistake> + Send + Sync>;

/// A tenant's own providers, by id.
type Own = BTreeMap<ProviderId, Entry>;

#[derive(Clone)]
struct Entry {
    id: ConfigId,
    revision: u64,
    /// `None`: a secret does not open, which is damaged or sealed with a key that is not configured.
    standing: Option<ProviderStanding>,
}

impl Entry {
    fn standing(&self) -> Result<ProviderStanding, CipherError> {
        self.standing.clone().ok_or(CipherError::DoesNotOpen)
    }
}

/// See the module.
pub struct TenantProviders {
    configured: ConfiguredProviders,
    catalogue: Catalogue,
    store: Arc<dyn ProviderConfigStore>,
    cipher: Arc<dyn Cipher>,
    clock: Arc<dyn Clock>,
    check: ClientCheck,
    known: Cache<TenantId, Arc<Own>>,
    /// Configurations that rows name and the database has no more.
    gone: Cache<ConfigId, ()>,
}

impl TenantProviders {
    /// `lifetime` is how long an answer of the database is believed.
    #[must_use]
    pub fn new(
        (catalogue, configured): (Catalogue, ConfiguredProviders),
        store: Arc<dyn ProviderConfigStore>,
        cipher: Arc<dyn Cipher>,
        clock: Arc<dyn Clock>,
        check: ClientCheck,
        lifetime: Duration,
    ) -> Self {
        let known = Cache::new(MOST_TENANTS, lifetime);
        let gone = Cache::new(MOST_GONE, lifetime);
        Self { configured, catalogue, store, cipher, clock, check, known, gone }
    }

    /// As known, or as read now.
    async fn own(&self, tenant: &TenantId) -> Result<Arc<Own>, CipherError> {
        match self.known.get(tenant, self.clock.monotonic()) {
            Known::Fresh(own) => Ok(own),
            Known::Aging(own) => match self.read(tenant, Some(&own)).await {
                Err(error @ (CipherError::Store(_) | CipherError::KeyService(_))) => {
                    tracing::warn!(%error, %tenant, "a tenant's provider configurations could not be read again");
                    Ok(own)
                }
                other => other,
            },
            Known::Stale(own) => self.read(tenant, Some(&own)).await,
            Known::Nothing => self.read(tenant, None).await,
        }
    }

    /// `before`: what was known, of which all that has not changed is kept.
    async fn read(&self, tenant: &TenantId, before: Option<&Own>) -> Result<Arc<Own>, CipherError> {
        let read_at = self.clock.monotonic();
        let configs =
            self.store.list_provider_configs(tenant, None, MAX_CONFIGS).await.map_err(CipherError::Store)?;
        let mut own = Own::new();
        for config in configs {
            let kept = before.and_then(|before| before.get(&config.provider)).filter(|entry| {
                let same = entry.id == config.id && entry.revision == config.revision;
                same && entry.standing.is_some()
            });
            let entry = match kept {
                Some(entry) => entry.clone(),
                None => self.entry(&config).await?,
            };
            own.insert(config.provider, entry);
        }
        let own = Arc::new(own);
        self.known.insert(tenant.clone(), Arc::clone(&own), read_at);
        Ok(own)
    }

    async fn entry(&self, config: &ProviderConfig) -> Result<Entry, CipherError> {
        let (id, revision) = (config.id, config.revision);
        let secrets = match self.open(config).await {
            Ok(secrets) => secrets,
            Err(error @ (CipherError::UnknownKey | CipherError::KeysDeleted | CipherError::DoesNotOpen)) => {
                tracing::error!(tenant = %config.tenant, provider = %config.provider, %error,
                    "the secrets of a provider configuration do not open");
                return Ok(Entry { id, revision, standing: None });
            }
            Err(error) => return Err(error),
        };
        let standing = match self.assemble(config, secrets) {
            Ok(provider) if config.disabled_at.is_some() => ProviderStanding::Disabled(Arc::new(provider)),
            Ok(provider) => ProviderStanding::Ready(Arc::new(provider)),
            Err(mistakes) => {
                let fields: Vec<_> = mistakes.iter().map(|mistake| mistake.field.as_str()).collect();
                tracing::error!(tenant = %config.tenant, provider = %config.provider, ?fields,
                    "a provider configuration does not fit its definition any more");
                ProviderStanding::Broken
            }
        };
        Ok(Entry { id, revision, standing: Some(standing) })
    }

    async fn open(&self, config: &ProviderConfig) -> Result<ClientAuthentication<SecretString>, CipherError> {
        let stored = &config.authentication;
        Ok(ClientAuthentication {
            method: stored.method,
            client_secret: self.open_one(config, Field::ClientSecret, stored.client_secret.as_ref()).await?,
            private_key: self.open_one(config, Field::ClientPrivateKey, stored.private_key.as_ref()).await?,
            private_key_id: stored.private_key_id.clone(),
            private_key_algorithm: stored.private_key_algorithm,
            tls_certificate: stored.tls_certificate.clone(),
            tls_key: self.open_one(config, Field::ClientTlsKey, stored.tls_key.as_ref()).await?,
        })
    }

    async fn open_one(
        &self,
        config: &ProviderConfig,
        field: Field,
        sealed: Option<&Sealed>,
    ) -> Result<Option<SecretString>, CipherError> {
        let Some(sealed) = sealed else { return Ok(None) };
        let (key, grant) = config.binding().map_err(|_| CipherError::DoesNotOpen)?;
        let plain = self.cipher.open(Binding { key: &key, grant, field }, sealed).await?;
        let text = std::str::from_utf8(plain.expose_secret()).map_err(|_| CipherError::DoesNotOpen)?;
        Ok(Some(SecretString::from(text)))
    }
}

#[async_trait]
impl ProviderDirectory for TenantProviders {
    async fn current(
        &self,
        tenant: &TenantId,
        id: &ProviderId,
    ) -> Result<Option<ProviderStanding>, CipherError> {
        match self.own(tenant).await?.get(id) {
            Some(entry) => entry.standing().map(Some),
            None => self.configured.current(tenant, id).await,
        }
    }

    async fn of_configuration(
        &self,
        tenant: &TenantId,
        id: &ProviderId,
        configuration: Option<ConfigId>,
    ) -> Result<Option<ProviderStanding>, CipherError> {
        let Some(wanted) = configuration else { return self.configured.current(tenant, id).await };
        let own = self.own(tenant).await?;
        if let Some(entry) = own.get(id).filter(|entry| entry.id == wanted) {
            return entry.standing().map(Some);
        }
        // What was read may be from before it was made. Deleted, it never comes back: a list of its rows is one look.
        let read_at = self.clock.monotonic();
        if self.gone.get(&wanted, read_at) == Known::Fresh(()) {
            return Ok(None);
        }
        let own = self.read(tenant, Some(&own)).await?;
        let Some(entry) = own.get(id).filter(|entry| entry.id == wanted) else {
            self.gone.insert(wanted, (), read_at);
            return Ok(None);
        };
        entry.standing().map(Some)
    }

    async fn all_of(&self, tenant: &TenantId) -> Result<Vec<Arc<Provider>>, CipherError> {
        let own = self.own(tenant).await?;
        let mut all: BTreeMap<ProviderId, Arc<Provider>> = self
            .configured
            .all()
            .into_iter()
            .filter(|provider| !own.contains_key(&provider.id))
            .map(|provider| (provider.id.clone(), provider))
            .collect();
        for (id, entry) in own.iter() {
            if let Some(ProviderStanding::Ready(provider)) = &entry.standing {
                all.insert(id.clone(), Arc::clone(provider));
            }
        }
        Ok(all.into_values().collect())
    }

    fn configured(&self) -> Vec<Arc<Provider>> {
        self.configured.all()
    }

    fn forget(&self, tenant: &TenantId) {
        self.known.remove(tenant);
    }

    fn assemble(
        &self,
        config: &ProviderConfig,
        secrets: ClientAuthentication<SecretString>,
    ) -> Result<Provider, Vec<ConfigMistake>> {
        let Some(definition) = self.catalogue.definition(&config.definition) else {
            let known = self.catalogue.definitions().map(|known| known.id.to_string()).collect();
            let definition = config.definition.clone();
            return Err(vec![told(&RegistrationMistake::UnknownDefinition { definition, known })]);
        };
        let mut mistakes = Vec::new();
        let certificate = match (secrets.tls_certificate, secrets.tls_key) {
            (Some(chain), Some(key)) => Some(ClientCertificate { chain, key }),
            (None, None) => None,
            (Some(_), None) => {
                mistakes.push(beside("authentication.tls_key", "`tls_certificate`"));
                None
            }
            (None, Some(_)) => {
                mistakes.push(beside("authentication.tls_certificate", "`tls_key`"));
                None
            }
        };
        let (key_id, algorithm) = (secrets.private_key_id, secrets.private_key_algorithm);
        if secrets.private_key.is_none() && (key_id.is_some() || algorithm.is_some()) {
            mistakes
                .push(beside("authentication.private_key", "`private_key_id` and `private_key_algorithm`"));
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let registration = Registration {
            id: config.provider.clone(),
            definition: config.definition.clone(),
            client_id: config.client_id.clone(),
            client_secret: secrets.client_secret,
            variables: config.variables.clone(),
            keys: ClientKeys {
                auth: secrets.method,
                private_key: secrets.private_key.map(|pem| PrivateKey { pem, id: key_id, algorithm }),
                certificate,
            },
        };
        let provider = registration::provider(definition, registration, Some((config.id, config.revision)))
            .map_err(|mistakes| mistakes.iter().map(told).collect::<Vec<_>>())?;
        let mistakes = (self.check)(&provider);
        if mistakes.is_empty() { Ok(provider) } else { Err(mistakes) }
    }
}

fn beside(field: &str, what: &str) -> ConfigMistake {
    ConfigMistake { field: field.to_owned(), description: format!("Needed beside {what}.") }
}
