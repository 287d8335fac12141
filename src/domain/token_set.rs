//! What a token endpoint answered, and when an access token counts as expired.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::scope::ScopeSet;
use super::secret::SecretString;

// What is kept of an answer. The provider may be anybody's: a tenant brings its own app at a server of its own. All that is
// kept lies in the database, in the journal and its index in memory, and in Redis, and is sent again with every answer and list.

/// The longest access or refresh token that is kept, in bytes. JWTs that list a user's groups or rights have a few KiB, and hardly
/// a server takes a request header of more than 16; this is twice that.
pub const MAX_TOKEN_BYTES: usize = 32 * 1024;
/// The longest token type, in bytes. Those in use are single words, such as "Bearer".
pub const MAX_TOKEN_TYPE_BYTES: usize = 64;
/// The most scopes of one grant. It is far above what a consent page can show, and what providers list with all of their services.
pub const MAX_GRANTED_SCOPES: usize = 256;
/// And the longest text of all of them together, in bytes: for so many, 64 each.
pub const MAX_GRANTED_SCOPE_BYTES: usize = 16 * 1024;
/// The longest of a provider's further values, in bytes. They are ids and addresses; which there are, its definition says.
pub const MAX_EXTRA_VALUE_BYTES: usize = 4 * 1024;

/// An access token is not used in its last minute: clocks differ, and a request takes time to arrive.
pub const EXPIRY_MARGIN: Duration = Duration::from_secs(60);
/// A longer lifetime is taken as this one. Some servers send the largest integer for "never".
pub const MAX_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A successful answer of a token endpoint (RFC 6749 section 5.1), read by the rules of its provider.
#[derive(Debug, Clone)]
pub struct TokenResponse {
    /// Never empty. At most [`MAX_TOKEN_BYTES`], as the refresh token, or there is an [`excess`](Self::excess).
    pub access_token: SecretString,
    /// `None` if the answer had none or an empty one.
    pub refresh_token: Option<SecretString>,
    /// "Bearer" if the answer had none; at most [`MAX_TOKEN_TYPE_BYTES`].
    pub token_type: String,
    /// `None` if the answer had none and the provider has no default; at most [`MAX_LIFETIME`].
    pub expires_in: Option<Duration>,
    /// `None` if the answer did not say; empty if it said "none". At most [`MAX_GRANTED_SCOPES`] and
    /// [`MAX_GRANTED_SCOPE_BYTES`].
    pub scopes: Option<ScopeSet>,
    /// The ID token (OpenID Connect Core section 3.1.3.3), not yet verified. It is read and not kept: as long as an answer may be.
    pub id_token: Option<SecretString>,
    /// The provider's further values that callers need (see [`super::provider::ResponseRules::extra`]), each of at most
    /// [`MAX_EXTRA_VALUE_BYTES`].
    pub extra: BTreeMap<String, String>,
    /// Who consented, as far as the token answer itself says so.
    pub account: ProviderAccount,
    /// `None`: the answer was within the limits.
    pub excess: Option<Excess>,
}

/// What of an answer was beyond the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// A token is longer than [`MAX_TOKEN_BYTES`]. Such a pair is good for nothing but to be given back.
    Token,
    /// There were more scopes, or longer further values. Those beyond the limits were left out.
    Values,
}

/// The account at the provider that a grant belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProviderAccount {
    /// The provider's stable identifier; `None` if unknown.
    pub subject: Option<String>,
    /// What a person recognises; `None` if unknown.
    pub label: Option<String>,
}

/// The life of an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessLife {
    /// When the answer arrived.
    pub obtained_at: Timestamp,
    /// When it ends by the provider's word; `None`: it does not, or the provider did not say.
    pub expires_at: Option<Timestamp>,
}

impl AccessLife {
    /// The life of a token that arrived at `obtained_at` with this lifetime. Saturates.
    #[must_use]
    pub fn starting(obtained_at: Timestamp, expires_in: Option<Duration>) -> Self {
        let expires_at = expires_in.map(|life| {
            obtained_at
                .saturating_add(
                    SignedDuration::try_from(life.min(MAX_LIFETIME)).unwrap_or(SignedDuration::MAX),
                )
                .unwrap_or(Timestamp::MAX)
        });
        Self { obtained_at, expires_at }
    }

    /// The whole life; `None` if endless.
    #[must_use]
    pub fn lifetime(&self) -> Option<Duration> {
        self.expires_at
            .map(|end| Duration::try_from(end.duration_since(self.obtained_at)).unwrap_or_default())
    }

    /// How long before its end the token is no longer handed out: `margin`, but at most a tenth of its life, so that a
    /// token of a few minutes is of use at all.
    #[must_use]
    pub fn margin(&self, margin: Duration) -> Duration {
        self.lifetime().map_or(Duration::ZERO, |life| margin.min(life / 10))
    }

    /// Whether the token is usable at `now` and stays so for `ttl` more.
    #[must_use]
    pub fn is_valid_for(&self, now: Timestamp, ttl: Duration, margin: Duration) -> bool {
        let Some(end) = self.expires_at else { return true };
        let needed = ttl.saturating_add(self.margin(margin));
        let needed = SignedDuration::try_from(needed).unwrap_or(SignedDuration::MAX);
        end.duration_since(now) > needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn margin_is_a_minute_but_at_most_a_tenth_of_the_life() {
        let hour = AccessLife::starting(at(0), Some(Duration::from_secs(3600)));
        assert!(hour.is_valid_for(at(3539), Duration::ZERO, EXPIRY_MARGIN));
        assert!(!hour.is_valid_for(at(3540), Duration::ZERO, EXPIRY_MARGIN));
        let short = AccessLife::starting(at(0), Some(Duration::from_secs(10)));
        assert!(short.is_valid_for(at(8), Duration::ZERO, EXPIRY_MARGIN));
        assert!(!short.is_valid_for(at(9), Duration::ZERO, EXPIRY_MARGIN));
    }

    #[test]
    fn absent_zero_and_huge_lifetimes() {
        let endless = AccessLife::starting(at(0), None);
        assert!(endless.is_valid_for(Timestamp::MAX, Duration::MAX, EXPIRY_MARGIN));
        let zero = AccessLife::starting(at(0), Some(Duration::ZERO));
        assert!(!zero.is_valid_for(at(0), Duration::ZERO, EXPIRY_MARGIN));
        let huge = AccessLife::starting(at(0), Some(Duration::MAX));
        assert_eq!(huge.lifetime(), Some(MAX_LIFETIME));
        let late = AccessLife::starting(Timestamp::MAX, Some(Duration::from_secs(1)));
        assert_eq!(late.expires_at, Some(Timestamp::MAX));
    }
}
