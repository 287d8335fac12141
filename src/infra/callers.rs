//! Who calls, by what has been proved.
//!
//! | file | knows |
//! |---|---|
//! | `callers.rs` | the callers of the configuration |
//! | `callers/directory.rs` | all of them, with those of the database |
//! | `callers/cache.rs` | what the database said lately |

mod cache;
mod directory;

pub use directory::Directory;

use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::domain::access_policy::{Caller, Identity};
use crate::domain::ports::{CallerDirectory, StoreError};
use crate::domain::secret::SecretString;

/// The callers in memory.
#[derive(Debug, Default)]
pub struct ConfiguredCallers {
    callers: Vec<Arc<Caller>>,
    /// Hash and index of its caller.
    keys: Vec<([u8; 32], u32)>,
}

impl ConfiguredCallers {
    /// Callers with the SHA-256 hashes of their keys.
    #[must_use]
    pub fn new(callers: impl IntoIterator<Item = (Caller, Vec<[u8; 32]>)>) -> Self {
        let mut directory = Self::default();
        for (index, (caller, hashes)) in (0..).zip(callers) {
            directory.callers.push(Arc::new(caller));
            directory.keys.extend(hashes.into_iter().map(|hash| (hash, index)));
        }
        directory
    }
}

/// The hash of an API key as configuration holds it.
#[must_use]
pub fn hash_api_key(key: &SecretString) -> [u8; 32] {
    Sha256::digest(key.expose_secret().as_bytes()).into()
}

#[async_trait]
impl CallerDirectory for ConfiguredCallers {
    /// Looks at every key whatever it finds, so that the time tells nothing about where the right one is. A key has 256
    /// random bits, so one SHA-256 is enough: there is nothing to guess.
    async fn caller(&self, identity: &Identity) -> Result<Option<Arc<Caller>>, StoreError> {
        let Identity::ApiKey(hash) = identity else { return Ok(None) };
        let (mut found, mut index) = (Choice::from(0), 0);
        for (candidate, owner) in &self.keys {
            let same = candidate.ct_eq(hash);
            index.conditional_assign(owner, same);
            found |= same;
        }
        let caller = usize::try_from(index).ok().and_then(|index| self.callers.get(index));
        Ok(caller.filter(|_| bool::from(found)).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::{CallerId, TenantId};

    fn caller(id: &str) -> Caller {
        Caller::new(CallerId::new(id).unwrap(), TenantId::new("t").unwrap(), vec![])
    }

    fn key(fill: char) -> SecretString {
        SecretString::new(format!("tb_{}", fill.to_string().repeat(43)))
    }

    #[tokio::test]
    async fn each_key_is_its_own_callers_and_no_other_text_is_anybodys() {
        let directory = ConfiguredCallers::new([
            (caller("a"), vec![hash_api_key(&key('a')), hash_api_key(&key('b'))]),
            (caller("c"), vec![hash_api_key(&key('c'))]),
            // A hash of something that is no API key lets nobody in.
            (caller("empty"), vec![hash_api_key(&SecretString::from(""))]),
        ]);
        let who = async |key: &SecretString| {
            let caller = directory.caller(&Identity::of_api_key(key)?).await.unwrap();
            caller.map(|caller| caller.id.to_string())
        };
        assert_eq!(who(&key('a')).await.as_deref(), Some("a"));
        assert_eq!(who(&key('b')).await.as_deref(), Some("a"));
        assert_eq!(who(&key('c')).await.as_deref(), Some("c"));
        assert_eq!(who(&key('d')).await, None);
        let whole = key('a');
        for text in ["", "tb_", &whole.expose_secret()[..45], &format!("{}a", whole.expose_secret())] {
            assert_eq!(who(&SecretString::from(text)).await, None, "{text}");
        }
        let nobodys = Identity::of_api_key(&whole).unwrap();
        assert_eq!(ConfiguredCallers::default().caller(&nobodys).await.unwrap(), None);
    }
}
