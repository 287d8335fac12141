//! The background of every replica: refreshes tokens ahead of their expiry, for as long as somebody uses them.
//!
//! A batch of due rows is reserved by pushing `next_refresh_at`, so that no two replicas take the same and a crash leaves
//! nothing but a later turn. The claim is taken row by row, just before its request, by the same algorithm as a reader's
//! refresh. Each provider has its own turn and its own room, so that none starves another.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use super::Broker;
use super::endings::later;
use super::metrics;
use crate::domain::key::{CredentialId, ProviderId};
use crate::domain::ports::{DueCredential, DueRequest, StoreError};
use crate::domain::provider::Provider;
use crate::domain::refresh_policy::Demand;

/// A reserved row is nobody else's for this long: longer than a refresh may take.
const RESERVED_FOR: Duration = Duration::from_mins(2);
/// How exactly it is known when a credential was last used.
const USE_RESOLUTION: Duration = Duration::from_hours(1);
/// How many uses are written by one statement.
const USES_AT_A_TIME: usize = 500;

/// What the background remembers.
#[derive(Default)]
pub(super) struct Ahead {
    /// How many of its refreshes run, by provider.
    running: Mutex<HashMap<ProviderId, usize>>,
    /// One of them has ended.
    landed: Notify,
    /// The providers of which the last look found more than there was room for.
    backlog: Mutex<HashSet<ProviderId>>,
    uses: Mutex<Uses>,
}

/// Credentials that were handed out.
#[derive(Default)]
struct Uses {
    /// Since when [`Uses::known`] holds, by the monotonic clock.
    since: Duration,
    /// Those written, or about to be.
    known: HashSet<CredentialId>,
    /// Those about to be written.
    pending: Vec<CredentialId>,
}

impl Ahead {
    fn running(&self, provider: &ProviderId) -> usize {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(provider).copied().unwrap_or_default()
    }

    fn has_backlog(&self, provider: &ProviderId) -> bool {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner).contains(provider)
    }

    fn set_backlog(&self, provider: &ProviderId, left: bool) {
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        if left {
            backlog.insert(provider.clone());
        } else {
            backlog.remove(provider);
        }
    }

    fn took_off(&self, provider: &ProviderId) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running.entry(provider.clone()).or_default() += 1;
    }

    fn landed(&self, provider: &ProviderId) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(provider) {
            *count = count.saturating_sub(1);
        }
        drop(running);
        self.landed.notify_one();
    }
}

impl Broker {
    /// One round over all providers. True: there was more than there was room for.
    pub async fn refresh_due(self: &Arc<Self>) -> bool {
        if self.settings.refresh_ahead.is_zero() {
            return false;
        }
        self.round(self.ports.providers.all()).await
    }

    /// One round over the providers of which there was more than there was room for. True: there still is.
    pub async fn refresh_backlog(self: &Arc<Self>) -> bool {
        let mut providers = self.ports.providers.all();
        providers.retain(|provider| self.ahead.has_backlog(&provider.id));
        self.round(providers).await
    }

    async fn round(self: &Arc<Self>, providers: Vec<Arc<Provider>>) -> bool {
        let mut more = false;
        for provider in providers {
            let left = self.refresh_due_of(&provider).await.unwrap_or_else(|error| {
                tracing::error!(provider = %provider.id, %error, "due credentials could not be looked up");
                false
            });
            self.ahead.set_backlog(&provider.id, left);
            more |= left;
        }
        more
    }

    /// Ends when one of the background's refreshes has.
    pub async fn background_refresh_ended(&self) {
        self.ahead.landed.notified().await;
    }

    async fn refresh_due_of(self: &Arc<Self>, provider: &Arc<Provider>) -> Result<bool, StoreError> {
        let free = self.gates.room_for_background(provider, self.ports.clock.monotonic());
        let most = self.settings.provider_concurrency - self.settings.provider_concurrency / 4;
        let room = free.min(most.saturating_sub(self.ahead.running(&provider.id)));
        // A statement for the sake of one row is not worth it while others are under way.
        if room < most.div_ceil(2) {
            return Ok(room < most);
        }
        let now = self.ports.clock.now();
        let limit = u32::try_from(room).unwrap_or(u32::MAX);
        let request =
            DueRequest { provider: provider.id.clone(), now, until: later(now, RESERVED_FOR), limit };
        let due = self.ports.credentials.reserve_due(request).await?;
        let full = due.len() >= room;
        for credential in due {
            let lag = now.duration_since(credential.due_at);
            metrics::refresh_lag(lag.as_secs_f64().max(0.0));
            if self.is_wanted(provider, credential, now).await? {
                self.take_off(provider, credential.id);
            }
        }
        Ok(full)
    }

    fn take_off(self: &Arc<Self>, provider: &Arc<Provider>, id: CredentialId) {
        self.ahead.took_off(&provider.id);
        let flight = self.start_refresh(id, Demand::Ahead);
        let (broker, provider) = (Arc::clone(self), Arc::clone(provider));
        self.tasks.spawn(async move {
            // The row says what became of it.
            flight.end().await;
            broker.ahead.landed(&provider.id);
        });
    }

    /// Whether somebody has used it lately, or its grant would die of disuse. If not, it is put off.
    async fn is_wanted(
        &self,
        provider: &Provider,
        credential: DueCredential,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let window = SignedDuration::try_from(self.settings.active_window).unwrap_or(SignedDuration::MAX);
        if now.duration_since(credential.used_at) <= window {
            return Ok(true);
        }
        let next = match provider.refresh.idle_limit {
            None => None,
            Some(limit) => {
                let Some(row) = self.ports.credentials.load_by_id(credential.id).await? else {
                    return Ok(false);
                };
                let Some(tokens) = row.tokens() else { return Ok(false) };
                // With a quarter of the time to spare for outages.
                let next = later(tokens.access_life.obtained_at, limit / 4 * 3);
                if next <= now {
                    return Ok(true);
                }
                Some(next)
            }
        };
        self.ports.credentials.reschedule(credential.id, next).await?;
        Ok(false)
    }

    /// Somebody was given this credential's token.
    pub(super) fn used(&self, id: CredentialId) {
        let now = self.ports.clock.monotonic();
        let mut uses = self.ahead.uses.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(uses.since) >= USE_RESOLUTION {
            uses.since = now;
            uses.known.clear();
        }
        if uses.known.insert(id) {
            uses.pending.push(id);
        }
    }

    /// Writes down who was used. What can't be written is forgotten until it is used again.
    pub(super) async fn write_uses(&self, now: Timestamp) -> Result<(), StoreError> {
        let pending = {
            let mut uses = self.ahead.uses.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut uses.pending)
        };
        for (n, ids) in pending.chunks(USES_AT_A_TIME).enumerate() {
            if let Err(error) = self.ports.credentials.mark_used(ids, now).await {
                let mut uses = self.ahead.uses.lock().unwrap_or_else(PoisonError::into_inner);
                for id in &pending[n * USES_AT_A_TIME..] {
                    uses.known.remove(id);
                }
                return Err(error);
            }
        }
        Ok(())
    }
}
