//! Users' own keys: made, found, and held while something is sealed with them.
//!
//! A tenant may have a million users, so their keys are not kept like data keys: at most [`MOST`] lie in memory, each for
//! [`LEARNED_AFTER`], after which a look at the database says whether it is still there. So a deletion on another replica is
//! learned in that time. A key that is in use is looked at again in the second half of its life, while all others go on with
//! it, and while the database does not answer it serves until its end.
//!
//! Opening goes by the id in the ciphertext's header: one that was deleted is never taken for the one that came after it.
//! Sealing goes by the user, and asks the database each time, since what is sealed with a deleted key is lost; or by a
//! ciphertext that the database would give up in the same transaction as the key.

use std::sync::Arc;
use std::time::Duration;

use super::envelope::{self, Key, Named};
use super::vault::{DataKey, Vault};
use crate::domain::cipher::{Binding, Cipher as _, CipherError, Field, Sealer};
use crate::domain::credential::Sealed;
use crate::domain::data_key::LEARNED_AFTER;
use crate::domain::key::{CredentialKey, TenantId, UserId};
use crate::domain::ports::Entropy;
use crate::domain::secret::SecretBytes;
use crate::domain::user_key::{StoredUserKey, UserKeyId, user_key_binding};
use crate::infra::cache::{Cache, Known};

/// How many keys lie in memory: 4 MB at most.
const MOST: usize = 16_384;

/// What is known of users' keys; `None`: it was deleted, and ids are never used again. Who asks before a deletion and hears
/// after it changes nothing: the later look counts.
pub(super) type UserKeys = Cache<UserKeyId, Option<Arc<UserKey>>>;

pub(super) fn new_user_keys() -> UserKeys {
    // The cache has two halves.
    Cache::new(MOST / 2, LEARNED_AFTER)
}

/// A user's key as it is, wiped on drop.
pub(super) struct UserKey {
    id: UserKeyId,
    tenant: TenantId,
    user: UserId,
    pub(super) key: Key,
}

impl UserKey {
    fn is_of(&self, key: &CredentialKey) -> bool {
        self.tenant == key.tenant && self.user == key.user
    }
}

struct UsersSealer {
    data_key: Arc<DataKey>,
    user_key: Arc<UserKey>,
    entropy: Arc<dyn Entropy>,
}

impl Sealer for UsersSealer {
    fn user_key(&self) -> UserKeyId {
        self.user_key.id
    }

    fn seal(&self, binding: Binding<'_>, plaintext: &SecretBytes) -> Result<Sealed, CipherError> {
        if !self.user_key.is_of(binding.key) || !binding.field.is_users() {
            return Err(CipherError::DoesNotOpen);
        }
        let user_key = Named { id: self.user_key.id, key: &self.user_key.key };
        let sealed =
            envelope::seal_record(self.data_key.named(), Some(user_key), binding, plaintext, &*self.entropy)?;
        Ok(Sealed(sealed))
    }
}

impl Vault {
    pub(super) fn users_sealer(&self, data_key: Arc<DataKey>, user_key: Arc<UserKey>) -> Arc<dyn Sealer> {
        Arc::new(UsersSealer { data_key, user_key, entropy: Arc::clone(&self.entropy) })
    }

    /// The key with this id, which is to be the user's of this place.
    pub(super) async fn user_key(
        &self,
        id: UserKeyId,
        place: &CredentialKey,
    ) -> Result<Arc<UserKey>, CipherError> {
        let found = self.known_user_key(id).await?;
        found.filter(|found| found.is_of(place)).ok_or(CipherError::DoesNotOpen)
    }

    /// Reads those of these that are not in memory, by one statement.
    pub(super) async fn expect_user_keys(&self, mut ids: Vec<UserKeyId>) {
        let began = self.clock.monotonic();
        ids.sort_unstable();
        ids.dedup();
        // One is read as well when it is needed. It is not even looked for here: who finds it aging has to look at it again.
        if ids.len() < 2 {
            return;
        }
        ids.retain(|id| !matches!(self.users.get(id, began), Known::Fresh(_)));
        if ids.is_empty() {
            return;
        }
        let Ok(found) = self.store.user_keys(&ids).await else { return };
        for stored in &found {
            if let Err(error) = self.remembered(stored, began).await {
                tracing::warn!(user_key = %uuid::Uuid::from_bytes(stored.id), %error, "a user's key can't be opened");
            }
        }
    }

