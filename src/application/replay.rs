//! What a dead process left in its journal: adopted before anybody may take its unfinished refreshes for lost.
//!
//! The order matters. While a record waits for its replay, its row looks like one whose refresh was never answered, and its
//! permit like one that was never used. So the pairs come first, in the permit store and in their rows; only then is the
//! process said to be dead, which lets others take its permits over and settle its claims early.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::{StreamExt as _, stream};

use super::Broker;
use super::metrics;
use super::pauses::Pauses;
use super::single_flight::FlightEnd;
use crate::domain::cipher::CipherError;
use crate::domain::coordination::FormerRun;
use crate::domain::credential::Credential;
use crate::domain::key::TenantId;
use crate::domain::ports::{DeadOwners, LineageWrite};
use crate::domain::step::Step;

/// How many rows are given their pairs at one time. The rows of others settle meanwhile, so that a replay must not be long; and
/// calls want the database, too.
const ROWS_AT_ONE_TIME: usize = 8;

/// What a record of a journal is worth.
enum Found {
    /// Of this tenant, if the row could be read.
    Whole(Option<TenantId>),
    Stored,
    Unreadable,
    NoRow,
}

impl Broker {
    /// Nothing is settled by this process from here on, until [`Broker::end_replay`]: what it would present once more may be
    /// in a journal that it has taken over.
    pub fn begin_replay(&self) {
        self.replaying.store(true, Ordering::SeqCst);
    }

    /// All that was found has been replayed.
    pub fn end_replay(&self) {
        self.replaying.store(false, Ordering::SeqCst);
    }

    /// Replays one run: publishes each pair as successor, and gives it to its row. Tries until the database answers; when it
    /// returns, the journal may forget the run.
    pub async fn replay(self: &Arc<Self>, former: &FormerRun) {
        tracing::info!(owner = %former.owner, records = former.records.len(), "replaying a dead process's journal");
        let mut rows: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for write in &former.records {
            rows.entry(write.id).or_default().push(write);
        }
        let rows = stream::iter(rows.into_values());
        rows.for_each_concurrent(ROWS_AT_ONE_TIME, |writes| self.replay_row(writes)).await;
        if let Err(error) = self.ports.permits.owner_died(former.owner).await {
            tracing::warn!(%error, "the permit store was not told of a dead process; its permits run out by themselves");
            metrics::permit_store_error("owner_died");
        }
        self.settle_early(DeadOwners::One(former.owner)).await;
    }

    /// The pairs of one row, in the order in which they were given out.
    async fn replay_row(self: &Arc<Self>, writes: Vec<&LineageWrite>) {
        for write in writes {
            let tenant = match self.standing(write).await {
                Found::Whole(tenant) => tenant,
                // As most are: the process died long after it had written the row.
                Found::Stored => continue,
                // A key of it is gone: the row would lose the token pair that it has, for one that nobody can open.
                Found::Unreadable => {
                    tracing::error!(credential = %write.id, "a token pair of a journal does not open any more, and is dropped");
                    continue;
                }
                // Its user was deleted: nothing of it is to be put anywhere again.
                Found::NoRow => {
                    tracing::warn!(credential = %write.id, "a token pair of a row that is gone is dropped");
                    continue;
                }
            };
            // First where all replicas see it: should this process die too, the pair is not in one place only.
            if let Some(tenant) = tenant {
                self.keep_successor(&tenant, write.clone()).await;
            }
            let mut pauses = Pauses::new();
            while self.adopt(write.clone(), "journal").await == Err(FlightEnd::StorageUnavailable) {
                pauses.wait().await;
            }
            self.ports.steps.reached(Step::Replayed, write.id);
        }
    }

    async fn standing(&self, write: &LineageWrite) -> Found {
        match self.ports.credentials.load_by_id(write.id).await {
            Ok(Some(row)) if has(&row, write) => Found::Stored,
            Ok(Some(row)) => match self.open_write(&row.key, write).await {
                Err(CipherError::DoesNotOpen) => Found::Unreadable,
                Ok(_) | Err(_) => Found::Whole(Some(row.key.tenant)),
            },
            Ok(None) => Found::NoRow,
            // To be found out when the row takes it.
            Err(_) => Found::Whole(None),
        }
    }

    /// Lets claims of dead owners settle as soon as their requests have certainly ended. Tries until the database answers.
    pub async fn settle_early(&self, dead: DeadOwners) {
        let mut pauses = Pauses::new();
        loop {
            match self.ports.credentials.settle_early(dead).await {
                Ok(0) => return,
                Ok(early) => {
                    tracing::info!(early, "unfinished refreshes of dead processes settle early");
                    return;
                }
                Err(error) => tracing::error!(%error, "dead processes' refreshes can't be settled early yet"),
            }
            pauses.wait().await;
        }
    }
}

/// Whether a row has this pair, or a later one of the same grant.
fn has(row: &Credential, write: &LineageWrite) -> bool {
    let refresh = row.tokens().and_then(|tokens| tokens.refresh.as_ref());
    refresh.is_some_and(|refresh| write.grant_id == row.grant_id && write.epoch <= refresh.epoch)
}
