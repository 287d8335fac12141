//! The vault: AES-256-GCM under wrapped data keys.
//!
//! Three layers of keys. A *key-encryption key* comes from the operator and never touches a record. It wraps *data keys*,
//! which are made on first use, one per tenant and purpose, and stored wrapped. A record is encrypted with a key derived
//! from the tenant's data key for that one record. `envelope.rs` has the formats byte by byte.

mod audit_seal;
pub(crate) mod envelope;
mod keyring;
mod vault;

pub use keyring::{KEY_BYTES, KeyEncryptionKey, Keyring, KeyringError, MAX_KEY_ID_BYTES};
pub use vault::{Vault, VaultError};
