//! The one writer of this process: takes what has gathered in the queue and commits it as one batch for each tenant.
//!
//! The chains are shared by replicas. A batch is hashed from where this process last saw the head, and added only if the head
//! is still there; else it is hashed again from where it is now. What can't be written is tried again until it can: rows
//! that wait behind it are the queue.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::log::{Busy, Dropped, Waiting};
use super::sinks::{Acks, Copies};
use crate::application::metrics;
use crate::application::pauses::Pauses;
use crate::domain::audit::{AuditSealer, AuditStore, Entry, GAP, Head, Mark, Outcome, Row, link};
use crate::domain::cipher::CipherError;
use crate::domain::key::TenantId;
use crate::domain::ports::{Clock, StoreError};

/// How many rows go into one batch.
const BATCH: usize = 256;
/// The reason of a gap.
const QUEUE_FULL: &str = "QUEUE_FULL";

/// See the module.
pub(super) struct Pump {
    store: Arc<dyn AuditStore>,
    sealer: Arc<dyn AuditSealer>,
    clock: Arc<dyn Clock>,
    copies: Vec<Copies>,
    dropped: Arc<Dropped>,
    busy: Arc<Busy>,
    /// Where this process last saw the chains end.
    heads: Mutex<HashMap<TenantId, Head>>,
}

/// Why a batch is not written yet.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Cipher(#[from] CipherError),
}

impl Pump {
    pub(super) fn new(
        store: Arc<dyn AuditStore>,
        sealer: Arc<dyn AuditSealer>,
        clock: Arc<dyn Clock>,
        copies: Vec<Copies>,
        dropped: Arc<Dropped>,
        busy: Arc<Busy>,
    ) -> Self {
        Self { store, sealer, clock, copies, dropped, busy, heads: Mutex::default() }
    }

    /// Writes until it is closed and everything is written.
    pub(super) async fn run(self, mut queue: mpsc::Receiver<Waiting>, closing: CancellationToken) {
        let mut gathered = Vec::with_capacity(BATCH);
        loop {
            let taken = tokio::select! {
                biased;
                taken = queue.recv_many(&mut gathered, BATCH) => taken,
                () = closing.cancelled(), if !queue.is_closed() => {
                    queue.close();
                    continue;
                }
            };
            if taken == 0 {
                return;
            }
            self.busy.begin();
            self.write(std::mem::take(&mut gathered)).await;
            self.busy.end();
        }
    }

    async fn write(&self, gathered: Vec<Waiting>) {
        let mut batches: BTreeMap<TenantId, (Vec<Entry>, Vec<oneshot::Sender<()>>)> = BTreeMap::new();
        for Waiting { entry, recorded } in gathered {
            let (entries, waiting) = batches.entry(entry.tenant.clone()).or_default();
            entries.push(entry);
            waiting.extend(recorded);
        }
        for tenant in self.dropped.tenants() {
            batches.entry(tenant).or_default();
        }
        let each = batches.into_iter().map(|(tenant, (entries, waiting))| async move {
            let batch = self.commit(&tenant, entries).await;
            let acks = Acks::new(waiting, self.copies.len());
            let Some((over, rows)) = batch else { return };
            let rows: Arc<[Row]> = rows.into();
            for copies in &self.copies {
                copies.send(over, Arc::clone(&rows), Arc::clone(&acks));
            }
        });
        join_all(each).await;
    }

    /// Adds entries to a chain, however long it takes. Answers where, or `None` if there was nothing to add.
    async fn commit(&self, tenant: &TenantId, mut entries: Vec<Entry>) -> Option<(Head, Vec<Row>)> {
        let dropped = self.dropped.take(tenant);
        if dropped > 0 {
            let mut gap = Entry::new(self.clock.now(), tenant.clone(), GAP, Outcome::Failed);
            gap.reason = Some(QUEUE_FULL.into());
            gap.mark = Some(Mark::Gap(dropped));
            entries.push(gap);
        }
        if entries.is_empty() {
            return None;
        }
        let mut pauses = Pauses::new();
        let mut failing = false;
        loop {
            match self.try_commit(tenant, &entries).await {
                Ok(Some(done)) => {
                    if failing {
                        tracing::info!(%tenant, "the audit log can be written again");
                    }
                    return Some(done);
                }
                // Another replica was first.
                Ok(None) => continue,
                Err(error) => {
                    metrics::audit_error("database");
                    if !failing {
                        tracing::error!(%tenant, %error, "the audit log can't be written; trying on");
                    }
                    failing = true;
                }
            }
            pauses.wait().await;
        }
    }

    /// `None`: the head has moved. After an error the same rows are tried again over the same head: should their commit have
    /// been done, and only its word lost, the store finds them there.
    async fn try_commit(
        &self,
        tenant: &TenantId,
        entries: &[Entry],
    ) -> Result<Option<(Head, Vec<Row>)>, Failure> {
        let over = if let Some(head) = self.known(tenant) {
            head
        } else {
            let head = self.store.audit_head(tenant).await?;
            self.remember(tenant, head);
            head
        };
        let rows = self.rows(tenant, over, entries).await?;
        if self.store.append_audit(tenant, over, &rows).await? {
            if let Some(last) = rows.last() {
                self.remember(tenant, last.head());
            }
            return Ok(Some((over, rows)));
        }
        let now = self.store.audit_head(tenant).await?;
        if now.sequence < over.sequence || now.sequence == over.sequence && now.hash != over.hash {
            // Nobody who writes by the rules does that.
            metrics::audit_set_back();
            tracing::error!(
                %tenant, was = over.sequence, is = now.sequence,
                "the audit log's head was set back: rows were cut off, or the database was restored"
            );
        }
        self.remember(tenant, now);
        Ok(None)
    }

    async fn rows(&self, tenant: &TenantId, over: Head, entries: &[Entry]) -> Result<Vec<Row>, CipherError> {
        let mut at = over;
        let mut heads = Vec::with_capacity(entries.len());
        for entry in entries {
            at = link(&at, entry);
            heads.push(at);
        }
        let hashes: Vec<_> = heads.iter().map(|head| head.hash).collect();
        let seals = self.sealer.seal(tenant, &hashes).await?;
        let rows = heads.into_iter().zip(entries).zip(seals).map(|((head, entry), seal)| Row {
            sequence: head.sequence,
            entry: entry.clone(),
            hash: head.hash,
            seal,
        });
        Ok(rows.collect())
    }

    fn known(&self, tenant: &TenantId) -> Option<Head> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).copied()
    }

    fn remember(&self, tenant: &TenantId, head: Head) {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant.clone(), head);
    }
}
