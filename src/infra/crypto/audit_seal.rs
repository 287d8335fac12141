//! Seals of the audit log: MACs under a key of the tenant's.

use async_trait::async_trait;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::vault::Vault;
use crate::domain::audit::{AuditSealer, Hash, Seal};
use crate::domain::cipher::CipherError;
use crate::domain::data_key::DataKeyPurpose;
use crate::domain::key::TenantId;

/// Makes the sealing key of the fingerprint key. It begins with a byte that no text in UTF-8 has: fingerprints are made of
/// texts, so that nobody can have the vault make a seal by having it fingerprint a token.
const LABEL: &[u8] = b"\xffaudit seal v1";

#[async_trait]
impl AuditSealer for Vault {
    async fn seal(&self, tenant: &TenantId, hashes: &[Hash]) -> Result<Vec<Seal>, CipherError> {
        let fingerprints = self.keyed(tenant, DataKeyPurpose::Fingerprint).await?;
        let key = fingerprints.chain_update(LABEL).finalize().into_bytes();
        let sealing = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| CipherError::DoesNotOpen)?; // takes any length
        let seal = |hash: &Hash| Seal(sealing.clone().chain_update(hash.0).finalize().into_bytes().into());
        Ok(hashes.iter().map(seal).collect())
    }
}
