//! What each action does. The refresh itself is in `refresh.rs`, revoke and consent are in `revoke.rs`; here are the wire,
//! the provider and the faults.

use crate::action::{Action, Cause};
use crate::faults::{Fault, note_loss};
use crate::protocol::{Guard, Protocol, Provider};
use crate::state::{Answer, Copy, GrantEnd, Phase, Revoking, State, Token};

impl Protocol {
    /// The state after an action, its replicas in canonical order, and where each of them stood before.
    pub(crate) fn after(&self, state: &State, action: Action) -> (State, Vec<usize>) {
        let mut next = state.clone();
        if let Cause::Fault(fault) = action.cause() {
            next.budget.spend(fault);
        }
        self.apply(&mut next, action);
        if !next.budget.allows(Fault::Rollback) {
            next.before_last_commit = None;
        }
        let order = next.canonical();
        (next, order)
    }

    fn apply(&self, state: &mut State, action: Action) {
        match action {
            Action::PermitTaken(index) => self.take_permit(state, index),
            Action::RaceLost(index) => self.end_task(state, index),
            Action::Claimed(index) | Action::SettleClaimed(index) => self.claim_row(state, index),
            Action::Dispatched(index) => self.dispatch(state, index),
            Action::Answered(index) => self.take_answer(state, index),
            Action::Journaled(index) => Self::append_to_journal(state, index),
            Action::SuccessorCopied(index) => self.copy_successor(state, index),
            Action::Persisted(index) => self.persist(state, index),
            Action::Compensated(index) => self.compensate(state, index),
            Action::Discarded(index) => self.discard(state, index),
            Action::Published(index) => self.publish(state, index),
            Action::Adopted(index) => self.adopt(state, index),
            Action::Released(index) => self.release(state, index),
            Action::PermitDropped(index) => self.drop_permit(state, index),
            Action::RefusalHeard(index) => state.replicas[index].phase = Phase::Refused,
            Action::RefusalIgnored(index) => self.end_task(state, index),
            Action::Demoted(index) => self.demote(state, index),
            Action::Replayed(index) => self.replay(state, index),

            Action::Tombstoned => self.bury(state),
            Action::TombstonedAgain => self.bury_again(state),
            Action::TombstoneUnreachable => {
                state.budget.spend(Fault::Revoke);
                state.revoking = Some(Revoking::Buried { grant: state.row().token.grant });
            }
            Action::Revoked => self.revoke_for_user(state),
            Action::RevokedByRefresher => self.revoke(state),
            Action::RevokerCrashes => state.revoking = None,
            Action::RevocationTold(index) => self.tell_provider(state, index),
            Action::GrantStored => self.store_grant(state),

            Action::ProviderActs(index) => {
                let answer = self.present(state, state.replicas[index].token);
                state.replicas[index].phase = Phase::Answering(answer);
            }
            Action::ProviderActsLate(index) => {
                let token = state.abandoned.remove(index);
                self.present(state, token);
                note_loss(state);
            }
            Action::GraceEnds(index) => state.grants[index].grace = None,
            Action::RefreshDue => {
                let row = state.row();
                state.expired = Some((row.token.grant, row.token_epoch));
            }

            Action::Crashes(index) => Self::crash(state, index),
            Action::PermitLost(index) => {
                let (token, _) = state.redis.entries.remove(index);
                forget_owner(state, token);
            }
            Action::DispatchTooLate(index) | Action::NotSent(index) => {
                state.replicas[index].phase = Phase::Unspent;
            }
            Action::RequestLost(index) => self.give_up(state, index),
            Action::TimedOut(index) => {
                abandon(state, state.replicas[index].token);
                self.give_up(state, index);
            }
            Action::AnswerLost(index) => {
                self.give_up(state, index);
                note_loss(state);
            }
            Action::PermitUnreachable(index) => Self::go_without_permit(state, index),
            Action::SettledTooEarly(index) => self.take_permit(state, index),
            Action::CopyUnreachable(index) => {
                if let Phase::Holding { copies, .. } | Phase::Stored { copies, .. } =
                    &mut state.replicas[index].phase
                {
                    copies.successor = Copy::Failed;
                }
            }
            Action::RedisWiped => {
                state.redis.entries.clear();
                state.redis.tombstone = None;
                for replica in &mut state.replicas {
                    replica.permit = None;
                }
                note_loss(state);
            }
            Action::RowTouched => self.commit(state),
            Action::RolledBack => {
                if let Some(database) = state.before_last_commit.take() {
                    state.database = database;
                }
            }
            Action::DiskLost(index) => {
                state.replicas[index].journal = None;
                state.replicas[index].replays = false;
                note_loss(state);
            }
        }
    }

    /// Called before a write of the database: from here on a rollback would undo that write.
    pub(crate) fn commit(&self, state: &mut State) {
        if state.budget.allows(Fault::Rollback) {
            state.before_last_commit = Some(state.database.clone());
        }
        if self.guard == Guard::Version {
            state.database.row.version += 1;
        }
    }

    /// The provider looks at a refresh token.
    fn present(&self, state: &mut State, token: Token) -> Answer {
        let grant = &mut state.grants[usize::from(token.grant)];
        if grant.end != GrantEnd::Alive {
            return Answer::InvalidGrant;
        }
        let serial = if self.provider == Provider::NonRotating {
            grant.live
        } else if token.serial == grant.live {
            grant.grace = self.provider.has_grace().then_some(grant.live);
            grant.issued += 1;
            grant.live = grant.issued;
            grant.live
        } else if grant.grace == Some(token.serial) {
            if self.provider == Provider::GraceNew {
                grant.issued += 1;
                grant.live = grant.issued;
            }
            grant.live
        } else {
            if self.provider != Provider::StrictNoKill {
                grant.end = GrantEnd::Reuse;
            }
            return Answer::InvalidGrant;
        };
        Answer::Token(Token { grant: token.grant, serial })
    }

    /// The outcome of a call stays unknown to its caller.
    fn give_up(&self, state: &mut State, index: usize) {
        if self.provider.rotates() {
            // The row stays `refreshing` until it is settled.
            self.end_task(state, index);
        } else {
            // Presenting it again does no harm.
            state.replicas[index].phase = Phase::Unspent;
        }
    }

    fn crash(state: &mut State, index: usize) {
        let replica = &mut state.replicas[index];
        let calling = (replica.phase == Phase::Calling).then_some(replica.token);
        replica.permit = None;
        replica.replays = replica.journal.is_some();
        replica.rest();
        if let Some(token) = calling {
            abandon(state, token);
        }
        note_loss(state);
    }
}

fn abandon(state: &mut State, token: Token) {
    state.abandoned.push(token);
    state.abandoned.sort_unstable();
}

/// The permit of this token is nobody's any more.
pub(crate) fn forget_owner(state: &mut State, token: Token) {
    for replica in &mut state.replicas {
        if replica.permit == Some(token) {
            replica.permit = None;
        }
    }
}
