//! What a key-encryption key does, wherever it is: wraps data keys and unwraps them.

use std::fmt::Debug;

use aes_gcm::Aes256Gcm;
use async_trait::async_trait;

use super::envelope::{self, Key};
use crate::domain::data_key::DataKeyPurpose;
use crate::domain::key::TenantId;
use crate::domain::ports::Entropy;

/// What a wrapped data key is bound to: it unwraps nowhere else.
#[derive(Debug, Clone, Copy)]
pub struct KeyBinding<'a> {
    /// The data key's id.
    pub id: [u8; 16],
    /// Whose it is.
    pub tenant: &'a TenantId,
    /// What it is for.
    pub purpose: DataKeyPurpose,
    /// The key-encryption key.
    pub kek_id: &'a str,
}

/// Why a data key could not be wrapped or unwrapped. The texts are ours; a service adds its own error code at most.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KekError {
    /// Damaged, moved from another data key, or wrapped by another key.
    #[error("the wrapped data key does not open")]
    DoesNotOpen,
    /// No answer, not in time, or one that says that the service is at fault. Worth trying again.
    #[error("the key service does not answer: {0}")]
    Unavailable(String),
    /// Too many calls. Worth trying again, later.
    #[error("the key service limits the rate")]
    Throttled,
    /// The service knows the caller and says no: rights, a disabled or deleted key, a wrong name.
    #[error("the key service refuses: {0}")]
    Refused(String),
    /// The broker has no credentials for the service.
    #[error("no credentials for the key service: {0}")]
    NoCredentials(String),
}

impl KekError {
    /// Whether the same call may work soon.
    pub(super) fn is_worth_trying_again(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Throttled => true,
            Self::DoesNotOpen | Self::Refused(_) | Self::NoCredentials(_) => false,
        }
    }
}

/// A key-encryption key.
#[async_trait]
pub trait KeyEncryption: Debug + Send + Sync {
    /// Wraps a data key. What comes back opens with this key and this binding only.
    async fn wrap(
        &self,
        binding: KeyBinding<'_>,
        key: &Key,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, KekError>;

    /// Unwraps a data key.
    async fn unwrap(&self, binding: KeyBinding<'_>, wrapped: &[u8]) -> Result<Key, KekError>;

    /// Whether it is in somebody else's hands, so that using it may fail.
    fn is_remote(&self) -> bool {
        true
    }
}

/// A key in memory, from a file or a variable. Only its expanded form is kept, which is wiped on drop.
pub(super) struct LocalKey(pub(super) Aes256Gcm);

impl Debug for LocalKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocalKey")
    }
}

#[async_trait]
impl KeyEncryption for LocalKey {
    async fn wrap(
        &self,
        binding: KeyBinding<'_>,
        key: &Key,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, KekError> {
        envelope::wrap_key(&self.0, binding, key, entropy).map_err(|_| KekError::DoesNotOpen)
    }

    async fn unwrap(&self, binding: KeyBinding<'_>, wrapped: &[u8]) -> Result<Key, KekError> {
        envelope::unwrap_key(&self.0, binding, wrapped).map_err(|_| KekError::DoesNotOpen)
    }

    fn is_remote(&self) -> bool {
        false
    }
}
