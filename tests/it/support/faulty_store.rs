//! A credential store between the use cases and the real one, which fails or dawdles when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use token_broker::domain::credential::{Credential, Epoch, Fingerprint, ReauthReason};
use token_broker::domain::key::{CredentialId, CredentialKey};
use token_broker::domain::ports::{
    ClaimRequest, CredentialStore, DeadOwners, DueCredential, DueRequest, LineageWrite, ListQuery, NewGrant,
    Persisted, Release, RevokeWrite, RevokedRow, StoreError, StoredGrant,
};
use token_broker::domain::user_key::{UserDeleted, UserDeletion};

use super::life::Life;

/// How many of the next calls fail, by method, and how long reads dawdle.
#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) load: AtomicU32,
    pub(crate) claim: AtomicU32,
    /// The claim is written, its answer lost.
    pub(crate) claim_answer: AtomicU32,
    pub(crate) persist: AtomicU32,
    pub(crate) store_grant: AtomicU32,
    /// Just before a grant is stored, its user is deleted.
    pub(crate) user_deleted: AtomicU32,
    pub(crate) revoke: AtomicU32,
    pub(crate) delete_user: AtomicU32,
    /// It is deleted, the answer lost.
    pub(crate) delete_user_answer: AtomicU32,
    /// Of the flow store, any.
    pub(crate) flows: AtomicU32,
    /// `release_claim` and `mark_needs_reauth`.
    pub(crate) end_claim: AtomicU32,
    /// Between the row and the reply, in milliseconds.
    pub(crate) pause_after_load: AtomicU64,
    /// Whether its broker goes on at all.
    pub(crate) life: Arc<Life>,
}

impl Faults {
    async fn pass(&self, counter: &AtomicU32) -> Result<(), StoreError> {
        self.life.goes_on().await;
        Self::hit(counter)
    }

    pub(super) fn hit(counter: &AtomicU32) -> Result<(), StoreError> {
        match counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)) {
            Ok(_) => Err(StoreError::Unavailable("the test says so".into())),
            Err(_) => Ok(()),
        }
    }
}

pub(crate) struct FaultyStore {
    pub(crate) inner: Arc<dyn CredentialStore>,
    pub(crate) faults: Arc<Faults>,
}

#[async_trait]
impl CredentialStore for FaultyStore {
    async fn load(&self, key: &CredentialKey) -> Result<Option<Credential>, StoreError> {
        self.faults.pass(&self.faults.load).await?;
        let row = self.inner.load(key).await;
        let pause = self.faults.pause_after_load.load(Ordering::SeqCst);
        if pause > 0 {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        row
    }

    async fn load_by_id(&self, id: CredentialId) -> Result<Option<Credential>, StoreError> {
        self.faults.pass(&self.faults.load).await?;
        self.inner.load_by_id(id).await
    }

    async fn claim_for_refresh(&self, request: ClaimRequest) -> Result<Option<Epoch>, StoreError> {
        self.faults.pass(&self.faults.claim).await?;
        let claim = self.inner.claim_for_refresh(request).await;
        Faults::hit(&self.faults.claim_answer)?;
        claim
    }

    async fn claim_for_settle(&self, request: ClaimRequest) -> Result<Option<Epoch>, StoreError> {
        self.faults.pass(&self.faults.claim).await?;
        let claim = self.inner.claim_for_settle(request).await;
        Faults::hit(&self.faults.claim_answer)?;
        claim
    }

    async fn persist_lineage(&self, write: LineageWrite) -> Result<Persisted, StoreError> {
        self.faults.pass(&self.faults.persist).await?;
        self.inner.persist_lineage(write).await
    }

    async fn release_claim(&self, release: Release) -> Result<bool, StoreError> {
        self.faults.pass(&self.faults.end_claim).await?;
        self.inner.release_claim(release).await
    }

    async fn mark_needs_reauth(
        &self,
        id: CredentialId,
        epoch: Epoch,
        fingerprint: Fingerprint,
        reason: ReauthReason,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.faults.pass(&self.faults.end_claim).await?;
        self.inner.mark_needs_reauth(id, epoch, fingerprint, reason, now).await
    }

    async fn store_grant(&self, grant: NewGrant) -> Result<StoredGrant, StoreError> {
        self.faults.pass(&self.faults.store_grant).await?;
        if Faults::hit(&self.faults.user_deleted).is_err() {
            let CredentialKey { tenant, user, .. } = grant.key.clone();
            let deletion = UserDeletion { tenant, user, abandon_revocations: true, limit: 100 };
            let deleted = self.inner.delete_user(&deletion).await?;
            assert!(matches!(deleted, UserDeleted::Gone(Some(_))), "{deleted:?}");
        }
        self.inner.store_grant(grant).await
    }

    async fn revoke_with_outbox(&self, revoke: RevokeWrite) -> Result<RevokedRow, StoreError> {
        self.faults.pass(&self.faults.revoke).await?;
        self.inner.revoke_with_outbox(revoke).await
    }

    async fn list(&self, query: ListQuery) -> Result<Vec<Credential>, StoreError> {
        self.faults.pass(&self.faults.load).await?;
        self.inner.list(query).await
    }

    async fn due_for_settle(&self, now: Timestamp, limit: u32) -> Result<Vec<CredentialId>, StoreError> {
        self.faults.life.goes_on().await;
        self.inner.due_for_settle(now, limit).await
    }

    async fn settle_early(&self, dead: DeadOwners) -> Result<u64, StoreError> {
        self.faults.life.goes_on().await;
        self.inner.settle_early(dead).await
    }

    async fn reserve_due(&self, request: DueRequest) -> Result<Vec<DueCredential>, StoreError> {
        self.faults.life.goes_on().await;
        self.inner.reserve_due(request).await
    }

    async fn reschedule(&self, id: CredentialId, at: Option<Timestamp>) -> Result<(), StoreError> {
        self.faults.life.goes_on().await;
        self.inner.reschedule(id, at).await
    }

    async fn mark_used(&self, ids: &[CredentialId], now: Timestamp) -> Result<(), StoreError> {
        self.faults.life.goes_on().await;
        self.inner.mark_used(ids, now).await
    }

    async fn delete_user(&self, deletion: &UserDeletion) -> Result<UserDeleted, StoreError> {
        self.faults.pass(&self.faults.delete_user).await?;
        let outcome = self.inner.delete_user(deletion).await;
        Faults::hit(&self.faults.delete_user_answer)?;
        outcome
    }
}
