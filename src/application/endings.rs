//! How a refresh ends without a new pair: the grant is dead, the token was not spent, or nobody knows whether the row is
//! claimed.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Broker;
use super::error::BrokerError;
use super::metrics;
use super::pauses::Pauses;
use super::refresh::{Claimed, Ready};
use super::single_flight::FlightEnd;
use crate::domain::cipher::CipherError;
use crate::domain::credential::{BackOff, Credential, ReauthReason, RefreshFailure};
use crate::domain::key::CredentialId;
use crate::domain::ports::{Release, StoreError};
use crate::domain::refresh_policy::back_off_delay;
use crate::domain::step::Step;

/// How often a write that a settling could replace is tried again.
const WRITE_ATTEMPTS: u32 = 5;

impl Broker {
    /// `invalid_grant`: the row needs a new consent, unless its refresh token has moved on (I8: the statement is guarded by
    /// epoch and fingerprint), or what came of an earlier presentation is known after all.
    pub(super) async fn grant_is_dead(self: &Arc<Self>, claimed: &Claimed) -> Result<(), FlightEnd> {
        let Ready { row, refresh, .. } = &claimed.ready;
        let known = self
            .known_successor(&row.key.tenant, row.id, row.grant_id, refresh.fingerprint, refresh.epoch)
            .await;
        if let Some(write) = known {
            return self.adopt(write, "after_invalid_grant").await;
        }
        let now = self.ports.clock.now();
        let reason = ReauthReason::RefreshTokenRejected;
        let credentials = &self.ports.credentials;
        let marked =
            insist(|| credentials.mark_needs_reauth(row.id, claimed.epoch, refresh.fingerprint, reason, now))
                .await;
        match marked {
            Ok(_) => {
                self.ports.steps.reached(Step::Demoted, row.id);
                // Should the same token come back with a new consent, nobody has to wait for this permit's end.
                self.drop_permit(&claimed.ready).await;
                self.tell_waiters(&row.key.tenant, row.id).await;
            }
            // The row stays `refreshing`; settling asks the provider once more and hears the same.
            Err(error) => {
                tracing::error!(credential = %row.id, %error, "a dead grant could not be marked");
            }
        }
        Ok(())
    }

    /// The refresh token was not spent: it may be presented again after a while.
    pub(super) async fn release(&self, claimed: &Claimed, last: RefreshFailure, at_least: Option<Duration>) {
        let failures = claimed.ready.failures.saturating_add(1);
        let [random] = self.random::<1>();
        let delay = back_off_delay(failures, random).max(at_least.unwrap_or_default());
        let now = self.ports.clock.now();
        let back_off = Some(BackOff { not_before: later(now, delay), failures, last });
        let id = claimed.ready.row.id;
        let release = Release { id, epoch: claimed.epoch, owner: self.owner, back_off, now };
        match insist(|| self.ports.credentials.release_claim(release)).await {
            Ok(_) => {
                self.ports.steps.reached(Step::Released, id);
                self.drop_permit(&claimed.ready).await;
                self.tell_waiters(&claimed.ready.row.key.tenant, id).await;
            }
            Err(error) => {
                tracing::error!(credential = %id, %error, "a claim could not be released; it will be settled");
            }
        }
    }

    /// The database did not say whether the row is claimed. Nothing was sent, and nothing will be: if it is claimed, it is
    /// given back as soon as the database answers, rather than left to settle; unless it was the claim of a last chance at a
    /// strict provider, which must not look like a first one.
    ///
    /// A claim that was not written and the next one of this process have the same owner and epoch: until this one is given
    /// back, this process claims the row no more, or it would give that one back while its request is under way.
    pub(super) async fn take_back_claim(self: &Arc<Self>, ready: Ready) {
        self.drop_permit(&ready).await;
        if ready.is_in_doubt() {
            return;
        }
        let Ready { row, timings, .. } = ready;
        if self.give_back_claim(&row).await {
            return;
        }
        let unclear = Unclear::begin(self, row.id);
        let broker = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut pauses = Pauses::new();
            let give_up = broker.ports.clock.monotonic() + timings.settle_after;
            while broker.ports.clock.monotonic() < give_up && !broker.give_back_claim(&row).await {
                pauses.wait().await;
            }
            drop(unclear);
        });
    }

    /// Whether the database has answered.
    async fn give_back_claim(&self, row: &Credential) -> bool {
        let now = self.ports.clock.now();
        let release = Release { id: row.id, epoch: row.epoch + 1, owner: self.owner, back_off: None, now };
        match self.ports.credentials.release_claim(release).await {
            Ok(true) => {
                self.ports.steps.reached(Step::Released, row.id);
                self.tell_waiters(&row.key.tenant, row.id).await;
                true
            }
            Ok(false) => true,
            Err(_) => false,
        }
    }

    /// Whether this process does not know if it has claimed the row.
    pub(super) fn claim_is_unclear(&self, id: CredentialId) -> bool {
        self.unclear.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// The token is not presented, or was not spent. A permit that stays for want of a permit store runs out by itself.
    pub(super) async fn drop_permit(&self, ready: &Ready) {
        let (id, token) = (ready.row.id, ready.refresh.fingerprint);
        if let Err(error) = self.ports.permits.drop_permit(id, token, self.owner).await {
            tracing::warn!(credential = %id, %error, "a permit could not be taken back");
            metrics::permit_store_error("drop_permit");
        }
    }
}

/// While it lives, this process does not know whether it has claimed the row.
struct Unclear {
    broker: Arc<Broker>,
    id: CredentialId,
}

impl Unclear {
    fn begin(broker: &Arc<Broker>, id: CredentialId) -> Self {
        broker.unclear.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        Self { broker: Arc::clone(broker), id }
    }
}

impl Drop for Unclear {
    fn drop(&mut self) {
        self.broker.unclear.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// Tries a write a few times. Without it the row would have to be settled, which takes minutes at a strict provider.
async fn insist<T, F>(write: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pauses = Pauses::new();
    for _ in 0..WRITE_ATTEMPTS {
        match write().await {
            Err(StoreError::Unavailable(_)) => pauses.wait().await,
            done => return done,
        }
    }
    write().await
}

pub(super) fn storage_failed(error: StoreError) -> FlightEnd {
    match BrokerError::from(error) {
        BrokerError::DataLoss => FlightEnd::DataLoss,
        _ => FlightEnd::StorageUnavailable,
    }
}

pub(super) fn vault_failed(error: CipherError) -> FlightEnd {
    match BrokerError::from(error) {
        BrokerError::DataLoss => FlightEnd::DataLoss,
        _ => FlightEnd::StorageUnavailable,
    }
}

/// `now` and a while. Saturates.
pub(super) fn later(now: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| now.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}
