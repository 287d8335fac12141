//! Copies of the log outside the database. Each sink has a queue and a pace of its own: one that blocks holds up neither the
//! chains nor another sink, but those answers that wait for all of them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::application::metrics;
use crate::application::pauses::Pauses;
use crate::domain::audit::{AuditSink, Head, Row};

/// How many batches may wait for a sink.
const QUEUE: usize = 64;

/// Those who wait until a batch is everywhere.
pub(super) struct Acks {
    waiting: Mutex<Vec<oneshot::Sender<()>>>,
    missing: AtomicUsize,
}

impl Acks {
    /// So many sinks have to confirm.
    pub(super) fn new(waiting: Vec<oneshot::Sender<()>>, sinks: usize) -> Arc<Self> {
        let acks = Self { waiting: Mutex::new(waiting), missing: AtomicUsize::new(sinks) };
        if sinks == 0 {
            acks.tell();
        }
        Arc::new(acks)
    }

    fn confirm(&self) {
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.tell();
        }
    }

    fn tell(&self) {
        for waiting in self.waiting.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // Whoever does not wait any more has been refused.
            let _ = waiting.send(());
        }
    }
}

/// Since when a sink has been at one batch.
pub(super) struct Busy {
    start: Instant,
    /// Milliseconds after `start`, plus one; 0: idle.
    since: AtomicU64,
}

impl Busy {
    fn idle() -> Self {
        Self { start: Instant::now(), since: AtomicU64::new(0) }
    }

    fn begin(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.since.store(now + 1, Ordering::Relaxed);
    }

    fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    pub(super) fn longer_than(&self, limit: Duration) -> bool {
        match self.since.load(Ordering::Relaxed) {
            0 => false,
            since => self.start.elapsed().saturating_sub(Duration::from_millis(since - 1)) > limit,
        }
    }
}

struct Batch {
    over: Head,
    rows: Arc<[Row]>,
    acks: Arc<Acks>,
}

/// The way to one sink.
pub(super) struct Copies {
    name: &'static str,
    queue: mpsc::Sender<Batch>,
    pub(super) busy: Arc<Busy>,
}

impl Copies {
    /// Begins to copy.
    pub(super) fn start(sink: Arc<dyn AuditSink>, tasks: &TaskTracker) -> Self {
        let (queue, mut batches) = mpsc::channel::<Batch>(QUEUE);
        let busy = Arc::new(Busy::idle());
        let (name, at_work) = (sink.name(), Arc::clone(&busy));
        tasks.spawn(async move {
            while let Some(Batch { over, rows, acks }) = batches.recv().await {
                at_work.begin();
                let mut pauses = Pauses::new();
                let mut failing = false;
                while let Err(error) = sink.write(over, Arc::clone(&rows)).await {
                    metrics::audit_error(name);
                    if !failing {
                        tracing::error!(sink = name, %error, cause = %error.source, "an audit sink fails; trying on");
                    }
                    failing = true;
                    pauses.wait().await;
                }
                if failing {
                    tracing::info!(sink = name, "the audit sink takes rows again");
                }
                acks.confirm();
                at_work.end();
            }
        });
        Self { name, queue, busy }
    }

    /// Hands over a batch. One that finds no room is missing in the sink, whose lines show that by their numbers; it is in
    /// the database all the same.
    pub(super) fn send(&self, over: Head, rows: Arc<[Row]>, acks: Arc<Acks>) {
        let (first, count) = (over.sequence.saturating_add(1), rows.len());
        if let Err(refused) = self.queue.try_send(Batch { over, rows, acks }) {
            metrics::audit_sink_dropped(self.name, count);
            tracing::error!(sink = self.name, first, count, %refused, "an audit sink has no room: rows are missing in it");
        }
    }
}
