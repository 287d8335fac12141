//! The vault: AES-256-GCM under wrapped data keys.
//!
//! Three layers of keys. A *key-encryption key* comes from the operator, or never leaves a key service, and never touches a
//! record. It wraps *data keys*, which are made on first use, per tenant and purpose, replaced by rotation, and stored
//! wrapped. A record is encrypted with a key derived from the tenant's data key for that one record.
//!
//! | file | holds |
//! |---|---|
//! | `envelope` | the formats, byte by byte |
//! | `kek` | what a key-encryption key does; keys from files and variables |
//! | `services` | keys of AWS KMS, Google Cloud KMS, and Vault or `OpenBao` |
//! | `keyring` | several key-encryption keys, one of them active |
//! | `vault` | the ports: seals and opens; `keeper` looks after the keys |

mod audit_seal;
pub(crate) mod envelope;
mod keeper;
mod kek;
mod keyring;
pub mod services;
mod users;
mod vault;

pub use envelope::Key;
pub use kek::{KekError, KeyBinding, KeyEncryption};
pub use keyring::{KEY_BYTES, KeyEncryptionKey, Keyring, KeyringError, MAX_KEY_ID_BYTES};
pub use vault::{Vault, VaultError};
