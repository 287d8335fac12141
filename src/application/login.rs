//! Who signs in before a consent of the binding `login`: users of one OpenID provider of the operator's.

use std::fmt;
use std::sync::Arc;

use crate::domain::key::UserId;
use crate::domain::ports::TokenVerifier;
use crate::domain::provider::Provider;
use crate::domain::scope::ScopeSet;

/// The OpenID provider at which users sign in.
#[derive(Clone)]
pub struct Login {
    /// The first part of its users' ids; a slug.
    pub name: String,
    /// Its endpoints and the broker's registration there.
    pub provider: Arc<Provider>,
    /// What is asked for; `openid` among them.
    pub scopes: ScopeSet,
    /// Verifies its ID tokens, as tokens of the users that it is asked for.
    pub tokens: Arc<dyn TokenVerifier>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Login {
    /// The user whose subject this is: `<name>|<subject>`. Since the name has no bar in it, two subjects or two names never
    /// make one user. `None`: the subject can't be part of a user id.
    #[must_use]
    pub fn user_of(&self, subject: &str) -> Option<UserId> {
        UserId::new(format!("{}|{subject}", self.name)).ok()
    }

    /// Whether this can be a user of this provider.
    #[must_use]
    pub fn may_have(&self, user: &UserId) -> bool {
        user.as_str().strip_prefix(&*self.name).is_some_and(|rest| rest.len() > 1 && rest.starts_with('|'))
    }
}
