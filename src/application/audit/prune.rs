//! Retention. The chain itself says first which rows go, and with which hash they end; then they go, oldest first. What is
//! left can be verified from there on.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::AuditArchive;
use crate::application::error::{BrokerError, Unavailable};
use crate::domain::audit::{Entry, Head, Mark, Outcome, PRUNE};
use crate::domain::key::TenantId;
use crate::domain::ports::StoreError;

/// How many rows are removed by one statement, and by how many statements in one round.
const BATCH: u32 = 500;
const BATCHES: u32 = 200;
/// How old the newest removed row must be beyond the limit before the next removal: one row that says so for each day.
const AT_LEAST: SignedDuration = SignedDuration::from_hours(24);
/// When to come back if the row that says so could not be written.
const RETRY: Duration = Duration::from_secs(5);

impl AuditArchive {
    /// Removes rows older than the setting says, of every tenant. Nothing if it says for good.
    pub async fn prune(&self) -> Result<(), BrokerError> {
        let now = self.clock.now();
        let Some(keep) = self.keep else { return Ok(()) };
        let keep = SignedDuration::try_from(keep).unwrap_or(SignedDuration::MAX);
        let Ok(oldest) = now.checked_sub(keep) else { return Ok(()) };
        let mut failure = None;
        for tenant in self.store.audit_tenants().await? {
            match self.prune_tenant(&tenant, oldest, now).await {
                Ok(()) => {}
                // This chain can't be written. Those of others may be.
                Err(error @ BrokerError::Unavailable { what: Unavailable::Audit, .. }) => {
                    tracing::warn!(%tenant, "old audit rows stay: the removal could not be recorded");
                    failure = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn prune_tenant(
        &self,
        tenant: &TenantId,
        oldest: Timestamp,
        now: Timestamp,
    ) -> Result<(), BrokerError> {
        let store = &self.store;
        let said = store.last_audit_prune(tenant).await?;
        let mut through = said.as_ref().and_then(|row| match row.entry.mark {
            Some(Mark::Pruned(end)) => Some(end.sequence),
            Some(Mark::Gap(_)) | None => None,
        });
        let waits = said.is_some_and(|row| now.duration_since(row.entry.at) < AT_LEAST);
        if !waits && let Some(end) = store.last_audit_before(tenant, oldest).await? {
            self.say_pruned(tenant, end, now).await?;
            through = Some(end.sequence);
        }
        // Also what an earlier round said and did not come to.
        match through {
            Some(sequence) => self.remove(tenant, sequence).await.map_err(Into::into),
            None => Ok(()),
        }
    }

    async fn say_pruned(&self, tenant: &TenantId, end: Head, now: Timestamp) -> Result<(), BrokerError> {
        let mut entry = Entry::new(now, tenant.clone(), PRUNE, Outcome::Allowed);
        entry.mark = Some(Mark::Pruned(end));
        let recorded = self.log.record_for_certain(entry).await;
        recorded.map_err(|_| BrokerError::Unavailable { what: Unavailable::Audit, retry_after: RETRY })
    }

    async fn remove(&self, tenant: &TenantId, sequence: u64) -> Result<(), StoreError> {
        for _ in 0..BATCHES {
            let removed = self.store.delete_audit_through(tenant, sequence, BATCH).await?;
            if removed < u64::from(BATCH) {
                break;
            }
        }
        Ok(())
    }
}
