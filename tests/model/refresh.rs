//! A refresh, step by step, in the order of the algorithm. When each step may be taken is in `enabled.rs`.

use crate::apply::forget_owner;
use crate::enabled::Fate;
use crate::protocol::Protocol;
use crate::state::{
    Answer, Copies, Copy, Entry, OutboxRow, Pair, Phase, Record, Replica, State, Status, Token,
};

impl Protocol {
    /// Reads the row and takes the permit for its token.
    pub(crate) fn take_permit(&self, state: &mut State, index: usize) {
        let token = state.row().token;
        self.put_entry(state, token, Entry::Permit);
        state.replicas[index].permit = Some(token);
        Self::go_without_permit(state, index);
    }

    /// Reads the row, and goes on without word from the permit store: the claim alone has to do.
    pub(crate) fn go_without_permit(state: &mut State, index: usize) {
        let row = *state.row();
        let replica = &mut state.replicas[index];
        replica.phase = Phase::Permitted { settles: row.status == Status::Refreshing };
        replica.token = row.token;
        replica.epoch = row.epoch;
        replica.version = row.version;
    }

    /// Records in the row that its token may be spent from now on.
    pub(crate) fn claim_row(&self, state: &mut State, index: usize) {
        self.commit(state);
        let row = &mut state.database.row;
        row.status = Status::Refreshing;
        row.epoch += 1;
        let replica = &mut state.replicas[index];
        replica.phase = Phase::Claimed;
        replica.epoch = row.epoch;
        replica.version = row.version;
    }

    pub(crate) fn dispatch(&self, state: &mut State, index: usize) {
        let token = state.replicas[index].token;
        let calls = |replica: &Replica| {
            replica.token == token && matches!(replica.phase, Phase::Calling | Phase::Answering(_))
        };
        if self.provider.rotates() && (state.abandoned.contains(&token) || state.replicas.iter().any(calls)) {
            state.ghosts.overlap = true;
        }
        state.replicas[index].phase = Phase::Calling;
    }

    pub(crate) fn take_answer(&self, state: &mut State, index: usize) {
        if let Phase::Answering(Answer::Token(child)) = state.replicas[index].phase {
            let copies = if self.copies { Copies::NONE } else { Copies::UNUSED };
            state.replicas[index].phase = Phase::Holding { child, copies };
        }
    }

    /// One of the two copies that are made in parallel.
    pub(crate) fn append_to_journal(state: &mut State, index: usize) {
        let replica = &mut state.replicas[index];
        let Some(pair) = replica.held() else { return };
        let stored = matches!(replica.phase, Phase::Stored { .. });
        replica.journal = Some(Record { pair, stored });
        if let Phase::Holding { copies, .. } | Phase::Stored { copies, .. } = &mut replica.phase {
            copies.journal = Copy::Done;
        }
    }

    /// The other one: the permit becomes the successor.
    pub(crate) fn copy_successor(&self, state: &mut State, index: usize) {
        let Some(pair) = state.replicas[index].held() else { return };
        self.keep_successor(state, pair);
        if let Phase::Holding { copies, .. } | Phase::Stored { copies, .. } = &mut state.replicas[index].phase
        {
            copies.successor = Copy::Done;
        }
    }

    pub(crate) fn persist(&self, state: &mut State, index: usize) {
        let Some(pair) = state.replicas[index].held() else { return };
        self.write(state, pair);
        acknowledge(&mut state.replicas[index]);
    }

    /// The grant was revoked meanwhile: what was obtained is revoked, too.
    pub(crate) fn compensate(&self, state: &mut State, index: usize) {
        let Some(pair) = state.replicas[index].held() else { return };
        self.enqueue(state, pair.child);
        acknowledge(&mut state.replicas[index]);
    }

    /// Another grant, or a later token of this one, is in the row.
    pub(crate) fn discard(&self, state: &mut State, index: usize) {
        let Some(pair) = state.replicas[index].held() else { return };
        note_discard(state, pair);
        acknowledge(&mut state.replicas[index]);
    }

    pub(crate) fn publish(&self, state: &mut State, index: usize) {
        if !self.keep_successors {
            state.redis.remove(state.replicas[index].token);
        }
        self.end_task(state, index);
    }

