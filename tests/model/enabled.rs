//! When what can happen: the guards of all actions.

use crate::action::{Action, Cause};
use crate::faults::Fault;
use crate::protocol::{Guard, Protocol};
use crate::state::{Answer, Copy, Entry, Pair, Phase, Replica, Revoking, Row, State, Status, Token};

impl Protocol {
    /// All that can happen next.
    pub(crate) fn actions(&self, state: &State) -> Vec<Action> {
        let mut actions = Vec::with_capacity(24);
        self.users(state, &mut actions);
        self.wire_and_stores(state, &mut actions);
        for index in 0..state.replicas.len() {
            self.refresh(state, index, &mut actions);
            Self::process_faults(state, index, &mut actions);
        }
        actions
    }

    /// Nothing happens any more unless somebody asks for something or something breaks.
    pub(crate) fn at_rest(&self, state: &State) -> bool {
        self.actions(state).into_iter().all(|action| action.cause() != Cause::Progress)
    }

    fn users(&self, state: &State, actions: &mut Vec<Action>) {
        let row = state.row();
        let may = |fault| state.budget.allows(fault);
        if may(Fault::Due) && row.status == Status::Active && !state.is_due() {
            actions.push(Action::RefreshDue);
        }
        if may(Fault::Consent) {
            actions.push(Action::GrantStored);
        }
        if let Some(revoking) = state.revoking {
            actions.push(match revoking {
                Revoking::Buried { .. } => Action::Revoked,
                Revoking::Moved { .. } => Action::TombstonedAgain,
            });
            if may(Fault::Crash) {
                actions.push(Action::RevokerCrashes);
            }
        } else if may(Fault::Revoke) && row.status != Status::Revoked {
            actions.push(Action::Tombstoned);
            if may(Fault::RedisUnreachable) {
                actions.push(Action::TombstoneUnreachable);
            }
        }
        for (index, pending) in state.database.outbox.iter().enumerate() {
            if !pending.told || Self::settled(state, pending.token) {
                actions.push(Action::RevocationTold(index));
            }
        }
    }

    fn wire_and_stores(&self, state: &State, actions: &mut Vec<Action>) {
        let may = |fault| state.budget.allows(fault);
        for (index, grant) in state.grants.iter().enumerate() {
            // Timings that start-up accepts let the retry after settling land inside the grace period. So it does not end
            // while the row or the outbox still has the token that needs it, or a request with that token is under way.
            let needed = grant.grace.is_some_and(|serial| {
                let is_it = |token: Token| usize::from(token.grant) == index && token.serial == serial;
                is_it(state.row().token)
                    || state.database.outbox.iter().any(|row| is_it(row.token))
                    || state.abandoned.iter().any(|token| is_it(*token))
                    || state.replicas.iter().any(|replica| is_it(replica.token))
            });
            if grant.grace.is_some() && !needed {
                actions.push(Action::GraceEnds(index));
            }
        }
        actions.extend((0..state.abandoned.len()).map(Action::ProviderActsLate));
        if may(Fault::LockLoss) {
            let permits = state.redis.entries.iter().enumerate().filter(|(_, (_, e))| *e == Entry::Permit);
            actions.extend(permits.map(|(index, _)| Action::PermitLost(index)));
        }
        let redis_is_empty = state.redis.entries.is_empty() && state.redis.tombstone.is_none();
        if may(Fault::RedisWiped) && !redis_is_empty {
            actions.push(Action::RedisWiped);
        }
        // Who writes a row without minding its version is not hurt by such writes; they matter to what a rollback undoes.
        let touch_matters = self.guard == Guard::Version || may(Fault::Rollback);
        if may(Fault::RowTouched) && touch_matters && state.row().status != Status::Revoked {
            actions.push(Action::RowTouched);
        }
        if may(Fault::Rollback) && state.before_last_commit.is_some() {
            actions.push(Action::RolledBack);
        }
    }

    fn process_faults(state: &State, index: usize, actions: &mut Vec<Action>) {
        let replica = &state.replicas[index];
        let may = |fault| state.budget.allows(fault);
        if may(Fault::Crash) && (replica.phase != Phase::Idle || replica.replays) {
            actions.push(Action::Crashes(index));
        }
        if may(Fault::DiskLoss) && replica.journal.is_some() {
            actions.push(Action::DiskLost(index));
        }
    }

