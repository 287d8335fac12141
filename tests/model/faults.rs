//! What may go wrong, and what users may do: each so many times in a run.

use crate::state::{Answer, Entry, GrantEnd, Phase, State, Token};

/// An event that the protocol does not choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Fault {
    /// The access token is about to expire.
    Due,
    /// The user revokes.
    Revoke,
    /// The user consents anew.
    Consent,
    /// A process dies; its journal and its requests live on.
    Crash,
    /// The permit store forgets one permit (fail-over to a replica that had not heard of it).
    LockLoss,
    /// A process is paused between claim and dispatch until it is too late to dispatch.
    Pause,
    /// A request is lost, an answer is lost, or the caller stops waiting while the request goes on.
    Network,
    /// A request is certainly not sent, or the provider says that it did not look at it (429).
    NotSent,
    /// The permit store does not answer once.
    RedisUnreachable,
    /// The permit store forgets everything.
    RedisWiped,
    /// A write of the row that has nothing to do with its tokens.
    RowTouched,
    /// The database forgets its last commit (fail-over without synchronous replication).
    Rollback,
    /// A replica's journal is lost.
    DiskLoss,
    /// A pause longer than the settling time: somebody settles while the first presentation is still under way.
    SettledTooEarly,
}

impl Fault {
    pub(crate) const COUNT: usize = Self::ALL.len();

    pub(crate) const ALL: [Self; 14] = [
        Self::Due,
        Self::Revoke,
        Self::Consent,
        Self::Crash,
        Self::LockLoss,
        Self::Pause,
        Self::Network,
        Self::NotSent,
        Self::RedisUnreachable,
        Self::RedisWiped,
        Self::RowTouched,
        Self::Rollback,
        Self::DiskLoss,
        Self::SettledTooEarly,
    ];
}

/// How often each may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Budget([u8; Fault::COUNT]);

impl Budget {
    /// Two refreshes become due, nothing goes wrong.
    pub(crate) fn two_refreshes() -> Self {
        Self::default().with(Fault::Due, 2)
    }

    /// The same with so many of this.
    pub(crate) fn with(mut self, fault: Fault, times: u8) -> Self {
        self.0[fault as usize] = times;
        self
    }

    /// The same with one of each.
    pub(crate) fn once_each(self, faults: &[Fault]) -> Self {
        faults.iter().fold(self, |budget, fault| budget.with(*fault, 1))
    }

    pub(crate) fn allows(&self, fault: Fault) -> bool {
        self.0[fault as usize] > 0
    }

    pub(crate) fn spend(&mut self, fault: Fault) {
        self.0[fault as usize] -= 1;
    }
}

/// Marks the grants whose live token was known before a fault and is nowhere after it. This is the loss that no protocol
/// can prevent: the window between the provider's rotation and the first durable copy, or the loss of that copy itself.
///
/// It is asked only after a crash, an answer that reaches nobody, a lost disk and a wiped Redis. A rollback of the database,
/// a lost lock or a pause never excuses a loss.
pub(crate) fn note_loss(state: &mut State) {
    for index in 0..state.grants.len() {
        let number = u8::try_from(index).unwrap_or(u8::MAX);
        let grant = &state.grants[index];
        let known = |serial| is_somewhere(state, Token { grant: number, serial });
        if grant.end == GrantEnd::Alive && !known(grant.live) && !grant.grace.is_some_and(known) {
            state.grants[index].lost = true;
        }
    }
}

fn is_somewhere(state: &State, token: Token) -> bool {
    let database = &state.database;
    database.row.token == token
        || database.outbox.iter().any(|row| row.token == token)
        || state.redis.entries.iter().any(|(_, entry)| match entry {
            Entry::Permit => false,
            Entry::Successor(pair) => pair.child == token,
        })
        || state.replicas.iter().any(|replica| {
            replica.phase == Phase::Answering(Answer::Token(token))
                || replica.held().is_some_and(|pair| pair.child == token)
                || replica.journal.is_some_and(|record| record.pair.child == token)
        })
}
