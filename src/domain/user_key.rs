//! A user's own key. Whatever is sealed for a user takes two secrets to open: a data key of the tenant, and this one. So when
//! it is deleted, nothing of the user's opens any more, wherever a copy of a ciphertext is, and nobody else's is touched.
//!
//! It is 32 random bytes, made when something is first sealed for the user, and stored sealed under the tenant's data key:
//! no call to a key service for a user. It is never changed. A user who was deleted and comes back has another one under
//! another id, so that a ciphertext never meets the wrong one.

use async_trait::async_trait;
use jiff::Timestamp;

use super::credential::Sealed;
use super::key::{Account, CredentialKey, GrantId, GrantName, KeyError, ProviderId, TenantId, UserId};
use super::ports::StoreError;

/// In the header of every ciphertext made with it. Random, and never used again.
pub type UserKeyId = [u8; 16];

/// Fixed words in the places of a provider, a grant and an account, of which a user's key has none. Part of the format:
/// never change one.
pub const USER_KEY_WORDS: [&str; 3] = ["user-key", "user-key", "default"];

/// A user's key as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredUserKey {
    /// Which.
    pub id: UserKeyId,
    /// Whose.
    pub tenant: TenantId,
    /// Whose.
    pub user: UserId,
    /// [`Field::UserKey`](super::cipher::Field::UserKey), under a data key of the tenant alone.
    pub sealed: Sealed,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What a user's key is bound to, in the one form that records have: tenant, user and id. Its field is no credential's, so
/// that it can't be taken for a token.
pub fn user_key_binding(
    tenant: &TenantId,
    user: &UserId,
    id: UserKeyId,
) -> Result<(CredentialKey, GrantId), KeyError> {
    let [provider, grant, account] = USER_KEY_WORDS;
    let key = CredentialKey {
        tenant: tenant.clone(),
        provider: ProviderId::new(provider)?,
        user: user.clone(),
        grant: GrantName::new(grant)?,
        account: Account::new(account)?,
    };
    Ok((key, GrantId::from_bytes(id)))
}

/// Where users' keys are. They go with [`CredentialStore::delete_user`](super::ports::CredentialStore::delete_user). Contract:
/// `tests/it/contract/user_store.rs`.
#[async_trait]
pub trait UserKeyStore: Send + Sync {
    /// One by id. `None`: it was deleted, or never was.
    async fn user_key(&self, id: UserKeyId) -> Result<Option<StoredUserKey>, StoreError>;

    /// Those of these that are there, in any order.
    async fn user_keys(&self, ids: &[UserKeyId]) -> Result<Vec<StoredUserKey>, StoreError>;

    /// The user's. `None`: there is none (yet).
    async fn user_key_of(
        &self,
        tenant: &TenantId,
        user: &UserId,
    ) -> Result<Option<StoredUserKey>, StoreError>;

    /// The user's, after storing this one if there was none. Atomic: of two that race, one is kept. `None`: the tenant is
    /// deleted, and its users have no keys any more.
    async fn user_key_or_insert(&self, candidate: StoredUserKey)
    -> Result<Option<StoredUserKey>, StoreError>;
}

/// See [`CredentialStore::delete_user`](super::ports::CredentialStore::delete_user).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserDeletion {
    /// Whose.
    pub tenant: TenantId,
    /// Whose.
    pub user: UserId,
    /// Also what providers have still to be told: they are not told.
    pub abandon_revocations: bool,
    /// At most so many rows of each kind.
    pub limit: u32,
}

/// What is left of a user after a [`UserDeletion`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserDeleted {
    /// Nothing. With the id of the key, if there was one.
    Gone(Option<UserKeyId>),
    /// Some rows, or a credential that came meanwhile: again.
    Partly,
    /// So many revocations that providers have still to be told, which takes the key. Nothing was deleted.
    Waiting(u64),
}
