//! The `Cipher` port: finds or makes the data key, then leaves the work to `envelope.rs`.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::envelope::{self, DoesNotOpen, Key, KeyBinding, Record};
use super::keyring::Keyring;
use crate::domain::credential::{Fingerprint, Sealed};
use crate::domain::key::TenantId;
use crate::domain::ports::{
    Binding, Cipher, CipherError, Clock, DataKeyPurpose, DataKeyStore, Entropy, StoreError, WrappedDataKey,
};
use crate::domain::secret::{SecretBytes, SecretString};

/// How many data keys of a key-encryption key are tried at start-up. One that opens proves the key right; several are
/// tried so that a single damaged row does not pass for a wrong key.
const CHECKED_DATA_KEYS: u32 = 8;

/// Why the vault can't be used with this database.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// Key-encryption keys are missing or wrong. Names all of them.
    #[error(
        "the database needs key-encryption keys that are not configured [{}] or have another value than before [{}]",
        list(missing),
        list(wrong)
    )]
    Keys {
        /// In use and not configured.
        missing: BTreeSet<String>,
        /// Configured, but the data keys wrapped under these ids do not open.
        wrong: BTreeSet<String>,
    },
    /// The data keys could not be read.
    #[error("the data keys could not be read")]
    Store(#[from] StoreError),
}

fn list(ids: &BTreeSet<String>) -> String {
    ids.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

impl From<DoesNotOpen> for CipherError {
    fn from(_: DoesNotOpen) -> Self {
        Self::DoesNotOpen
    }
}

/// An unwrapped data key.
struct DataKey {
    id: [u8; 16],
    tenant: TenantId,
    purpose: DataKeyPurpose,
    key: Key,
}

/// Data keys in memory. There are two per tenant, and tenants are configured, so nothing is ever evicted.
#[derive(Default)]
struct Cache {
    by_id: HashMap<[u8; 16], Arc<DataKey>>,
    encryption: HashMap<TenantId, Arc<DataKey>>,
    fingerprint: HashMap<TenantId, Arc<DataKey>>,
}

impl Cache {
    fn newest(&mut self, purpose: DataKeyPurpose) -> &mut HashMap<TenantId, Arc<DataKey>> {
        match purpose {
            DataKeyPurpose::Encryption => &mut self.encryption,
            DataKeyPurpose::Fingerprint => &mut self.fingerprint,
        }
    }
}

/// The vault.
pub struct Vault {
    keyring: Keyring,
    store: Arc<dyn DataKeyStore>,
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
    cache: RwLock<Cache>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("keyring", &self.keyring).finish_non_exhaustive()
    }
}

impl Vault {
    /// A vault with no data key in memory. Call [`Vault::check`] before use.
    #[must_use]
    pub fn new(
        keyring: Keyring,
        store: Arc<dyn DataKeyStore>,
        entropy: Arc<dyn Entropy>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { keyring, store, entropy, clock, cache: RwLock::default() }
    }

    /// For start-up: every key-encryption key in use is configured, and opens what was wrapped under its id. Names every
    /// key that does not.
    pub async fn check(&self) -> Result<(), VaultError> {
        let (mut missing, mut wrong) = (BTreeSet::new(), BTreeSet::new());
        for id in self.store.kek_ids_in_use().await? {
            if self.keyring.cipher(&id).is_none() {
                missing.insert(id);
                continue;
            }
            let sample = self.store.data_keys_under(&id, CHECKED_DATA_KEYS).await?;
            // One that opens proves the key: AES-GCM authenticates it.
            if !sample.is_empty() && !sample.into_iter().any(|wrapped| self.unwrap(wrapped).is_ok()) {
                wrong.insert(id);
            }
        }
        if missing.is_empty() && wrong.is_empty() { Ok(()) } else { Err(VaultError::Keys { missing, wrong }) }
    }

