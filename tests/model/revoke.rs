//! Revoke and consent.

use crate::protocol::{Protocol, Provider};
use crate::state::{Entry, Grant, GrantEnd, Revoking, Row, State, Status, Token, bit};

impl Protocol {
    /// Before the transaction, so that a database that forgets it is reminded by whoever refreshes next.
    pub(crate) fn bury(&self, state: &mut State) {
        let grant = state.row().token.grant;
        if self.tombstone {
            state.redis.tombstone = Some(grant);
        }
        state.revoking = Some(Revoking::Buried { grant });
    }

    /// The transaction for the user, who is then told: the ack point. It revokes what the row has, which may be a grant that
    /// was not there when the tombstone was made.
    pub(crate) fn revoke_for_user(&self, state: &mut State) {
        let grant = state.row().token.grant;
        self.revoke(state);
        if self.bury_again && state.revoking != Some(Revoking::Buried { grant }) {
            state.revoking = Some(Revoking::Moved { grant });
        } else {
            acknowledge(state, grant);
        }
    }

    pub(crate) fn bury_again(&self, state: &mut State) {
        if let Some(Revoking::Moved { grant }) = state.revoking {
            if self.tombstone {
                state.redis.tombstone = Some(grant);
            }
            acknowledge(state, grant);
        }
    }

    /// One transaction: the row is revoked, its token is in the outbox. A revoked row is left alone.
    pub(crate) fn revoke(&self, state: &mut State) {
        if state.row().status == Status::Revoked {
            return;
        }
        let token = state.row().token;
        self.enqueue(state, token);
        state.database.revoked |= bit(token.grant);
        let row = &mut state.database.row;
        row.status = Status::Revoked;
        row.epoch += 1;
    }

    /// Tells the provider with the newest token of the grant that is known. That it was told is written down afterwards; a
    /// crash between the two tells it once more, which does no harm, so here it is one step that no rollback undoes.
    pub(crate) fn tell_provider(&self, state: &mut State, index: usize) {
        let pending = state.database.outbox[index];
        let mut token = pending.token;
        while let Some(Entry::Successor(pair)) = state.redis.entry(token) {
            if pair.child == token {
                break;
            }
            token = pair.child;
        }
        self.revoke_at_provider(state, token);
        if self.tell_again && !Self::settled(state, pending.token) {
            state.database.outbox[index].told = true;
        } else {
            state.database.outbox.remove(index);
        }
    }

    /// The provider revokes the grant of a token that it would accept.
    pub(crate) fn revoke_at_provider(&self, state: &mut State, token: Token) {
        let grant = &mut state.grants[usize::from(token.grant)];
        let good = token.serial == grant.live
            || grant.grace == Some(token.serial)
            || self.provider == Provider::NonRotating;
        if grant.end == GrantEnd::Alive && good {
            grant.end = GrantEnd::Revoked;
        }
    }

    /// A new consent's first token: another grant, whose tokens do not descend from the former one's.
    pub(crate) fn store_grant(&self, state: &mut State) {
        self.commit(state);
        let grant = u8::try_from(state.grants.len()).unwrap_or(u8::MAX);
        state.grants.push(Grant { live: 1, issued: 1, grace: None, end: GrantEnd::Alive, lost: false });
        let row = &mut state.database.row;
        let epoch = row.epoch + 1;
        *row = Row {
            status: Status::Active,
            token: Token { grant, serial: 1 },
            parent: None,
            token_epoch: epoch,
            epoch,
            generation: row.generation + 1,
            version: row.version,
        };
    }
}

fn acknowledge(state: &mut State, grant: u8) {
    state.revoking = None;
    state.ghosts.acknowledged |= bit(grant);
}
