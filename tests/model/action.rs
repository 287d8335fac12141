//! What can happen next. The protocol's own actions come first and bear the names of its steps; the names of the steps that
//! have one in the code are in `step_names.rs`.

use crate::faults::Fault;

/// A replica, by its place in [`crate::state::State::replicas`].
pub(crate) type Index = usize;

/// One atomic thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    // Refresh, in the order of the algorithm.
    PermitTaken(Index),
    RaceLost(Index),
    Claimed(Index),
    SettleClaimed(Index),
    Dispatched(Index),
    Answered(Index),
    Journaled(Index),
    SuccessorCopied(Index),
    Persisted(Index),
    Compensated(Index),
    Discarded(Index),
    Published(Index),
    Adopted(Index),
    Released(Index),
    PermitDropped(Index),
    RefusalHeard(Index),
    RefusalIgnored(Index),
    Demoted(Index),
    Replayed(Index),

    // Revoke and consent. They run on some replica; which one does not matter.
    Tombstoned,
    Revoked,
    /// The transaction has revoked another grant than the one that was buried before it: that one is buried, too.
    TombstonedAgain,
    /// A refresher has met a tombstone of the grant that the row still has, and does the revoke's transaction again.
    RevokedByRefresher,
    /// Of that row of the outbox.
    RevocationTold(usize),
    GrantStored,

    // The provider, and time.
    ProviderActs(Index),
    /// On that abandoned request.
    ProviderActsLate(usize),
    /// Of that grant.
    GraceEnds(usize),
    RefreshDue,

    // Faults.
    Crashes(Index),
    RevokerCrashes,
    /// Of that entry of the permit store.
    PermitLost(usize),
    DispatchTooLate(Index),
    RequestLost(Index),
    AnswerLost(Index),
    TimedOut(Index),
    NotSent(Index),
    PermitUnreachable(Index),
    CopyUnreachable(Index),
    TombstoneUnreachable,
    RedisWiped,
    RowTouched,
    RolledBack,
    DiskLost(Index),
    SettledTooEarly(Index),
}

/// Whose doing an action is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The protocol's, or the provider's: it happens by itself, sooner or later. While one is possible, nothing is at rest.
    Progress,
    /// It may happen or not, as often as it likes.
    Chance,
    /// It may happen or not, and the run's budget says how often.
    Fault(Fault),
}

impl Action {
    /// The name of the step that the code calls by the same name, if it has one.
    pub(crate) fn step(self) -> Option<&'static str> {
        Some(match self {
            Self::PermitTaken(_) => "permit_taken",
            Self::Claimed(_) => "claimed",
            Self::SettleClaimed(_) => "settle_claimed",
            Self::Dispatched(_) => "dispatched",
            Self::Answered(_) => "answered",
            Self::Journaled(_) => "journaled",
            Self::SuccessorCopied(_) => "successor_copied",
            Self::Persisted(_) => "persisted",
            Self::Published(_) => "published",
            Self::Adopted(_) => "adopted",
            Self::Released(_) => "released",
            Self::Demoted(_) => "demoted",
            Self::Tombstoned | Self::TombstonedAgain => "tombstoned",
            Self::Revoked | Self::RevokedByRefresher => "revoked",
            Self::RevocationTold(_) => "revocation_told",
            Self::Replayed(_) => "replayed",
            Self::GrantStored => "grant_stored",
            _ => return None,
        })
    }

    pub(crate) fn cause(self) -> Cause {
        Cause::Fault(match self {
            Self::RefreshDue => Fault::Due,
            Self::Tombstoned => Fault::Revoke,
            Self::GrantStored => Fault::Consent,
            Self::Crashes(_) | Self::RevokerCrashes => Fault::Crash,
            Self::PermitLost(_) => Fault::LockLoss,
            Self::DispatchTooLate(_) => Fault::Pause,
            Self::RequestLost(_) | Self::AnswerLost(_) | Self::TimedOut(_) => Fault::Network,
            Self::NotSent(_) => Fault::NotSent,
            Self::PermitUnreachable(_) | Self::CopyUnreachable(_) | Self::TombstoneUnreachable => {
                Fault::RedisUnreachable
            }
            Self::RedisWiped => Fault::RedisWiped,
            Self::RowTouched => Fault::RowTouched,
            Self::RolledBack => Fault::Rollback,
            Self::DiskLost(_) => Fault::DiskLoss,
            Self::SettledTooEarly(_) => Fault::SettledTooEarly,
            Self::GraceEnds(_) => return Cause::Chance,
            _ => return Cause::Progress,
        })
    }

    /// The replica that acts or suffers, if it is one in particular.
    pub(crate) fn replica(self) -> Option<Index> {
        match self {
            Self::PermitTaken(index)
            | Self::RaceLost(index)
            | Self::Claimed(index)
            | Self::SettleClaimed(index)
            | Self::Dispatched(index)
            | Self::Answered(index)
            | Self::Journaled(index)
            | Self::SuccessorCopied(index)
            | Self::Persisted(index)
            | Self::Compensated(index)
            | Self::Discarded(index)
            | Self::Published(index)
            | Self::Adopted(index)
            | Self::Released(index)
            | Self::PermitDropped(index)
            | Self::RefusalHeard(index)
            | Self::RefusalIgnored(index)
            | Self::Demoted(index)
            | Self::Replayed(index)
            | Self::ProviderActs(index)
            | Self::Crashes(index)
            | Self::DispatchTooLate(index)
            | Self::RequestLost(index)
            | Self::AnswerLost(index)
            | Self::TimedOut(index)
            | Self::NotSent(index)
            | Self::PermitUnreachable(index)
            | Self::CopyUnreachable(index)
            | Self::DiskLost(index)
            | Self::SettledTooEarly(index) => Some(index),
            _ => None,
        }
    }

    /// In snake case.
    pub(crate) fn name(self) -> String {
        let variant = format!("{self:?}");
        let variant = variant.split('(').next().unwrap_or_default();
        let mut name = String::new();
        for letter in variant.chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.extend(letter.to_lowercase());
        }
        name
    }
}
