//! The background: settles unknown outcomes, retries revocations, expires flows.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Broker;
use crate::domain::flow::EXCHANGE_LIMIT;
use crate::domain::ports::StoreError;
use crate::domain::refresh_policy::Demand;

/// How many of each kind one round takes on.
const BATCH: u32 = 32;
/// How often flows and finished revocations are tidied up.
const TIDY_EVERY: Duration = Duration::from_secs(30);
/// How long an ended flow can still be asked for.
const KEEP_FLOWS: SignedDuration = SignedDuration::from_hours(24 * 7);
/// How long a finished revocation is kept, without its tokens.
const KEEP_REVOCATIONS: SignedDuration = SignedDuration::from_hours(24 * 30);

/// When it was last tidied up, by the monotonic clock.
#[derive(Default)]
pub(super) struct Housekeeping(Mutex<Option<Duration>>);

impl Broker {
    /// One round; called every second. Errors are logged, the next round tries again.
    pub async fn sweep(self: &Arc<Self>) {
        let now = self.ports.clock.now();
        if let Err(error) = self.settle_due(now).await {
            tracing::error!(%error, "unknown outcomes could not be looked up");
        }
        if let Err(error) = self.revoke_due(now).await {
            tracing::error!(%error, "revocations could not be looked up");
        }
        if self.tidying_is_due()
            && let Err(error) = self.tidy(now).await
        {
            tracing::error!(%error, "ended flows and revocations could not be tidied up");
        }
    }

    async fn settle_due(self: &Arc<Self>, now: Timestamp) -> Result<(), StoreError> {
        for id in self.ports.credentials.due_for_settle(now, BATCH).await? {
            // In tasks of their own: a provider that hangs does not stop the others.
            self.start_refresh(id, Demand::Ahead);
        }
        Ok(())
    }

    async fn revoke_due(self: &Arc<Self>, now: Timestamp) -> Result<(), StoreError> {
        for id in self.ports.outbox.due_revocations(now, BATCH).await? {
            let broker = Arc::clone(self);
            self.tasks.spawn(async move { broker.attempt_revocation(id).await });
        }
        Ok(())
    }

    fn tidying_is_due(&self) -> bool {
        let now = self.ports.clock.monotonic();
        let mut last = self.housekeeping.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.saturating_sub(last) >= TIDY_EVERY);
        if due {
            *last = Some(now);
        }
        due
    }

    async fn tidy(&self, now: Timestamp) -> Result<(), StoreError> {
        let earlier = |by: SignedDuration| now.checked_sub(by).unwrap_or(Timestamp::MIN);
        let interrupted_before =
            earlier(SignedDuration::try_from(EXCHANGE_LIMIT).unwrap_or(SignedDuration::MAX));
        self.ports.flows.sweep_flows(now, interrupted_before, earlier(KEEP_FLOWS)).await?;
        self.ports.outbox.delete_finished_revocations(earlier(KEEP_REVOCATIONS)).await?;
        Ok(())
    }
}
