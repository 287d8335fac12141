//! The `Cipher` port: finds or makes the keys (a user's in `users.rs`), then leaves the work to `envelope.rs`.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::envelope::{self, DoesNotOpen, Key, Named, Record};
use super::kek::{KekError, KeyBinding, KeyEncryption};
use super::keyring::Keyring;
use super::users::{UserKeys, new_user_keys};
use crate::domain::cipher::{Binding, Cipher, CipherError, Sealer};
use crate::domain::coordination::Tombstone;
use crate::domain::credential::{Fingerprint, Sealed};
use crate::domain::data_key::{DataKeyPurpose, DataKeyStore, WrappedDataKey};
use crate::domain::key::{CredentialId, CredentialKey, GrantId, TenantId};
use crate::domain::ports::{Clock, Entropy, LineageWrite, StoreError};
use crate::domain::secret::{SecretBytes, SecretString};
use crate::domain::user_key::UserKeyId;
use crate::infra::record;

/// How many data keys of a key-encryption key are tried at start-up. One that opens proves the key right; several are
/// tried so that a single damaged row does not pass for a wrong key.
const CHECKED_DATA_KEYS: u32 = 8;

/// Begins what a tombstone is the MAC of, with a byte that no text in UTF-8 has: fingerprints are made of texts, so that no
/// token of a provider's can be a tombstone.
const TOMBSTONE_LABEL: &[u8] = b"\xfftombstone v1";
/// The same for the MAC of a successor.
const SUCCESSOR_LABEL: &[u8] = b"\xffsuccessor v1";

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
    /// A key service can't be used.
    #[error("the key-encryption key \"{id}\" cannot be used: {source}")]
    KeyService {
        /// Which.
        id: String,
        /// Why.
        source: KekError,
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

impl From<KekError> for CipherError {
    fn from(error: KekError) -> Self {
        match error {
            KekError::DoesNotOpen => Self::DoesNotOpen,
            KekError::Unavailable(_)
            | KekError::Throttled
            | KekError::Refused(_)
            | KekError::NoCredentials(_) => Self::KeyService(Box::new(error)),
        }
    }
}

/// An unwrapped data key.
pub(super) struct DataKey {
    pub(super) id: [u8; 16],
    pub(super) tenant: TenantId,
    pub(super) purpose: DataKeyPurpose,
    pub(super) key: Key,
}

impl DataKey {
    pub(super) fn named(&self) -> Named<'_> {
        Named { id: self.id, key: &self.key }
    }
}

/// Data keys in memory. There are a few per tenant, and none is evicted for its age: while the key service is away, what is
/// here serves on. `keeper.rs` replaces superseded ones and forgets deleted ones.
#[derive(Default)]
pub(super) struct Cache {
    pub(super) by_id: HashMap<[u8; 16], Arc<DataKey>>,
    pub(super) encryption: HashMap<TenantId, Arc<DataKey>>,
    pub(super) fingerprint: HashMap<TenantId, Arc<DataKey>>,
}

impl Cache {
    pub(super) fn newest(&mut self, purpose: DataKeyPurpose) -> &mut HashMap<TenantId, Arc<DataKey>> {
        match purpose {
            DataKeyPurpose::Encryption => &mut self.encryption,
            DataKeyPurpose::Fingerprint => &mut self.fingerprint,
        }
    }
}

/// How many data keys are loaded at one time at most. Each is loaded once however many wait for it, since those that wait
/// for the same one wait for the same turn.
const LOADS: usize = 32;