    /// The row takes over what an earlier presentation has brought.
    pub(crate) fn adopt(&self, state: &mut State, index: usize) {
        if let Some(pair) = self.known_successor(state, index) {
            self.write(state, pair);
        }
        self.end_task(state, index);
    }

    /// The token was not spent: the row is active again.
    pub(crate) fn release(&self, state: &mut State, index: usize) {
        if self.still_claimed(state, &state.replicas[index]) {
            self.commit(state);
            state.database.row.status = Status::Active;
        }
        state.replicas[index].phase = Phase::Releasing;
    }

    /// And its permit is given back, if it is still this process's.
    pub(crate) fn drop_permit(&self, state: &mut State, index: usize) {
        let token = state.replicas[index].token;
        if state.replicas[index].permit == Some(token) {
            state.redis.remove(token);
            state.replicas[index].permit = None;
        }
        self.end_task(state, index);
    }

    pub(crate) fn demote(&self, state: &mut State, index: usize) {
        if !self.still_claimed(state, &state.replicas[index]) {
            state.ghosts.demoted_moved = true;
        }
        self.commit(state);
        state.database.row.status = Status::NeedsReauth;
        self.end_task(state, index);
    }

    /// A restarted process looks through its journal: publish the successor, persist, forget.
    pub(crate) fn replay(&self, state: &mut State, index: usize) {
        let Some(record) = state.replicas[index].journal else { return };
        self.keep_successor(state, record.pair);
        match self.fate(state, record.pair, &state.replicas[index]) {
            Fate::Stored => self.write(state, record.pair),
            Fate::Compensated => self.enqueue(state, record.pair.child),
            Fate::Discarded => note_discard(state, record.pair),
        }
        state.replicas[index].journal = None;
        state.replicas[index].replays = false;
    }

    /// The refresh is over for this process. Only a plain lock is unlocked.
    pub(crate) fn end_task(&self, state: &mut State, index: usize) {
        if !self.claim
            && let Some(token) = state.replicas[index].permit.take()
        {
            state.redis.remove(token);
        }
        state.replicas[index].rest();
    }

    /// Stores a pair that has passed the guard.
    fn write(&self, state: &mut State, pair: Pair) {
        self.commit(state);
        let row = &mut state.database.row;
        let same_grant = row.token.grant == pair.child.grant;
        if same_grant && (row.token.serial > pair.child.serial || row.token_epoch > pair.epoch) {
            state.ghosts.went_back = true;
        }
        row.status = Status::Active;
        row.token = pair.child;
        row.parent = Some(pair.parent);
        row.token_epoch = pair.epoch;
        if self.raise_epoch {
            row.epoch = row.epoch.max(pair.epoch);
        }
        row.generation += 1;
    }

    /// Writes what came of a token in the place of its permit, unless something later stands there.
    fn keep_successor(&self, state: &mut State, pair: Pair) {
        let later = match state.redis.entry(pair.parent) {
            Some(Entry::Successor(there)) => there.epoch > pair.epoch,
            _ => false,
        };
        if !later {
            self.put_entry(state, pair.parent, Entry::Successor(pair));
        }
    }

    fn put_entry(&self, state: &mut State, token: Token, entry: Entry) {
        if !self.entry_per_token {
            state.redis.entries.clear();
        }
        state.redis.set(token, entry);
        forget_owner(state, token);
    }

    /// A durable order to tell the provider.
    pub(crate) fn enqueue(&self, state: &mut State, token: Token) {
        self.commit(state);
        let outbox = &mut state.database.outbox;
        if !outbox.iter().any(|row| row.token == token) {
            outbox.push(OutboxRow { token, told: false });
            outbox.sort_unstable();
        }
    }
}

/// The database has answered: the record needs no replay unless the database forgets.
fn acknowledge(replica: &mut Replica) {
    let held = replica.held();
    if let Some(record) = &mut replica.journal
        && Some(record.pair) == held
    {
        record.stored = true;
    }
    if let Phase::Holding { child, copies } = replica.phase {
        replica.phase = Phase::Stored { child, copies };
    }
}

fn note_discard(state: &mut State, pair: Pair) {
    let row = state.row();
    let wanted = row.status != Status::Revoked && row.token == pair.parent && row.token != pair.child;
    if wanted {
        state.ghosts.discarded = true;
    }
}
