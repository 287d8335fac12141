//! The points of the refresh protocol between which a process may die: one name each, the same in the algorithm
//! (`application/refresh.rs` and its neighbours) and in the fault tests that kill there.

use super::key::CredentialId;

/// What has just happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// The permit store gave this process the permit for a refresh token.
    PermitTaken,
    /// The row is `refreshing` under a new epoch of this process.
    Claimed,
    /// The row, whose earlier claim had passed its settling time, is claimed anew for the last chance.
    SettleClaimed,
    /// The request to the provider is about to leave.
    Dispatched,
    /// The provider's answer is in memory, and nowhere else.
    Answered,
    /// The journal has the new pair on the disk.
    Journaled,
    /// The permit store has the new pair as the successor of the presented token.
    SuccessorCopied,
    /// The row has the new pair.
    Persisted,
    /// Waiters were told.
    Published,
    /// The row took over a pair that an earlier presentation had left in the journal or the permit store.
    Adopted,
    /// The token was not spent: the row is `active` again, with a back-off.
    Released,
    /// The provider called the grant dead: the row is `needs_reauth`.
    Demoted,
    /// The permit store knows that the grant is revoked.
    Tombstoned,
    /// The row is `revoked`, its tokens are in the outbox.
    Revoked,
    /// The provider was told of a revocation; the outbox does not know yet.
    RevocationTold,
    /// A record of a dead process's journal has been replayed.
    Replayed,
    /// A new consent's tokens are in the row.
    GrantStored,
}

impl Step {
    /// All, in the order of the algorithm.
    pub const ALL: [Self; 17] = [
        Self::PermitTaken,
        Self::Claimed,
        Self::SettleClaimed,
        Self::Dispatched,
        Self::Answered,
        Self::Journaled,
        Self::SuccessorCopied,
        Self::Persisted,
        Self::Published,
        Self::Adopted,
        Self::Released,
        Self::Demoted,
        Self::Tombstoned,
        Self::Revoked,
        Self::RevocationTold,
        Self::Replayed,
        Self::GrantStored,
    ];

    /// In snake case, as the fault tests write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PermitTaken => "permit_taken",
            Self::Claimed => "claimed",
            Self::SettleClaimed => "settle_claimed",
            Self::Dispatched => "dispatched",
            Self::Answered => "answered",
            Self::Journaled => "journaled",
            Self::SuccessorCopied => "successor_copied",
            Self::Persisted => "persisted",
            Self::Published => "published",
            Self::Adopted => "adopted",
            Self::Released => "released",
            Self::Demoted => "demoted",
            Self::Tombstoned => "tombstoned",
            Self::Revoked => "revoked",
            Self::RevocationTold => "revocation_told",
            Self::Replayed => "replayed",
            Self::GrantStored => "grant_stored",
        }
    }
}

/// Hears of every step. The service itself listens to none; fault tests end the process there.
pub trait Steps: Send + Sync {
    /// Called on the task that took the step, right after it.
    fn reached(&self, step: Step, credential: CredentialId);
}

/// Hears nothing.
pub struct NoSteps;

impl Steps for NoSteps {
    fn reached(&self, _: Step, _: CredentialId) {}
}
