//! The rows that wait to be written, by chain. A chain is in here for as long as it has rows to write or a writer at work: idle
//! tenants cost nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::application::metrics;
use crate::domain::audit::Entry;
use crate::domain::key::TenantId;

/// How many rows go into one batch.
const BATCH: usize = 256;

/// A row to write.
pub(super) struct Waiting {
    pub(super) entry: Entry,
    /// Hears when it is recorded everywhere.
    pub(super) recorded: Option<oneshot::Sender<()>>,
}

/// What became of a row, and what its chain needs.
pub(super) struct Pushed {
    /// It waits. Else there was no room for it, which the chain is going to say.
    pub(super) taken: bool,
    /// Nobody is at the chain: a writer has to be begun.
    pub(super) needs_writer: bool,
}

/// What a writer has in hand.
pub(super) struct Batch {
    pub(super) rows: Vec<Waiting>,
    /// How many rows found no room since the batch before.
    pub(super) dropped: u64,
}

/// See the module.
///
/// Chains share the room, but for one that waits for its key (`held_up`): that is one tenant's trouble, may last for good, and
/// must leave room for the others. Such a chain has at most an eighth of the room, and all of them together half.
pub(super) struct Queue {
    room: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    chains: HashMap<TenantId, Chain>,
    /// Rows that wait, of all chains.
    rows: usize,
    /// And of those that are held up.
    held_up: usize,
}

struct Chain {
    rows: VecDeque<Waiting>,
    dropped: u64,
    /// Since when its writer has been at the batch that it has in hand.
    since: Instant,
    held_up: bool,
}

impl Default for Chain {
    fn default() -> Self {
        Self { rows: VecDeque::new(), dropped: 0, since: Instant::now(), held_up: false }
    }
}

impl Chain {
    fn drop_rows(&mut self, tenant: &TenantId, count: usize) {
        if count == 0 {
            return;
        }
        if self.dropped == 0 {
            tracing::error!(%tenant, held_up = self.held_up, "no room in the audit queue: decisions are not recorded");
        }
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        metrics::audit_dropped(count);
        self.dropped = self.dropped.saturating_add(count);
    }
}

impl Queue {
    pub(super) fn new(room: usize) -> Self {
        Self { room: room.max(1), state: Mutex::default() }
    }

    /// Takes a row if there is room.
    pub(super) fn push(&self, row: Waiting) -> Pushed {
        let mut state = self.state();
        let State { chains, rows, held_up } = &mut *state;
        let tenant = row.entry.tenant.clone();
        let needs_writer = !chains.contains_key(&tenant);
        let chain = chains.entry(tenant.clone()).or_default();
        let share =
            if chain.held_up { self.share(held_up.saturating_sub(chain.rows.len())) } else { self.room };
        let taken = *rows < self.room && chain.rows.len() < share;
        if taken {
            chain.rows.push_back(row);
            *rows += 1;
            *held_up += usize::from(chain.held_up);
        } else {
            chain.drop_rows(&tenant, 1);
        }
        Pushed { taken, needs_writer }
    }

    /// The next batch of a chain, for its writer. `None`: there is nothing to write, and the writer ends.
    pub(super) fn take(&self, tenant: &TenantId) -> Option<Batch> {
        let mut state = self.state();
        let chain = state.chains.get_mut(tenant)?;
        let batch: Vec<_> = chain.rows.drain(..chain.rows.len().min(BATCH)).collect();
        let dropped = std::mem::take(&mut chain.dropped);
        chain.since = Instant::now();
        if batch.is_empty() && dropped == 0 {
            state.chains.remove(tenant);
            return None;
        }
        state.rows -= batch.len();
        Some(Batch { rows: batch, dropped })
    }

    /// A chain waits for its key.
    pub(super) fn hold_up(&self, tenant: &TenantId) {
        let mut state = self.state();
        let State { chains, held_up, .. } = &mut *state;
        let Some(chain) = chains.get_mut(tenant).filter(|chain| !chain.held_up) else { return };
        chain.held_up = true;
        *held_up += chain.rows.len();
    }

    /// A chain does not get its key: of what it has gathered before, it keeps its share.
    pub(super) fn cut(&self, tenant: &TenantId) {
        self.hold_up(tenant);
        let mut state = self.state();
        let State { chains, rows, held_up } = &mut *state;
        let Some(chain) = chains.get_mut(tenant) else { return };
        let before = chain.rows.len();
        chain.rows.truncate(self.share(*held_up - before));
        let gone = before - chain.rows.len();
        *held_up -= gone;
        *rows -= gone;
        chain.drop_rows(tenant, gone);
    }

    /// A chain has its key.
    pub(super) fn release(&self, tenant: &TenantId) {
        let mut state = self.state();
        let State { chains, held_up, .. } = &mut *state;
        let Some(chain) = chains.get_mut(tenant).filter(|chain| chain.held_up) else { return };
        chain.held_up = false;
        *held_up -= chain.rows.len();
    }

    /// Whether a chain's writer has been at one batch for longer than this.
    pub(super) fn is_stuck(&self, tenant: &TenantId, limit: Duration) -> bool {
        self.state().chains.get(tenant).is_some_and(|chain| chain.since.elapsed() > limit)
    }

    /// What a chain that is held up may have, beside so many rows of others that are.
    fn share(&self, others: usize) -> usize {
        self.room.div_ceil(8).min((self.room / 2).saturating_sub(others))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