/// The vault.
pub struct Vault {
    pub(super) keyring: Keyring,
    pub(super) store: Arc<dyn DataKeyStore>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) cache: RwLock<Cache>,
    pub(super) users: UserKeys,
    loads: [tokio::sync::Mutex<()>; LOADS],
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
        Self {
            keyring,
            store,
            entropy,
            clock,
            cache: RwLock::default(),
            users: new_user_keys(),
            loads: std::array::from_fn(|_| tokio::sync::Mutex::default()),
        }
    }

    /// For start-up: every key-encryption key in use is configured, and opens what was wrapped under its id. Names every
    /// key that does not. The active one is tried if a key service holds it, so that a mistake in its rights shows now and
    /// not at the first consent.
    pub async fn check(&self) -> Result<(), VaultError> {
        let (mut missing, mut wrong) = (BTreeSet::new(), BTreeSet::new());
        for id in self.store.kek_ids_in_use().await? {
            let Some(kek) = self.keyring.key(&id) else {
                missing.insert(id);
                continue;
            };
            let sample = self.store.data_keys_under(&id, CHECKED_DATA_KEYS).await?;
            // One that opens proves the key: its encryption authenticates it.
            let mut opens = sample.is_empty();
            for stored in &sample {
                match unwrap_by(kek, stored).await {
                    Ok(_) => {
                        opens = true;
                        break;
                    }
                    Err(KekError::DoesNotOpen) => {}
                    Err(source) => return Err(VaultError::KeyService { id, source }),
                }
            }
            if !opens {
                wrong.insert(id);
            }
        }
        if missing.is_empty() && wrong.is_empty() {
            self.try_active().await
        } else {
            Err(VaultError::Keys { missing, wrong })
        }
    }

    async fn try_active(&self) -> Result<(), VaultError> {
        let id = self.keyring.active_id();
        let Some(kek) = self.keyring.key(id).filter(|kek| kek.is_remote()) else { return Ok(()) };
        let failed = |source| VaultError::KeyService { id: id.to_owned(), source };
        let Ok(tenant) = TenantId::new("start-up") else { return Ok(()) };
        let binding =
            KeyBinding { id: [0; 16], tenant: &tenant, purpose: DataKeyPurpose::Encryption, kek_id: id };
        let mut key = Key::default();
        self.entropy.fill(key.as_mut_slice());
        let wrapped = kek.wrap(binding, &key, &*self.entropy).await.map_err(failed)?;
        let opened = kek.unwrap(binding, &wrapped).await.map_err(failed)?;
        if opened.ct_eq(&*key).into() { Ok(()) } else { Err(failed(KekError::DoesNotOpen)) }
    }

    fn cached_newest(&self, tenant: &TenantId, purpose: DataKeyPurpose) -> Option<Arc<DataKey>> {
        let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
        let newest = match purpose {
            DataKeyPurpose::Encryption => &cache.encryption,
            DataKeyPurpose::Fingerprint => &cache.fingerprint,
        };
        newest.get(tenant).map(Arc::clone)
    }

    fn cached(&self, id: [u8; 16]) -> Option<Arc<DataKey>> {
        self.cache.read().unwrap_or_else(PoisonError::into_inner).by_id.get(&id).map(Arc::clone)
    }

    /// The key that new records and fingerprints of the tenant are made with.
    pub(super) async fn newest(
        &self,
        tenant: &TenantId,
        purpose: DataKeyPurpose,
    ) -> Result<Arc<DataKey>, CipherError> {
        if let Some(key) = self.cached_newest(tenant, purpose) {
            return Ok(key);
        }
        let turn = tenant
            .as_str()
            .bytes()
            .fold(0, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let _turn = self.loads[turn % LOADS].lock().await;
        if let Some(key) = self.cached_newest(tenant, purpose) {
            return Ok(key);
        }
        let stored = self.store.newest_data_key(tenant, purpose).await.map_err(CipherError::Store)?;
        let stored = if let Some(stored) = stored {
            stored
        } else {
            let (candidate, _) = self.make(tenant, purpose).await?;
            // Somebody else may be first; what the store answers is the tenant's key.
            let stored = self.store.newest_data_key_or_insert(candidate).await.map_err(CipherError::Store)?;
            stored.ok_or(CipherError::KeysDeleted)?
        };
        let key = Arc::new(self.unwrap(&stored).await?);
        if key.tenant != *tenant || key.purpose != purpose {
            return Err(CipherError::DoesNotOpen);
        }
        self.remember_newest(&key);
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

    pub(super) fn remember_newest(&self, key: &Arc<DataKey>) {
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        cache.by_id.insert(key.id, Arc::clone(key));
        cache.newest(key.purpose).insert(key.tenant.clone(), Arc::clone(key));
    }

    /// The key that a record was made with.
    pub(super) async fn by_id(&self, id: [u8; 16]) -> Result<Arc<DataKey>, CipherError> {
        if let Some(key) = self.cached(id) {
            return Ok(key);
        }
        let _turn = self.loads[usize::from(id[15]) % LOADS].lock().await;
        if let Some(key) = self.cached(id) {
            return Ok(key);
        }
        // A key that is nowhere: the header is damaged, or the tenant's keys were deleted.
        let stored =
            self.store.data_key(id).await.map_err(CipherError::Store)?.ok_or(CipherError::DoesNotOpen)?;
        let key = Arc::new(self.unwrap(&stored).await?);
        if key.id != id {
            return Err(CipherError::DoesNotOpen);
        }
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        cache.by_id.insert(id, Arc::clone(&key));
        Ok(key)
    }

    /// A new data key, wrapped and as it is.
    pub(super) async fn make(
        &self,
        tenant: &TenantId,
        purpose: DataKeyPurpose,
    ) -> Result<(WrappedDataKey, DataKey), CipherError> {
        let mut id = [0; 16];
        self.entropy.fill(&mut id);
        let mut key = Key::default();
        self.entropy.fill(key.as_mut_slice());
        let data_key = DataKey { id, tenant: tenant.clone(), purpose, key };
        let (kek_id, wrapped) = self.wrap(&data_key).await?;
        let tenant = tenant.clone();
        let created_at = self.clock.now();
        let stored = WrappedDataKey { id, tenant, purpose, kek_id, wrapped, created_at, superseded_at: None };
        Ok((stored, data_key))
    }

    /// Wraps a data key under the active key-encryption key; answers its id, too.
    pub(super) async fn wrap(&self, data_key: &DataKey) -> Result<(String, Vec<u8>), CipherError> {
        let kek_id = self.keyring.active_id();
        let kek = self.keyring.key(kek_id).ok_or(CipherError::UnknownKey)?;
        let DataKey { id, tenant, purpose, key } = data_key;
        let binding = KeyBinding { id: *id, tenant, purpose: *purpose, kek_id };
        let wrapped = kek.wrap(binding, key, &*self.entropy).await;
        Ok((kek_id.to_owned(), counted(kek, kek_id, "wrap", wrapped)?))
    }

    pub(super) async fn unwrap(&self, stored: &WrappedDataKey) -> Result<DataKey, CipherError> {
        let kek = self.keyring.key(&stored.kek_id).ok_or(CipherError::UnknownKey)?;
        Ok(unwrap_by(kek, stored).await?)
    }
}

async fn unwrap_by(kek: &dyn KeyEncryption, stored: &WrappedDataKey) -> Result<DataKey, KekError> {
    let WrappedDataKey { id, tenant, purpose, kek_id, wrapped, .. } = stored;
    let binding = KeyBinding { id: *id, tenant, purpose: *purpose, kek_id };
    let key = counted(kek, kek_id, "unwrap", kek.unwrap(binding, wrapped).await)?;
    Ok(DataKey { id: *id, tenant: tenant.clone(), purpose: *purpose, key })
}

/// Counts a call to a key service.
fn counted<T>(
    kek: &dyn KeyEncryption,
    id: &str,
    operation: &'static str,
    outcome: Result<T, KekError>,
) -> Result<T, KekError> {
    if kek.is_remote() {
        let word = match &outcome {
            Ok(_) => "ok",
            Err(KekError::DoesNotOpen) => "does_not_open",
            Err(KekError::Unavailable(_)) => "unavailable",
            Err(KekError::Throttled) => "throttled",
            Err(KekError::Refused(_)) => "refused",
            Err(KekError::NoCredentials(_)) => "no_credentials",
        };
        metrics::counter!("token_broker_key_service_calls_total", "key" => id.to_owned(), "operation" => operation, "outcome" => word)
            .increment(1);
        if let Err(error) = &outcome {
            tracing::warn!(key = id, operation, %error, "a call to a key service failed");
        }
    }
    outcome
}

impl Vault {
    /// Encrypts; what is a user's, with the key of the user's that `beside` was made with, if there is one.
    pub(super) async fn seal_beside(
        &self,
        binding: Binding<'_>,
        plaintext: &SecretBytes,
        beside: Option<&Sealed>,
    ) -> Result<Sealed, CipherError> {
        if binding.field.is_users() {
            return self.sealer(binding.key, beside).await?.seal(binding, plaintext);
        }
        let key = self.newest(&binding.key.tenant, DataKeyPurpose::Encryption).await?;
        Ok(Sealed(envelope::seal_record(key.named(), None, binding, plaintext, &*self.entropy)?))
    }
}

#[async_trait]
impl Cipher for Vault {
    async fn sealer(
        &self,
        key: &CredentialKey,
        beside: Option<&Sealed>,
    ) -> Result<Arc<dyn Sealer>, CipherError> {
        let data_key = self.newest(&key.tenant, DataKeyPurpose::Encryption).await?;
        let beside = beside.and_then(|sealed| Record::parse(&sealed.0).ok()?.user_key);
        let user_key = match beside {
            Some(id) => self.user_key(id, key).await?,
            None => self.current_user_key(key, &data_key).await?,
        };
        Ok(self.users_sealer(data_key, user_key))
    }

    async fn existing_sealer(&self, key: &CredentialKey) -> Result<Option<Arc<dyn Sealer>>, CipherError> {
        let Some(user_key) = self.existing_user_key(key).await? else { return Ok(None) };
        let data_key = self.newest(&key.tenant, DataKeyPurpose::Encryption).await?;
        Ok(Some(self.users_sealer(data_key, user_key)))
    }

    async fn seal(&self, binding: Binding<'_>, plaintext: &SecretBytes) -> Result<Sealed, CipherError> {
        self.seal_beside(binding, plaintext, None).await
    }

    async fn open(&self, binding: Binding<'_>, sealed: &Sealed) -> Result<SecretBytes, CipherError> {
        let record = Record::parse(&sealed.0)?;
        let key = self.by_id(record.key_id).await?;
        if key.tenant != binding.key.tenant || key.purpose != DataKeyPurpose::Encryption {
            return Err(CipherError::DoesNotOpen);
        }
        let user_key = match record.user_key {
            Some(id) => Some(self.user_key(id, binding.key).await?),
            None => None,
        };
        Ok(record.open(&key.key, user_key.as_ref().map(|user_key| &user_key.key), binding)?)
    }

    async fn expect(&self, all: &[&Sealed]) {
        let records = all.iter().filter_map(|sealed| Record::parse(&sealed.0).ok());
        self.expect_user_keys(records.filter_map(|record| record.user_key).collect()).await;
    }

    fn forget_user_key(&self, id: UserKeyId) {
        self.users.insert(id, None, self.clock.monotonic());
    }

    async fn fingerprint(&self, tenant: &TenantId, token: &SecretString) -> Result<Fingerprint, CipherError> {
        let mut mac = self.keyed(tenant, DataKeyPurpose::Fingerprint).await?;
        mac.update(token.expose_secret().as_bytes());
        Ok(Fingerprint(mac.finalize().into_bytes().into()))
    }

    async fn tombstone(
        &self,
        tenant: &TenantId,
        credential: CredentialId,
        grant: GrantId,
    ) -> Result<Tombstone, CipherError> {
        let mac = self.keyed(tenant, DataKeyPurpose::Fingerprint).await?.chain_update(TOMBSTONE_LABEL);
        let mac = mac.chain_update(credential.as_bytes()).chain_update(grant.as_bytes());
        Ok(Tombstone(mac.finalize().into_bytes().into()))
    }

    async fn successor_mac(&self, tenant: &TenantId, write: &LineageWrite) -> Result<[u8; 32], CipherError> {
        let mac = self.keyed(tenant, DataKeyPurpose::Fingerprint).await?.chain_update(SUCCESSOR_LABEL);
        Ok(mac.chain_update(record::encode(write)).finalize().into_bytes().into())
    }
}
