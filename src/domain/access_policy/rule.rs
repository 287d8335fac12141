//! What one rule says. Its form as JSON is what the database keeps; the configuration's TOML is the same.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Action;
use crate::domain::key::{KeyError, MAX_TEXT_BYTES, ProviderId, ServiceId, UserId};
use crate::domain::scope::Scope;

/// Everything of a kind, or these alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "AllowedForm<T>", into = "AllowedForm<T>", bound(deserialize = "T: Ord + Deserialize<'de>"))]
#[serde(bound(serialize = "T: Ord + Clone + Serialize"))]
pub enum Allowed<T: Ord + Clone> {
    /// Every one, also those to come.
    Any,
    /// These. Empty: none.
    Only(BTreeSet<T>),
}

/// `"any"`, or a list.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "must be \"any\" or a list")]
#[serde(bound(deserialize = "T: Ord + Deserialize<'de>", serialize = "T: Ord + Serialize"))]
enum AllowedForm<T> {
    Every(Every),
    Only(BTreeSet<T>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Every {
    Any,
}

impl<T: Ord + Clone> From<AllowedForm<T>> for Allowed<T> {
    fn from(form: AllowedForm<T>) -> Self {
        match form {
            AllowedForm::Every(Every::Any) => Self::Any,
            AllowedForm::Only(items) => Self::Only(items),
        }
    }
}

impl<T: Ord + Clone> From<Allowed<T>> for AllowedForm<T> {
    fn from(allowed: Allowed<T>) -> Self {
        match allowed {
            Allowed::Any => Self::Every(Every::Any),
            Allowed::Only(items) => Self::Only(items),
        }
    }
}

impl<T: Ord + Clone> Allowed<T> {
    /// Whether this one is among them.
    #[must_use]
    pub fn covers(&self, item: &T) -> bool {
        self.some(|allowed| allowed == item)
    }

    /// Whether all are, or one of those that are named is like this.
    pub(super) fn some(&self, like: impl Fn(&T) -> bool) -> bool {
        match self {
            Self::Any => true,
            Self::Only(items) => items.iter().any(like),
        }
    }

    fn any() -> Self {
        Self::Any
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Only(items) if items.is_empty())
    }
}

/// How a text begins: never empty, so that it never means everything by accident.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(String);

impl Prefix {
    /// 1 to 256 bytes without control characters and white space at the beginning.
    pub fn new(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        if text.is_empty() {
            Err(KeyError::Empty)
        } else if text.len() > MAX_TEXT_BYTES {
            Err(KeyError::TooLong { max: MAX_TEXT_BYTES })
        } else if text.chars().any(char::is_control) {
            Err(KeyError::ControlCharacter)
        } else if text.trim_start() != text {
            Err(KeyError::OuterWhitespace)
        } else {
            Ok(Self(text))
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Prefix {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        Self::new(text)
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.0
    }
}

/// Which users.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserRule {
    /// The one whose own verified token comes with the call.
    Own,
    /// This one.
    Exact(UserId),
    /// Those whose id begins so.
    Prefix(Prefix),
}

/// Which scopes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeRule {
    /// This one.
    Exact(Scope),
    /// Those that begin so.
    Prefix(Prefix),
}

impl ScopeRule {
    pub(super) fn covers(&self, scope: &Scope) -> bool {
        match self {
            Self::Exact(exact) => exact == scope,
            Self::Prefix(prefix) => scope.as_str().starts_with(prefix.as_str()),
        }
    }
}

/// Allows what is in all of its parts. Rules only add: there is none that takes away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What may be done.
    pub actions: Allowed<Action>,
    /// At which providers.
    pub providers: Allowed<ProviderId>,
    /// With which of their services; not written: all.
    #[serde(default = "Allowed::any")]
    pub services: Allowed<ServiceId>,
    /// Which scopes may be asked for beside those that the services need themselves; not written: all.
    #[serde(default = "Allowed::any")]
    pub scopes: Allowed<ScopeRule>,
    /// For which users.
    pub users: Allowed<UserRule>,
    /// Whether it holds for a call that only says whose it is. Without this, the user's own token has to come along.
    #[serde(default)]
    pub assert_user_id: bool,
}

impl Rule {
    /// Everything for everybody, on the caller's word.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            actions: Allowed::Any,
            providers: Allowed::Any,
            services: Allowed::Any,
            scopes: Allowed::Any,
            users: Allowed::Any,
            assert_user_id: true,
        }
    }
}

/// A rule that can't be meant so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RuleMistake {
    /// A list without an item: the rule would allow nothing.
    #[error("names nothing, so that the rule allows nothing: name something, or leave the rule out")]
    Empty(&'static str),
    /// `assert_user_id` for the owner of a token, who needs no assertion.
    #[error("has no effect: \"own\" is for calls with the user's own token")]
    AssertedOwn,
}

impl RuleMistake {
    /// The key that is wrong.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Empty(field) => field,
            Self::AssertedOwn => "assert_user_id",
        }
    }
}

impl Rule {
    /// All that can't be meant so.
    #[must_use]
    pub fn mistakes(&self) -> Vec<RuleMistake> {
        let mut mistakes = Vec::new();
        for (field, empty) in [
            ("actions", self.actions.is_empty()),
            ("providers", self.providers.is_empty()),
            ("services", self.services.is_empty()),
            ("users", self.users.is_empty()),
        ] {
            // No scopes is a rule with a meaning: those of the services alone.
            if empty {
                mistakes.push(RuleMistake::Empty(field));
            }
        }
        let only_own = matches!(&self.users, Allowed::Only(rules) if !rules.is_empty() && rules.iter().all(|one| *one == UserRule::Own));
        if self.assert_user_id && only_own {
            mistakes.push(RuleMistake::AssertedOwn);
        }
        mistakes
    }
}
