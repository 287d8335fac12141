//! The `KeyKeeper` port: what happens to data keys after they were made.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use subtle::ConstantTimeEq as _;

use super::envelope::Record;
use super::kek::KekError;
use super::vault::Vault;
use crate::domain::cipher::{Binding, Cipher, CipherError};
use crate::domain::credential::Sealed;
use crate::domain::data_key::{DataKeyId, DataKeyPurpose, KeyKeeper, Rewrapped, WrappedDataKey};
use crate::domain::key::TenantId;

#[async_trait]
impl KeyKeeper for Vault {
    fn active_kek(&self) -> &str {
        self.keyring.active_id()
    }

    fn configured_keks(&self) -> Vec<String> {
        self.keyring.ids().map(str::to_owned).collect()
    }

    fn made_with(&self, sealed: &Sealed) -> Option<DataKeyId> {
        Record::parse(&sealed.0).ok().map(|record| record.key_id)
    }

    async fn renew(
        &self,
        binding: Binding<'_>,
        sealed: &Sealed,
        beside: Option<&Sealed>,
    ) -> Result<Option<Sealed>, CipherError> {
        let active = self.newest(&binding.key.tenant, DataKeyPurpose::Encryption).await?;
        let record = Record::parse(&sealed.0)?;
        if record.key_id == active.id && record.user_key.is_some() == binding.field.is_users() {
            return Ok(None);
        }
        let plaintext = self.open(binding, sealed).await?;
        self.seal_beside(binding, &plaintext, beside.or(Some(sealed))).await.map(Some)
    }

    async fn rotate(&self, tenant: &TenantId) -> Result<Option<DataKeyId>, CipherError> {
        let purpose = DataKeyPurpose::Encryption;
        let active = self.store.newest_data_key(tenant, purpose).await.map_err(CipherError::Store)?;
        let Some(active) = active else { return Ok(None) };
        let (successor, key) = self.make(tenant, purpose).await?;
        if self.store.supersede_data_key(active.id, successor).await.map_err(CipherError::Store)? {
            let id = key.id;
            self.remember_newest(&Arc::new(key));
            return Ok(Some(id));
        }
        // Somebody else rotated at the same time: their key is as new as ours would be.
        let theirs = self.store.newest_data_key(tenant, purpose).await.map_err(CipherError::Store)?;
        let Some(theirs) = theirs else { return Ok(None) };
        self.adopt(&theirs).await?;
        Ok(Some(theirs.id))
    }

    async fn rewrap(&self, limit: u32) -> Result<Rewrapped, CipherError> {
        let mut answer = Rewrapped::default();
        let in_use = self.store.kek_ids_in_use().await.map_err(CipherError::Store)?;
        for kek in in_use.iter().filter(|kek| *kek != self.keyring.active_id()) {
            let batch = self.store.data_keys_under(kek, limit).await.map_err(CipherError::Store)?;
            answer.more |= batch.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
            for was in batch {
                match self.wrapped_anew(&was).await {
                    Ok(is) => {
                        // False: another replica was first, and has wrapped the same key.
                        let stored =
                            self.store.rewrap_data_key(&was, &is).await.map_err(CipherError::Store)?;
                        answer.done += u64::from(stored);
                    }
                    Err(CipherError::DoesNotOpen) => {
                        tracing::error!(data_key = %hex::encode(was.id), "a data key does not open, and stays as it is");
                        answer.failed += 1;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        // Those that do not open come first each time: without progress there is no end.
        answer.more &= answer.done > 0;
        Ok(answer)
    }

    async fn follow(&self) -> Result<(), CipherError> {
        self.users.drop_stale(self.clock.monotonic());
        let known: Vec<DataKeyId> = {
            let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
            cache.by_id.keys().copied().collect()
        };
        if known.is_empty() {
            return Ok(());
        }
        let states = self.store.data_key_states(&known).await.map_err(CipherError::Store)?;
        let there: HashSet<DataKeyId> = states.iter().map(|(id, _)| *id).collect();
        let gone: HashSet<DataKeyId> = known.into_iter().filter(|id| !there.contains(id)).collect();
        self.forget(&gone);
        let superseded: HashSet<DataKeyId> =
            states.into_iter().filter(|(_, since)| since.is_some()).map(|(id, _)| id).collect();
        let behind: Vec<TenantId> = {
            let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
            let newest = cache.encryption.iter().filter(|(_, key)| superseded.contains(&key.id));
            newest.map(|(tenant, _)| tenant.clone()).collect()
        };
        let mut failure = None;
        for tenant in behind {
            let stored = self.store.newest_data_key(&tenant, DataKeyPurpose::Encryption).await;
            let outcome = match stored.map_err(CipherError::Store) {
                Ok(Some(stored)) => self.adopt(&stored).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            // The others must not wait for this one; until then the former key goes on.
            failure = outcome.err().or(failure);
        }
        failure.map_or(Ok(()), Err)
    }
}

impl Vault {
    /// Takes a stored data key for the active one.
    async fn adopt(&self, stored: &WrappedDataKey) -> Result<(), CipherError> {
        let key = self.unwrap(stored).await?;
        self.remember_newest(&Arc::new(key));
        Ok(())
    }

    fn forget(&self, gone: &HashSet<DataKeyId>) {
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        cache.by_id.retain(|id, _| !gone.contains(id));
        cache.encryption.retain(|_, key| !gone.contains(&key.id));
        cache.fingerprint.retain(|_, key| !gone.contains(&key.id));
    }

    /// The same data key under the active key-encryption key. It is opened again before anything depends on it: a wrapping
    /// that does not open would be the end of all that the data key has made.
    async fn wrapped_anew(&self, was: &WrappedDataKey) -> Result<WrappedDataKey, CipherError> {
        let key = self.unwrap(was).await?;
        let (kek_id, wrapped) = self.wrap(&key).await?;
        let is = WrappedDataKey { kek_id, wrapped, ..was.clone() };
        let again = match self.unwrap(&is).await {
            Ok(again) => again,
            Err(CipherError::DoesNotOpen) => {
                let cause = "what it has wrapped does not open again".to_owned();
                return Err(KekError::Refused(cause).into());
            }
            Err(error) => return Err(error),
        };
        if bool::from(again.key.ct_eq(&*key.key)) { Ok(is) } else { Err(CipherError::DoesNotOpen) }
    }
}
