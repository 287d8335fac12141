//! Callers, API keys and tenants that are in the database. Callers of the configuration are not: see
//! `infra/callers/`, which puts both together.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::access_policy::{Identity, Rule};
use super::admin_policy::AdminRights;
use super::key::{ApiKeyId, CallerId, TenantId};
use super::ports::StoreError;

/// How many API keys of a caller can be good at a time. Two while one is replaced; more where deployments have their own.
pub const MAX_API_KEYS: u32 = 20;
/// How many identities beside its keys a caller can have.
pub const MAX_IDENTITIES: usize = 100;
/// How many rules a caller can have.
pub const MAX_RULES: usize = 100;
/// To how much the last use of a key is known: it is written once in so long.
pub const LAST_USED_GRAIN: Duration = Duration::from_secs(3600);

/// A caller in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCaller {
    /// What it belongs to.
    pub tenant: TenantId,
    /// Unique in the tenant.
    pub id: CallerId,
    /// For people.
    pub description: String,
    /// What it may do.
    pub rules: Vec<Rule>,
    /// What it may administer.
    pub admin: AdminRights,
    /// What it proves to be, beside its API keys: SPIFFE ids and subjects of JWTs. Each is one caller's.
    pub identities: BTreeSet<Identity>,
    /// Since when it may do nothing.
    pub disabled_at: Option<Timestamp>,
    /// Goes up with every change, from 1.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// An API key without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// For good.
    pub id: ApiKeyId,
    /// Whose.
    pub tenant: TenantId,
    /// Whose.
    pub caller: CallerId,
    /// For people.
    pub label: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is good no more; `None`: until it is revoked.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was last seen, to within [`LAST_USED_GRAIN`]; `None`: never.
    pub last_used_at: Option<Timestamp>,
}

impl ApiKey {
    /// Whether somebody can come in with it.
    #[must_use]
    pub fn is_good(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// A key to store.
#[derive(Clone, PartialEq, Eq)]
pub struct NewApiKey {
    /// What is known of it.
    pub key: ApiKey,
    /// SHA-256 of it, as in [`Identity::ApiKey`].
    pub hash: [u8; 32],
}

/// A tenant about which something is known. One that is only named in the configuration, or by a caller, has no row: it
/// exists and is enabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// For good; that of a deleted one is never used again.
    pub id: TenantId,
    /// For people.
    pub display_name: String,
    /// When it was made, or first changed.
    pub created_at: Timestamp,
    /// Since when its callers may do nothing.
    pub disabled_at: Option<Timestamp>,
    /// Since when it is no more.
    pub deleted_at: Option<Timestamp>,
}

impl Tenant {
    /// Whether its callers may do anything.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.disabled_at.is_none() && self.deleted_at.is_none()
    }
}

/// Who an identity is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundCaller {
    /// The caller.
    pub caller: StoredCaller,
    /// The key, if the identity is one. It may have expired or been revoked.
    pub key: Option<ApiKey>,
}

/// Which of a caller's lists an identity is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityList {
    /// SPIFFE ids.
    SpiffeIds,
    /// Subjects of JWTs.
    Subjects,
}

impl IdentityList {
    /// `None` for an API key, which has a table of its own.
    #[must_use]
    pub fn of(identity: &Identity) -> Option<Self> {
        match identity {
            Identity::ApiKey(_) => None,
            Identity::SpiffeId(_) => Some(Self::SpiffeIds),
            Identity::Subject { .. } => Some(Self::Subjects),
        }
    }

    /// As the configuration and AdminService name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SpiffeIds => "spiffe_ids",
            Self::Subjects => "subjects",
        }
    }
}

/// What two callers would both have: an id in a tenant, or an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The id of a caller.
    Id(TenantId, CallerId),
    /// What a caller proves to be; no API key.
    Identity(Identity),
}

/// How a change of a caller ended. Only `Done` has changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerWrite {
    /// It is stored.
    Done,
    /// There is one of this id already.
    Exists,
    /// There is none of this id.
    Unknown,
    /// It has been changed since it was read.
    Changed,
    /// One of the identities, in this list, is another caller's.
    IdentityTaken(IdentityList),
}

