//! The broker that H8 needs: no claim, and a write that takes whatever is in the row for its own. What is left to keep two
//! replicas apart is a lock in Redis that runs out, as the peers have it. A run with it must break the checks.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use token_broker::domain::coordination::{
    CoordinationError, Permit, PermitRequest, PermitStore, Successor, Tombstone,
};
use token_broker::domain::credential::{Claim, Credential, Epoch, Fingerprint, ReauthReason};
use token_broker::domain::key::{ClaimOwner, CredentialId, CredentialKey, GrantId};
use token_broker::domain::ports::{
    ClaimRequest, CredentialStore, DeadOwners, DueCredential, DueRequest, LineageWrite, ListQuery, NewGrant,
    Persisted, Release, RevokeWrite, RevokedRow, StoreError, StoredGrant,
};
use token_broker::domain::user_key::{UserDeleted, UserDeletion};

/// Around the real store.
pub(crate) fn credentials(inner: Arc<dyn CredentialStore>) -> Arc<dyn CredentialStore> {
    Arc::new(Naive { inner })
}

struct Naive {
    inner: Arc<dyn CredentialStore>,
}

impl Naive {
    /// Takes the row as it is right now: whatever the caller had read does not matter.
    async fn take(
        &self,
        id: CredentialId,
        now: Timestamp,
    ) -> Result<Option<(Credential, Epoch)>, StoreError> {
        loop {
            let Some(row) = self.inner.load_by_id(id).await? else { return Ok(None) };
            let Some(fingerprint) = refresh_of(&row) else { return Ok(None) };
            let request = ClaimRequest {
                id,
                fingerprint,
                generation: row.generation,
                epoch: row.epoch,
                claim: Claim { owner: ClaimOwner::from_bytes([0; 16]), deadline: now, settle_at: now },
                now,
            };
            if let Some(epoch) = self.inner.claim_for_refresh(request).await? {
                return Ok(Some((row, epoch)));
            }
        }
    }
}

fn refresh_of(row: &Credential) -> Option<Fingerprint> {
    row.is_connected().then(|| row.tokens()?.refresh.as_ref().map(|refresh| refresh.fingerprint)).flatten()
}

#[async_trait]
impl CredentialStore for Naive {
    async fn load(&self, key: &CredentialKey) -> Result<Option<Credential>, StoreError> {
        self.inner.load(key).await
    }

    async fn load_by_id(&self, id: CredentialId) -> Result<Option<Credential>, StoreError> {
        self.inner.load_by_id(id).await
    }

    /// Always granted, and written nowhere.
    async fn claim_for_refresh(&self, request: ClaimRequest) -> Result<Option<Epoch>, StoreError> {
        Ok(Some(request.epoch + 1))
    }

    async fn claim_for_settle(&self, request: ClaimRequest) -> Result<Option<Epoch>, StoreError> {
        Ok(Some(request.epoch + 1))
    }

    /// The last writer wins: what it has replaces what is there, whatever that is.
    async fn persist_lineage(&self, mut write: LineageWrite) -> Result<Persisted, StoreError> {
        let Some((row, epoch)) = self.take(write.id, write.now).await? else {
            return Ok(Persisted::Superseded);
        };
        if row.grant_id != write.grant_id {
            return Ok(Persisted::Superseded);
        }
        write.epoch = epoch;
        if let Some(parent) = refresh_of(&row) {
            write.parent_fingerprint = parent;
        }
        if let Some(refresh) = &mut write.tokens.refresh {
            refresh.epoch = epoch;
        }
        self.inner.persist_lineage(write).await
    }

    /// There is nothing to take back.
    async fn release_claim(&self, _: Release) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn mark_needs_reauth(
        &self,
        id: CredentialId,
        _: Epoch,
        _: Fingerprint,
        reason: ReauthReason,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let Some((row, epoch)) = self.take(id, now).await? else { return Ok(false) };
        let Some(fingerprint) = refresh_of(&row) else { return Ok(false) };
        self.inner.mark_needs_reauth(id, epoch, fingerprint, reason, now).await
    }

