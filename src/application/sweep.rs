//! The background: settles unknown outcomes, retries revocations, expires flows.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Broker;
use crate::domain::event::EVENT_LIFETIME;
use crate::domain::flow::EXCHANGE_LIMIT;
use crate::domain::key::CredentialId;
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

/// How many events are deleted at a time, and how many times in a round.
const EVENT_BATCH: u32 = 500;
const EVENT_BATCHES: u32 = 20;

/// A row that stays due although its settling was begun (its provider is not configured any more, its token does not
/// open) is left alone for this long. Less than any provider's settling time, so that no other row waits.
const SETTLE_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What the sweeper remembers, by the monotonic clock.
#[derive(Default)]
pub(super) struct Housekeeping {
    /// When it last tidied up.
    tidied: Mutex<Option<Duration>>,
    /// When it began to settle a row, if that was lately.
    settling: Mutex<HashMap<CredentialId, Duration>>,
}

impl Housekeeping {
    /// How many rows it began to settle lately.
    fn settling(&self, now: Duration) -> usize {
        let mut settling = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        settling.retain(|_, began| now.saturating_sub(*began) < SETTLE_AGAIN_AFTER);
        settling.len()
    }

    /// Whether it has not begun to settle this row lately; from now on it has.
    fn begins_to_settle(&self, id: CredentialId, now: Duration) -> bool {
        let mut settling = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        // Asking again does not prolong it: a row that stays due is asked about every second.
        match settling.entry(id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(now);
                true
            }
        }
    }
}

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
        if let Err(error) = self.write_uses(now).await {
            tracing::error!(%error, "who was used lately could not be written down");
        }
        if self.tidying_is_due()
            && let Err(error) = self.tidy(now).await
        {
            tracing::error!(%error, "ended flows, revocations and old events could not be tidied up");
        }
    }

    async fn settle_due(self: &Arc<Self>, now: Timestamp) -> Result<(), StoreError> {
        let monotonic = self.ports.clock.monotonic();
        // Behind those that may have stayed due there is a whole batch.
        let lately = u32::try_from(self.housekeeping.settling(monotonic)).unwrap_or(u32::MAX);
        let due = self.ports.credentials.due_for_settle(now, BATCH.saturating_add(lately)).await?;
        let turn = due.into_iter().filter(|id| self.housekeeping.begins_to_settle(*id, monotonic));
        for id in turn.take(BATCH as usize) {
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
        let mut last = self.housekeeping.tidied.lock().unwrap_or_else(PoisonError::into_inner);
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
        let kept = SignedDuration::try_from(EVENT_LIFETIME).unwrap_or(SignedDuration::MAX);
        // In batches, so that none holds up other writers for long. What is left is for the next round.
        for _ in 0..EVENT_BATCHES {
            if self.ports.events.delete_events_before(earlier(kept), EVENT_BATCH).await?
                < u64::from(EVENT_BATCH)
            {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_stays_due_is_settled_again_after_a_while() {
        let housekeeping = Housekeeping::default();
        let id = CredentialId::from_bytes([1; 16]);
        let mut begun = Vec::new();
        for second in 0..30 {
            let now = Duration::from_secs(second);
            housekeeping.settling(now);
            if housekeeping.begins_to_settle(id, now) {
                begun.push(second);
            }
        }
        assert_eq!(begun, [0, 10, 20]);
    }
}
