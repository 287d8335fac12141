//! Who calls, by what has been proved.
//!
//! | file | knows |
//! |---|---|
//! | `callers.rs` | the callers of the configuration |
//! | `callers/directory.rs` | all of them, with those of the database |

mod directory;

pub use directory::Directory;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::domain::access_policy::{Caller, Identity};
use crate::domain::ports::{CallerDirectory, StoreError};

/// The callers in memory.
#[derive(Debug, Default)]
pub struct ConfiguredCallers {
    callers: Vec<Arc<Caller>>,
    /// Hash and index of its caller.
    keys: Vec<([u8; 32], u32)>,
    /// What is no secret: SPIFFE ids, and subjects of issuers.
    others: HashMap<Identity, Arc<Caller>>,
}

impl ConfiguredCallers {
    /// Callers with their identities.
    #[must_use]
    pub fn new(callers: impl IntoIterator<Item = (Caller, Vec<Identity>)>) -> Self {
        let mut directory = Self::default();
        for (index, (caller, identities)) in (0..).zip(callers) {
            let caller = Arc::new(caller);
            for identity in identities {
                if let Identity::ApiKey(hash) = identity {
                    directory.keys.push((hash, index));
                } else {
                    directory.others.insert(identity, Arc::clone(&caller));
                }
            }
            directory.callers.push(caller);
        }
        directory
    }
}

#[async_trait]
impl CallerDirectory for ConfiguredCallers {
    async fn caller(&self, identity: &Identity) -> Result<Option<Arc<Caller>>, StoreError> {
        Ok(self.find(identity).cloned())
    }

    fn remembers(&self, identity: &Identity) -> bool {
        self.find(identity).is_some()
    }
}

impl ConfiguredCallers {
    /// Looks at every API key whatever it finds, so that the time tells nothing about where the right one is. A key has 256
    /// random bits, so one SHA-256 is enough: there is nothing to guess.
    fn find(&self, identity: &Identity) -> Option<&Arc<Caller>> {
        let Identity::ApiKey(hash) = identity else { return self.others.get(identity) };
        let (mut found, mut index) = (Choice::from(0), 0);
        for (candidate, owner) in &self.keys {
            let same = candidate.ct_eq(hash);
            index.conditional_assign(owner, same);
            found |= same;
        }
        let caller = usize::try_from(index).ok().and_then(|index| self.callers.get(index));
        caller.filter(|_| bool::from(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::access_policy::hash_api_key;
    use crate::domain::key::{CallerId, TenantId};
    use crate::domain::secret::SecretString;

    fn caller(id: &str) -> Caller {
        Caller::new(CallerId::new(id).unwrap(), TenantId::new("t").unwrap(), vec![])
    }

    fn key(fill: char) -> SecretString {
        SecretString::new(format!("tb_{}", fill.to_string().repeat(43)))
    }

    #[tokio::test]
    async fn each_key_is_its_own_callers_and_no_other_text_is_anybodys() {
        let of = |key: &SecretString| Identity::ApiKey(hash_api_key(key));
        let directory = ConfiguredCallers::new([
            (caller("a"), vec![of(&key('a')), of(&key('b'))]),
            (caller("c"), vec![of(&key('c'))]),
            // A hash of something that is no API key lets nobody in.
            (caller("empty"), vec![of(&SecretString::from(""))]),
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
