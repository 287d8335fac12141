//! The log as those know it who tell it of decisions: a queue in front of the chains, and what it means that a row does not get
//! into its chain.
//!
//! An answer that waits for its row costs a share of a commit: while one batch is committed, the next one gathers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::database::Database;
use super::pump::{Heads, Pump};
use super::queue::{Pushed, Queue, Waiting};
use super::sinks::{Busy, Copies};
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

/// Where decisions are told. Dropping it ends the writing without waiting for it; see [`AuditLog::close`].
pub struct AuditLog {
    settings: AuditSettings,
    queue: Arc<Queue>,
    database: Arc<Database>,
    sinks: Vec<Arc<Busy>>,
    /// Until it is closed. Writers have it for as long as they are at work, and the sinks end with the last of them.
    pump: Mutex<Option<Arc<Pump>>>,
    /// The writers, and the sinks.
    tasks: TaskTracker,
    runtime: Handle,
}

impl AuditLog {
    /// Begins to write, by tasks of the runtime that it is called in. `sinks` get a copy of every row.
    #[must_use]
    pub fn start(
        store: Arc<dyn AuditStore>,
        sealer: Arc<dyn AuditSealer>,
        sinks: Vec<Arc<dyn AuditSink>>,
        clock: Arc<dyn Clock>,
        settings: AuditSettings,
    ) -> Arc<Self> {
        let tasks = TaskTracker::new();
        let queue = Arc::new(Queue::new(settings.queue));
        let database = Arc::new(Database::new());
        let copies: Vec<Copies> = sinks.into_iter().map(|sink| Copies::start(sink, &tasks)).collect();
        let sinks = copies.iter().map(|copies| Arc::clone(&copies.busy)).collect();
        let (waiting, asked) = (Arc::clone(&queue), Arc::clone(&database));
        let pump =
            Pump { store, sealer, clock, copies, queue: waiting, database: asked, heads: Heads::default() };
        tasks.close();
        let pump = Mutex::new(Some(Arc::new(pump)));
        Arc::new(Self { settings, queue, database, sinks, pump, tasks, runtime: Handle::current() })
    }

    /// Takes no more, and answers when everything that was taken is written.
    pub async fn close(&self) {
        self.pump().take();
        self.tasks.wait().await;
    }

    fn send(&self, entry: Entry, recorded: Option<oneshot::Sender<()>>) -> bool {
        // Held to the end: what is taken has its writer before the log can be closed.
        let pump = self.pump();
        let Some(pump) = pump.as_ref() else {
            metrics::audit_dropped(1);
            tracing::error!(tenant = %entry.tenant, "the audit log is closed: a decision is not recorded");
            return false;
        };
        let tenant = entry.tenant.clone();
        let Pushed { taken, needs_writer } = self.queue.push(Waiting { entry, recorded });
        if needs_writer {
            self.tasks.spawn_on(Arc::clone(pump).write(tenant), &self.runtime);
        }
        taken
    }

    fn pump(&self) -> MutexGuard<'_, Option<Arc<Pump>>> {
        self.pump.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn is_stuck(&self, tenant: &TenantId) -> bool {
        let wait = self.settings.wait;
        self.settings.on_failure == OnFailure::Refuse
            && (self.database.is_silent(wait)
                || self.sinks.iter().any(|sink| sink.longer_than(wait))
                || self.queue.is_stuck(tenant, wait))
    }
}
