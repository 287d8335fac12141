//! The operator's key-encryption keys: several by id, one of them active.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aes_gcm::{Aes256Gcm, KeyInit};

use super::kek::{KeyEncryption, LocalKey};
use crate::domain::secret::SecretBytes;

/// The longest id of a key-encryption key, in bytes.
pub const MAX_KEY_ID_BYTES: usize = 32;
/// A key-encryption key is AES-256's.
pub const KEY_BYTES: usize = 32;

/// Why keys can't be used. Says what to change and never shows a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The id is empty, too long, or has other characters.
    #[error("a key id must be 1 to {MAX_KEY_ID_BYTES} characters of a-z, 0-9, '_' and '-'")]
    BadId,
    /// The key is not 256 bits.
    #[error("key \"{id}\" must be {KEY_BYTES} bytes long, and is {actual}")]
    BadLength {
        /// Which.
        id: String,
        /// Its length in bytes.
        actual: usize,
    },
    /// All bytes are zero: a placeholder.
    #[error("key \"{id}\" is all zeros: make a random one")]
    Placeholder {
        /// Which.
        id: String,
    },
    /// Two keys have one id.
    #[error("two keys have the id \"{id}\"")]
    Duplicate {
        /// Which.
        id: String,
    },
    /// The active key is not among the keys.
    #[error("the active key \"{id}\" is not among the configured keys")]
    NoActive {
        /// Which.
        id: String,
    },
}

/// A key-encryption key under its id.
#[derive(Clone)]
pub struct KeyEncryptionKey {
    id: String,
    key: Arc<dyn KeyEncryption>,
}

impl KeyEncryptionKey {
    /// A key of [`KEY_BYTES`] bytes under an id of 1 to [`MAX_KEY_ID_BYTES`] characters of a-z, 0-9, '_' and '-'. The id
    /// is stored with everything that is made with the key, and stays for good.
    // Takes ownership so that the caller does not keep a copy.
    #[expect(clippy::needless_pass_by_value, reason = "the key is wiped here")]
    pub fn new(id: &str, key: SecretBytes) -> Result<Self, KeyringError> {
        check_id(id)?;
        let bytes = key.expose_secret();
        let cipher = Aes256Gcm::new_from_slice(bytes)
            .map_err(|_| KeyringError::BadLength { id: id.to_owned(), actual: bytes.len() })?;
        if bytes.iter().all(|b| *b == 0) {
            return Err(KeyringError::Placeholder { id: id.to_owned() });
        }
        Ok(Self { id: id.to_owned(), key: Arc::new(LocalKey(cipher)) })
    }

    /// A key that a key service holds.
    pub fn remote(id: &str, key: Arc<dyn KeyEncryption>) -> Result<Self, KeyringError> {
        check_id(id)?;
        Ok(Self { id: id.to_owned(), key })
    }
}

fn check_id(id: &str) -> Result<(), KeyringError> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    let fits = !id.is_empty() && id.len() <= MAX_KEY_ID_BYTES && id.bytes().all(good);
    if fits { Ok(()) } else { Err(KeyringError::BadId) }
}

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyEncryptionKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// All key-encryption keys. New data keys are wrapped with the active one; the others still open what they wrapped.
#[derive(Debug, Clone)]
pub struct Keyring {
    active: String,
    keys: BTreeMap<String, KeyEncryptionKey>,
}

impl Keyring {
    /// Keys with different ids, and the id of the active one.
    pub fn new(keys: Vec<KeyEncryptionKey>, active: &str) -> Result<Self, KeyringError> {
        let mut by_id = BTreeMap::new();
        for key in keys {
            let id = key.id.clone();
            if by_id.insert(id.clone(), key).is_some() {
                return Err(KeyringError::Duplicate { id });
            }
        }
        if !by_id.contains_key(active) {
            return Err(KeyringError::NoActive { id: active.to_owned() });
        }
        Ok(Self { active: active.to_owned(), keys: by_id })
    }

    /// The id of the active key.
    #[must_use]
    pub fn active_id(&self) -> &str {
        &self.active
    }

    /// All ids.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// The key of an id.
    pub(super) fn key(&self, id: &str) -> Option<&dyn KeyEncryption> {
        self.keys.get(id).map(|key| &*key.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, seed: u8) -> Result<KeyEncryptionKey, KeyringError> {
        KeyEncryptionKey::new(id, SecretBytes::new((seed..seed + 32).collect()))
    }

    #[test]
    fn ids_and_lengths_are_checked() {
        for bad in ["", "A", "a b", "a.b", "ä", &"a".repeat(33)] {
            assert_eq!(key(bad, 0).unwrap_err(), KeyringError::BadId, "{bad:?}");
        }
        for good in ["a", "2026-11", "k_1", &"a".repeat(32)] {
            assert!(key(good, 0).is_ok(), "{good:?}");
        }
        for actual in [0, 16, 31, 33] {
            let error = KeyEncryptionKey::new("k", SecretBytes::new((0..actual).collect())).unwrap_err();
            assert_eq!(error, KeyringError::BadLength { id: "k".to_owned(), actual: usize::from(actual) });
        }
        let zeros = KeyEncryptionKey::new("k", SecretBytes::new(vec![0; 32])).unwrap_err();
        assert_eq!(zeros, KeyringError::Placeholder { id: "k".to_owned() });
    }

    #[test]
    fn one_key_of_each_id_and_the_active_one_among_them() {
        let id = || "a".to_owned();
        let twice = Keyring::new(vec![key("a", 0).unwrap(), key("a", 1).unwrap()], "a").unwrap_err();
        assert_eq!(twice, KeyringError::Duplicate { id: id() });
        assert_eq!(Keyring::new(vec![], "a").unwrap_err(), KeyringError::NoActive { id: id() });
        let ring = Keyring::new(vec![key("a", 0).unwrap(), key("b", 1).unwrap()], "b").unwrap();
        assert_eq!(ring.active_id(), "b");
        assert!(ring.key("a").is_some() && ring.key("c").is_none());
    }

    #[test]
    fn formatting_never_shows_a_key() {
        let ring = Keyring::new(vec![key("a", 0).unwrap()], "a").unwrap();
        let shown = format!("{ring:?}");
        assert!(
            shown.contains("\"a\"") && !shown.contains("1, 2, 3") && !shown.contains("010203"),
            "{shown}"
        );
    }
}