    async fn store_grant(&self, grant: NewGrant) -> Result<StoredGrant, StoreError> {
        self.inner.store_grant(grant).await
    }

    async fn revoke_with_outbox(&self, revoke: RevokeWrite) -> Result<RevokedRow, StoreError> {
        self.inner.revoke_with_outbox(revoke).await
    }

    async fn list(&self, query: ListQuery) -> Result<Vec<Credential>, StoreError> {
        self.inner.list(query).await
    }

    async fn due_for_settle(&self, now: Timestamp, limit: u32) -> Result<Vec<CredentialId>, StoreError> {
        self.inner.due_for_settle(now, limit).await
    }

    async fn settle_early(&self, dead: DeadOwners) -> Result<u64, StoreError> {
        self.inner.settle_early(dead).await
    }

    async fn reserve_due(&self, request: DueRequest) -> Result<Vec<DueCredential>, StoreError> {
        self.inner.reserve_due(request).await
    }

    async fn reschedule(&self, id: CredentialId, at: Option<Timestamp>) -> Result<(), StoreError> {
        self.inner.reschedule(id, at).await
    }

    async fn mark_used(&self, ids: &[CredentialId], now: Timestamp) -> Result<(), StoreError> {
        self.inner.mark_used(ids, now).await
    }

    async fn delete_user(&self, deletion: &UserDeletion) -> Result<UserDeleted, StoreError> {
        self.inner.delete_user(deletion).await
    }
}

/// A lock for a second in place of the permit, let go when the new pair is there; no successors.
pub(crate) fn permits(inner: Arc<dyn PermitStore>) -> Arc<dyn PermitStore> {
    Arc::new(Lock { inner, owner: OnceLock::new() })
}

/// When the lock runs out: longer than most refreshes take.
const LOCK: Duration = Duration::from_secs(1);

struct Lock {
    inner: Arc<dyn PermitStore>,
    /// This process, as its first request says.
    owner: OnceLock<ClaimOwner>,
}

#[async_trait]
impl PermitStore for Lock {
    async fn take(&self, mut request: PermitRequest) -> Result<Permit, CoordinationError> {
        self.owner.get_or_init(|| request.owner);
        (request.lifetime, request.takeover) = (LOCK, None);
        self.inner.take(request).await
    }

    async fn keep_successor(&self, Successor { write, .. }: &Successor) -> Result<(), CoordinationError> {
        let Some(owner) = self.owner.get() else { return Ok(()) };
        self.inner.drop_permit(write.id, write.parent_fingerprint, *owner).await
    }

    async fn successor(
        &self,
        _: CredentialId,
        _: Fingerprint,
    ) -> Result<Option<Successor>, CoordinationError> {
        Ok(None)
    }

    async fn successor_stored(
        &self,
        _: CredentialId,
        _: Fingerprint,
        _: Epoch,
    ) -> Result<(), CoordinationError> {
        Ok(())
    }

    async fn drop_permit(
        &self,
        credential: CredentialId,
        token: Fingerprint,
        owner: ClaimOwner,
    ) -> Result<(), CoordinationError> {
        self.inner.drop_permit(credential, token, owner).await
    }

    async fn bury(
        &self,
        credential: CredentialId,
        grant: GrantId,
        tombstone: Tombstone,
    ) -> Result<(), CoordinationError> {
        self.inner.bury(credential, grant, tombstone).await
    }

    async fn owner_died(&self, owner: ClaimOwner) -> Result<(), CoordinationError> {
        self.inner.owner_died(owner).await
    }

    async fn is_dead(&self, _: ClaimOwner) -> Result<bool, CoordinationError> {
        Ok(false)
    }

    async fn ping(&self) -> Result<(), CoordinationError> {
        self.inner.ping().await
    }
}
