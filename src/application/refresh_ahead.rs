//! The background of every replica: refreshes tokens ahead of their expiry, for as long as somebody uses them.
//!
//! A batch of due rows is reserved by pushing `next_refresh_at`, so that no two replicas take the same and a crash leaves
//! nothing but a later turn. The claim is taken row by row, just before its request, by the same algorithm as a reader's
//! refresh. Each app has its own turn and its own room, so that none starves another.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use super::Broker;
use super::endings::later;
use super::metrics;
use crate::domain::cipher::CipherError;
use crate::domain::key::CredentialId;
use crate::domain::ports::{DueCredential, DueRequest, ProviderStanding, StoreError};
use crate::domain::provider::{AppKey, Provider};
use crate::domain::provider_config::DueConfig;
use crate::domain::refresh_policy::Demand;

/// A reserved row is nobody else's for this long: longer than a refresh may take.
const RESERVED_FOR: Duration = Duration::from_mins(2);
/// How exactly it is known when a credential was last used.
const USE_RESOLUTION: Duration = Duration::from_hours(1);
/// How often tenants' own apps are looked at: less often than the operator's, since each look reads all configurations. Tokens are
/// refreshed minutes ahead.
const OWN_EVERY: Duration = Duration::from_secs(5);
/// How many of them at a time.
const OWN_AT_A_TIME: u32 = 1_000;
/// What is due at an app that is disabled or misconfigured is put off for this long.
const PUT_OFF: Duration = Duration::from_mins(10);
/// How many rows of it by one statement.
const PUT_OFF_AT_A_TIME: u32 = 500;
/// How many uses are written by one statement.
const USES_AT_A_TIME: usize = 500;

/// What the background remembers.
#[derive(Default)]
pub(super) struct Ahead {
    /// How many of its refreshes run, by app.
    running: Mutex<HashMap<AppKey, usize>>,
    /// One of them has ended.
    landed: Notify,
    /// The apps of which the last look found more than there was room for.
    backlog: Mutex<HashMap<AppKey, Arc<Provider>>>,
    /// When tenants' own apps were last looked at, by the monotonic clock.
    own_looked_at: Mutex<Option<Duration>>,
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
    fn running(&self, app: &AppKey) -> usize {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(app).copied().unwrap_or_default()
    }

    fn backlog(&self) -> Vec<Arc<Provider>> {
        let backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        let mut apps: Vec<_> = backlog.values().cloned().collect();
        drop(backlog);
        apps.sort_by(|one, two| one.id.cmp(&two.id));
        apps
    }

    fn set_backlog(&self, provider: &Arc<Provider>, left: bool) {
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        if left {
            backlog.insert(provider.app(), Arc::clone(provider));
        } else {
            backlog.remove(&provider.app());
        }
    }

    fn took_off(&self, app: AppKey) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running.entry(app).or_default() += 1;
    }

    fn landed(&self, app: &AppKey) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(app) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                running.remove(app);
            }
        }
        drop(running);
        self.landed.notify_one();
    }

    /// Whether it is time to look at tenants' own apps again.
    fn is_time_for_own(&self, now: Duration) -> bool {
        let mut looked_at = self.own_looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let time = looked_at.is_none_or(|at| now.saturating_sub(at) >= OWN_EVERY);
        if time {
            *looked_at = Some(now);
        }
        time
    }
}

impl Broker {
    /// One round over all providers. True: there was more than there was room for.
    pub async fn refresh_due(self: &Arc<Self>) -> bool {
        if self.settings.refresh_ahead.is_zero() {
            return false;
        }
        let mut apps = self.ports.providers.configured();
        if self.ahead.is_time_for_own(self.ports.clock.monotonic()) {
            match self.own_apps_due().await {
                Ok(own) => apps.extend(own),
                Err(error) => tracing::error!(%error, "tenants' own apps could not be looked at"),
            }
        }
        self.round(apps).await
    }

    /// Tenants' own apps that have something to be refreshed. What is due at one that can't be used now is put off, so that it is not
    /// come upon again with each look.
    async fn own_apps_due(&self) -> Result<Vec<Arc<Provider>>, CipherError> {
        let now = self.ports.clock.now();
        let due = self.ports.provider_configs.due_provider_configs(now, OWN_AT_A_TIME).await;
        let mut apps = Vec::new();
        for DueConfig { tenant, provider, id } in due.map_err(CipherError::Store)? {
            match self.ports.providers.of_configuration(&tenant, &provider, Some(id)).await {
                Ok(Some(ProviderStanding::Ready(app))) => apps.push(app),
                Ok(Some(ProviderStanding::Disabled(_) | ProviderStanding::Broken)) => {
                    let until = later(now, PUT_OFF);
                    let configuration = Some(id);
                    let request =
                        DueRequest { provider, configuration, now, until, limit: PUT_OFF_AT_A_TIME };
                    self.ports.credentials.reserve_due(request).await.map_err(CipherError::Store)?;
                }
                // Deleted meanwhile: with it, what was due is not due any more.
                Ok(None) => {}
                // One tenant's secrets that can't be opened hold up no other.
                Err(error) => tracing::error!(%tenant, %provider, %error, "a tenant's app can't be used"),
            }
        }
        Ok(apps)
    }

    /// One round over the providers of which there was more than there was room for. True: there still is.
    pub async fn refresh_backlog(self: &Arc<Self>) -> bool {
        self.round(self.ahead.backlog()).await
    }

    async fn round(self: &Arc<Self>, providers: Vec<Arc<Provider>>) -> bool {
        let mut more = false;
        for provider in providers {
            let left = self.refresh_due_of(&provider).await.unwrap_or_else(|error| {
                tracing::error!(provider = %provider.id, %error, "due credentials could not be looked up");
                false
            });
            self.ahead.set_backlog(&provider, left);
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
        let room = free.min(most.saturating_sub(self.ahead.running(&provider.app())));
        // A statement for the sake of one row is not worth it while others are under way.
        if room < most.div_ceil(2) {
            return Ok(room < most);
        }
        let now = self.ports.clock.now();
        let limit = u32::try_from(room).unwrap_or(u32::MAX);
        let request = DueRequest {
            provider: provider.id.clone(),
            configuration: provider.configuration(),
            now,
            until: later(now, RESERVED_FOR),
            limit,
        };
        let due = self.ports.credentials.reserve_due(request).await?;
        // While the provider refuses the calls there is no hurry: the next round is soon enough, and the rows of one tenant that is
        // shut out would be reserved as fast as the database can, for nothing.
        let full = due.len() >= room && !self.gates.are_in_doubt(provider, self.ports.clock.monotonic());
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
        self.ahead.took_off(provider.app());
        let flight = self.start_refresh(id, Demand::Ahead);
        let (broker, provider) = (Arc::clone(self), Arc::clone(provider));
        self.tasks.spawn(async move {
            // The row says what became of it.
            flight.end().await;
            broker.ahead.landed(&provider.app());
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