    fn refresh(&self, state: &State, index: usize, actions: &mut Vec<Action>) {
        let replica = &state.replicas[index];
        let may = |fault| state.budget.allows(fault);
        match replica.phase {
            Phase::Idle if replica.replays => actions.push(Action::Replayed(index)),
            Phase::Idle => self.begin(state, index, actions),
            Phase::Permitted { .. } if !self.claim => actions.push(Action::Dispatched(index)),
            Phase::Permitted { settles } => {
                actions.push(match (Self::claimable(state, replica, settles), settles) {
                    (false, _) => Action::RaceLost(index),
                    (true, false) => Action::Claimed(index),
                    (true, true) => Action::SettleClaimed(index),
                });
            }
            Phase::Claimed => {
                actions.push(Action::Dispatched(index));
                if may(Fault::Pause) {
                    actions.push(Action::DispatchTooLate(index));
                }
            }
            Phase::Calling => {
                actions.push(Action::ProviderActs(index));
                if may(Fault::Network) {
                    actions.extend([Action::RequestLost(index), Action::TimedOut(index)]);
                }
                if may(Fault::NotSent) {
                    actions.push(Action::NotSent(index));
                }
            }
            Phase::Answering(answer) => {
                actions.push(match answer {
                    Answer::Token(_) => Action::Answered(index),
                    Answer::InvalidGrant => Action::RefusalHeard(index),
                });
                if may(Fault::Network) {
                    actions.push(Action::AnswerLost(index));
                }
            }
            Phase::Holding { copies, .. } | Phase::Stored { copies, .. } => {
                if copies.journal == Copy::Pending {
                    actions.push(Action::Journaled(index));
                }
                if copies.successor == Copy::Pending {
                    actions.push(Action::SuccessorCopied(index));
                    if may(Fault::RedisUnreachable) {
                        actions.push(Action::CopyUnreachable(index));
                    }
                }
                match replica.held() {
                    Some(pair) if matches!(replica.phase, Phase::Holding { .. }) => {
                        if copies.one_is_safe() {
                            actions.push(self.fate(state, pair, replica).action(index));
                        }
                    }
                    _ if copies.none_is_pending() => actions.push(Action::Published(index)),
                    _ => {}
                }
            }
            Phase::Refused => actions.push(self.after_refusal(state, index)),
            Phase::Unspent => actions.push(Action::Released(index)),
            Phase::Releasing => actions.push(Action::PermitDropped(index)),
        }
    }

    /// An idle replica looks at the row, and at the permit store.
    fn begin(&self, state: &State, index: usize, actions: &mut Vec<Action>) {
        let row = state.row();
        let may = |fault| state.budget.allows(fault);
        let settles = row.status == Status::Refreshing;
        let wanted = match row.status {
            Status::Active => state.is_due(),
            Status::Refreshing => self.claim_is_over(state),
            Status::NeedsReauth | Status::Revoked => false,
        };
        let buried = state.redis.tombstone == Some(row.token.grant);
        // Every active row becomes due some day, and with it a tombstone that nobody has met yet.
        if buried && (wanted || row.status == Status::Active) {
            actions.push(Action::RevokedByRefresher);
        } else if wanted && self.known_successor(state, index).is_some() {
            actions.push(Action::Adopted(index));
        } else if wanted && self.permit_is_free(state, index, settles) {
            actions.push(Action::PermitTaken(index));
        }
        let goes_on_alone =
            !(settles && self.settle_asks_redis) && Self::own_successor(state, index).is_none();
        if wanted && goes_on_alone && may(Fault::RedisUnreachable) {
            actions.push(Action::PermitUnreachable(index));
        }
        if settles && !wanted && may(Fault::SettledTooEarly) && self.known_successor(state, index).is_none() {
            actions.push(Action::SettledTooEarly(index));
        }
    }

    /// The outcome of the row's claim will not become known any more by itself.
    fn claim_is_over(&self, state: &State) -> bool {
        let row = state.row();
        if self.hold {
            return Self::settled(state, row.token);
        }
        // The mutant: it is enough that its owner has given up, or is dead.
        !state.replicas.iter().any(|replica| replica.moves(row.token) && replica.epoch == row.epoch)
    }