/// How a change of an API key ended. Only `Done` has changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKeyWrite {
    /// It is stored.
    Done,
    /// There is no such caller, or no such key of it that is good.
    Unknown,
    /// The caller has [`MAX_API_KEYS`] that are good.
    TooMany,
}

/// Callers and their keys. Contract: `tests/it/contract/caller_store.rs`.
#[async_trait]
pub trait CallerStore: Send + Sync {
    /// Whose identity this is, whether or not it may still be used.
    async fn find_caller(&self, identity: &Identity) -> Result<Option<FoundCaller>, StoreError>;

    /// One by id.
    async fn load_caller(&self, tenant: &TenantId, id: &CallerId)
    -> Result<Option<StoredCaller>, StoreError>;

    /// Which of these callers here have, in any order, with one statement. API keys are nobody's.
    async fn taken(&self, claims: &[Claim]) -> Result<Vec<Claim>, StoreError>;

    /// A page, ordered by id.
    async fn list_callers(
        &self,
        tenant: &TenantId,
        after: Option<&CallerId>,
        limit: u32,
    ) -> Result<Vec<StoredCaller>, StoreError>;

    /// Stores a new one, of revision 1.
    async fn insert_caller(&self, caller: StoredCaller) -> Result<CallerWrite, StoreError>;

    /// Replaces all but id and creation time, where the revision is still the given one's, which goes up by one.
    async fn update_caller(&self, caller: StoredCaller) -> Result<CallerWrite, StoreError>;

    /// Deletes it with its keys and identities. False: there was none.
    async fn delete_caller(&self, tenant: &TenantId, id: &CallerId) -> Result<bool, StoreError>;

    /// Stores a new key, if the caller is there and has room for it at the key's `created_at`.
    async fn insert_api_key(&self, key: NewApiKey) -> Result<ApiKeyWrite, StoreError>;

    /// All keys of a caller, the newest first; those that are good no more are kept until the caller is deleted.
    async fn list_api_keys(&self, tenant: &TenantId, caller: &CallerId) -> Result<Vec<ApiKey>, StoreError>;

    /// Stores a new key in place of `old`, which then ends at `old_ends_at` at the latest. One transaction.
    async fn rotate_api_key(
        &self,
        old: ApiKeyId,
        old_ends_at: Timestamp,
        new: NewApiKey,
    ) -> Result<ApiKeyWrite, StoreError>;

    /// Ends a key at once. Answers it as it is now; revoking it again changes nothing.
    async fn revoke_api_key(
        &self,
        tenant: &TenantId,
        caller: &CallerId,
        id: ApiKeyId,
        now: Timestamp,
    ) -> Result<Option<ApiKey>, StoreError>;

    /// Somebody came in with it. Writes at most once in [`LAST_USED_GRAIN`].
    async fn mark_api_key_used(&self, id: ApiKeyId, now: Timestamp) -> Result<(), StoreError>;
}

/// How a change of a tenant ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantWrite {
    /// It is stored.
    Done,
    /// There is one of this id, or was one.
    Exists,
    /// There is none of this id, or it has been deleted.
    Unknown,
}

/// Tenants. Contract: `tests/it/contract/tenant_store.rs`.
#[async_trait]
pub trait TenantStore: Send + Sync {
    /// One by id, deleted or not.
    async fn load_tenant(&self, id: &TenantId) -> Result<Option<Tenant>, StoreError>;

    /// A page of those that are not deleted, ordered by id.
    async fn list_tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<Tenant>, StoreError>;

    /// Stores a new one.
    async fn insert_tenant(&self, tenant: Tenant) -> Result<TenantWrite, StoreError>;

    /// Replaces name, `disabled_at` and `deleted_at` of one that is not deleted. Deleting it deletes its callers, their keys
    /// and identities, its provider configurations, and the data keys that its secrets were sealed with, in the same transaction: whatever was sealed for
    /// it does not open any more, wherever a copy lies, once no replica has the keys in memory
    /// ([`LEARNED_AFTER`](super::data_key::LEARNED_AFTER)). The key of fingerprints stays: the audit log is sealed with it.
    async fn update_tenant(&self, tenant: Tenant) -> Result<TenantWrite, StoreError>;
}
