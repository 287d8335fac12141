//! Provider configurations in the database: a tenant's own OAuth apps. Those of the operator's file are of all tenants; see
//! `infra/providers/own.rs`, which puts both together.
//!
//! A configuration is one app at one provider for good: definition, client and variables never change, so that what was obtained
//! with it goes nowhere else. Flows, credentials and revocations name the configuration that they were made with, and are used with
//! no other.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;

use super::cipher::Field;
use super::client::{AssertionAlgorithm, ClientAuth};
use super::credential::Sealed;
use super::key::{
    Account, ConfigId, CredentialKey, GrantId, GrantName, KeyError, ProviderId, TenantId, UserId,
};
use super::ports::StoreError;

/// How many configurations a tenant can have.
pub const MAX_CONFIGS: u32 = 100;
/// How many variables a configuration can have.
pub const MAX_VARIABLES: usize = 16;
/// The longest value of a variable, in bytes.
pub const MAX_VARIABLE_BYTES: usize = 2_048;
/// The longest client secret, in bytes.
pub const MAX_CLIENT_SECRET_BYTES: usize = 4_096;
/// The longest private key in PEM, in bytes. RSA keys of 8,192 bits have about 6,500.
pub const MAX_PEM_KEY_BYTES: usize = 16 * 1_024;
/// The longest chain of certificates in PEM, in bytes.
pub const MAX_PEM_CHAIN_BYTES: usize = 64 * 1_024;
/// The longest `kid`, in bytes.
pub const MAX_KEY_ID_BYTES: usize = 256;

/// By what a client shows that it is the one that was registered. `S` is what a secret is: sealed as it is stored, or in the clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuthentication<S> {
    /// `None`: by the best that it has: a private key, a certificate, the secret.
    pub method: Option<ClientAuth>,
    /// `client_secret`.
    pub client_secret: Option<S>,
    /// What signs assertions: PKCS#8 in PEM.
    pub private_key: Option<S>,
    /// `kid`.
    pub private_key_id: Option<String>,
    /// `None`: what fits the key.
    pub private_key_algorithm: Option<AssertionAlgorithm>,
    /// The certificate for TLS and what leads to its authority: PEM. No secret: it is shown to servers.
    pub tls_certificate: Option<String>,
    /// The certificate's private key: PEM.
    pub tls_key: Option<S>,
}

impl<S> Default for ClientAuthentication<S> {
    fn default() -> Self {
        Self {
            method: None,
            client_secret: None,
            private_key: None,
            private_key_id: None,
            private_key_algorithm: None,
            tls_certificate: None,
            tls_key: None,
        }
    }
}

/// A tenant's configuration of a provider, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderConfig {
    /// For good, and never another's: part of the redirect URI.
    pub id: ConfigId,
    /// Whose.
    pub tenant: TenantId,
    /// What the tenant's callers call it. One configuration each.
    pub provider: ProviderId,
    /// Which entry of the catalogue.
    pub definition: String,
    /// `client_id`.
    pub client_id: String,
    /// What the definition leaves open, by name.
    pub variables: BTreeMap<String, String>,
    /// How the client authenticates. The secrets are sealed as [`ProviderConfig::binding`] says.
    pub authentication: ClientAuthentication<Sealed>,
    /// Since when it may not be used but to end grants.
    pub disabled_at: Option<Timestamp>,
    /// Goes up with every change, from 1.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl ProviderConfig {
    /// What its secrets are bound to, in the one form that records have: the tenant, the provider and the configuration, with
    /// fixed words in the places of a user, a grant and an account. The fields ([`CONFIG_FIELDS`]) are no credential's, so that
    /// no user of that name could matter.
    pub fn binding(&self) -> Result<(CredentialKey, GrantId), KeyError> {
        config_binding(&self.tenant, &self.provider, self.id)
    }
}

/// The secrets of a configuration, in the order of their columns.
pub const CONFIG_FIELDS: [Field; 3] = [Field::ClientSecret, Field::ClientPrivateKey, Field::ClientTlsKey];

/// In the places of a user, a grant and an account.
pub const CONFIG_KEY_WORDS: [&str; 3] = ["provider configuration", "configuration", "default"];

/// See [`ProviderConfig::binding`].
pub fn config_binding(
    tenant: &TenantId,
    provider: &ProviderId,
    id: ConfigId,
) -> Result<(CredentialKey, GrantId), KeyError> {
    let [user, grant, account] = CONFIG_KEY_WORDS;
    let key = CredentialKey {
        tenant: tenant.clone(),
        provider: provider.clone(),
        user: UserId::new(user)?,
        grant: GrantName::new(grant)?,
        account: Account::new(account)?,
    };
    Ok((key, GrantId::from_bytes(*id.as_bytes())))
}

/// What was obtained with a configuration, or is about to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConfigUses {
    /// Credentials that are not revoked.
    pub credentials: u64,
    /// Consents under way.
    pub flows: u64,
    /// Revocations that the provider has still to be told.
    pub revocations: u64,
}

impl ConfigUses {
    /// Whether there are any.
    #[must_use]
    pub fn any(&self) -> bool {
        self.credentials > 0 || self.flows > 0 || self.revocations > 0
    }
}

/// How a change of a configuration ended. Only `Done` has changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigWrite {
    /// It is stored.
    Done,
    /// The tenant has one of this provider id already.
    Exists,
    /// There is none of this provider id, or the tenant has been deleted.
    Unknown,
    /// It has been changed since it was read.
    Changed,
    /// The tenant has [`MAX_CONFIGS`].
    TooMany,
    /// Something was obtained with it.
    InUse(ConfigUses),
}

/// Which configuration has something to be refreshed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DueConfig {
    /// Whose.
    pub tenant: TenantId,
    /// Of which provider.
    pub provider: ProviderId,
    /// Which.
    pub id: ConfigId,
}

/// Configurations of tenants. Contract: `tests/it/contract/provider_config_store.rs`.
#[async_trait]
pub trait ProviderConfigStore: Send + Sync {
    /// A page of a tenant's, ordered by provider id.
    async fn list_provider_configs(
        &self,
        tenant: &TenantId,
        after: Option<&ProviderId>,
        limit: u32,
    ) -> Result<Vec<ProviderConfig>, StoreError>;

    /// One by provider id.
    async fn load_provider_config(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
    ) -> Result<Option<ProviderConfig>, StoreError>;

    /// Stores a new one, of revision 1, unless the tenant has one of this provider id, has [`MAX_CONFIGS`], or is deleted.
    async fn insert_provider_config(&self, config: ProviderConfig) -> Result<ConfigWrite, StoreError>;

    /// Replaces authentication, `disabled_at` and `updated_at`, where id and revision are still the given one's; the revision goes
    /// up by one.
    async fn update_provider_config(&self, config: ProviderConfig) -> Result<ConfigWrite, StoreError>;

    /// Deletes one. Without `force` only if nothing was obtained with it; with it, what was is not refreshed in the background any
    /// more. One transaction.
    async fn delete_provider_config(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
        force: bool,
    ) -> Result<ConfigWrite, StoreError>;

    /// Those with a credential whose `next_refresh_at` has come, in no order.
    async fn due_provider_configs(&self, now: Timestamp, limit: u32) -> Result<Vec<DueConfig>, StoreError>;
}
