//! The parts of a credential's key. Each is a validated newtype, and parts are never joined with a delimiter: wherever
//! several become one byte string they are length-prefixed, so `("a", "b:c")` can't pass for `("a:b", "c")`.

use std::fmt;

/// The longest [`UserId`] and [`Account`], in bytes.
pub const MAX_TEXT_BYTES: usize = 256;
/// The longest slug ([`TenantId`], [`ProviderId`], [`ServiceId`], [`CallerId`]), in bytes.
pub const MAX_SLUG_BYTES: usize = 64;
/// The account of a user who has one account at the provider.
pub const DEFAULT_ACCOUNT: &str = "default";

/// Why a text can't be part of a key. The message says what to change and does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing was given.
    #[error("must not be empty")]
    Empty,
    /// More bytes than allowed.
    #[error("must be at most {max} bytes long")]
    TooLong {
        /// The limit in bytes.
        max: usize,
    },
    /// A control character (Unicode category Cc), NUL among them.
    #[error("must not contain control characters")]
    ControlCharacter,
    /// White space at the beginning or the end, which people can't see.
    #[error("must not begin or end with white space")]
    OuterWhitespace,
    /// Not a slug.
    #[error("must begin with a letter or digit and consist of a-z, 0-9, '-', '_' and '.'")]
    NotASlug,
}

fn validate_slug(value: &str) -> Result<(), KeyError> {
    if value.is_empty() {
        return Err(KeyError::Empty);
    }
    if value.len() > MAX_SLUG_BYTES {
        return Err(KeyError::TooLong { max: MAX_SLUG_BYTES });
    }
    let first_ok = value.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let rest_ok = value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
    if first_ok && rest_ok { Ok(()) } else { Err(KeyError::NotASlug) }
}

fn validate_text(value: &str) -> Result<(), KeyError> {
    if value.is_empty() {
        return Err(KeyError::Empty);
    }
    if value.len() > MAX_TEXT_BYTES {
        return Err(KeyError::TooLong { max: MAX_TEXT_BYTES });
    }
    if value.chars().any(char::is_control) {
        return Err(KeyError::ControlCharacter);
    }
    if value.trim() != value {
        return Err(KeyError::OuterWhitespace);
    }
    Ok(())
}

