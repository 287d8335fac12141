//! The vault, as its users know it: what is sealed, what it is bound to, and why it does not open. The life of its keys is in
//! `data_key.rs` and `user_key.rs`.

use std::sync::Arc;

use async_trait::async_trait;

use super::coordination::Tombstone;
use super::credential::{Fingerprint, Sealed};
use super::key::{CredentialId, CredentialKey, GrantId, TenantId};
use super::ports::{LineageWrite, StoreError};
use super::secret::{SecretBytes, SecretString};
use super::user_key::UserKeyId;

/// Which field of a record a ciphertext is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// A credential's access token.
    AccessToken,
    /// A credential's refresh token.
    RefreshToken,
    /// A credential's account and extra values.
    Profile,
    /// A flow's state, verifier, nonce and what else its user or caller shows.
    FlowSecrets,
    /// The authorization code of a flow that waits for its proof.
    AuthorizationCode,
    /// The client secret of a tenant's provider configuration.
    ClientSecret,
    /// The private key that signs a tenant's client assertions.
    ClientPrivateKey,
    /// The private key of a tenant's TLS certificate.
    ClientTlsKey,
    /// A user's own key (`user_key.rs`).
    UserKey,
}

impl Field {
    /// Whether it is a user's, and so takes the user's key to open.
    #[must_use]
    pub fn is_users(self) -> bool {
        match self {
            Self::AccessToken
            | Self::RefreshToken
            | Self::Profile
            | Self::FlowSecrets
            | Self::AuthorizationCode => true,
            Self::ClientSecret | Self::ClientPrivateKey | Self::ClientTlsKey | Self::UserKey => false,
        }
    }
}

/// What a ciphertext is bound to: it opens nowhere else.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// Tenant, provider, user, grant name, account.
    pub key: &'a CredentialKey,
    /// The consent.
    pub grant: GrantId,
    /// The field.
    pub field: Field,
}

/// Why the vault could not do it. Never "not connected".
#[derive(Debug, thiserror::Error)]
pub enum CipherError {
    /// The ciphertext was made with a key that is not configured.
    #[error("the ciphertext was made with a key that is not configured")]
    UnknownKey,
    /// The tenant is deleted, and with it the keys that its secrets were sealed with.
    #[error("the tenant's keys are deleted")]
    KeysDeleted,
    /// Damaged, moved from another row or field, or made with another key of the same id.
    #[error("the ciphertext does not open")]
    DoesNotOpen,
    /// The data keys could not be read or stored.
    #[error("the data keys could not be read or stored: {0}")]
    Store(StoreError),
    /// The service that holds the key-encryption key does not answer, or refuses. Worth trying again.
    #[error("the key-encryption key is not available now: {0}")]
    KeyService(Box<dyn std::error::Error + Send + Sync>),
}

/// Encrypts for one user. It has the keys in memory for as long as it lives, and asks nobody.
pub trait Sealer: Send + Sync {
    /// The user's key that it encrypts with.
    fn user_key(&self) -> UserKeyId;
    /// Encrypts. Fails for a binding that is not the user's.
    fn seal(&self, binding: Binding<'_>, plaintext: &SecretBytes) -> Result<Sealed, CipherError>;
}

/// AES-256-GCM under keys of the tenant and of the user.
#[async_trait]
pub trait Cipher: Send + Sync {
    /// Encrypts for the user of this key. The user's own key is read from the database, or made, so that nothing is sealed
    /// with one that was deleted elsewhere; unless `beside` is a ciphertext that what is sealed will stand in the place of:
    /// then it is sealed with the same key of the user's.
    async fn sealer(
        &self,
        key: &CredentialKey,
        beside: Option<&Sealed>,
    ) -> Result<Arc<dyn Sealer>, CipherError>;
    /// The same, but makes no key. `None`: the user has none, and so nothing that could be opened.
    async fn existing_sealer(&self, key: &CredentialKey) -> Result<Option<Arc<dyn Sealer>>, CipherError>;
    /// Encrypts one thing.
    async fn seal(&self, binding: Binding<'_>, plaintext: &SecretBytes) -> Result<Sealed, CipherError> {
        self.sealer(binding.key, None).await?.seal(binding, plaintext)
    }
    /// Decrypts.
    async fn open(&self, binding: Binding<'_>, sealed: &Sealed) -> Result<SecretBytes, CipherError>;
    /// All of these will be opened: what it takes is read at one time. What can't be read is told by [`Cipher::open`].
    async fn expect(&self, _all: &[&Sealed]) {}
    /// A user's key was deleted: it is forgotten at once here. Other replicas forget it within
    /// [`LEARNED_AFTER`](super::data_key::LEARNED_AFTER).
    fn forget_user_key(&self, id: UserKeyId);
    /// The keyed hash of a refresh token, the same for the same tenant and token for good.
    async fn fingerprint(&self, tenant: &TenantId, token: &SecretString) -> Result<Fingerprint, CipherError>;
    /// The tombstone of a grant, under the same key.
    async fn tombstone(
        &self,
        tenant: &TenantId,
        credential: CredentialId,
        grant: GrantId,
    ) -> Result<Tombstone, CipherError>;
    /// The MAC of a [`Successor`](super::coordination::Successor), under the same key.
    async fn successor_mac(&self, tenant: &TenantId, write: &LineageWrite) -> Result<[u8; 32], CipherError>;
}
