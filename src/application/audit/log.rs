//! The queue in front of the chains.
//!
//! An answer that waits for its row costs a share of a commit: while one batch is committed, the next one gathers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pump::Pump;
use super::sinks::Copies;
use crate::application::metrics;
use crate::domain::audit::{Audit, AuditSealer, AuditSink, AuditStore, AuditUnavailable, Entry};
use crate::domain::key::TenantId;
use crate::domain::ports::Clock;

/// What becomes of a call whose row can't be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Its answer is withheld: nothing is given away that is not on record (fail closed).
    Refuse,
    /// It is answered; the row is written when it can be, or counted as lost (fail open).
    GoOn,
}

/// What the operator decides about the log.
#[derive(Debug, Clone, Copy)]
pub struct AuditSettings {
    /// What becomes of calls.
    pub on_failure: OnFailure,
    /// How long an answer waits for its row.
    pub wait: Duration,
    /// How many rows may wait to be written.
    pub queue: usize,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self { on_failure: OnFailure::Refuse, wait: Duration::from_secs(5), queue: 10_000 }
    }
}

/// A row to write.
pub(super) struct Waiting {
    pub(super) entry: Entry,
    /// Hears when it is recorded everywhere.
    pub(super) recorded: Option<oneshot::Sender<()>>,
}

/// Since when somebody has been at one piece of work.
pub(super) struct Busy {
    start: Instant,
    /// Milliseconds after `start`, plus one; 0: idle.
    since: AtomicU64,
}

impl Busy {
    pub(super) fn idle() -> Self {
        Self { start: Instant::now(), since: AtomicU64::new(0) }
    }

    pub(super) fn begin(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.since.store(now + 1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    fn longer_than(&self, limit: Duration) -> bool {
        match self.since.load(Ordering::Relaxed) {
            0 => false,
            since => self.start.elapsed().saturating_sub(Duration::from_millis(since - 1)) > limit,
        }
    }
}

/// Decisions that found no room, by tenant.
#[derive(Default)]
pub(super) struct Dropped(Mutex<HashMap<TenantId, u64>>);

impl Dropped {
    fn one(&self, tenant: &TenantId) {
        metrics::audit_dropped();
        let mut dropped = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = dropped.entry(tenant.clone()).or_default();
        if *count == 0 {
            tracing::error!(%tenant, "the audit queue is full: decisions are not recorded");
        }
        *count = count.saturating_add(1);
    }

    /// How many there are to tell of; they count as told.
    pub(super) fn take(&self, tenant: &TenantId) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(tenant).unwrap_or_default()
    }

    /// Tenants with something to tell.
    pub(super) fn tenants(&self) -> Vec<TenantId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

/// Where decisions are told. Dropping it ends the writing without waiting for it; see [`AuditLog::close`].
pub struct AuditLog {
    settings: AuditSettings,
    queue: mpsc::Sender<Waiting>,
    dropped: Arc<Dropped>,
    /// Of the chains, and of each sink.
    busy: Vec<Arc<Busy>>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl AuditLog {
    /// Begins to write. `sinks` get a copy of every row.
    #[must_use]
    pub fn start(
        store: Arc<dyn AuditStore>,
        sealer: Arc<dyn AuditSealer>,
        sinks: Vec<Arc<dyn AuditSink>>,
        clock: Arc<dyn Clock>,
        settings: AuditSettings,
    ) -> Arc<Self> {
        let (queue, waiting) = mpsc::channel(settings.queue.max(1));
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        let dropped = Arc::new(Dropped::default());
        let chains = Arc::new(Busy::idle());
        let mut busy = vec![Arc::clone(&chains)];
        let copies: Vec<Copies> = sinks.into_iter().map(|sink| Copies::start(sink, &tasks)).collect();
        busy.extend(copies.iter().map(|copies| Arc::clone(&copies.busy)));
        let pump = Pump::new(store, sealer, clock, copies, Arc::clone(&dropped), chains);
        tasks.spawn(pump.run(waiting, closing.clone()));
        tasks.close();
        Arc::new(Self { settings, queue, dropped, busy, closing, tasks })
    }

    /// Takes no more, and answers when everything that was taken is written.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.wait().await;
    }

    fn send(&self, entry: Entry, recorded: Option<oneshot::Sender<()>>) -> bool {
        let Err(refused) = self.queue.try_send(Waiting { entry, recorded }) else { return true };
        let (mpsc::error::TrySendError::Full(lost) | mpsc::error::TrySendError::Closed(lost)) = refused;
        self.dropped.one(&lost.entry.tenant);
        false
    }
}

#[async_trait]
impl Audit for AuditLog {
    fn note(&self, entry: Entry) {
        self.send(entry, None);
    }

    async fn record(&self, entry: Entry) -> Result<(), AuditUnavailable> {
        match self.settings.on_failure {
            OnFailure::GoOn => {
                self.note(entry);
                Ok(())
            }
            OnFailure::Refuse => self.record_for_certain(entry).await,
        }
    }

    async fn record_for_certain(&self, entry: Entry) -> Result<(), AuditUnavailable> {
        let (recorded, done) = oneshot::channel();
        if !self.send(entry, Some(recorded)) {
            return Err(AuditUnavailable);
        }
        match timeout(self.settings.wait, done).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(AuditUnavailable),
        }
    }

    fn is_stuck(&self) -> bool {
        self.settings.on_failure == OnFailure::Refuse
            && self.busy.iter().any(|busy| busy.longer_than(self.settings.wait))
    }
}
