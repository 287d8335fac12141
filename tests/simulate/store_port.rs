//! The database as one broker reaches it: away at times, and at times unable to say that it has committed. The naive
//! variant records no claim.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use token_broker::domain::credential::{Credential, CredentialState, Epoch, Fingerprint, ReauthReason};
use token_broker::domain::key::{CredentialId, CredentialKey, OutboxId};
use token_broker::domain::ports::{
    ClaimRequest, CredentialStore, DeadOwners, DueCredential, DueRequest, LineageWrite, ListQuery, NewGrant,
    OutboxStore, PendingRevocation, Persisted, Release, RevocationOutcome, RevokeWrite, RevokedRow,
    StoreError, StoredGrant,
};
use token_broker::domain::user_key::{UserDeleted, UserDeletion};

use super::fakes::MemoryStore;
use super::faults::Fault;
use super::link::Link;
use super::world::Protocol;

pub(crate) struct StorePort(pub(crate) Arc<Link>);

fn away() -> StoreError {
    StoreError::Unavailable("away".into())
}

impl StorePort {
    async fn read<T>(
        &self,
        act: impl AsyncFnOnce(&MemoryStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.0.hop().await;
        if self.0.world.database_is_away() {
            return Err(away());
        }
        let answer = act(&self.0.world.store).await;
        self.0.hop().await;
        answer
    }

    async fn write<T>(
        &self,
        act: impl AsyncFnOnce(&MemoryStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let world = &self.0.world;
        let answer = self.read(act).await?;
        let unknown =
            world.faults.strikes(&world.dice, Fault::CommitUnknown, world.faults.plan.commit_unknown);
        if unknown { Err(away()) } else { Ok(answer) }
    }

    fn is_naive(&self) -> bool {
        self.0.world.protocol == Protocol::LockOnly
    }
}

#[async_trait]
impl CredentialStore for StorePort {
    async fn load(&self, key: &CredentialKey) -> Result<Option<Credential>, StoreError> {
        self.read(async |store| store.load(key).await).await
    }

    async fn load_by_id(&self, id: CredentialId) -> Result<Option<Credential>, StoreError> {
        self.read(async |store| store.load_by_id(id).await).await
    }

    async fn claim_for_refresh(&self, request: ClaimRequest) -> Result<Option<Epoch>, StoreError> {
        if self.is_naive() {
            // Whoever has the lock goes ahead, if the row is as it was.
            return self
                .read(async |store| {
                    let row = store
                        .load_by_id(request.id)
                        .await?
                        .filter(|row| row.generation == request.generation);
                    Ok(row.map(|row| row.epoch + 1))
                })
                .await;
        }
        self.write(async |store| store.claim_for_refresh(request).await).await
    }

    async fn claim_for_settle(&self, request: ClaimRequest) -> Result<Option<Epoch>, StoreError> {
        self.write(async |store| store.claim_for_settle(request).await).await
    }

    async fn persist_lineage(&self, write: LineageWrite) -> Result<Persisted, StoreError> {
        let world = &self.0.world;
        self.write(async |store| {
            let before = store.load_by_id(write.id).await?;
            let persisted = store.persist_lineage(write.clone()).await?;
            world.check_i7(before.as_ref(), &write, &persisted);
            if let Persisted::Stored(_) = &persisted {
                world.copies.in_row(&write);
            }
            Ok(persisted)
        })
        .await
    }

    async fn release_claim(&self, release: Release) -> Result<bool, StoreError> {
        self.write(async |store| store.release_claim(release).await).await
    }

    async fn mark_needs_reauth(
        &self,
        id: CredentialId,
        epoch: Epoch,
        fingerprint: Fingerprint,
        reason: ReauthReason,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let world = &self.0.world;
        self.write(async |store| {
            let before = store.load_by_id(id).await?;
            let marked = store.mark_needs_reauth(id, epoch, fingerprint, reason, now).await?;
            if marked {
                world.check_i8(before.as_ref());
            }
            Ok(marked)
        })
        .await
    }

    async fn store_grant(&self, grant: NewGrant) -> Result<StoredGrant, StoreError> {
        // The simulation's vault has no users' keys.
        let grant = NewGrant { user_key: None, ..grant };
        self.write(async |store| store.store_grant(grant).await).await
    }

    async fn revoke_with_outbox(&self, revoke: RevokeWrite) -> Result<RevokedRow, StoreError> {
        self.write(async |store| store.revoke_with_outbox(revoke).await).await
    }

    async fn list(&self, query: ListQuery) -> Result<Vec<Credential>, StoreError> {
        self.read(async |store| store.list(query).await).await
    }

    async fn due_for_settle(&self, now: Timestamp, limit: u32) -> Result<Vec<CredentialId>, StoreError> {
        self.read(async |store| store.due_for_settle(now, limit).await).await
    }

    async fn settle_early(&self, dead: DeadOwners) -> Result<u64, StoreError> {
        self.write(async |store| store.settle_early(dead).await).await
    }

    async fn reserve_due(&self, request: DueRequest) -> Result<Vec<DueCredential>, StoreError> {
        self.write(async |store| store.reserve_due(request).await).await
    }

    async fn reschedule(&self, id: CredentialId, at: Option<Timestamp>) -> Result<(), StoreError> {
        self.write(async |store| store.reschedule(id, at).await).await
    }

    async fn mark_used(&self, ids: &[CredentialId], now: Timestamp) -> Result<(), StoreError> {
        self.write(async |store| store.mark_used(ids, now).await).await
    }

    async fn delete_user(&self, deletion: &UserDeletion) -> Result<UserDeleted, StoreError> {
        self.write(async |store| store.delete_user(deletion).await).await
    }
}

#[async_trait]
impl OutboxStore for StorePort {
    async fn enqueue_revocation(&self, revocation: PendingRevocation) -> Result<(), StoreError> {
        self.write(async |store| store.enqueue_revocation(revocation).await).await
    }

    async fn take_revocation(
        &self,
        id: OutboxId,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Option<PendingRevocation>, StoreError> {
        self.write(async |store| store.take_revocation(id, now, lease_until).await).await
    }

    async fn due_revocations(&self, now: Timestamp, limit: u32) -> Result<Vec<OutboxId>, StoreError> {
        self.read(async |store| store.due_revocations(now, limit).await).await
    }

    async fn postpone_revocation(&self, id: OutboxId, next_attempt_at: Timestamp) -> Result<(), StoreError> {
        self.write(async |store| store.postpone_revocation(id, next_attempt_at).await).await
    }

    async fn finish_revocation(
        &self,
        id: OutboxId,
        outcome: RevocationOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(async |store| store.finish_revocation(id, outcome, now).await).await
    }

    async fn delete_finished_revocations(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.write(async |store| store.delete_finished_revocations(before).await).await
    }
}

/// Whether a row waits for the end of a refresh.
pub(crate) fn is_refreshing(row: &Credential) -> bool {
    matches!(row.state, CredentialState::Refreshing { .. })
}
