//! What to do about one read of a row: a pure function of the row, the time and what the caller needs.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::credential::{
    BackOff, Credential, CredentialState, Generation, ReauthReason, RefreshFailure, StoredTokens,
};
use super::token_set::AccessLife;

/// What the caller needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// A token that stays valid this long.
    ValidFor(Duration),
    /// A token newer than this generation: that one was refused by the provider's API.
    NewerThan(Generation),
    /// A token as fresh as refreshing ahead of expiry keeps it. Nobody waits for it.
    Ahead,
}

/// The broker's own times.
#[derive(Debug, Clone, Copy)]
pub struct RefreshPolicy {
    /// The provider's expiry margin.
    pub margin: Duration,
    /// A token with less than this left is refreshed behind the reader's back. At most a fifth of the token's life.
    pub refresh_ahead: Duration,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Hand out the stored token.
    Serve {
        /// It is nearly due: start a refresh that nobody waits for.
        refresh_behind: bool,
        /// The last refresh failed, and so.
        failure: Option<RefreshFailure>,
    },
    /// Claim the row and ask the provider.
    Refresh,
    /// The claim's outcome is unknown and its settling time has come: claim the row again and present once more.
    Settle,
    /// A refresh is under way, or its outcome is unknown until this time at the latest.
    Wait {
        /// When it is settled.
        settle_at: Timestamp,
    },
    /// There is no usable token, and the provider must not be asked yet.
    BackOff {
        /// When it may be.
        until: Timestamp,
        /// Why not.
        failure: RefreshFailure,
    },
    /// The user must consent.
    Reauthorize(Reauthorize),
}

/// Why the user must consent, as far as the row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reauthorize {
    /// Revoked through the broker.
    Revoked,
    /// See [`ReauthReason`].
    Reason(ReauthReason),
}

/// Decides. Never asks for a refresh that the row's state forbids, and never for one by a row that is not `Active` or
/// past its settling time (I1).
#[must_use]
pub fn decide(credential: &Credential, now: Timestamp, demand: Demand, policy: RefreshPolicy) -> Decision {
    match &credential.state {
        CredentialState::Revoked => Decision::Reauthorize(Reauthorize::Revoked),
        CredentialState::NeedsReauth { reason, .. } => Decision::Reauthorize(Reauthorize::Reason(*reason)),
        CredentialState::Active { tokens, back_off } => {
            decide_active(credential.generation, tokens, *back_off, now, demand, policy)
        }
        CredentialState::Refreshing { tokens, claim, .. } => {
            if usable(credential.generation, tokens, now, demand, policy) {
                // Settling is work for the background while the reader has a token (I6).
                let failure = (now >= claim.deadline).then_some(RefreshFailure::OutcomeUnknown);
                Decision::Serve { refresh_behind: now >= claim.settle_at, failure }
            } else if now >= claim.settle_at {
                Decision::Settle
            } else {
                Decision::Wait { settle_at: claim.settle_at }
            }
        }
    }
}

fn decide_active(
    generation: Generation,
    tokens: &StoredTokens,
    back_off: Option<BackOff>,
    now: Timestamp,
    demand: Demand,
    policy: RefreshPolicy,
) -> Decision {
    let usable_now = usable(generation, tokens, now, demand, policy);
    let blocked = back_off.filter(|b| now < b.not_before);
    if usable_now {
        let behind = tokens.refresh.is_some() && blocked.is_none() && nearly_due(tokens, now, policy);
        return Decision::Serve { refresh_behind: behind, failure: back_off.map(|b| b.last) };
    }
    if tokens.refresh.is_none() {
        // What is left of a token that can't be renewed is served to its end: asking the user earlier gains nothing.
        let alive = tokens.access_life.is_valid_for(now, Duration::ZERO, policy.margin);
        return match demand {
            Demand::ValidFor(_) | Demand::Ahead if alive => {
                Decision::Serve { refresh_behind: false, failure: None }
            }
            _ => Decision::Reauthorize(Reauthorize::Reason(ReauthReason::ExpiredNoRefresh)),
        };
    }
    match (blocked, demand) {
        (None, _) => Decision::Refresh,
        // Less life than asked for, but life: the reader gets it, and is told (I6).
        (Some(b), Demand::ValidFor(_) | Demand::Ahead)
            if tokens.access_life.is_valid_for(now, Duration::ZERO, policy.margin) =>
        {
            Decision::Serve { refresh_behind: false, failure: Some(b.last) }
        }
        (Some(b), _) => Decision::BackOff { until: b.not_before, failure: b.last },
    }
}

/// Whether the stored token meets the demand.
fn usable(
    generation: Generation,
    tokens: &StoredTokens,
    now: Timestamp,
    demand: Demand,
    policy: RefreshPolicy,
) -> bool {
    let life = tokens.access_life;
    match demand {
        Demand::NewerThan(known_bad) if known_bad == generation => false,
        Demand::NewerThan(_) => life.is_valid_for(now, Duration::ZERO, policy.margin),
        Demand::Ahead => !nearly_due(tokens, now, policy),
        Demand::ValidFor(ttl) => {
            // Asked for more than the provider gives, each call would refresh: half of the token's life is as much as
            // anybody gets.
            let ttl = life.lifetime().map_or(ttl, |whole| ttl.min(whole / 2));
            life.is_valid_for(now, ttl, policy.margin)
        }
    }
}

fn nearly_due(tokens: &StoredTokens, now: Timestamp, policy: RefreshPolicy) -> bool {
    !tokens.access_life.is_valid_for(now, head_start(tokens.access_life, policy), policy.margin)
}

fn head_start(life: AccessLife, policy: RefreshPolicy) -> Duration {
    life.lifetime().map_or(Duration::ZERO, |whole| policy.refresh_ahead.min(whole / 5))
}

/// When the background refreshes a token: when it is nearly due, or up to a quarter of the head start later, so that tokens
/// that began together do not come back together. `None`: never. `random` is uniform in 0..=255.
#[must_use]
pub fn next_refresh(life: AccessLife, policy: RefreshPolicy, random: u8) -> Option<Timestamp> {
    let ahead = head_start(life, policy);
    if ahead.is_zero() {
        return None;
    }
    let early = ahead.saturating_sub(ahead * u32::from(random) / (4 * 255)) + life.margin(policy.margin);
    let early = SignedDuration::try_from(early).ok()?;
    life.expires_at?.checked_sub(early).ok()
}

/// How long to wait after the n-th failure in a row (n from 1): 1 s doubling to 15 min, less up to a fifth at random, so
/// that rows that failed together do not come back together. `random` is uniform in 0..=255.
#[must_use]
pub fn back_off_delay(failures: u32, random: u8) -> Duration {
    let base = Duration::from_secs(1u64 << failures.saturating_sub(1).min(10)).min(Duration::from_secs(900));
    base.saturating_sub(base * u32::from(random) / (5 * 255))
}

#[cfg(test)]
mod tests;
