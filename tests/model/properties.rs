//! What must hold in every state, and what must be possible. The names are those of the invariants of the protocol.

use crate::faults::Fault;
use crate::protocol::Protocol;
use crate::state::{GrantEnd, State, Status, Token, bit};

/// A named condition on states.
pub(crate) struct Property {
    pub(crate) name: &'static str,
    pub(crate) holds: fn(&Protocol, &State) -> bool,
}

/// Must hold in every state. Conditions on states at rest look at the cheap part first.
pub(crate) const ALWAYS: &[Property] = &[
    Property {
        name: "I1: calls that present one refresh token never overlap",
        holds: |_, state| !state.ghosts.overlap,
    },
    Property {
        name: "I1b: no grant ends by the broker's own reuse, except after a loss in the window",
        holds: |_, state| state.grants.iter().all(|grant| grant.end != GrantEnd::Reuse || grant.lost),
    },
    Property { name: "I2: the stored token never goes back", holds: |_, state| !state.ghosts.went_back },
    Property { name: "I3: after Revoke's ack the grant is in no row", holds: revoked_stays_revoked },
    Property { name: "I3b: at rest a revoked grant is dead at the provider", holds: no_orphan },
    Property {
        name: "I5: at rest the row has the provider's live token, except after a loss in the window",
        holds: live_at_rest,
    },
    Property {
        name: "I7: no new pair is thrown away while its parent is in the row",
        holds: |_, state| !state.ghosts.discarded,
    },
    Property {
        name: "I8: a refusal never demotes a row that has moved",
        holds: |_, state| !state.ghosts.demoted_moved,
    },
    Property { name: "L: at rest nothing is left undone", holds: nothing_is_stuck },
    Property {
        name: "G: a grace period heals every loss in the window",
        holds: |protocol, state| !protocol.provider.has_grace() || !state.row_grant().lost,
    },
];

/// Must be possible.
pub(crate) const SOMETIMES: &[Property] = &[
    Property {
        name: "two rotations complete",
        holds: |_, state| state.row().status == Status::Active && state.row().generation >= 3,
    },
    Property {
        name: LOSS,
        holds: |_, state| state.row().status == Status::NeedsReauth && state.row_grant().lost,
    },
    Property {
        name: "a lost answer is healed",
        holds: |protocol, state| {
            let lost = protocol.budget.allows(Fault::Network) && !state.budget.allows(Fault::Network);
            lost && state.row().status == Status::Active && state.row().token_epoch >= 2
        },
    },
    Property {
        name: "a revoked grant is dead at the provider, and a new consent works",
        holds: |_, state| {
            state.grants[0].end == GrantEnd::Revoked
                && state.row().token.grant == 1
                && state.row().generation >= 3
        },
    },
];

/// The loss that no protocol can prevent at a strict provider.
pub(crate) const LOSS: &str = "a loss in the window asks the user to consent again";

/// A database that has lost the commit is reminded by the tombstone.
fn revoked_stays_revoked(protocol: &Protocol, state: &State) -> bool {
    let row = state.row();
    let grant = row.token.grant;
    let rolled_back = protocol.budget.allows(Fault::Rollback) && !state.budget.allows(Fault::Rollback);
    state.ghosts.acknowledged & bit(grant) == 0
        || row.status == Status::Revoked
        || (rolled_back && state.redis.tombstone == Some(grant))
}

fn no_orphan(protocol: &Protocol, state: &State) -> bool {
    let orphan = |(index, grant): (usize, &crate::state::Grant)| {
        state.ghosts.acknowledged & (1 << index) != 0 && grant.end == GrantEnd::Alive && !grant.lost
    };
    !state.grants.iter().enumerate().any(orphan) || !protocol.at_rest(state)
}

fn live_at_rest(protocol: &Protocol, state: &State) -> bool {
    let (row, grant) = (state.row(), state.row_grant());
    let live = Token { grant: row.token.grant, serial: grant.live };
    let good = match row.status {
        Status::Revoked => true,
        // A database that has lost a revoke, and hears of it from the provider.
        Status::NeedsReauth => grant.end == GrantEnd::Revoked,
        Status::Active | Status::Refreshing => grant.end == GrantEnd::Alive && row.token == live,
    };
    good || grant.lost || !protocol.at_rest(state)
}

fn nothing_is_stuck(protocol: &Protocol, state: &State) -> bool {
    let row = state.row();
    let undone = row.status == Status::Refreshing || state.is_due();
    !undone || !protocol.at_rest(state)
}