    /// `None`: it was deleted, or never was.
    async fn known_user_key(&self, id: UserKeyId) -> Result<Option<Arc<UserKey>>, CipherError> {
        let began = self.clock.monotonic();
        let known = self.users.get(&id, began);
        if let Known::Fresh(known) = known {
            return Ok(known);
        }
        match (self.store.user_key(id).await, known) {
            (Ok(None), _) => {
                self.users.insert(id, None, began);
                Ok(None)
            }
            (Ok(Some(stored)), _) => self.remembered(&stored, began).await.map(Some),
            (Err(_), Known::Aging(known)) => Ok(known),
            (Err(error), _) => Err(CipherError::Store(error)),
        }
    }

    /// The user's key as it is now, made if there is none.
    pub(super) async fn current_user_key(
        &self,
        place: &CredentialKey,
        data_key: &DataKey,
    ) -> Result<Arc<UserKey>, CipherError> {
        if let Some(found) = self.existing_user_key(place).await? {
            return Ok(found);
        }
        let began = self.clock.monotonic();
        let candidate = self.new_user_key(place, data_key)?;
        // Somebody else may be first; what the store answers is the user's key.
        let stored = self.store.user_key_or_insert(candidate).await.map_err(CipherError::Store)?;
        self.remembered(&stored.ok_or(CipherError::KeysDeleted)?, began).await
    }

    /// The user's key as it is now.
    pub(super) async fn existing_user_key(
        &self,
        place: &CredentialKey,
    ) -> Result<Option<Arc<UserKey>>, CipherError> {
        let began = self.clock.monotonic();
        let stored = self.store.user_key_of(&place.tenant, &place.user).await.map_err(CipherError::Store)?;
        match stored {
            Some(stored) => self.remembered(&stored, began).await.map(Some),
            None => Ok(None),
        }
    }

    fn new_user_key(&self, place: &CredentialKey, data_key: &DataKey) -> Result<StoredUserKey, CipherError> {
        let mut id = [0; 16];
        self.entropy.fill(&mut id);
        let mut secret = Key::default();
        self.entropy.fill(secret.as_mut_slice());
        let CredentialKey { tenant, user, .. } = place;
        let (key, grant) = user_key_binding(tenant, user, id).map_err(|_| CipherError::DoesNotOpen)?;
        let binding = Binding { key: &key, grant, field: Field::UserKey };
        let secret = SecretBytes::new(secret.to_vec());
        let sealed = envelope::seal_record(data_key.named(), None, binding, &secret, &*self.entropy)?;
        Ok(StoredUserKey {
            id,
            tenant: tenant.clone(),
            user: user.clone(),
            sealed: Sealed(sealed),
            created_at: self.clock.now(),
        })
    }

    /// What was stored at `began`, opened unless it is in memory: it never changes.
    async fn remembered(&self, stored: &StoredUserKey, began: Duration) -> Result<Arc<UserKey>, CipherError> {
        let known = self.users.get(&stored.id, began);
        if let Known::Fresh(Some(known)) | Known::Aging(Some(known)) | Known::Stale(Some(known)) = known {
            self.users.insert(stored.id, Some(Arc::clone(&known)), began);
            return Ok(known);
        }
        let StoredUserKey { id, tenant, user, sealed, .. } = stored;
        let (key, grant) = user_key_binding(tenant, user, *id).map_err(|_| CipherError::DoesNotOpen)?;
        let secret = self.open(Binding { key: &key, grant, field: Field::UserKey }, sealed).await?;
        let mut key = Key::default();
        if secret.expose_secret().len() != key.len() {
            return Err(CipherError::DoesNotOpen);
        }
        key.copy_from_slice(secret.expose_secret());
        let found = Arc::new(UserKey { id: *id, tenant: tenant.clone(), user: user.clone(), key });
        self.users.insert(*id, Some(Arc::clone(&found)), began);
        Ok(found)
    }
}
