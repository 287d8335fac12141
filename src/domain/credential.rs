//! A stored credential and its states:
//! `Active → Refreshing → Active | NeedsReauth`; any → `Revoked`; `NeedsReauth | Revoked → Active` only by a new grant.
//! The transitions themselves are single guarded statements of [`super::ports::CredentialStore`], since only the
//! database can decide a race; this module says what a row can be.

use jiff::Timestamp;

use super::key::{ClaimOwner, ConfigId, CredentialId, CredentialKey, GrantId};
use super::scope::ScopeSet;
use super::token_set::AccessLife;

/// A ciphertext in the vault's format (header, nonce, AES-256-GCM output).
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub Vec<u8>);

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[sealed, {} bytes]", self.0.len())
    }
}

/// A keyed hash of a refresh token: tells two apart without showing either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// Counts what happens to a row: +1 per claim, revoke and new consent. Only grows (I2).
pub type Epoch = i64;
/// Counts the stored token pairs of a credential, from 1. Callers see it. Only grows (I2).
pub type Generation = i64;

/// A refresh token at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRefreshToken {
    /// Bound to the row by [`super::cipher::Field::RefreshToken`].
    pub sealed: Sealed,
    /// Of the token itself.
    pub fingerprint: Fingerprint,
    /// Of the token that this one was obtained with; `None` after a consent or an import.
    pub parent_fingerprint: Option<Fingerprint>,
    /// The claim that obtained it; 0 after a consent or an import.
    pub epoch: Epoch,
}

/// A token pair at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTokens {
    /// Bound to the row by [`super::cipher::Field::AccessToken`].
    pub access_sealed: Sealed,
    /// When it ends.
    pub access_life: AccessLife,
    /// RFC 6749 section 7.1.
    pub token_type: String,
    /// `None`: it can't be refreshed.
    pub refresh: Option<StoredRefreshToken>,
    /// The account's label and subject and the provider's extra values as JSON, bound to the row by
    /// [`super::cipher::Field::Profile`]. Sealed since a label is usually an e-mail address.
    pub profile_sealed: Sealed,
    /// What the user granted.
    pub scopes: ScopeSet,
    /// The provider did not say; the scopes are those asked for.
    pub scopes_assumed: bool,
    /// When the background refreshes it ahead of its expiry; `None`: it does not.
    pub next_refresh_at: Option<Timestamp>,
}

/// A claim: its owner may present the refresh token once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The process run that took it.
    pub owner: ClaimOwner,
    /// By then the owner's HTTP request has ended.
    pub deadline: Timestamp,
    /// From then on the outcome is settled by one more presentation under a new epoch. Until then it is ambiguous.
    pub settle_at: Timestamp,
}

/// Why a refresh failed without being the end of the grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshFailure {
    /// Not reached, or it answered 5xx at a provider that does not rotate.
    ProviderUnavailable,
    /// HTTP 429.
    RateLimited,
    /// The provider refused the broker's own client, or the request as such: the operator's mistake.
    ClientRejected,
    /// The refresh token may have been spent; no answer was read.
    OutcomeUnknown,
}

/// What keeps an active row from being refreshed for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// Not before this.
    pub not_before: Timestamp,
    /// How many refreshes have failed in a row, at least 1.
    pub failures: u32,
    /// The last one's reason.
    pub last: RefreshFailure,
}

/// Why a row needs a new consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReauthReason {
    /// The provider answered `invalid_grant` or its own word for it.
    RefreshTokenRejected,
    /// The access token has expired and there is no refresh token.
    ExpiredNoRefresh,
}

/// Where a row stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialState {
    /// In order; perhaps waiting before the next attempt.
    Active {
        /// The tokens.
        tokens: StoredTokens,
        /// `None` unless the last refresh failed.
        back_off: Option<BackOff>,
    },
    /// The refresh token may be at the provider right now. Past `claim.deadline` the outcome is ambiguous.
    Refreshing {
        /// The tokens as before the refresh.
        tokens: StoredTokens,
        /// Who may present the refresh token.
        claim: Claim,
        /// Kept from before the claim, so that failures add up.
        failures: u32,
    },
    /// The provider ended the grant. Never asked again.
    NeedsReauth {
        /// The tokens, kept for revocation.
        tokens: StoredTokens,
        /// Why.
        reason: ReauthReason,
    },
    /// Revoked through the broker; there are no tokens any more.
    Revoked,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// For good.
    pub id: CredentialId,
    /// For good.
    pub key: CredentialKey,
    /// When the key was first stored. For good.
    pub created_at: Timestamp,
    /// When anything in the row last changed.
    pub updated_at: Timestamp,
    /// The consent that the tokens come from.
    pub grant_id: GrantId,
    /// The tenant's configuration that the tokens were obtained with, and are refreshed and revoked with; `None`: the operator's.
    pub configuration: Option<ConfigId>,
    /// Of the stored pair.
    pub generation: Generation,
    /// Of the row.
    pub epoch: Epoch,
    /// Where it stands.
    pub state: CredentialState,
}

impl Credential {
    /// The tokens, unless revoked.
    #[must_use]
    pub fn tokens(&self) -> Option<&StoredTokens> {
        match &self.state {
            CredentialState::Active { tokens, .. }
            | CredentialState::Refreshing { tokens, .. }
            | CredentialState::NeedsReauth { tokens, .. } => Some(tokens),
            CredentialState::Revoked => None,
        }
    }

    /// Whether it is usable without a new consent.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.state, CredentialState::Active { .. } | CredentialState::Refreshing { .. })
    }
}
