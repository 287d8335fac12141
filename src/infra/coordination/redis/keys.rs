//! The names of keys. What stands in braces decides the node of a cluster: everything of one credential is on one.

use sha2::{Digest as _, Sha256};

use crate::domain::credential::Fingerprint;
use crate::domain::key::{ClaimOwner, CredentialId, GrantId, TenantId};
use crate::domain::rate_limit::BucketKey;

/// Makes keys with the deployment's prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    fn of(&self, id: &[u8; 16], rest: &str) -> String {
        format!("{}:{{{}}}:{rest}", self.prefix, hex::encode(id))
    }

    /// A refresh token: a permit or a successor.
    pub(super) fn token(&self, credential: CredentialId, token: Fingerprint) -> String {
        self.of(credential.as_bytes(), &format!("rt:{}", hex::encode(token.0)))
    }

    /// There while the grant is known to be revoked.
    pub(super) fn tombstone(&self, credential: CredentialId, grant: GrantId) -> String {
        self.of(credential.as_bytes(), &format!("tomb:{}", hex::encode(grant.as_bytes())))
    }

    /// The leases by their ends.
    pub(super) fn leases(&self, credential: CredentialId) -> String {
        self.of(credential.as_bytes(), "lease")
    }

    /// What no lease goes beyond.
    pub(super) fn cap(&self, credential: CredentialId) -> String {
        self.of(credential.as_bytes(), "cap")
    }

    /// There while the process run is known to have ended.
    pub(super) fn dead(&self, owner: ClaimOwner) -> String {
        self.of(owner.as_bytes(), "dead")
    }

    /// A bucket of a rate limit. All of a tenant's are on one node, since a call takes from several at once; a hash of the
    /// tenant's name is short, and has no brace.
    pub(super) fn bucket(&self, tenant: &TenantId, bucket: &BucketKey) -> String {
        let tenant = Sha256::digest(tenant.as_str().as_bytes());
        format!("{}:{{{}}}:rate:{}", self.prefix, hex::encode(&tenant[..16]), hex::encode(bucket))
    }

    /// The channel of wake-ups.
    pub(super) fn wake_channel(&self) -> String {
        format!("{}:wake", self.prefix)
    }
}
