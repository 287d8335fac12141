//! OAuth scopes (RFC 6749 section 3.3).

use std::collections::BTreeSet;
use std::fmt;

/// The longest scope, in bytes. The longest in the catalogue are URLs of about 80.
pub const MAX_SCOPE_BYTES: usize = 256;

/// Why a text is not a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// Nothing was given.
    #[error("a scope must not be empty")]
    Empty,
    /// More than [`MAX_SCOPE_BYTES`].
    #[error("a scope must be at most {MAX_SCOPE_BYTES} bytes long")]
    TooLong,
    /// A character outside `%x21 / %x23-5B / %x5D-7E`.
    #[error("a scope consists of printable ASCII without space, '\"' and '\\' (RFC 6749 section 3.3)")]
    BadCharacter,
}

/// One scope token.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope(String);

impl TryFrom<String> for Scope {
    type Error = ScopeError;

    fn try_from(text: String) -> Result<Self, ScopeError> {
        Self::new(text)
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.0
    }
}

impl Scope {
    /// Validates a scope token (RFC 6749 section 3.3).
    pub fn new(value: impl Into<String>) -> Result<Self, ScopeError> {
        let value = value.into();
        if value.is_empty() {
            return Err(ScopeError::Empty);
        }
        if value.len() > MAX_SCOPE_BYTES {
            return Err(ScopeError::TooLong);
        }
        if value.bytes().all(|b| b == 0x21 || (0x23..=0x5b).contains(&b) || (0x5d..=0x7e).contains(&b)) {
            Ok(Self(value))
        } else {
            Err(ScopeError::BadCharacter)
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A set of scopes, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ScopeSet(BTreeSet<Scope>);

impl ScopeSet {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.0.iter()
    }

    /// Whether this scope is among them.
    #[must_use]
    pub fn contains(&self, scope: &Scope) -> bool {
        self.0.contains(scope)
    }

    /// Those of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).cloned().collect())
    }

    /// Those of this set that the other lacks.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).cloned().collect())
    }

    /// As texts, sorted.
    #[must_use]
    pub fn to_strings(&self) -> Vec<String> {
        self.0.iter().map(|s| s.0.clone()).collect()
    }

    /// Joined, for a request parameter.
    #[must_use]
    pub fn join(&self, separator: &str) -> String {
        self.0.iter().map(Scope::as_str).collect::<Vec<_>>().join(separator)
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_of_rfc_6749_is_enforced() {
        for bad in ["", "a b", "a\"b", "a\\b", "a\n", "ä", "a\0", &"a".repeat(257)] {
            assert!(Scope::new(bad).is_err(), "{bad:?}");
        }
        for good in ["*", "repo", "https://www.googleapis.com/auth/gmail.send", "read:org", "a,b"] {
            assert!(Scope::new(good).is_ok(), "{good:?}");
        }
    }
}
