//! The writers. Each chain that has rows to write has one, which takes what has gathered in the queue and commits it as one
//! batch; while it is at that, the next batch gathers. It ends when nothing is left.
//!
//! The chains are shared by replicas. A batch is hashed from where this process last saw the head, and added only if the head
//! is still there; else it is hashed again from where it is now. What can't be written is tried again until it can: rows
//! that wait behind it are the queue. Chains don't wait for each other: one whose key is not to be had holds up its own rows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;

use super::database::Database;
use super::queue::{Batch, Queue};
use super::sinks::{Acks, Copies};
use crate::application::metrics;
use crate::application::pauses::Pauses;
use crate::domain::audit::{AuditSealer, AuditStore, Entry, GAP, Hash, Head, Mark, Outcome, Row, Seal, link};
use crate::domain::cipher::CipherError;
use crate::domain::key::TenantId;
use crate::domain::ports::{Clock, StoreError};

/// The reason of a gap.
const QUEUE_FULL: &str = "QUEUE_FULL";

/// What all writers share.
pub(super) struct Pump {
    pub(super) store: Arc<dyn AuditStore>,
    pub(super) sealer: Arc<dyn AuditSealer>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) copies: Vec<Copies>,
    pub(super) queue: Arc<Queue>,
    pub(super) database: Arc<Database>,
    pub(super) heads: Heads,
}

/// Where this process last saw the chains end.
#[derive(Default)]
pub(super) struct Heads(Mutex<HashMap<TenantId, Head>>);

/// Why a batch is not written yet.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Cipher(#[from] CipherError),
}

impl Failure {
    /// Where it failed, for metrics.
    fn place(&self) -> &'static str {
        match self {
            Self::Store(_) | Self::Cipher(CipherError::Store(_)) => "database",
            Self::Cipher(_) => "keys",
        }
    }
}

impl Pump {
    /// Writes a chain until nothing waits for it.
    pub(super) async fn write(self: Arc<Self>, tenant: TenantId) {
        while let Some(Batch { rows, dropped }) = self.queue.take(&tenant) {
            let (mut entries, mut waiting) = (Vec::with_capacity(rows.len()), Vec::new());
            for row in rows {
                entries.push(row.entry);
                waiting.extend(row.recorded);
            }
            if dropped > 0 {
                let mut gap = Entry::new(self.clock.now(), tenant.clone(), GAP, Outcome::Failed);
                gap.reason = Some(QUEUE_FULL.into());
                gap.mark = Some(Mark::Gap(dropped));
                entries.push(gap);
            }
            let (over, rows) = self.commit(&tenant, &entries).await;
            let (acks, rows) = (Acks::new(waiting, self.copies.len()), Arc::<[Row]>::from(rows));
            for copies in &self.copies {
                copies.send(over, Arc::clone(&rows), Arc::clone(&acks));
            }
        }
    }

    /// Adds entries to a chain, however long it takes. Answers where.
    async fn commit(&self, tenant: &TenantId, entries: &[Entry]) -> (Head, Vec<Row>) {
        let mut pauses = Pauses::new();
        let mut failing = None;
        loop {
            match self.try_commit(tenant, entries).await {
                Ok(Some(done)) => {
                    if failing.is_some() {
                        tracing::info!(%tenant, "the audit log can be written again");
                    }
                    return done;
                }
                // Another replica was first.
                Ok(None) => continue,
                Err(error) => {
                    let place = error.place();
                    metrics::audit_error(place);
                    if failing != Some(place) {
                        tracing::error!(%tenant, place, %error, "the audit log can't be written; trying on");
                    }
                    failing = Some(place);
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
        let over = if let Some(head) = self.heads.known(tenant) {
            head
        } else {
            let head = self.database.ask(self.store.audit_head(tenant)).await?;
            self.heads.remember(tenant, head);
            head
        };
        let rows = self.rows(tenant, over, entries).await?;
        if self.database.ask(self.store.append_audit(tenant, over, &rows)).await? {
            if let Some(last) = rows.last() {
                self.heads.remember(tenant, last.head());
            }
            return Ok(Some((over, rows)));
        }
        let now = self.database.ask(self.store.audit_head(tenant)).await?;
        if now.sequence < over.sequence || now.sequence == over.sequence && now.hash != over.hash {
            // Nobody who writes by the rules does that.
            metrics::audit_set_back();
            tracing::error!(
                %tenant, was = over.sequence, is = now.sequence,
                "the audit log's head was set back: rows were cut off, or the database was restored"
            );
        }
        self.heads.remember(tenant, now);
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
        let seals = self.seal(tenant, &hashes).await?;
        let rows = heads.into_iter().zip(entries).zip(seals).map(|((head, entry), seal)| Row {
            sequence: head.sequence,
            entry: entry.clone(),
            hash: head.hash,
            seal,
        });
        Ok(rows.collect())
    }

    async fn seal(&self, tenant: &TenantId, hashes: &[Hash]) -> Result<Vec<Seal>, CipherError> {
        let mut sealing = self.sealer.seal(tenant, hashes);
        // It takes no time if the key is in memory. Else a key service may be long about it.
        let seals = if let Some(seals) = (&mut sealing).now_or_never() {
            seals
        } else {
            self.queue.hold_up(tenant);
            sealing.await
        };
        match &seals {
            // A database that is away is everybody's trouble, and not this chain's.
            Ok(_) | Err(CipherError::Store(_)) => self.queue.release(tenant),
            Err(_) => self.queue.cut(tenant),
        }
        seals
    }
}

impl Heads {
    fn known(&self, tenant: &TenantId) -> Option<Head> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).copied()
    }

    fn remember(&self, tenant: &TenantId, head: Head) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant.clone(), head);
    }
}
