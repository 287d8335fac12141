//! The protocol and its variants: what is built, and the mutants that prove that each of its parts is needed.

use crate::faults::Budget;

/// How a provider treats a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provider {
    /// Each is good once; a second presentation ends the grant.
    StrictKill,
    /// Each is good once; a second presentation is refused.
    StrictNoKill,
    /// For a while a second presentation gets the same answer again; then it ends the grant.
    GraceSame,
    /// For a while a second presentation gets a new token, and the one given before dies; then it ends the grant.
    GraceNew,
    /// A refresh token stays as it is.
    NonRotating,
}

impl Provider {
    pub(crate) const ALL: [Self; 5] =
        [Self::StrictKill, Self::StrictNoKill, Self::GraceSame, Self::GraceNew, Self::NonRotating];

    pub(crate) fn rotates(self) -> bool {
        self != Self::NonRotating
    }

    pub(crate) fn has_grace(self) -> bool {
        matches!(self, Self::GraceSame | Self::GraceNew)
    }
}

/// What the write of a new pair asks of the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The pair descends from the row's token or that token's parent, under a later claim.
    Lineage,
    /// The row was not written since the claim.
    Version,
    /// Nothing.
    None,
}

/// A protocol: the one that is built is [`Protocol::built`], all others are mutants of it.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    pub(crate) name: &'static str,
    pub(crate) replicas: usize,
    pub(crate) provider: Provider,
    pub(crate) budget: Budget,

    /// The row records before the call that the token may be spent. Without it the permit is a plain lock: freed at the end,
    /// and free when its owner is dead.
    pub(crate) claim: bool,
    /// A claim whose outcome is unknown is held until it has settled. Without it, it is free when it expires.
    pub(crate) hold: bool,
    pub(crate) guard: Guard,
    /// The write raises the row's epoch to the claim's, which a rollback may have taken from it. Otherwise the next claim gets
    /// the same number again, and what it brings would look as old as what the row has.
    pub(crate) raise_epoch: bool,
    /// New pairs go to the journal and to the permit store before the row.
    pub(crate) copies: bool,
    /// The permit store has an entry for each refresh token. Without it, one for the credential.
    pub(crate) entry_per_token: bool,
    /// A successor stays after the row has it.
    pub(crate) keep_successors: bool,
    /// What was obtained for a grant that was revoked meanwhile is revoked.
    pub(crate) compensation: bool,
    /// A revocation is told once more after a refresh that was under way has settled, by the newest token known then.
    pub(crate) tell_again: bool,
    /// Revoke leaves a tombstone before its transaction.
    pub(crate) tombstone: bool,
    /// And another one after it, if the transaction found another grant than the one that was buried.
    pub(crate) bury_again: bool,
    /// A refusal demotes only the row that was refused.
    pub(crate) demote_guarded: bool,
    /// A last chance waits for word from the permit store, which may have the only copy of the successor. An ordinary refresh
    /// does not: a row that is active says that there is none.
    pub(crate) settle_asks_redis: bool,
    /// The time in which a token may be dispatched begins with its permit, not with its claim. So who has a permit that is past
    /// its time does not dispatch any more.
    pub(crate) limit_from_permit: bool,
    /// A permit that is not past its own settling time is not taken over by somebody who settles the row.
    pub(crate) fresh_permits_last: bool,
    /// Nor does it let its owner present the token once more.
    pub(crate) own_permits_last: bool,
    /// Properties, by the beginnings of their names, that a known limit breaks as a matter of course, so that the search goes
    /// on to what comes of it.
    pub(crate) excused: &'static [&'static str],
}

impl Protocol {
    /// The protocol as it is built.
    pub(crate) fn built(name: &'static str, replicas: usize, provider: Provider, budget: Budget) -> Self {
        Self {
            name,
            replicas,
            provider,
            budget,
            claim: true,
            hold: true,
            guard: Guard::Lineage,
            raise_epoch: true,
            copies: true,
            entry_per_token: true,
            keep_successors: true,
            compensation: true,
            tell_again: true,
            tombstone: true,
            bury_again: true,
            demote_guarded: true,
            settle_asks_redis: true,
            limit_from_permit: true,
            fresh_permits_last: true,
            own_permits_last: true,
            excused: &[],
        }
    }
}