    /// The key that new records and fingerprints of the tenant are made with.
    async fn newest(&self, tenant: &TenantId, purpose: DataKeyPurpose) -> Result<Arc<DataKey>, CipherError> {
        {
            let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
            let newest = match purpose {
                DataKeyPurpose::Encryption => &cache.encryption,
                DataKeyPurpose::Fingerprint => &cache.fingerprint,
            };
            if let Some(key) = newest.get(tenant) {
                return Ok(Arc::clone(key));
            }
        }
        let stored = self.store.newest_data_key(tenant, purpose).await.map_err(CipherError::Store)?;
        let stored = if let Some(stored) = stored {
            stored
        } else {
            let candidate = self.make(tenant, purpose)?;
            // Somebody else may be first; what the store answers is the tenant's key.
            self.store.newest_data_key_or_insert(candidate).await.map_err(CipherError::Store)?
        };
        let key = Arc::new(self.unwrap(stored)?);
        if key.tenant != *tenant || key.purpose != purpose {
            return Err(CipherError::DoesNotOpen);
        }
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        cache.by_id.insert(key.id, Arc::clone(&key));
        cache.newest(purpose).insert(tenant.clone(), Arc::clone(&key));
        Ok(key)
    }

    /// A MAC under the tenant's key for a purpose.
    pub(super) async fn keyed(
        &self,
        tenant: &TenantId,
        purpose: DataKeyPurpose,
    ) -> Result<Hmac<Sha256>, CipherError> {
        let key = self.newest(tenant, purpose).await?;
        Hmac::<Sha256>::new_from_slice(key.key.as_slice()).map_err(|_| CipherError::DoesNotOpen) // takes any length
    }

    /// The key that a record was made with.
    async fn by_id(&self, id: [u8; 16]) -> Result<Arc<DataKey>, CipherError> {
        if let Some(key) = self.cache.read().unwrap_or_else(PoisonError::into_inner).by_id.get(&id) {
            return Ok(Arc::clone(key));
        }
        // A key that is nowhere: the header is damaged, or the tenant's keys were deleted.
        let stored =
            self.store.data_key(id).await.map_err(CipherError::Store)?.ok_or(CipherError::DoesNotOpen)?;
        let key = Arc::new(self.unwrap(stored)?);
        if key.id != id {
            return Err(CipherError::DoesNotOpen);
        }
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        cache.by_id.insert(id, Arc::clone(&key));
        Ok(key)
    }

    fn make(&self, tenant: &TenantId, purpose: DataKeyPurpose) -> Result<WrappedDataKey, CipherError> {
        let mut id = [0; 16];
        self.entropy.fill(&mut id);
        let mut key = Key::default();
        self.entropy.fill(key.as_mut_slice());
        let kek_id = self.keyring.active_id();
        let kek = self.keyring.cipher(kek_id).ok_or(CipherError::UnknownKey)?;
        let wrapped =
            envelope::wrap_key(kek, KeyBinding { id, tenant, purpose, kek_id }, &key, &*self.entropy)?;
        Ok(WrappedDataKey {
            id,
            tenant: tenant.clone(),
            purpose,
            kek_id: kek_id.to_owned(),
            wrapped,
            created_at: self.clock.now(),
        })
    }

    fn unwrap(&self, stored: WrappedDataKey) -> Result<DataKey, CipherError> {
        let WrappedDataKey { id, tenant, purpose, kek_id, wrapped, created_at: _ } = stored;
        let kek = self.keyring.cipher(&kek_id).ok_or(CipherError::UnknownKey)?;
        let binding = KeyBinding { id, tenant: &tenant, purpose, kek_id: &kek_id };
        let key = envelope::unwrap_key(kek, binding, &wrapped)?;
        Ok(DataKey { id, tenant, purpose, key })
    }
}

#[async_trait]
impl Cipher for Vault {
    async fn seal(&self, binding: Binding<'_>, plaintext: &SecretBytes) -> Result<Sealed, CipherError> {
        let key = self.newest(&binding.key.tenant, DataKeyPurpose::Encryption).await?;
        Ok(Sealed(envelope::seal_record(key.id, &key.key, binding, plaintext, &*self.entropy)?))
    }

    async fn open(&self, binding: Binding<'_>, sealed: &Sealed) -> Result<SecretBytes, CipherError> {
        let record = Record::parse(&sealed.0)?;
        let key = self.by_id(record.key_id).await?;
        if key.tenant != binding.key.tenant || key.purpose != DataKeyPurpose::Encryption {
            return Err(CipherError::DoesNotOpen);
        }
        Ok(record.open(&key.key, binding)?)
    }

    async fn fingerprint(&self, tenant: &TenantId, token: &SecretString) -> Result<Fingerprint, CipherError> {
        let mut mac = self.keyed(tenant, DataKeyPurpose::Fingerprint).await?;
        mac.update(token.expose_secret().as_bytes());
        Ok(Fingerprint(mac.finalize().into_bytes().into()))
    }
}