    /// "The settling time of this token has passed", without a clock: nothing that came of a presentation of it still moves.
    /// A dead process is back within that time and has replayed its journal, or its disk is lost.
    pub(crate) fn settled(state: &State, token: Token) -> bool {
        !state.abandoned.contains(&token)
            && !state.replicas.iter().any(|replica| {
                let replays =
                    replica.replays && replica.journal.is_some_and(|record| record.pair.parent == token);
                replica.moves(token) || replays
            })
    }

    /// The same for a permit: its time begins before the claim's.
    fn permit_is_over(&self, state: &State, token: Token) -> bool {
        let stands =
            |replica: &Replica| replica.token == token && matches!(replica.phase, Phase::Permitted { .. });
        Self::settled(state, token) && !(self.limit_from_permit && state.replicas.iter().any(stands))
    }

    fn permit_is_free(&self, state: &State, index: usize, settles: bool) -> bool {
        let token = state.row().token;
        if state.redis.entry(token) != Some(Entry::Permit) {
            return true;
        }
        let owned = state.replicas.iter().any(|replica| replica.permit == Some(token));
        if !self.claim {
            return !owned;
        }
        let own = state.replicas[index].permit == Some(token);
        self.permit_is_over(state, token)
            || (settles && !self.hold)
            || (!self.fresh_permits_last && settles)
            || (!self.own_permits_last && own)
    }

    /// What an earlier presentation of the row's token has brought, as far as this replica can know.
    pub(crate) fn known_successor(&self, state: &State, index: usize) -> Option<Pair> {
        let row = state.row();
        let in_redis = match state.redis.entry(row.token) {
            Some(Entry::Successor(pair)) if self.passes_lineage(row, pair) => Some(pair),
            _ => None,
        };
        in_redis.or_else(|| Self::own_successor(state, index))
    }

    /// The same from its own journal, where it looks when it settles.
    fn own_successor(state: &State, index: usize) -> Option<Pair> {
        let row = state.row();
        let pair = state.replicas[index].journal?.pair;
        (row.status == Status::Refreshing && pair.parent == row.token && pair.epoch > row.token_epoch)
            .then_some(pair)
    }

    fn claimable(state: &State, replica: &Replica, settles: bool) -> bool {
        let row = state.row();
        let status = if settles { Status::Refreshing } else { Status::Active };
        row.status == status && row.token == replica.token && row.epoch == replica.epoch
    }

    /// Whether the row is as this replica's claim has left it.
    pub(crate) fn still_claimed(&self, state: &State, replica: &Replica) -> bool {
        let row = state.row();
        if !self.claim {
            return row.status == Status::Active && row.token == replica.token;
        }
        row.status == Status::Refreshing && row.token == replica.token && row.epoch == replica.epoch
    }

    fn after_refusal(&self, state: &State, index: usize) -> Action {
        let unmoved = self.still_claimed(state, &state.replicas[index]);
        if !self.demote_guarded && state.row().status != Status::Revoked {
            Action::Demoted(index)
        } else if !unmoved {
            Action::RefusalIgnored(index)
        } else if self.known_successor(state, index).is_some() {
            Action::Adopted(index)
        } else {
            Action::Demoted(index)
        }
    }

    /// What becomes of a new pair.
    pub(crate) fn fate(&self, state: &State, pair: Pair, replica: &Replica) -> Fate {
        let row = state.row();
        let passes = match self.guard {
            Guard::Lineage => self.passes_lineage(row, pair),
            Guard::Version => row.status != Status::Revoked && row.version == replica.version,
            Guard::None => true,
        };
        if passes {
            Fate::Stored
        } else if self.compensation && state.is_revoked(pair.parent.grant) {
            Fate::Compensated
        } else {
            Fate::Discarded
        }
    }

    /// The guard of the write: the pair descends from the row's token or from that token's parent, by a later claim.
    pub(crate) fn passes_lineage(&self, row: &Row, pair: Pair) -> bool {
        row.status != Status::Revoked
            && row.token_epoch < pair.epoch
            && row.token.grant == pair.parent.grant
            && (row.token == pair.parent || row.parent == Some(pair.parent))
    }
}

/// See [`Protocol::fate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Stored,
    Compensated,
    Discarded,
}

impl Fate {
    fn action(self, index: usize) -> Action {
        match self {
            Self::Stored => Action::Persisted(index),
            Self::Compensated => Action::Compensated(index),
            Self::Discarded => Action::Discarded(index),
        }
    }
}