macro_rules! key_part {
    ($(#[$doc:meta])* $name:ident, $validate:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl TryFrom<String> for $name {
            type Error = KeyError;

            fn try_from(text: String) -> Result<Self, KeyError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(part: $name) -> Self {
                part.0
            }
        }

        impl $name {
            /// Validates a text.
            pub fn new(value: impl Into<String>) -> Result<Self, KeyError> {
                let value = value.into();
                $validate(&value)?;
                Ok(Self(value))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

key_part! {
    /// Who owns callers, provider configurations and credentials. Never part of a request.
    TenantId, validate_slug
}
key_part! {
    /// An authenticated program.
    CallerId, validate_slug
}
key_part! {
    /// A configured OAuth provider.
    ProviderId, validate_slug
}
key_part! {
    /// A service of a provider, such as `gmail`.
    ServiceId, validate_slug
}
key_part! {
    /// A name that services of one provider share when one consent and one token serves them all.
    GrantName, validate_slug
}
key_part! {
    /// A configured issuer of JWTs: the first part of the ids of its users, up to a bar.
    IssuerName, validate_slug
}
key_part! {
    /// A user in the caller's own terms; any text without control characters or outer white space. Compared byte by byte.
    UserId, validate_text
}
key_part! {
    /// One of several accounts of a user at a provider.
    Account, validate_text
}

impl Default for Account {
    fn default() -> Self {
        Self(DEFAULT_ACCOUNT.to_owned())
    }
}

/// The key of a stored credential. Its `grant` is the name that the key's service has in the provider definition:
/// services that share a grant share the row, since they share the refresh token, and a refresh token in two rows would
/// be presented twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialKey {
    /// Who owns the row.
    pub tenant: TenantId,
    /// Where the token is from.
    pub provider: ProviderId,
    /// Whose it is.
    pub user: UserId,
    /// The services it is for.
    pub grant: GrantName,
    /// Which of the user's accounts.
    pub account: Account,
}

/// Appends a field to a byte string so that no two different lists of fields give the same bytes: length, then content.
pub fn append_length_prefixed(out: &mut Vec<u8>, field: &[u8]) {
    out.extend_from_slice(&(field.len() as u64).to_be_bytes());
    out.extend_from_slice(field);
}

impl CredentialKey {
    /// The one byte string of this key, for binding ciphertexts to their row.
    #[must_use]
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        for part in [
            self.tenant.as_str(),
            self.provider.as_str(),
            self.user.as_str(),
            self.grant.as_str(),
            self.account.as_str(),
        ] {
            append_length_prefixed(&mut out, part.as_bytes());
        }
        out
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(uuid::Uuid);

        impl $name {
            /// From 16 random bytes (RFC 9562 version 4).
            #[must_use]
            pub fn from_random(bytes: [u8; 16]) -> Self {
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }

            /// From its 16 bytes, as stored.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(uuid::Uuid::from_bytes(bytes))
            }

            /// From its text; `None` if that is not a UUID in its usual form.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                // The braced, URN and unhyphenated forms would give one thing several names.
                if text.len() != 36 {
                    return None;
                }
                uuid::Uuid::try_parse(text).ok().map(Self)
            }

            /// The 16 bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

random_id! {
    /// A stored row, for good: a new consent keeps it.
    CredentialId
}
random_id! {
    /// One consent by one user.
    GrantId
}
random_id! {
    /// A consent under way.
    FlowId
}
random_id! {
    /// A process run: who holds claims and permits, and writes a journal.
    ClaimOwner
}
random_id! {
    /// A row of the outbox.
    OutboxId
}
random_id! {
    /// A use of a token by a caller, for a time.
    LeaseId
}
random_id! {
    /// An API key of a caller. Not the key, and no secret.
    ApiKeyId
}
random_id! {
    /// A tenant's configuration of a provider, for good: one that is made anew has another.
    ConfigId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_and_texts_are_validated() {
        for bad in ["", "A", "-a", "a b", "a/b", "a:b", "a\0", "ä", &"a".repeat(65)] {
            assert!(ProviderId::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "google", "gitlab.example", "a-b_c", &"a".repeat(64)] {
            assert!(ProviderId::new(good).is_ok(), "{good:?}");
        }
        assert_eq!(UserId::new(""), Err(KeyError::Empty));
        assert_eq!(UserId::new("a\0b"), Err(KeyError::ControlCharacter));
        assert_eq!(UserId::new("a\u{85}b"), Err(KeyError::ControlCharacter));
        assert_eq!(UserId::new(" a"), Err(KeyError::OuterWhitespace));
        assert_eq!(UserId::new("a\u{a0}"), Err(KeyError::OuterWhitespace));
        assert_eq!(UserId::new("é".repeat(129)), Err(KeyError::TooLong { max: 256 }));
        assert!(UserId::new("é".repeat(128)).is_ok());
        assert!(UserId::new("auth0|alice:b@c/d e").is_ok());
    }

    proptest::proptest! {
        #[test]
        fn different_keys_have_different_bytes(
            a in "[a-c:|]{1,4}", b in "[a-c:|]{1,4}", c in "[a-c:|]{1,4}", d in "[a-c:|]{1,4}",
        ) {
            let key = |user: &str, account: &str| CredentialKey {
                tenant: TenantId::new("t").unwrap(),
                provider: ProviderId::new("p").unwrap(),
                user: UserId::new(user).unwrap(),
                grant: GrantName::new("g").unwrap(),
                account: Account::new(account).unwrap(),
            };
            let (left, right) = (key(&a, &b), key(&c, &d));
            proptest::prop_assert_eq!(left == right, left.canonical_bytes() == right.canonical_bytes());
        }
    }
}
